"""What the 3-D view shows, as plain arrays: points, frusta, rays, and where to look from.

Pure geometry: nothing here needs Open3D or a display.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from loc.types import Array, Camera, Pose
from loc.viz.ground import bulk_box, down_direction, ground_axes
from loc.viz.palette import group_keys, rgb

ViewName = Literal["top", "oblique", "query"]
VIEWS: tuple[ViewName, ...] = ("top", "oblique", "query")
#: Points drawn at most, and rays; regular subsets.
MAX_POINTS, MAX_RAYS = 1_000_000, 120
_FOV_DEG = 40.0
_ELEVATION_DEG = 32.0
#: Points further outside the bulk of the map than this, in sizes of the bulk, are not drawn.
_STRAY = 0.6


@dataclass(frozen=True)
class ShownQuery:
    """A query with its pose; without one it is drawn at its true pose, if that is known.

    Attributes:
        camera: None where the photo could not be read; then nothing is drawn.
        inliers: ``(i, 3)`` world points its pose rests on, or None.
    """

    name: str
    group: str
    status: str
    pose: Pose | None
    camera: Camera | None
    truth: Pose | None = None
    inliers: Float64[Array, "i 3"] | None = None


@dataclass(frozen=True, eq=False)
class Lines:
    """Line segments of one colour.

    Attributes:
        name: what they are, as the legend and the viewer's list call it.
        count: cameras, or rays.
        ends: ``(2 s, 3)`` float32 world units; rows ``2 i`` and ``2 i + 1`` are a segment.
        color: RGB in [0, 1].
        width_px: of the lines, in a picture 1600 px wide.
    """

    name: str
    count: int
    ends: Float32[Array, "e 3"]
    color: tuple[float, float, float]
    width_px: float = 1.5


@dataclass(frozen=True, eq=False)
class View:
    """Where the viewer's camera stands: world units, degrees (vertical field of view)."""

    eye: Float64[Array, "3"]
    target: Float64[Array, "3"]
    up: Float64[Array, "3"]
    fov_deg: float = _FOV_DEG


@dataclass(frozen=True, eq=False)
class Drawing:
    """Everything to draw.

    Attributes:
        xyz: ``(p, 3)`` float32; strays far outside the map are left out.
        colors: ``(p, 3)`` uint8 RGB.
        frame: ``(f, 3)`` what a picture should hold: cameras and the bulk of the points.
        down: unit vector; ``axes``: right and up of the ground seen from above.
        inliers: ``(i, 3)`` float32: the points that the chosen query's pose rests on.
        focus: the chosen query, or None.
    """

    xyz: Float32[Array, "p 3"]
    colors: UInt8[Array, "p 3"]
    lines: tuple[Lines, ...]
    frame: Float64[Array, "f 3"]
    down: Float64[Array, "3"]
    axes: Float64[Array, "2 3"]
    inliers: Float32[Array, "i 3"]
    focus: ShownQuery | None = None


def draw_scene(
    db: Mapping[str, tuple[Pose, Camera]],
    queries: Sequence[ShownQuery],
    points: tuple[Float64[Array, "p 3"], UInt8[Array, "p 3"]],
    *,
    focus: str | None = None,
) -> Drawing:
    """Points, frusta by kind (database, each group of queries, failed), and the rays of one query.

    Args:
        db: registered image → pose and camera.
        points: world points and their colours; at most a million are drawn.
        focus: name of the query whose inliers are joined to it.
    """
    poses = [pose for pose, _ in db.values()]
    step = max(1, -(-len(points[0]) // MAX_POINTS))
    xyz, colors = np.asarray(points[0][::step], np.float64), np.asarray(points[1][::step])
    centers = np.array([pose.center_in_world for pose in poses]).reshape(-1, 3)
    keep = _near(xyz, centers)
    xyz, colors = xyz[keep], colors[keep]
    bulk = _bulk(xyz)
    down = down_direction(poses)
    chosen = next((query for query in queries if query.name == focus), None)
    frame = _frame(bulk, centers, queries)
    size = _frustum_size(centers, frame)
    return Drawing(
        xyz.astype(np.float32),
        colors,
        (*_frusta(db, queries, size, focus), *_rays(chosen)),
        frame,
        down,
        ground_axes(down, frame, poses),
        _inliers(chosen).astype(np.float32),
        chosen,
    )


def place_camera(drawing: Drawing, view: ViewName, *, aspect: float) -> View:
    """Where to look from so that the picture holds the map.

    ``top`` looks down on it; ``oblique`` stands behind and above most cameras; ``query`` stands
    behind the chosen query and looks where it looks.

    Args:
        aspect: width over height of the picture.
    """
    up, ahead = -drawing.down, drawing.axes[1]
    if view == "query" and drawing.focus is not None:
        return _behind(drawing.focus, drawing, up)
    if view == "top":
        return _fitted(drawing.frame, drawing.down, ahead, aspect)
    angle = math.radians(_ELEVATION_DEG)
    return _fitted(drawing.frame, math.cos(angle) * ahead - math.sin(angle) * up, up, aspect)


def frustum(pose: Pose, camera: Camera, depth: float) -> Float32[Array, "e 3"]:
    """Segments of a camera's pyramid with its image plane at ``depth``, and a mark on its upper edge."""
    half = depth * np.array([camera.width, camera.height]) / (2 * camera.focal_px)
    half *= min(1.0, 1.2 * depth / float(half.max()))  # a very wide lens stays in proportion
    x, y = half
    corners = np.array([[-x, -y, depth], [x, -y, depth], [x, y, depth], [-x, y, depth]])
    tip = np.array([0.0, -1.35 * y, depth])
    apex = np.zeros(3)
    pairs = [(apex, corner) for corner in corners]
    pairs += [(corners[i], corners[(i + 1) % 4]) for i in range(4)]
    pairs += [(corners[0], tip), (tip, corners[1])]
    in_camera = np.array([end for pair in pairs for end in pair])
    return ((in_camera - pose.translation) @ pose.rotation).astype(np.float32)


def _frusta(
    db: Mapping[str, tuple[Pose, Camera]], queries: Sequence[ShownQuery], size: float, focus: str | None
) -> list[Lines]:
    """One set per kind. Where one query is chosen, it is larger."""
    sets = [("database", "db", [frustum(*db[name], size) for name in sorted(db)], 1.2)]

    def drawn(query: ShownQuery, pose: Pose | None) -> list[Array]:
        if pose is None or query.camera is None:
            return []
        return [frustum(pose, query.camera, size * (2.2 if query.name == focus else 1.25))]

    for group, key in group_keys(query.group for query in queries).items():
        parts = [part for query in queries if query.group == group for part in drawn(query, query.pose)]
        sets.append((f"{group} queries" if group != "all" else "queries", key, parts, 2.4))
    failed = [part for query in queries if query.pose is None for part in drawn(query, query.truth)]
    sets.append(("failed, at the true pose", "failed", failed, 2.4))
    return [
        Lines(name, len(parts), np.concatenate(parts), rgb(key), width)
        for name, key, parts, width in sets
        if parts
    ]


def _rays(query: ShownQuery | None) -> list[Lines]:
    seen = _inliers(query)
    if query is None or query.pose is None or not len(seen):
        return []
    chosen = seen[:: max(1, -(-len(seen) // MAX_RAYS))]
    ends = np.empty((2 * len(chosen), 3), np.float32)
    ends[0::2], ends[1::2] = query.pose.center_in_world, chosen
    return [Lines("inlier rays", len(chosen), ends, rgb("ray"), 0.8)]


def _inliers(query: ShownQuery | None) -> Array:
    if query is None or query.pose is None or query.inliers is None:
        return np.zeros((0, 3))
    return np.asarray(query.inliers)


def _near(xyz: Array, centers: Array) -> Array:
    """Which points are not strays: near the bulk, or between the cameras."""
    if not len(xyz):
        return np.zeros(0, bool)
    low, high = bulk_box(xyz, low=5, high=95)
    margin = _STRAY * float((high - low).max())
    if len(centers):
        low, high = np.minimum(low, centers.min(axis=0)), np.maximum(high, centers.max(axis=0))
    near: Array = ((xyz >= low - margin) & (xyz <= high + margin)).all(axis=1)
    return near


def _bulk(xyz: Array) -> Array:
    """The points without the outer percents of each axis; a picture is framed by these."""
    if not len(xyz):
        return xyz
    low, high = bulk_box(xyz)
    kept: Array = xyz[((xyz >= low) & (xyz <= high)).all(axis=1)]
    return kept[:: max(1, len(kept) // 5000)]


def _frame(bulk: Array, centers: Array, queries: Sequence[ShownQuery]) -> Array:
    """The bulk, the database cameras, and queries that one can trust and that are not far away."""
    fixed = np.concatenate([bulk, centers]) if len(bulk) or len(centers) else np.zeros((1, 3))
    low, high = fixed.min(axis=0), fixed.max(axis=0)
    reach = max(float((high - low).max()), 1e-9) / 2
    poses = [query.pose if query.status == "ok" else query.truth for query in queries]
    others = np.array([pose.center_in_world for pose in poses if pose is not None]).reshape(-1, 3)
    near = others[((others > low - reach) & (others < high + reach)).all(axis=1)]
    return np.concatenate([fixed, near])


def _frustum_size(centers: Array, frame: Array) -> float:
    """Depth of the pyramids: about the distance to the next camera, in proportion to the whole."""
    whole = max(float(np.linalg.norm(np.ptp(frame, axis=0))), 1e-9)
    if len(centers) < 2:
        return 0.04 * whole
    some = centers[:: max(1, len(centers) // 1000)]
    apart = np.linalg.norm(some[:, None] - some[None], axis=2)
    apart[apart < 1e-9] = np.inf
    nearest = apart.min(axis=1)
    typical = float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else whole
    return float(np.clip(0.5 * typical, 0.015 * whole, 0.045 * whole))


def _fitted(frame: Array, forward: Array, up: Array, aspect: float) -> View:
    """A camera that looks along ``forward`` from as near as still holds all of ``frame``."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    upward = np.cross(right, forward)
    middle = (frame.min(axis=0) + frame.max(axis=0)) / 2
    local = (frame - middle) @ np.stack([right, upward, forward], axis=1)
    tangent = math.tan(math.radians(_FOV_DEG) / 2) * 0.94  # a margin around the edge
    slopes = np.array([tangent * aspect, tangent])
    # Per axis: the eye that sees both extreme points at the edges of the picture.
    depth, offset = 0.0, np.zeros(2)
    for axis, slope in enumerate(slopes):
        high = float((local[:, axis] / slope - local[:, 2]).max())
        low = float((-local[:, axis] / slope - local[:, 2]).max())
        offset[axis] = slope * (high - low) / 2
        depth = max(depth, (high + low) / 2)
    depth = max(depth, 1e-6 - float(local[:, 2].min()))
    shift = offset[0] * right + offset[1] * upward
    eye = middle + shift - depth * forward
    return View(eye, eye + forward * max(depth, 1e-6), upward)


def _behind(query: ShownQuery, drawing: Drawing, up: Array) -> View:
    """Behind and a little above the query, looking at what it sees."""
    pose = query.pose or query.truth
    if pose is None:
        return _fitted(drawing.frame, drawing.axes[1], up, 1.0)
    center, forward = pose.center_in_world, pose.rotation[2]
    seen = drawing.inliers if len(drawing.inliers) else drawing.xyz
    distance = float(np.median(np.linalg.norm(seen - center, axis=1))) if len(seen) else 1.0
    target = center + 0.7 * distance * forward
    side = np.cross(forward, up)
    return View(
        center - 0.45 * distance * forward + 0.25 * distance * up + 0.18 * distance * side, target, up
    )
