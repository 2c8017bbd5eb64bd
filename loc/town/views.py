"""Who photographed the town, from where, when, and with which camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from loc.town.light import Sun
from loc.town.photo import Exposure
from loc.town.plan import HALF, relief
from loc.town.shade import Weather
from loc.types import Camera, Pose

Array = np.ndarray
#: Database photos that must look at what a query looks at.
_KNOWN = 4
Circles = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, eq=False)
class Shot:
    """One photo to take. ``weather`` is a key of :data:`WEATHERS`; a query has no place in the model."""

    name: str
    camera: Camera
    pose: Pose
    weather: str
    exposure: Exposure
    seed: int

    @property
    def is_query(self) -> bool:
        return self.name.startswith("query/")


@dataclass(frozen=True)
class Size:
    """How much is rendered.

    Attributes:
        stations: places from which database photos are taken; views: directions at each.
        sequence: frames of the two sequences together. day, night: queries.
        facing: half the angle around north within which photos look, degrees; below 180 they are taken
            from the south of the square.
        scale: of the photos, where 1 is 640 x 480. ppm: resolution of the paintings, px per metre.
        directions: of the sky's light. shadow: texels along a side of the sun's depth map.
    """

    stations: int
    views: int
    sequence: int
    day: int
    night: int
    facing: float
    scale: float
    ppm: float
    directions: int
    shadow: int


SIZES = {
    "small": Size(
        stations=6, views=3, sequence=4, day=4, night=5,
        facing=50, scale=0.7, ppm=36, directions=6, shadow=1024,
    ),
    "default": Size(
        stations=17, views=3, sequence=12, day=12, night=14,
        facing=180, scale=1, ppm=64, directions=16, shadow=2048,
    ),
    "large": Size(
        stations=112, views=4, sequence=64, day=48, night=48,
        facing=180, scale=1, ppm=64, directions=16, shadow=2048,
    ),
}  # fmt: skip

_BLUE, _PALE = (0.22, 0.40, 0.76), (0.76, 0.84, 0.94)
WEATHERS = {
    "noon": Weather(
        sun=Sun(200, 47, (2.0, 1.82, 1.55)),
        sky=(0.44, 0.54, 0.70), bounce=(0.30, 0.27, 0.23), clouds=0.38, horizon=_PALE, zenith=_BLUE,
    ),
    "morning": Weather(
        sun=Sun(118, 30, (1.95, 1.62, 1.24)),
        sky=(0.38, 0.47, 0.64), bounce=(0.27, 0.24, 0.20), clouds=0.3,
        horizon=(0.92, 0.86, 0.80), zenith=(0.30, 0.46, 0.78), drift=1,
    ),
    "overcast": Weather(
        sun=Sun(170, 52, (0.25, 0.25, 0.25)),
        sky=(1.12, 1.18, 1.26), bounce=(0.56, 0.55, 0.52), clouds=0.86,
        horizon=(0.88, 0.90, 0.92), zenith=(0.66, 0.71, 0.78), drift=2,
    ),
    "afternoon": Weather(
        sun=Sun(248, 33, (2.0, 1.65, 1.22)),
        sky=(0.36, 0.44, 0.60), bounce=(0.29, 0.24, 0.19), clouds=0.45,
        horizon=(0.94, 0.87, 0.76), zenith=(0.30, 0.46, 0.78), drift=3,
    ),
    "evening": Weather(
        sun=Sun(286, 15, (1.75, 1.12, 0.62)),
        sky=(0.34, 0.38, 0.52), bounce=(0.26, 0.20, 0.15), clouds=0.42,
        horizon=(1.0, 0.76, 0.52), zenith=(0.30, 0.40, 0.66), drift=4,
    ),
    "dusk": Weather(
        sun=Sun(300, -8),
        sky=(0.10, 0.12, 0.17), bounce=(0.06, 0.06, 0.07), clouds=0.35,
        horizon=(0.20, 0.16, 0.17), zenith=(0.05, 0.07, 0.15), lamps=4.0, windows=0.5, drift=6,
    ),
    "night": Weather(
        sun=Sun(300, -30),
        sky=(0.010, 0.013, 0.022), bounce=(0.006, 0.006, 0.008), clouds=0.35,
        horizon=(0.040, 0.036, 0.042), zenith=(0.010, 0.013, 0.028), lamps=9.0, windows=0.7, drift=5,
    ),
}  # fmt: skip
#: Seasons of the database photos.
_DB_WEATHERS = ("noon", "morning", "overcast")
_DAY_WEATHERS = ("afternoon", "overcast", "evening", "noon")


def shots(size: Size, obstacles: Circles) -> list[Shot]:
    """All photos of a town of this size, sorted by name."""
    database = [*_database(size, obstacles), *_sequences(size, obstacles)]
    queries = [*_day_queries(size, obstacles, database), *_night_queries(size, obstacles, database)]
    return sorted([*database, *queries], key=lambda shot: shot.name)


def look(at: Float64[Array, "3"], yaw_deg: float, pitch_deg: float, roll_deg: float = 0.0) -> Pose:
    """Pose of a camera at a place; the yaw is from north to east, the pitch upwards."""
    forward = Sun(yaw_deg, pitch_deg).direction
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    return Pose(_quaternion(rotation), -rotation @ at)


def _quaternion(rotation: Float64[Array, "3 3"]) -> Float64[Array, "4"]:
    """xyzw of a rotation matrix: the eigenvector of Bar-Itzhack's matrix (JGCD 2000)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    vector: Float64[Array, "4"] = np.linalg.eigh(matrix / 3)[1][:, 3]
    return vector if vector[3] >= 0 else -vector


def _camera(size: Size, focal: float, k: float, *, portrait: bool = False) -> Camera:
    """SIMPLE_RADIAL with the principal point in the middle, as in Aachen's lists."""
    width, height = (round(side * size.scale) for side in ((480, 640) if portrait else (640, 480)))
    return Camera("SIMPLE_RADIAL", width, height, np.array([focal * size.scale, width / 2, height / 2, k]))


def _halton(index: int, base: int) -> float:
    """Element of a sequence that fills [0, 1) evenly (Halton, 1960)."""
    out, share = 0.0, 1.0
    while index > 0:
        share /= base
        out += share * (index % base)
        index //= base
    return out


def _free(x: float, y: float, obstacles: Circles, margin: float = 0.6) -> bool:
    return all(np.hypot(x - ox, y - oy) > radius + margin for ox, oy, radius in obstacles)


def _reach(x: float, y: float, yaw_deg: float) -> float:
    """Distance to the houses around the square in a direction."""
    dx, dy = np.sin(np.radians(yaw_deg)), np.cos(np.radians(yaw_deg))
    to_x = (np.sign(dx) * HALF[0] - x) / dx if abs(dx) > 1e-9 else np.inf
    to_y = (np.sign(dy) * HALF[1] - y) / dy if abs(dy) > 1e-9 else np.inf
    return float(min(to_x, to_y))


def _open(x: float, y: float, yaw_deg: float, obstacles: Circles, *, until: float = 3.2) -> bool:
    """Whether nothing large stands before the camera, ``until`` so many metres away."""
    direction = np.array([np.sin(np.radians(yaw_deg)), np.cos(np.radians(yaw_deg))])
    for ox, oy, radius in obstacles:
        along = (ox - x) * direction[0] + (oy - y) * direction[1]
        aside = abs((ox - x) * direction[1] - (oy - y) * direction[0])
        if 0 < along < until + radius and aside < radius + 0.35 * along:
            return False
    return True


def _places(size: Size, count: int, obstacles: Circles, *, start: int) -> list[tuple[float, float]]:
    """Free places spread evenly over the square."""
    north = 1.0 if size.facing >= 180 else 0.55
    out: list[tuple[float, float]] = []
    index = start
    while len(out) < count:
        x = (2 * _halton(index, 2) - 1) * (HALF[0] - 2.2)
        y = (2 * north * _halton(index, 3) - 1) * (HALF[1] - 2.2)
        index += 1
        if _free(x, y, obstacles):
            out.append((x, y))
    return out


def _directions(
    size: Size, place: tuple[float, float], obstacles: Circles, rng: np.random.Generator
) -> list[float]:
    """Directions that differ, with some distance to what is seen and nothing in the way."""
    count = size.views
    first = float(rng.uniform(0, 360)) if size.facing >= 180 else -size.facing * (count - 1) / count
    wanted = [first + 2 * size.facing * k / count for k in range(count)]
    out = []
    for yaw in wanted:
        tries = sorted(
            (yaw + step for step in np.linspace(-1, 1, 13) * size.facing / count),
            key=lambda each: abs(each - yaw),
        )
        good = [t for t in tries if _open(*place, t, obstacles) and _reach(*place, t) > 9]
        good += [t for t in tries if _open(*place, t, obstacles) and _reach(*place, t) > 6]
        best = max(tries, key=lambda each: _reach(*place, each))
        out.append(good[0] if good else best)
    return out


def _pose(place: tuple[float, float], yaw: float, rng: np.random.Generator, *, pitch: float = 8.0) -> Pose:
    height = float(relief(*place)) + float(rng.uniform(1.5, 1.75))
    at = np.array([*place, height])
    far = min(1.0, 12 / max(_reach(*place, yaw), 1.0))
    return look(at, yaw, pitch * (0.6 + 0.5 * far) + float(rng.uniform(-2, 2)), float(rng.normal(0, 1.2)))


def _database(size: Size, obstacles: Circles) -> list[Shot]:
    rng = np.random.default_rng(100)
    cameras = [_camera(size, 520, -0.031), _camera(size, 560, 0.018), _camera(size, 498, -0.052)]
    out: list[Shot] = []
    for station, place in enumerate(_places(size, size.stations, obstacles, start=20)):
        for yaw in _directions(size, place, obstacles, rng):
            number = len(out)
            weather = _DB_WEATHERS[station % len(_DB_WEATHERS)]
            exposure = Exposure(gain=float(rng.uniform(1.0, 1.2)), shake_px=float(rng.uniform(0, 0.8)))
            name = f"db/{number + 1}.jpg"
            pose = _pose(place, yaw, rng)
            out.append(Shot(name, cameras[station % 3], pose, weather, exposure, 1000 + number))
    return out


def _sequences(size: Size, obstacles: Circles) -> list[Shot]:
    """Two walks, looking ahead and to the side, as frames of a film."""
    rng = np.random.default_rng(200)
    routes = (
        ("gopro3_undistorted/GOPR{:04d}.jpg", _camera(size, 430, 0.0), (-15.5, -13.0), (10.5, -13.6), 15.0),
        ("nexus4_sequences/sequence_1/{:06d}.jpg", _camera(size, 588, -0.035), (17.3, -8.0), (17, 9), -60.0),
    )  # fmt: skip
    out: list[Shot] = []
    for which, (pattern, camera, start, stop, yaw) in enumerate(routes):
        frames = size.sequence // 2
        for k in range(frames):
            share = k / max(frames - 1, 1)
            place = (start[0] + share * (stop[0] - start[0]), start[1] + share * (stop[1] - start[1]))
            if not _free(*place, obstacles, margin=0.25):
                place = (place[0] - 1.1 * which, place[1] + 1.1 * (1 - which))
            turn = yaw + 55 * (0.5 - share) * (1 if which else -1) + float(rng.uniform(-4, 4))
            exposure = Exposure(gain=1.1, shake_px=float(rng.uniform(0.3, 1.5)))
            name = f"sequences/{pattern.format(20 * k + 1)}"
            out.append(Shot(name, camera, _pose(place, turn, rng), "noon", exposure, 2000 + 500 * which + k))
    return out


def _query_poses(
    size: Size,
    count: int,
    obstacles: Circles,
    database: Sequence[Shot],
    *,
    start: int,
    rng: np.random.Generator,
) -> list[Pose]:
    """Places where the database knows what one looks at: visitors photograph what others photographed."""
    out: list[Pose] = []
    for place in _places(size, 8 * count, obstacles, start=start):
        for yaw in rng.uniform(-size.facing, size.facing, 8).tolist():
            pose = _pose(place, yaw, rng)
            far_enough = _reach(*place, yaw) > 9 and _open(*place, yaw, obstacles, until=5.0)
            if far_enough and _known(pose, database) >= _KNOWN:
                out.append(pose)
                break
        if len(out) == count:
            break
    return out


def _known(pose: Pose, database: Sequence[Shot]) -> int:
    """How many database photos look at the same place from a similar side and distance."""
    center, forward = pose.center_in_world, pose.rotation[2]
    reach = _reach(float(center[0]), float(center[1]), float(np.degrees(np.arctan2(forward[0], forward[1]))))
    target = center + reach * forward
    count = 0
    for shot in database:
        to_target = target - shot.pose.center_in_world
        distance = float(np.linalg.norm(to_target))
        to_target /= distance
        seen = float(to_target @ shot.pose.rotation[2]) > np.cos(np.radians(24))
        alike = float(to_target @ forward) > np.cos(np.radians(32)) and 0.5 < distance / reach < 2
        count += seen and alike
    return count


def _day_queries(size: Size, obstacles: Circles, database: Sequence[Shot]) -> list[Shot]:
    rng = np.random.default_rng(300)
    kinds = (
        ("query/day/milestone", "2011-12-17_14-28-{:02d}_257.jpg", 611.0, 0.0476, False),
        ("query/day/nexus4", "IMG_20140520_18{:04d}.jpg", 588.0, -0.0353, False),
        ("query/day/milestone", "2011-12-17_15-10-{:02d}_241.jpg", 607.0, -0.0018, True),
        ("query/day/nexus5x", "IMG_20161227_14{:04d}.jpg", 525.0, -0.022, False),
    )
    out = []
    for k, pose in enumerate(_query_poses(size, size.day, obstacles, database, start=301, rng=rng)):
        folder, pattern, focal, radial, portrait = kinds[k % len(kinds)]
        camera = _camera(size, focal, radial, portrait=portrait)
        weather = _DAY_WEATHERS[(k // 2) % len(_DAY_WEATHERS)]
        exposure = Exposure(
            gain=float(rng.uniform(0.8, 1.4)) * (1.35 if weather == "evening" else 1.0),
            white=(float(rng.uniform(0.94, 1.06)), 1.0, float(rng.uniform(0.92, 1.08))),
            noise=0.008,
            shake_px=float(rng.uniform(0, 1.6)),
            shake_deg=float(rng.uniform(0, 180)),
        )
        out.append(Shot(f"{folder}/{pattern.format(k)}", camera, pose, weather, exposure, 3000 + k))
    return out


def _night_queries(size: Size, obstacles: Circles, database: Sequence[Shot]) -> list[Shot]:
    """From the blue hour and a steady hand to a dark blur."""
    rng = np.random.default_rng(400)
    camera = _camera(size, 525, -0.022)
    out = []
    for k, pose in enumerate(_query_poses(size, size.night, obstacles, database, start=501, rng=rng)):
        folder, day = ("nexus5x", 27) if k % 2 == 0 else ("nexus5x_additional_night", 28)
        dusk = k % 7 in (0, 3, 5)
        hard = 0.0 if dusk else (0.4, 0.6, 0.85)[k % 3]
        exposure = Exposure(
            gain=2.4 - 1.0 * hard,
            white=(1.1, 1.0, 0.82),
            noise=0.012 + 0.07 * hard,
            shot=0.001 + 0.01 * hard,
            shake_px=0.8 + 6.0 * hard,
            shake_deg=float(rng.uniform(0, 180)),
            blur_px=0.3 + 1.2 * hard,
        )
        name = f"query/night/{folder}/IMG_201612{day}_18{k:04d}.jpg"
        out.append(Shot(name, camera, pose, "dusk" if dusk else "night", exposure, 4000 + k))
    return out
