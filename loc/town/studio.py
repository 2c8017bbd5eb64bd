"""Rendering in worker processes: what they share on disk, and the three kinds of work."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from loc.errors import StoreError
from loc.runtime.runtime import Runtime
from loc.runtime.workers import WorkerPool
from loc.stores.files import make_folder, write_atomically
from loc.town.light import Grid, SunMap, lamp_light, sky_directions, sky_light, sun_map
from loc.town.photo import develop, distort, lens_of
from loc.town.plan import Town
from loc.town.shade import Stage, make_clouds, render, visible
from loc.town.views import WEATHERS, Shot, Size

Array = np.ndarray
T = TypeVar("T")

_SKY_SIDE = 512
_JPEG_QUALITY = 93
#: Relative difference of 1/z up to which a point counts as seen.
_SEEN = 0.01


@dataclass(frozen=True, eq=False)
class Observed:
    """Reference points that a photo shows: their numbers, pixels (corner origin) and colours."""

    points: Int64[Array, " m"]
    xy: Float64[Array, "m 2"]
    rgb: UInt8[Array, "m 3"]


class Studio:
    """One worker's view of the town; ``folder`` holds what all workers share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.town: Town = _load(folder / "town.pkl")

    @cached_property
    def stage(self) -> Stage:
        """The town in its light, which must have been computed."""
        return Stage(self.town, _load(self.folder / "light.pkl"), make_clouds())

    @cached_property
    def grid(self) -> Grid:
        return Grid.of(self.town)


def bake(studio: Studio, what: tuple[str, Any]) -> Any:
    """One part of the light: of a direction of the sky, of a lamp, or (into a file) the sun's depth map."""
    kind, value = what
    if kind == "sky":
        return sky_light(studio.town, studio.grid, value, side=_SKY_SIDE)
    if kind == "lamp":
        return lamp_light(studio.grid, studio.town.lamps[value])
    name, side = value
    _save(studio.folder / f"sun-{name}.pkl", sun_map(studio.town, WEATHERS[name].sun.direction, side=side))
    return None


def photograph(studio: Studio, what: tuple[Shot, Path, Float64[Array, "n 3"]]) -> Observed | None:
    """Take one photo, unless it is there; for a database photo, which of the reference points it shows."""
    shot, path, points = what
    weather, stage = WEATHERS[shot.weather], studio.stage
    lens = lens_of(shot.camera)
    if path.is_file() and shot.is_query:
        return None
    if path.is_file():
        nearness = visible(stage, lens.view(shot.pose))[1]
    else:
        sun = _sun(studio.folder, shot.weather) if weather.sun.is_up else None
        radiance, nearness = render(stage, lens.view(shot.pose), weather, sun)
        _write_jpeg(path, develop(lens.bend(radiance), shot.exposure, np.random.default_rng(shot.seed)))
    return None if shot.is_query else observe(shot, nearness, points, _read_rgb(path))


def observe(
    shot: Shot, nearness: Float32[Array, "h w"], points: Float64[Array, "n 3"], image: UInt8[Array, "r c 3"]
) -> Observed:
    """Which of the points a photo shows, by the depths of its pinhole view, and exactly where."""
    view = lens_of(shot.camera).view(shot.pose)
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
    seen = np.abs(nearness[row[inside], column[inside]] * local[:, 2] - 1) < _SEEN
    rgb = image[xy[seen, 1].astype(int), xy[seen, 0].astype(int)]
    return Observed(front[seen].astype(np.int64), xy[seen], rgb)


def prepare(folder: Path, town: Town) -> None:
    """Put the town where workers find it."""
    _save(make_folder(folder) / "town.pkl", town)


def compute_light(workshop: Workshop, folder: Path, town: Town, size: Size, weathers: Sequence[str]) -> None:
    """All light that does not change between photos, into ``folder``."""
    work: list[tuple[str, Any]] = [("sky", direction) for direction in sky_directions(size.directions)]
    work += [("lamp", k) for k in range(len(town.lamps))]
    work += [("sun", (name, size.shadow)) for name in weathers if WEATHERS[name].sun.is_up]
    parts = list(workshop.run(bake, work, "light"))
    sky, lamps = parts[: size.directions], parts[size.directions : size.directions + len(town.lamps)]
    _save(folder / "light.pkl", Grid.of(town).maps(sky, lamps))


class Workshop:
    """Runs work in processes, or here if there is one worker; results come in the order of the work."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._runtime = runtime
        self._here = Studio(folder) if runtime.num_workers == 1 else None
        self._pool = (
            None if self._here is not None else WorkerPool(Studio, (folder,), workers=runtime.num_workers)
        )

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool is not None:
            self._pool.__exit__(*error)

    def run(self, work: Callable[[Studio, Any], T], items: Iterable[Any], what: str) -> Iterator[T]:
        """Results of ``work(studio, item)``, with progress."""
        ordered = list(items)
        results = (
            (work(self._here, item) for item in ordered)
            if self._here is not None
            else self._submitted(work, ordered)
        )
        return self._runtime.track(results, what, len(ordered))

    def _submitted(self, work: Callable[[Studio, Any], T], items: list[Any]) -> Iterator[T]:
        if self._pool is None:
            return
        for future in [self._pool.submit(work, item) for item in items]:
            yield future.result()


def _read_rgb(path: Path) -> UInt8[Array, "r c 3"]:
    image = cv2.imread(str(path))
    if image is None:
        raise StoreError(f"the rendered photo {path} is damaged", "delete it and run the same command again")
    return image[..., ::-1]


def _write_jpeg(path: Path, image: Array) -> None:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    make_folder(path.parent)

    def write(temporary: Path) -> None:
        temporary.write_bytes(data.tobytes())

    write_atomically(path, write)


@lru_cache(maxsize=2)
def _sun(folder: Path, weather: str) -> SunMap:
    found: SunMap = _load(folder / f"sun-{weather}.pkl")
    return found


def _save(path: Path, value: Any) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            pickle.dump(value, file, protocol=5)

    write_atomically(path, write)


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)
