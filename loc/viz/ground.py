"""Which way is down, and how the ground is laid on a page: from the cameras alone, robustly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from loc.types import Array, Pose

#: Cameras whose lower edges agree less than this on average are not held upright (they look straight
#: down, or their photos are stored in all orientations): then only what their sideways axes say counts.
_AGREE = 0.5
#: Spread of the sideways axes (share of their second direction) above which they fix the vertical: people
#: hold cameras level but tip them, so the plane of these axes is the ground even if all look down on it.
_SPREAD = 0.05
#: Cosine of the angle by which cameras may all be tipped (72 degrees).
_TIPPED = 0.3
_TURNS = 50
#: Turns of the page that are tried so that walls lie along it.
_ANGLES_DEG = tuple(float(degrees) for degrees in range(0, 90, 2))


def down_direction(poses: Sequence[Pose]) -> Float[Array, "3"]:
    """Unit vector in the world that points down, as most of the cameras were held.

    A minority of photos that are stored lying on their side, or were taken upside down, does not change
    it: the start is the geometric median of the cameras' lower edges, and what refines it is the plane
    of the sideways axes of those that agree with it.

    >>> down_direction([])
    array([0., 1., 0.])
    """
    if not poses:
        return np.array([0.0, 1.0, 0.0])
    rotations = np.array([pose.rotation for pose in poses])
    sideways, lower, forward = rotations[:, 0], rotations[:, 1], rotations[:, 2]
    median = _geometric_median(lower)
    norm = float(np.linalg.norm(median))
    if norm < _AGREE:
        normal, spread = _plane(sideways)
        if spread < _SPREAD:
            return _unit(median) if norm > 1e-6 else np.array([0.0, 1.0, 0.0])
        toward = lower.mean(axis=0) + forward.mean(axis=0)  # aerial photos look at the ground
        return normal if normal @ toward >= 0 else -normal
    down = _unit(median)
    normal, spread = _plane(sideways[lower @ down > _AGREE])
    if spread > _SPREAD and abs(normal @ down) > _TIPPED:
        down = normal if normal @ down > 0 else -normal
    return down


def ground_axes(
    down: Float[Array, "3"], xyz: Float[Array, "n 3"], poses: Sequence[Pose]
) -> Float[Array, "2 3"]:
    """World directions of a page's right and up, seen from above.

    Walls lie along the page, the longer extent of ``xyz`` across it, and most cameras look up it.
    """
    east = _unit(np.cross(down, np.eye(3)[int(np.argmin(np.abs(down)))]))
    axes = _turned(np.stack([east, np.cross(east, down)]), down, 0.0)
    if len(xyz) > 2:
        flat = (xyz - np.median(xyz, axis=0)) @ axes.T
        axes = _turned(axes, down, max(_ANGLES_DEG, key=lambda degrees: _sharpness(flat, degrees)))
        low, high = bulk_box(xyz @ axes.T)
        if (high - low)[1] > (high - low)[0]:
            axes = _turned(axes, down, 90.0)
    if poses and axes[1] @ np.sum([pose.rotation[2] for pose in poses], axis=0) < 0:
        axes = -axes
    return axes


def _turned(axes: Float[Array, "2 3"], down: Float[Array, "3"], degrees: float) -> Float[Array, "2 3"]:
    """The page's axes after a turn about the vertical."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    right = c * axes[0] + s * axes[1]
    return np.stack([right, np.cross(right, down)])


def _sharpness(flat: Float[Array, "n 2"], degrees: float) -> float:
    """How much the points gather in lines along the axes of a page turned so: sums of squared counts."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    reach = float(np.percentile(np.linalg.norm(flat, axis=1), 95)) or 1.0
    bins = np.linspace(-reach, reach, 129)
    some = flat[:: max(1, len(flat) // 20_000)]
    turned = some @ np.array([[c, -s], [s, c]])
    return float(sum((np.histogram(column, bins)[0] ** 2).sum() for column in turned.T))


def bulk_box(
    xyz: Float[Array, "n d"], *, low: float = 2.0, high: float = 98.0
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Corners of a box around most of the points: stray points of a map lie kilometres away."""
    bounds = np.percentile(xyz, [low, high], axis=0)
    return bounds[0], bounds[1]


def _geometric_median(vectors: Float[Array, "n 3"]) -> Float[Array, "3"]:
    """Weiszfeld's iteration: the point with the least sum of distances; half the vectors may be wrong."""
    median: Array = vectors.mean(axis=0)
    for _ in range(_TURNS):
        weights = 1.0 / np.maximum(np.linalg.norm(vectors - median, axis=1), 1e-9)
        median = (weights[:, None] * vectors).sum(axis=0) / weights.sum()
    return median


def _plane(vectors: Float[Array, "n 3"]) -> tuple[Float[Array, "3"], float]:
    """Normal of the plane through the origin that the vectors lie in, and how far they span it."""
    _, values, rows = np.linalg.svd(vectors.T @ vectors)
    return rows[2], float((values[1] - values[2]) / max(values.sum(), 1e-12))


def _unit(vector: Float[Array, "3"]) -> Float[Array, "3"]:
    return vector / np.linalg.norm(vector)
