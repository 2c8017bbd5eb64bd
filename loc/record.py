"""What a run folder says of itself: `run.json` (which artefacts belong to the run) and `run.log`."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from loc import __version__
from loc.config import RunConfig
from loc.errors import DataError, StoreError
from loc.layouts.table import scene_table
from loc.sfm.bundle import MapBundle
from loc.stages.artefacts import Features, Globals, Matched, PairList
from loc.stores.files import RUN_AGAIN, make_folder, read_sealed, write_json, write_sealed, writing
from loc.types import Scene

FILE = "run.json"
_ARTEFACTS = ("features", "globals", "pairs_map", "pairs_query", "matches", "map", "poses", "report")
log = logging.getLogger("loc")


class Record:
    """Notes the artefacts as stages finish; written whole when the run stops, however it stops.

    A run that fails before it has made all that the one before it had keeps that one as
    ``last_finished``: readers go on with it (:func:`read_record`).
    """

    def __init__(self, workdir: Path, config: RunConfig, scene: Scene) -> None:
        self.workdir = workdir
        self.scene = scene
        self.seconds: dict[str, float] = {}
        self._before: dict[str, Any] = {}
        self.data: dict[str, Any] = {
            "loc": __version__,
            "config": config.model_dump(mode="json", by_alias=True),
            "scene": {
                "db": len(scene.db),
                "queries": len(scene.queries),
                "skipped": dict(sorted(scene.skipped.items())),
            },
        }

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of the block to the stage's; the log says when it began."""
        log.info("stage %s", stage)
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(stage, 0.0) + time.perf_counter() - started
            self.seconds[stage] = round(spent, 3)

    def described(self, features: Features, globals_: Globals | None) -> None:
        self.data["features"] = {
            "folder": self._relative(features.store.folder),
            "items": {name: key.content for name, key in sorted(features.keys.items())},
            "skipped": features.skipped,
        }
        if globals_ is not None:
            self.data["globals"] = {
                "folder": self._relative(globals_.store.folder),
                "items": {name: key.content for name, key in sorted(globals_.keys.items())},
            }

    def paired(self, role: str, pairs: PairList) -> None:
        self.data[f"pairs_{role}"] = self._relative(pairs.folder)

    def matched(self, matches: Matched) -> None:
        self.data["matches"] = self._relative(matches.store.folder)
        keypoints = matches.keypoints
        folder = self._relative(keypoints.store.folder)
        if folder != self.data["features"]["folder"]:  # those of a matcher that finds its own points
            known = self.data.setdefault("keypoints", {"folder": folder, "items": {}})
            known["items"].update({name: key.content for name, key in sorted(keypoints.keys.items())})

    def mapped(self, bundle: MapBundle) -> None:
        self.data["map"] = self._relative(bundle.folder)

    def localized(self, folder: Path) -> None:
        self.data["poses"] = self._relative(folder)

    def reported(self, folder: Path) -> None:
        self.data["report"] = self._relative(folder)

    def __enter__(self) -> Record:
        if (self.workdir / FILE).is_file():  # a run that ends before its map leaves the last one known
            before = _read(self.workdir)
            self._before = before.get("last_finished", before)
            self.data["latest_map"] = before.get("map", before.get("latest_map"))
        make_folder(self.workdir / "scene")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        data = {**self.data, "seconds": self.seconds}
        if error is not None:
            data["stopped"] = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        if error is not None and any(name in self._before and name not in data for name in _ARTEFACTS):
            data["last_finished"] = self._before  # and its scene stays
        else:
            write_json(self.workdir / "scene" / "scene.json", scene_table(self.scene))
        write_sealed(self.workdir / FILE, data)

    def _relative(self, folder: Path) -> str:
        return folder.relative_to(self.workdir).as_posix()


def read_record(workdir: Path) -> dict[str, Any]:
    """``run.json`` of a run folder; after a run that failed early, that of the finished one before it.

    Raises:
        DataError: the folder is not a run.
        StoreError: its record is damaged.
    """
    if not (workdir / FILE).is_file():
        raise DataError(
            f"{workdir} is not a run folder: it has no {FILE}",
            "give the folder that -o named: loc run … -o RUN",
        )
    record = _read(workdir)
    if "last_finished" not in record:
        return record
    _note(f"the last run of {workdir} stopped ({record['stopped']}); this is the finished one before it")
    finished: dict[str, Any] = record["last_finished"]
    return finished


@lru_cache(maxsize=64)
def _note(text: str) -> None:
    """Warn once: a command may read the record several times."""
    log.warning(text)


def _read(workdir: Path) -> dict[str, Any]:
    path = workdir / FILE
    return read_sealed(path, cure=f"delete {path} and {RUN_AGAIN}: nothing is computed anew")


def open_map(workdir: Path) -> MapBundle:
    """The map of a run folder (the last that was finished), or of a map's own folder."""
    if (workdir / "bundle.json").is_file():
        return MapBundle.open(workdir)
    record = read_record(workdir)
    found = record.get("map") or record.get("latest_map")
    if found is None:
        raise StoreError(
            f"{workdir} has no finished map", "run it again: loc reconstruct PHOTOS -o, or loc map CONFIG -o"
        )
    return MapBundle.open(workdir / found)


@contextmanager
def run_log(workdir: Path, config: RunConfig) -> Iterator[None]:
    """Append what `loc` logs, with versions, to ``run.log`` while the block runs."""
    make_folder(workdir)
    with writing(workdir):
        handler = _LogFile(workdir / "run.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        log.info("loc %s, Python %s, %s", __version__, platform.python_version(), _versions())
        log.info("config %s", config.model_dump_json(by_alias=True))
        yield
        log.info("finished")
    except BaseException as error:
        # To the file alone: on a terminal the command line says it.
        handler.handle(
            log.makeRecord(
                log.name, logging.ERROR, __file__, 0, "%s: %s", (type(error).__name__, error), None
            )
        )
        raise
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short without a word: what could not be written is said elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _versions() -> str:
    out = []
    for name in ("pycolmap", "torch", "numpy", "h5py", "opencv-python-headless", "faiss-cpu"):
        try:
            out.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(out)
