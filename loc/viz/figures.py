"""Small pictures of the report: a query beside a reference with its inlier matches, and the plan."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from loc.conventions import center_from_corner, stored_from_upright_xy, upright_wh
from loc.errors import DataError
from loc.runtime.images import Photo, read_photo
from loc.types import Array, Pose

#: Largest size in px of one photo in a thumbnail.
THUMB_WH = (400, 300)
#: Lines drawn at most: more cover the photos instead of explaining them.
_MAX_LINES = 60
_GAP_PX = 8
_BACKGROUND = (28, 28, 31)
_JPEG_QUALITY = 82
#: Points of the map drawn in the plan at most.
_PLAN_POINTS = 1200
_PLAN_SIZE = 1000.0


@dataclass(frozen=True, eq=False)
class PhotoWithPoints:
    """A photo and the pixels to mark in it: ``(n, 2)`` stored px, corner origin."""

    path: Path
    xy: Float[Array, "n 2"]


@dataclass(frozen=True)
class PlanDot:
    """A place in the plan, in units of its width; ``kind`` is point, db, or a query's status."""

    x: float
    y: float
    kind: str
    name: str = ""
    heading_deg: float = 0.0


def pair_thumbnail(
    query: PhotoWithPoints, reference: PhotoWithPoints | None = None, rows: Int[Array, " k"] | None = None
) -> str | None:
    """JPEG as a data URI: the query with its points, beside it the reference, matches joined by lines.

    Args:
        rows: ``rows[i]`` is the row of ``query.xy`` that matches row ``i`` of ``reference.xy``.

    Returns:
        None if the query's photo cannot be read (any more).
    """
    left = _thumb_or_none(query)
    if left is None:
        return None
    right = None if reference is None else _thumb_or_none(reference)
    canvas, offset = _side_by_side(left[0], None if right is None else right[0])
    colors = _colors(left[1])
    if right is not None and rows is not None and len(rows):
        ends = right[1] + [offset, 0]
        _join(canvas, left[1][rows], ends, colors[rows])
        _mark(canvas, ends, colors[rows])
    _mark(canvas, left[1], colors)
    return _data_uri(canvas)


def upright_from_stored_xy(
    xy: Float[Array, "n 2"], *, stored_wh: tuple[int, int], exif_orientation: int
) -> Float[Array, "n 2"]:
    """Inverse of :func:`loc.conventions.stored_from_upright_xy`.

    >>> upright_from_stored_xy(np.array([[0., 3.]]), stored_wh=(4, 3), exif_orientation=6).tolist()
    [[0.0, 0.0]]
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    origin, *axes = stored_from_upright_xy(corners, stored_wh=stored_wh, exif_orientation=exif_orientation)
    linear = np.stack(axes, axis=1) - origin[:, None]
    return (
        np.asarray(xy, np.float64) - origin
    ) @ linear  # a signed permutation: its inverse is its transpose


def plan(
    db: dict[str, Pose], queries: Sequence[tuple[str, str, Pose]], xyz: Float[Array, "p 3"]
) -> tuple[list[PlanDot], float]:
    """The map from above: points, database cameras and localized queries, and height over width.

    "Above" is where the database cameras' upper edges point on average; their mean view is up.

    Args:
        queries: ``(name, status, pose)``.
        xyz: points of the map; a regular subset of at most 1200 is drawn.
    """
    if not db:
        return [], 0.0
    basis = _plan_basis(list(db.values()))
    points = np.asarray(xyz[:: max(1, -(-len(xyz) // _PLAN_POINTS))]) @ basis.T
    cameras = [(name, "db", pose) for name, pose in sorted(db.items())] + list(queries)
    centers = np.array([basis @ pose.center_in_world for _, _, pose in cameras])
    views = np.array([basis @ pose.rotation[2] for _, _, pose in cameras])
    trusted = np.array([kind in ("db", "ok") for _, kind, _ in cameras])
    low, high = _plan_box(centers[: len(db)], centers[trusted], points)
    scale = _PLAN_SIZE / (high[0] - low[0])
    inside = ((points >= low) & (points <= high)).all(axis=1)
    dots = [PlanDot(*_on_page(point, low, high, scale), "point") for point in points[inside]]
    for (name, kind, _), center, view in zip(cameras, centers, views, strict=True):
        if ((center >= low) & (center <= high)).all():
            x, y = _on_page(center, low, high, scale)
            dots.append(PlanDot(x, y, kind, name, round(float(np.degrees(np.arctan2(view[0], view[1]))), 1)))
    return dots, float((high[1] - low[1]) / (high[0] - low[0]))


def _plan_basis(poses: list[Pose]) -> Float[Array, "2 3"]:
    """World directions of the page's right and up."""
    down = np.mean([pose.rotation[1] for pose in poses], axis=0)
    norm = np.linalg.norm(down)
    down = down / norm if norm > 1e-6 else np.array([0.0, 1.0, 0.0])
    view = np.mean([pose.rotation[2] for pose in poses], axis=0)
    forward = view - (view @ down) * down
    if np.linalg.norm(forward) < 1e-3:  # cameras look all around, or straight down
        forward = np.cross(down, np.eye(3)[int(np.argmin(np.abs(down)))])
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(down, forward), forward])


def _plan_box(db: Array, trusted: Array, points: Array) -> tuple[Array, Array]:
    """Corners around the cameras one can trust and the bulk of the points, with a margin.

    A camera further away than the map is large stays outside: it would shrink everything else.
    """
    bulk = np.percentile(points, [2, 98], axis=0) if len(points) else db
    low, high = _extent(np.concatenate([db, bulk]))
    size = max(float((high - low).max()), 1e-9)
    near = trusted[((trusted >= low - size) & (trusted <= high + size)).all(axis=1)]
    low, high = _extent(np.concatenate([near, bulk]))
    size = max(float((high - low).max()), 1e-9)
    middle = (low + high) / 2
    half = np.maximum((high - low) / 2, size / 4) + 0.06 * size
    return middle - half, middle + half


def _extent(xy: Array) -> tuple[Array, Array]:
    return xy.min(axis=0), xy.max(axis=0)


def _on_page(point: Array, low: Array, high: Array, scale: float) -> tuple[float, float]:
    x, y = (point[0] - low[0]) * scale, (high[1] - point[1]) * scale
    return round(float(x), 1), round(float(y), 1)


def _thumb_or_none(photo: PhotoWithPoints) -> tuple[UInt8[Array, "h w 3"], Float[Array, "n 2"]] | None:
    try:
        small = _small(photo.path)
    except DataError:
        return None
    upright = upright_from_stored_xy(
        photo.xy.reshape(-1, 2), stored_wh=small.stored_wh, exif_orientation=small.exif_orientation
    )
    full_wh = upright_wh(small.stored_wh, small.exif_orientation)
    height, width = small.pixels.shape[:2]
    return small.pixels, upright * [width / full_wh[0], height / full_wh[1]]


@lru_cache(maxsize=64)
def _small(path: Path) -> Photo:
    """A photo shrunk to a thumbnail, upright; references are used again and again."""
    import cv2

    photo = read_photo(path, color="rgb")
    height, width = photo.pixels.shape[:2]
    factor = min(THUMB_WH[0] / width, THUMB_WH[1] / height, 1.0)
    wh = max(1, round(width * factor)), max(1, round(height * factor))
    pixels = cv2.resize(photo.pixels, wh, interpolation=cv2.INTER_AREA)
    return Photo(pixels, photo.stored_wh, photo.exif_orientation)


def _side_by_side(left: Array, right: Array | None) -> tuple[Array, int]:
    """Both on one canvas, and the column where the right one begins."""
    offset = left.shape[1] + _GAP_PX
    height = max(left.shape[0], 0 if right is None else right.shape[0])
    width = left.shape[1] if right is None else offset + right.shape[1]
    canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    if right is not None:
        canvas[: right.shape[0], offset:] = right
    return canvas, offset


def _colors(xy: Float[Array, "n 2"]) -> UInt8[Array, "n 3"]:
    """A hue per point by its place, so that the eye can follow a line."""
    import cv2

    if not len(xy):
        return np.zeros((0, 3), np.uint8)
    order = np.argsort(np.argsort(xy[:, 0], kind="stable"), kind="stable")
    hsv = np.full((1, len(xy), 3), 255, np.uint8)
    hsv[0, :, 0] = order * 150 // len(xy)
    hsv[0, :, 1] = 190
    converted: Array = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    return converted


def _mark(canvas: Array, xy: Array, colors: Array) -> None:
    import cv2

    for point, color in zip(_sixteenths(xy), colors.tolist(), strict=True):
        cv2.circle(canvas, point, 3 * 16, (20, 20, 20), -1, cv2.LINE_AA, shift=4)
        cv2.circle(canvas, point, 2 * 16, color, -1, cv2.LINE_AA, shift=4)


def _join(canvas: Array, left: Array, right: Array, colors: Array) -> None:
    """Half-transparent lines between matching points, a regular subset from left to right."""
    import cv2

    order = np.argsort(left[:, 0], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _MAX_LINES).astype(int))] if len(order) else order
    drawn = canvas.copy()
    starts, ends, shades = _sixteenths(left), _sixteenths(right), colors.tolist()
    for row in chosen.tolist():
        cv2.line(drawn, starts[row], ends[row], shades[row], 1, cv2.LINE_AA, shift=4)
    canvas[:] = cv2.addWeighted(drawn, 0.65, canvas, 0.35, 0)


def _sixteenths(xy: Array) -> list[tuple[int, int]]:
    """Corner-origin pixels as OpenCV draws them: centre origin, fixed point."""
    fixed = np.round(center_from_corner(np.asarray(xy, np.float64)) * 16).astype(int)
    return [(int(x), int(y)) for x, y in fixed]


def _data_uri(canvas: Array) -> str:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(canvas[:, :, ::-1]), options)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
