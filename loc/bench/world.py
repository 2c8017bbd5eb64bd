"""A round square seen from inside, made of numbers: for benchmarks that need geometry but no photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loc.colmap import pycolmap
from loc.sfm.index import PointIndex
from loc.types import Array, Camera, Matches, Pose

CAMERA = Camera("SIMPLE_RADIAL", 1600, 1200, np.array([1400.0, 800.0, 600.0, 0.05]))
_RADIUS, _HEIGHT, _RELIEF = 20.0, 12.0, 1.0
#: Photographers stand this near to the centre.
_STANDS = 8.0
_NOISE_PX = 0.5


@dataclass(frozen=True, eq=False)
class View:
    """A photo's keypoints ``xy (n, 2)`` float32 px; ``points (n,)``: row of the point each shows, or -1."""

    name: str
    pose: Pose
    xy: Array
    points: Array


@dataclass(frozen=True, eq=False)
class World:
    """``xyz (p, 3)`` float64 points on a wall with relief, and views of it, sorted by name."""

    xyz: Array
    views: tuple[View, ...]

    def index(self, names: int) -> PointIndex:
        """The index of a map of the first ``names`` views that knows every point."""
        views = self.views[:names]
        rows = np.concatenate([view.points for view in views]).astype(np.int32)
        return PointIndex(
            names=tuple(view.name for view in views),
            offsets=np.cumsum([0, *(len(view.points) for view in views)], dtype=np.int64),
            rows=rows,
            xyz=self.xyz,
            point_ids=np.arange(1, len(self.xyz) + 1, dtype=np.int64),
            track_lengths=np.bincount(rows[rows >= 0], minlength=len(self.xyz)).astype(np.int32),
        )


def make_world(*, views: int, points: int, clutter: int, seed: int = 0) -> World:
    """A world of ``points`` points; each view sees a sixth of them, and ``clutter`` keypoints of nothing."""
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, points)
    radius = _RADIUS + generator.uniform(0, _RELIEF, points)
    height = generator.uniform(0, _HEIGHT, points)
    xyz = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    return World(xyz, tuple(_view(f"{n:05d}.jpg", xyz, clutter, generator) for n in range(views)))


def match_views(first: View, second: View, *, kept: float, wrong: float, seed: int) -> Matches:
    """Matches of two views: a share ``kept`` of the points that both see, and a share ``wrong`` of errors."""
    generator = np.random.default_rng(seed)
    mine, theirs = np.flatnonzero(first.points >= 0), np.flatnonzero(second.points >= 0)
    _, a, b = np.intersect1d(first.points[mine], second.points[theirs], return_indices=True)
    chosen = generator.random(len(a)) < kept
    rows0, rows1 = mine[a[chosen]], theirs[b[chosen]]
    count = round(wrong * len(rows0))
    free = np.setdiff1d(np.arange(len(first.points)), rows0)
    rows0 = np.concatenate([rows0, generator.permutation(free)[:count]])
    rows1 = np.concatenate([rows1, generator.integers(0, len(second.points), min(count, len(free)))])
    indices = np.column_stack([rows0, rows1]).astype(np.int32)
    indices = indices[np.lexsort((indices[:, 1], indices[:, 0]))]
    return Matches(indices, np.ones(len(indices), np.float32))


def common_points(views: tuple[View, ...], view: View, points: int) -> Array:
    """``(len(views),)`` how many points each shares with ``view``."""
    seen = np.zeros(points, bool)
    seen[view.points[view.points >= 0]] = True
    return np.array([int(seen[other.points[other.points >= 0]].sum()) for other in views])


def _view(name: str, xyz: Array, clutter: int, generator: np.random.Generator) -> View:
    yaw, bearing = generator.uniform(0, 2 * np.pi, 2)
    reach = _STANDS * np.sqrt(generator.random())
    center = np.array([reach * np.cos(bearing), reach * np.sin(bearing), 0.5 * _HEIGHT])
    c, s = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[s, -c, 0.0], [0.0, 0.0, -1.0], [c, s, 0.0]])  # right, down, forward
    rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), -rotation @ center)
    in_camera = xyz @ rotation.T + rigid.translation
    x, y = in_camera[:, 0] / in_camera[:, 2], in_camera[:, 1] / in_camera[:, 2]
    focal, cx, cy, k = CAMERA.params
    factor = focal * (1 + k * (x * x + y * y))
    px = np.column_stack([factor * x + cx, factor * y + cy])
    inside = (in_camera[:, 2] > 1) & (px > 0).all(1) & (px < CAMERA.image_wh).all(1)
    rows = np.flatnonzero(inside)
    xy = np.concatenate(
        [
            px[rows] + generator.normal(0, _NOISE_PX, (len(rows), 2)),
            generator.uniform((0, 0), CAMERA.image_wh, (clutter, 2)),
        ]
    )
    shuffled = generator.permutation(len(xy))
    points = np.concatenate([rows, np.full(clutter, -1)])[shuffled]
    return View(name, Pose(rigid.rotation.quat, rigid.translation), xy[shuffled].astype(np.float32), points)
