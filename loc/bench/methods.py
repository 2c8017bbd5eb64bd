"""`loc bench methods`: the methods side by side, on the same photos, pairs and settings.

Every method is a shipped config (``configs/folder_<name>.yaml``), or ``EXTRACTOR`` or ``EXTRACTOR+MATCHER``
of any plug-ins. A result is kept with a fingerprint of everything it depends on: a table is rebuilt without
computing, an interrupted bench goes on where it was, another setting gives another result beside the first.
Weights that the project has not checked are refused: their numbers would say nothing about the method.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loc import __version__
from loc.bench.methods_pairs import measure_pairs
from loc.bench.methods_scenes import SETS, TOWN, measure_set, measure_town, town_config
from loc.config import Block, suggest
from loc.errors import ConfigError, DataError, LocError, MapError
from loc.plugins.blocks import ResolvedPlugin, configs_folder, load_config, resolve_block
from loc.plugins.standing import UNVERIFIED, weights_verified
from loc.runtime.runtime import Runtime
from loc.stores.files import make_folder, read_sealed, write_sealed
from loc.stores.fingerprint import fingerprint

#: Raised when the same settings give other numbers.
VERSION = 1
METHODS = ("sift", "d2net_ss", "d2net_ms", "r2d2", "delf_ots", "disk+lightglue", "aliked+lightglue")
PAIRS = "wxbs"
#: Quick ones first.
ALL_SETS = (PAIRS, *SETS, TOWN)
RESULT = "result.json"
#: The weights of a plug-in that its output was checked with, where its default is others.
_CHECKED_WEIGHTS: dict[str, Block] = {"d2net": {"weights": "ots"}}


@dataclass(frozen=True)
class Settings:
    """What all methods share.

    Attributes:
        root: folder of the photo sets.
        cache: where runs and results are kept.
        long_side: photos are shrunk to this, px.
        lightglue_keypoints: extracted and matched per photo with LightGlue, whose time grows with the square.
        town_size: ``small``, ``default`` or ``large``, as of ``loc demo``.
        town_neighbours: pairs of each photo of the town, by covisibility (map) and by retrieval (queries).
    """

    root: Path
    cache: Path
    long_side: int = 800
    lightglue_keypoints: int = 1024
    town_size: str = "default"
    town_neighbours: int = 10

    def of(self, name: str) -> dict[str, Any]:
        """Those that change the numbers of a set."""
        town = {"size": self.town_size, "neighbours": self.town_neighbours} if name == TOWN else {}
        return {"long_side": self.long_side, **town}


@dataclass(frozen=True)
class Method:
    """A method: the blocks of a config, and the plug-ins that they mean."""

    name: str
    features: Block
    matcher: Block

    @classmethod
    def named(cls, name: str, settings: Settings) -> Method:
        """The method of this name, with the settings in its blocks.

        Raises:
            ConfigError: there is none, or its weights are not verified.
        """
        shipped = configs_folder() / f"folder_{name.replace('+', '_')}.yaml"
        extractor, _, matcher = name.partition("+")
        config = load_config(
            shipped if shipped.is_file() else {"features": extractor, "matcher": matcher or "nearest"}
        )
        features, matching = _block(config.features), _block(config.matcher)
        features["resize_max"] = settings.long_side
        features |= _CHECKED_WEIGHTS.get(resolve_block("features", features).name, {})
        if matching["use"] == "lightglue":
            features["max_keypoints"] = matching["max_keypoints"] = settings.lightglue_keypoints
        method = cls(name, features, matching)
        if not all(weights_verified(plugin) for plugin in method.plugins()):
            raise ConfigError(
                f"{name}: {UNVERIFIED}, so it is in no table of results", f"methods: {', '.join(METHODS)}"
            )
        return method

    @property
    def overrides(self) -> dict[str, Any]:
        """For a run's config."""
        return {"features": self.features, "matcher": self.matcher}

    def plugins(self) -> tuple[ResolvedPlugin, ResolvedPlugin]:
        """Extractor and matcher, neither built nor with their weights fetched."""
        extractor = resolve_block("features", self.features)
        return extractor, resolve_block("matcher", self.matcher).for_features(extractor)

    def ready(self, runtime: Runtime) -> tuple[ResolvedPlugin, ResolvedPlugin]:
        """Extractor and matcher with their weights on this machine."""
        extractor, matcher = (plugin.ready(runtime.torch_device) for plugin in self.plugins())
        return extractor, matcher


@dataclass(frozen=True)
class Result:
    """What one method gave on one set; ``data`` is what the file of results holds."""

    set: str
    method: str
    folder: Path
    data: dict[str, Any]


def compare(
    sets: Sequence[str],
    methods: Sequence[str],
    settings: Settings,
    *,
    runtime: Runtime,
    failed: Callable[[str, str, LocError], None],
) -> Iterator[Result]:
    """Results of every method on every set, from the cache where they are there.

    Args:
        failed: told of what could not be measured (weights that are not here, a set that is not here).

    Raises:
        ConfigError: an unknown set or method, or one that no table may show; before anything is computed.
    """
    for name in sets:
        if name not in ALL_SETS:
            raise ConfigError(f"no set is called {name!r}", suggest(name, list(ALL_SETS)))
    chosen = [Method.named(name, settings) for name in methods]
    for name in sets:
        for method in chosen:
            try:
                yield _result(name, method, settings, runtime)
            except LocError as error:
                failed(name, method.name, error)


def _result(name: str, method: Method, settings: Settings, runtime: Runtime) -> Result:
    if name != TOWN and not (settings.root / name).is_dir():
        raise DataError(
            f"there is no folder {settings.root / name}", "name the folder of the sets with --root"
        )
    fields = {
        "bench": VERSION,
        "loc": __version__,
        "set": name,
        "settings": settings.of(name),
        "photos": {} if name == TOWN else _photos(settings.root / name),
        "plugins": [plugin.fingerprint_fields() for plugin in method.ready(runtime)],
    }
    folder = settings.cache / name / f"{method.name}-{fingerprint(fields)}"
    if not (folder / RESULT).is_file():
        resumed = (folder / "run" / "features").is_dir()
        make_folder(folder)
        found = _measured(name, method, settings, folder, runtime)
        write_sealed(folder / RESULT, {**found, "resumed": resumed, "of": fields})
    return Result(name, method.name, folder, read_sealed(folder / RESULT))


def _measured(
    name: str, method: Method, settings: Settings, folder: Path, runtime: Runtime
) -> dict[str, Any]:
    """One measurement, with the seconds it took: of the clock, and of processors (its children included)."""
    if name == TOWN:
        town = town_config(settings.cache, method.overrides, settings.of(name), runtime)  # not timed
    clock, processors = time.perf_counter(), _processor_seconds()
    try:
        if name == TOWN:
            found = measure_town(town, folder / "run", runtime)
        elif name == PAIRS:
            found = measure_pairs(
                settings.root / name,
                method.ready(runtime),
                folder,
                long_side=settings.long_side,
                runtime=runtime,
            )
        else:
            found = measure_set(settings.root / name, method.overrides, folder / "run", runtime)
    except MapError as error:  # a method that cannot map a set has a result: none
        found = {"failed": error.message}
    seconds = {
        "wall": round(time.perf_counter() - clock, 1),
        "processor": round(_processor_seconds() - processors, 1),
    }
    return {**found, "seconds": seconds}


def _block(block: Block | str | None) -> Block:
    return dict(block) if isinstance(block, dict) else {"use": block}


def _processor_seconds() -> float:
    """Of this process and of its children that have ended, user and system."""
    return sum(os.times()[:4])


def _photos(folder: Path) -> dict[str, int]:
    """Name and size of every file of a set."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
