"""The map from above: points in their colours, database cameras, queries, and their errors."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from loc.types import Array, Pose
from loc.viz.ground import bulk_box, down_direction, ground_axes

#: Width of the page in SVG units; heights follow from the map, within these limits.
WIDTH = 1000.0
_MIN_HEIGHT, _MAX_HEIGHT = 280.0, 760.0
#: Pixels of the picture of the points per SVG unit.
_SHARPNESS = 1.6
_MAX_POINTS = 300_000
_MARGIN = 0.06
#: Tones that show on a white and on a black page.
_DARKEST, _BRIGHTEST = 70.0, 190.0


@dataclass(frozen=True)
class PlanQuery:
    """A query to draw; without a pose it is drawn at its true place, if that is known."""

    name: str
    status: str
    group: str
    pose: Pose | None = None
    truth: Pose | None = None
    wrong: bool = False


@dataclass(frozen=True)
class PlanMark:
    """A query on the page: SVG units, degrees clockwise from up.

    Attributes:
        kind: ``ok`` or ``doubtful`` (a pose), ``failed`` (no pose: its true place).
        true_xy: end of its error line, where the error is long enough to be seen.
    """

    query: PlanQuery
    kind: str
    x: float
    y: float
    heading_deg: float
    true_xy: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """The page, ready for the template.

    Attributes:
        points: data URI of the picture of the points, of the size of the page; None without points.
        cameras: ``d`` of one SVG path with a triangle per database camera.
        marks: queries; those that failed come last, so that they lie on top.
        outside: names of queries whose place is beyond the page's edge.
        bar: length of the scale bar in world units, and in SVG units.
    """

    height: float
    points: str | None
    cameras: str
    num_cameras: int
    marks: tuple[PlanMark, ...] = ()
    outside: tuple[str, ...] = ()
    bar: tuple[float, float] = (1.0, 100.0)
    size: float = field(default=10.0)


def draw_plan(
    db: Sequence[Pose],
    queries: Sequence[PlanQuery],
    xyz: Float[Array, "p 3"],
    rgb: UInt8[Array, "p 3"] | None = None,
) -> Plan | None:
    """The map from above, or None where there is nothing to lay out.

    Down is where most cameras' lower edges point (:func:`loc.viz.ground.down_direction`); the page is
    as large as the database cameras, the queries that are not lost far away and the bulk of the points.

    Args:
        db: poses of the registered images.
        xyz: points of the map, world units; at most 300 000 are drawn.
        rgb: their colours; grey without.
    """
    if not db:
        return None
    step = max(1, -(-len(xyz) // _MAX_POINTS))
    some = np.asarray(xyz[::step], np.float64)
    centers = np.array([pose.center_in_world for pose in db])
    axes = ground_axes(down_direction(db), _middle(centers, some), db)
    page = _Page.around(axes, centers, some, queries)
    size = float(np.clip(150 / math.sqrt(len(db) + len(queries)), 5, 13))
    marks = [mark for query in queries if (mark := _mark(page, query)) is not None]
    order = {"ok": 0, "doubtful": 1, "failed": 2}
    marks.sort(key=lambda mark: (order[mark.kind], mark.query.wrong, mark.query.name))
    drawn = {mark.query.name for mark in marks}
    return Plan(
        height=page.height,
        points=None if not len(some) else _picture(page, some, None if rgb is None else rgb[::step]),
        cameras="".join(_triangle(page, pose, size) for pose in db),
        num_cameras=len(db),
        marks=tuple(marks),
        outside=tuple(each.name for each in queries if (each.pose or each.truth) and each.name not in drawn),
        bar=_scale_bar(page.scale),
        size=size,
    )


@dataclass(frozen=True, eq=False)
class _Page:
    """The mapping from the world to the page: ``axes`` are the page's right and up."""

    axes: Float[Array, "2 3"]
    low: Float[Array, "2"]
    scale: float
    height: float

    @staticmethod
    def around(axes: Array, centers: Array, xyz: Array, queries: Sequence[PlanQuery]) -> _Page:
        flat = centers @ axes.T
        bulk = _bulk(xyz @ axes.T, flat) if len(xyz) else flat
        low, high = _extent(np.concatenate([flat, bulk]))
        reach = max(float((high - low).max()), 1e-9) / 2
        poses = [each.truth or each.pose for each in queries if each.truth or each.status == "ok"]
        others = (
            np.array([pose.center_in_world for pose in poses if pose is not None]).reshape(-1, 3) @ axes.T
        )
        near = others[((others > low - reach) & (others < high + reach)).all(axis=1)]
        low, high = _extent(np.concatenate([flat, bulk, near]))
        size = max(float((high - low).max()), 1e-9)
        low, high = low - _MARGIN * size, high + _MARGIN * size
        scale = WIDTH / max(high[0] - low[0], 1e-9)
        height = float(high[1] - low[1]) * scale
        if height > _MAX_HEIGHT:
            scale *= _MAX_HEIGHT / height
        wanted = np.array([WIDTH, float(np.clip(height, _MIN_HEIGHT, _MAX_HEIGHT))]) / scale
        return _Page(axes, (low + high) / 2 - wanted / 2, scale, float(wanted[1] * scale))

    def xy(self, world: Array) -> Float[Array, "n 2"]:
        """SVG units of ``(n, 3)`` world points."""
        flat = (np.atleast_2d(world) @ self.axes.T - self.low) * self.scale
        return np.stack([flat[:, 0], self.height - flat[:, 1]], axis=1)

    def heading_deg(self, pose: Pose) -> float:
        view = self.axes @ pose.rotation[2]
        return round(float(np.degrees(np.arctan2(view[0], view[1]))), 1)

    def holds(self, xy: Array) -> bool:
        return bool((xy >= 0).all() and xy[0] <= WIDTH and xy[1] <= self.height)


def _mark(page: _Page, query: PlanQuery) -> PlanMark | None:
    """The query on the page; None where it has no place on it."""
    pose = query.pose or query.truth
    if pose is None:
        return None
    xy = page.xy(pose.center_in_world)[0]
    if not page.holds(xy):
        return None
    kind = "failed" if query.pose is None else query.status
    true_xy = None
    if query.pose is not None and query.truth is not None:
        end = page.xy(query.truth.center_in_world)[0]
        if np.linalg.norm(end - xy) > 3:
            true_xy = (round(float(end[0]), 1), round(float(end[1]), 1))
    x, y = round(float(xy[0]), 1), round(float(xy[1]), 1)
    return PlanMark(query, kind, x, y, page.heading_deg(pose), true_xy)


def _triangle(page: _Page, pose: Pose, size: float) -> str:
    """A triangle that opens where the camera looks."""
    angle = math.radians(page.heading_deg(pose))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shape = np.array([[0.0, 0.3], [-0.55, -1.0], [0.55, -1.0]]) * size
    a, b, c = (page.xy(pose.center_in_world) + shape @ turn.T).round(1).tolist()
    return f"M{a[0]:g} {a[1]:g}L{b[0]:g} {b[1]:g} {c[0]:g} {c[1]:g}Z"


def _picture(page: _Page, xyz: Array, rgb: Array | None) -> str:
    """Points as soft dots on a transparent ground: the fewer there are, the larger each is."""
    import cv2

    wh = round(WIDTH * _SHARPNESS), max(1, round(page.height * _SHARPNESS))
    cells = np.floor(page.xy(xyz) * _SHARPNESS).astype(np.int64)
    inside = ((cells >= 0) & (cells < wh)).all(axis=1)
    at = cells[inside, 1] * wh[0] + cells[inside, 0]
    colors = np.full((len(at), 3), 128.0) if rgb is None else rgb[inside].astype(np.float64)
    layers = np.zeros((wh[1], wh[0], 4), np.float32)
    for channel, values in enumerate([*_toned(colors).T, np.ones(len(at))]):
        summed = np.bincount(at, weights=values, minlength=wh[0] * wh[1])
        layers[:, :, channel] = summed.reshape(wh[1], wh[0])
    radius = float(np.clip(0.09 * math.sqrt(wh[0] * wh[1] / max(len(at), 1)), 0.9, 2.6))
    layers = cv2.GaussianBlur(layers, (0, 0), radius)
    weight = layers[:, :, 3:]
    alpha = 1 - np.exp(-weight * (5 * math.pi * radius**2))
    picture = np.concatenate([layers[:, :, 2::-1] / np.maximum(weight, 1e-6), 255 * alpha], axis=2)
    picture[weight[:, :, 0] < 1e-3] = 0
    _, encoded = cv2.imencode(".webp", picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 70])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _toned(colors: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """The colours with their brightness brought between two tones, hue and saturation kept."""
    bright = colors @ [0.299, 0.587, 0.114]
    wanted = _DARKEST + bright * ((_BRIGHTEST - _DARKEST) / 255)
    return (colors + (wanted - bright)[:, None]).clip(0, 255)


def _scale_bar(scale: float) -> tuple[float, float]:
    """The round length (1, 2 or 5 times a power of ten) nearest below a seventh of the page."""
    length = WIDTH / 7 / scale
    power = 10.0 ** math.floor(math.log10(length))
    rounded = max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))
    return rounded, round(rounded * scale, 1)


def _middle(centers: Array, xyz: Array) -> Array:
    """Cameras and the bulk of the points: what decides how the page is turned."""
    if not len(xyz):
        return centers
    low, high = bulk_box(xyz)
    return np.concatenate([centers, xyz[((xyz >= low) & (xyz <= high)).all(axis=1)]])


def _bulk(xy: Array, cameras: Array) -> Array:
    """Corners around most points, cut where they are far away for what the cameras look at."""
    low, high = _extent(cameras)
    seen = float(np.median(np.linalg.norm(xy - (low + high) / 2, axis=1)))
    reach = 2 * max(float((high - low).max()), seen)
    return np.stack(bulk_box(xy)).clip(low - reach, high + reach)


def _extent(xy: Array) -> tuple[Array, Array]:
    return xy.min(axis=0), xy.max(axis=0)
