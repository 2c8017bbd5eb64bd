"""Rendering in worker processes: what they share on disk, and the three kinds of work."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

from loc.runtime.runtime import Runtime
from loc.runtime.workers import WorkerPool
from loc.stores.files import make_folder, write_atomically
from loc.town.light import Grid, LightMaps, SunMap, lamp_light, sky_directions, sky_light, sun_direction, sun_map
from loc.town.photo import distort, finer_pinhole, take
from loc.town.plan import Town
from loc.town.shade import Stage, make_clouds, visible
from loc.town.views import WEATHERS, Shot

Array = np.ndarray
T = TypeVar("T")

_SUN_SIDE = 2048
_SKY_SIDE = 512
_JPEG_QUALITY = 93
#: Relative difference of 1/z up to which a point counts as seen.
_SEEN = 0.01


@dataclass(frozen=True, eq=False)
class Observed:
    """Reference points that a photo shows: their numbers, pixels (corner origin) and colours."""

    points: Int64[Array, " m"]
    xy: Float64[Array, "m 2"]
    rgb: Float64[Array, "m 3"]


class Studio:
    """One worker's view of the town; ``folder`` holds what all workers share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.town: Town = _load(folder / "town.pkl")

    @property
    def stage(self) -> Stage:
        return Stage(self.town, _light(self.folder), make_clouds())


def bake(studio: Studio, what: tuple[str, Any]) -> Any:
    """One part of the light: of a direction of the sky, of a lamp, or the depth map of the sun."""
    kind, value = what
    if kind == "sky":
        return sky_light(studio.town, _grid(studio), value, side=_SKY_SIDE)
    if kind == "lamp":
        return lamp_light(_grid(studio), studio.town.lamps[value])
    weather = WEATHERS[value]
    made = sun_map(studio.town, sun_direction(weather.azimuth_deg, weather.elevation_deg), side=_SUN_SIDE)
    _save(studio.folder / f"sun-{value}.pkl", made)
    return None


def photograph(studio: Studio, what: tuple[Shot, Path, Float64[Array, "n 3"]]) -> Observed | None:
    """Take one photo; for a database photo, which of the reference points it shows."""
    shot, path, points = what
    weather = WEATHERS[shot.weather]
    stage = studio.stage
    if not path.is_file():
        sun = _sun(studio.folder, shot.weather) if weather.elevation_deg > 0 else None
        image = take(stage, shot.camera, shot.pose, weather, sun, shot.exposure, shot.seed)
        _write_jpeg(path, image)
    return None if shot.is_query else observe(stage, shot, points, path)


def observe(stage: Stage, shot: Shot, points: Float64[Array, "n 3"], path: Path) -> Observed:
    """Which of the points a photo shows, by comparing depths, and exactly where."""
    view, _ = finer_pinhole(shot.camera, shot.pose)
    _, nearness, _ = visible(stage, view)
    local = points @ shot.pose.rotation.T + shot.pose.translation
    front = np.flatnonzero(local[:, 2] > 0.1)
    local = local[front]
    normalized = local[:, :2] / local[:, 2:]
    column, row = np.floor(normalized * view.focal + np.array(view.center)).astype(int).T
    f, cx, cy, k = shot.camera.params
    xy = f * distort(normalized, float(k)) + np.array([cx, cy])
    inside = (column >= 0) & (column < view.wh[0]) & (row >= 0) & (row < view.wh[1])
    inside &= (xy > 0).all(axis=1) & (xy[:, 0] < shot.camera.width) & (xy[:, 1] < shot.camera.height)
    front, xy, local = front[inside], xy[inside], local[inside]
    found = nearness[row[inside], column[inside]]
    seen = np.abs(found * local[:, 2] - 1) < _SEEN
    image = cv2.imread(str(path))[..., ::-1]
    rgb = image[xy[seen, 1].astype(int), xy[seen, 0].astype(int)].astype(np.float64)
    return Observed(front[seen].astype(np.int64), xy[seen], rgb)


def prepare(folder: Path, town: Town) -> None:
    """Put the town where workers find it."""
    _save(make_folder(folder) / "town.pkl", town)


def compute_light(run: Callable[..., Iterator[Any]], folder: Path, town: Town, *, directions: int, weathers: Sequence[str]) -> None:
    """All light that does not change between photos; ``run`` is :func:`workshop`'s."""
    work: list[tuple[str, Any]] = [("sky", direction) for direction in sky_directions(directions)]
    work += [("lamp", k) for k in range(len(town.lamps))]
    work += [("sun", name) for name in weathers if WEATHERS[name].elevation_deg > 0]
    parts = list(run(bake, work, "light"))
    lamps = parts[directions : directions + len(town.lamps)]
    _save(folder / "light.pkl", Grid.of(town).maps(parts[:directions], lamps))


class Workshop:
    """Runs work in processes, or here if there is one worker; results come in the order of the work."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._runtime = runtime
        self._here = Studio(folder) if runtime.num_workers == 1 else None
        self._pool = None if self._here is not None else WorkerPool(Studio, (folder,), workers=runtime.num_workers)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool is not None:
            self._pool.__exit__(*error)

    def run(self, work: Callable[[Studio, Any], T], items: Iterable[Any], what: str) -> Iterator[T]:
        """Results of ``work(studio, item)``, with progress."""
        ordered = list(items)
        results = (work(self._here, item) for item in ordered) if self._here is not None else self._submitted(work, ordered)
        return self._runtime.track(results, what, len(ordered))

    def _submitted(self, work: Callable[[Studio, Any], T], items: list[Any]) -> Iterator[T]:
        if self._pool is None:
            return
        for future in [self._pool.submit(work, item) for item in items]:
            yield future.result()


def _write_jpeg(path: Path, image: Array) -> None:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    make_folder(path.parent)

    def write(temporary: Path) -> None:
        temporary.write_bytes(data.tobytes())

    write_atomically(path, write)


@lru_cache(maxsize=1)
def _light(folder: Path) -> LightMaps:
    found: LightMaps = _load(folder / "light.pkl")
    return found


@lru_cache(maxsize=2)
def _sun(folder: Path, weather: str) -> SunMap:
    found: SunMap = _load(folder / f"sun-{weather}.pkl")
    return found


@lru_cache(maxsize=1)
def _grid(studio: Studio) -> Grid:
    return Grid.of(studio.town)


def _save(path: Path, value: Any) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            pickle.dump(value, file, protocol=5)

    write_atomically(path, write)


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)


__all__ = ["Float32", "Observed", "Studio", "Workshop", "bake", "compute_light", "observe", "photograph", "prepare"]
