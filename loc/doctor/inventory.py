"""What a scene's lists and models ask for, and what is on disk; a list that cannot be read is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from loc.config import SceneConfig
from loc.doctor.findings import Finding, data
from loc.errors import LocError
from loc.layouts import aachen
from loc.layouts.assemble import photos_in, query_photos
from loc.layouts.cameras import GivenIntrinsics, read_intrinsics
from loc.layouts.colmap import read_model
from loc.layouts.lists import Entry, read_entries
from loc.layouts.names import group_of
from loc.layouts.reference import poses_of_images
from loc.types import Camera, Role

T = TypeVar("T")
_ANYWAY = "check the path and who may read it"


@dataclass(frozen=True)
class Listed:
    """An image that a list or a model asks for; ``where`` says which; its camera if it has one there."""

    name: str
    role: Role
    where: str
    camera: Camera | None = None

    @property
    def group(self) -> str:
        return group_of(self.name) if self.role == "query" else "database"


@dataclass
class Inventory:
    """The scene as files.

    Attributes:
        root: what names are relative to.
        photos: name → path of every photo on disk, under the root and in a queries folder.
        listed: images that lists or a model ask for; empty for a plain folder.
        queries: names of the queries, on disk or not.
        given: intrinsics from lists.
        findings: what could not be read.
    """

    root: Path
    photos: dict[str, Path] = field(default_factory=dict)
    listed: list[Listed] = field(default_factory=list)
    queries: set[str] = field(default_factory=set)
    given: GivenIntrinsics = field(default_factory=GivenIntrinsics)
    findings: list[Finding] = field(default_factory=list)

    def attempt(self, check: str, work: Callable[[], T]) -> T | None:
        """The result of ``work``; what it raises on purpose becomes a problem, and there is no result."""
        try:
            return work()
        except LocError as error:
            self.findings.append(data("problem", check, error.message, error.next_step or _ANYWAY))
            return None

    @cached_property
    def used(self) -> frozenset[str]:
        """Photos on disk that the scene uses: those that are listed, or all of a plain folder."""
        listed = {item.name for item in self.listed if item.role == "db"}
        return frozenset(name for name in self.photos if not listed or name in listed or name in self.queries)

    def camera(self, name: str) -> tuple[Camera, str] | None:
        """The intrinsics of an image that lists or a model give, and where they stand."""
        entry = self.given.get(name)
        if entry is not None and entry.camera is not None:
            return entry.camera, entry.where
        return None


def take_inventory(config: SceneConfig, root: Path) -> Inventory:
    """Read lists, models and folders of a scene; never raises for what is wrong in them."""
    found = Inventory(_name_root(config, root))
    masks = [folder for folder in [config.masks] if folder is not None and folder.is_dir()]
    same = [folder for folder in masks if folder.resolve() != root.resolve()]
    found.photos = found.attempt("folder", lambda: photos_in(found.root, without=same)) or {}
    _add_lists(config, found)
    if config.layout == "folder":
        queries = found.attempt("queries", lambda: query_photos(config, root)) or {}
        found.photos |= queries
        found.queries = set(queries)
    elif config.layout == "aachen":
        _add_aachen(config, root, found)
    else:
        _add_listed(config, found)
    return found


def _name_root(config: SceneConfig, root: Path) -> Path:
    """What names are relative to; Aachen's archives are often unpacked one level off."""
    if config.layout != "aachen":
        return root
    places = (aachen.IMAGES, "images_upright", "images")
    return next((root / place for place in places if (root / place / "db").is_dir()), root)


def _add_lists(config: SceneConfig, found: Inventory) -> None:
    path = config.intrinsics
    if path is not None:
        found.given = found.attempt("intrinsics", lambda: read_intrinsics(path)) or found.given


def _add_listed(config: SceneConfig, found: Inventory) -> None:
    """The layouts colmap and hloc."""
    queries = _entries(found, config.queries, "queries")
    found.queries = {entry.name for entry in queries}
    listed = _entries(found, config.image_list, "image list")
    model = config.model
    if config.layout == "colmap" and model is not None:
        poses, cameras = found.attempt("model", lambda: read_model(model)) or ({}, {})
        found.listed += [
            Listed(name, "db", f"model {model}", cameras[name][1])
            for name in sorted(poses)
            if name not in found.queries
        ]
    found.listed += [Listed(entry.name, "db", str(config.image_list), entry.camera) for entry in listed]
    _add_queries(found, queries)
    _prefer_own(found, [*listed, *queries])


def _add_aachen(config: SceneConfig, root: Path, found: Inventory) -> None:
    release = found.attempt("model", lambda: aachen.find_release(root, config.version))
    if release is not None:
        path = root / release.model
        poses = found.attempt("model", lambda: poses_of_images(path)) or {}
        found.listed += [Listed(name, "db", f"model {path}") for name in sorted(poses)]
        list_path = root / release.intrinsics
        found.given = found.attempt("intrinsics", lambda: read_intrinsics(list_path)) or found.given
    queries = _entries(found, config.queries or root / aachen.QUERIES, "queries")
    found.queries = {entry.name for entry in queries}
    _add_queries(found, queries)
    _prefer_own(found, queries)


def _entries(found: Inventory, path: Path | None, check: str) -> list[Entry]:
    return [] if path is None else found.attempt(check, lambda: read_entries(path)) or []


def _add_queries(found: Inventory, queries: Iterable[Entry]) -> None:
    found.listed += [Listed(entry.name, "query", entry.where, entry.camera) for entry in queries]


def _prefer_own(found: Inventory, entries: Iterable[Entry]) -> None:
    """Intrinsics on an image's own line take precedence over ``scene.intrinsics``."""
    own = GivenIntrinsics.of(entries)
    found.given = GivenIntrinsics({**found.given.exact, **own.exact}, found.given.patterns)
