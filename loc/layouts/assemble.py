"""What all layouts share: image root, headers with reasons for skipping, masks, ground truth, the scene."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from loc.config import SceneConfig
from loc.errors import ConfigError, DataError
from loc.layouts.cameras import GivenIntrinsics, PhotoFile, assign_cameras, read_intrinsics
from loc.layouts.lists import Entry, read_entries, read_poses
from loc.layouts.names import group_of, name_problem
from loc.runtime.images import list_photos
from loc.types import Camera, ImageRecord, Intrinsics, Pose, Role, Scene

log = logging.getLogger(__name__)

_SHOWN = 3


@dataclass
class Photos:
    """Photos of one role whose headers could be read, and the others with the reason why not."""

    files: dict[str, PhotoFile] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files) + len(self.skipped)


def image_root(config: SceneConfig) -> Path:
    """The image root of the config, which must be a folder."""
    if config.images is None:
        raise ConfigError("scene.images is not set", "give the folder of photos: --set scene.images=PHOTOS")
    return existing_folder(config.images, option="scene.images")


def existing_folder(path: Path, *, option: str) -> Path:
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"{option}: {path} {what}", "the path is relative to the working directory")
    return path


def refuse_unused(config: SceneConfig, *options: str) -> None:
    """Options of another layout would otherwise be ignored without a word."""
    for option in options:
        if getattr(config, option) is not None:
            raise ConfigError(
                f"scene.{option} is not used by the layout {config.layout!r}",
                "set scene.layout to the one that uses it (colmap: model, image_list; hloc: image_list; "
                "aachen: version)",
            )


def photos_in(root: Path, *, without: Sequence[Path] = ()) -> dict[str, Path]:
    """Name → path of all photos under a folder, except those under the folders ``without``."""
    outside = [str(folder.resolve()) + os.sep for folder in without]
    found = {}
    for name in list_photos(root):
        path = root / name
        if outside and f"{path.parent.resolve()}{os.sep}".startswith(tuple(outside)):
            continue
        found[name] = path
    return found


def query_photos(config: SceneConfig, root: Path) -> dict[str, Path]:
    """Photos of a queries *folder*: named relative to the root, or after the folder where it is outside.

    Raises:
        DataError: the folder is missing, holds no photo, or is the image root itself.
    """
    if config.queries is None:
        return {}
    folder = existing_folder(config.queries, option="scene.queries")
    inside = folder.resolve()
    if root.resolve().is_relative_to(inside):
        raise DataError(
            f"scene.queries {folder} is, or contains, the image root {root}",
            "put the query photos into a folder of their own, inside the image root or beside it",
        )
    if inside.is_relative_to(root.resolve()):
        prefix = inside.relative_to(root.resolve()).as_posix()
    else:
        prefix = folder.absolute().name or inside.name
    found = photos_in(folder)
    if not found:
        raise DataError(
            f"there is no photo in {folder} (scene.queries)",
            "put the photos to localize there, as .jpg, .png, …, or leave scene.queries out",
        )
    return {f"{prefix}/{name}": path for name, path in found.items()}


def open_photos(paths: Mapping[str, Path]) -> Photos:
    """Read all headers; a photo that cannot be used is skipped with its reason."""
    photos = Photos()
    for name in sorted(paths):
        problem = name_problem(name)
        if problem is not None:
            photos.skipped[name] = f"its name cannot be used: {problem}; rename the file"
            continue
        try:
            photos.files[name] = PhotoFile.open(name, paths[name])
        except DataError as error:
            photos.skipped[name] = error.message
    return photos


def require_on_disk(names: Collection[str], root: Path, *, source: str) -> None:
    """Raise a :class:`DataError` where every one of the listed names is missing under the root."""
    missing = [name for name in sorted(names) if not (root / name).is_file()]
    if not names or len(missing) < len(names):
        return
    shown = ", ".join(repr(name) for name in missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
    hint = "check scene.images: names are relative to it"
    base = PurePosixPath(missing[0]).name
    for found in list_photos(root):
        if PurePosixPath(found).name == base:
            hint = (
                f"{root / found} exists: scene.images must be the folder that {missing[0]!r} is relative to"
            )
            break
    raise DataError(f"none of the {len(names)} images of {source} is under {root} (missing: {shown})", hint)


def read_query_list(config: SceneConfig) -> list[Entry]:
    """The query list of the layouts ``colmap`` and ``hloc``."""
    if config.queries is None:
        return []
    if config.queries.is_dir():
        raise DataError(
            f"scene.queries: {config.queries} is a folder; the layout {config.layout!r} takes a list",
            "give a text file with a name per line, or 'name MODEL WIDTH HEIGHT PARAMS'",
        )
    return read_entries(config.queries)


def warn_of_both(listed: Collection[str], queries: Collection[str]) -> None:
    """Say which names are listed as database images and as queries: they become queries only."""
    both = sorted(set(listed) & set(queries))
    if both:
        shown = ", ".join(repr(name) for name in both[:_SHOWN]) + (", …" if len(both) > _SHOWN else "")
        log.warning(
            "listed as database images and as queries: %d images (%s); they are queries only and not mapped",
            len(both),
            shown,
        )


def given_intrinsics(config: SceneConfig, entries: Iterable[Entry] = ()) -> GivenIntrinsics:
    """``scene.intrinsics``, over which the intrinsics in a query list take precedence."""
    listed = GivenIntrinsics() if config.intrinsics is None else read_intrinsics(config.intrinsics)
    own = GivenIntrinsics.of(entries)
    return GivenIntrinsics({**listed.exact, **own.exact}, listed.patterns)


def make_scene(
    config: SceneConfig,
    *,
    db: Photos,
    queries: Photos,
    given: GivenIntrinsics | None = None,
    known_cameras: Mapping[str, tuple[str, Camera]] | None = None,
    poses: Mapping[str, Pose] | None = None,
    ground_truth: Mapping[str, Pose] | None = None,
) -> Scene:
    """Put the parts together.

    Args:
        given: intrinsics from lists; default those of ``scene.intrinsics``.
        known_cameras: name → (camera id, camera), over which ``given`` takes precedence.
        poses: known poses of database images.
        ground_truth: used where the config names no ground-truth file.
    """
    given = given_intrinsics(config) if given is None else given
    known = {name: pair for name, pair in (known_cameras or {}).items() if given.get(name) is None}
    files = {**db.files, **queries.files}
    _refuse_useless(config, given, files)
    ids, cameras = assign_cameras(
        [file for name, file in files.items() if name not in known],
        given=given,
        sharing=config.cameras,
        camera_model=config.camera_model,
    )
    ids.update({name: known[name][0] for name in files if name in known})
    cameras.update({known[name][0]: known[name][1] for name in files if name in known})
    masks = _masks(config, files)
    asked = [*queries.files, *queries.skipped]
    priors = {} if config.priors is None else _query_poses(config.priors, asked, what="priors")
    images = [
        ImageRecord(
            name=file.name,
            path=file.path,
            role=role,
            camera_id=ids[file.name],
            group=group_of(file.name) if role == "query" else "all",
            pose=(poses or {}).get(file.name) if role == "db" else None,
            mask=masks.get(file.name),
            intrinsics=_source(
                cameras[ids[file.name]], listed=file.name in known or bool(given.get(file.name))
            ),
            gps=file.exif["gps"],
            timestamp_s=file.exif["timestamp_s"],
            pose_prior=priors.get(file.name),
        )
        for role, photos in _by_role(db, queries)
        for file in photos.files.values()
    ]
    return Scene(
        tuple(images),
        dict(sorted(cameras.items())),
        dict(sorted({**db.skipped, **queries.skipped}.items())),
        _ground_truth(config, asked, ground_truth or {}),
        tuple(sorted(queries.skipped)),
        config.model,
    )


def _by_role(db: Photos, queries: Photos) -> tuple[tuple[Role, Photos], tuple[Role, Photos]]:
    return ("db", db), ("query", queries)


def _source(camera: Camera, *, listed: bool) -> Intrinsics:
    if listed:
        return "given"
    return "exif" if camera.has_prior_focal_length else "guess"


def _refuse_useless(config: SceneConfig, given: GivenIntrinsics, files: Mapping[str, PhotoFile]) -> None:
    if config.intrinsics is None or not files or any(given.get(name) is not None for name in files):
        return
    example = next(iter(given.exact), "nothing")
    raise DataError(
        f"no image of the scene is in the intrinsics list {config.intrinsics} "
        f"(it has {example!r}, the scene has {min(files)!r})",
        "names are relative to the image root (scene.images); globs like 'db/*' are allowed",
    )


def _masks(config: SceneConfig, names: Collection[str]) -> dict[str, Path]:
    """``<masks>/<name>.png`` (COLMAP's) or ``<masks>/<name>``; photos without a mask are whole."""
    if config.masks is None:
        return {}
    folder = existing_folder(config.masks, option="scene.masks")
    masks = {}
    for name in names:
        for path in (folder / f"{name}.png", folder / name):
            if path.is_file():
                masks[name] = path
                break
    if names and not masks:
        raise DataError(
            f"scene.masks: no file in {folder} belongs to a photo of the scene",
            f"the mask of {min(names)!r} is called {str(folder / min(names)) + '.png'!r}",
        )
    return masks


def _ground_truth(config: SceneConfig, queries: Sequence[str], known: Mapping[str, Pose]) -> dict[str, Pose]:
    if config.ground_truth is None:
        return {name: known[name] for name in sorted(queries) if name in known}
    return _query_poses(config.ground_truth, queries, what="ground truth")


def _query_poses(path: Path, queries: Sequence[str], *, what: str) -> dict[str, Pose]:
    """Listed poses of the queries; a file may name them by the end of their path, as benchmarks do."""
    listed = read_poses(path)
    ends: dict[str, list[str]] = {}
    for name in queries:
        parts = name.split("/")
        for start in range(len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(name)
    poses: dict[str, Pose] = {}
    exact = set(queries)
    for name in sorted(listed):
        matching = [name] if name in exact else ends.get(name, [])
        if len(matching) > 1:
            raise DataError(
                f"{what} {name!r} ({path}) fits {len(matching)} queries: "
                f"{', '.join(repr(each) for each in sorted(matching)[:_SHOWN])}",
                "write the whole name of the query, relative to the image root",
            )
        if matching:
            poses[matching[0]] = listed[name]
    if queries and listed and not poses:
        raise DataError(
            f"no query has a pose in the {what} {path} "
            f"(it has {min(listed)!r}, the queries have {min(queries)!r})",
            "names are relative to the image root (scene.images)",
        )
    return poses
