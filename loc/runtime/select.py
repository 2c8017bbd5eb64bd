"""Choosing k of n keypoints so that they cover the image: for methods without a detection score.

The best k by scale, or the first k, pile up where the texture is; a pose wants points from edge to
edge. One total order serves every k, so a smaller cap gives a prefix of a larger one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64, Shaped

Array = np.ndarray

#: The image is cut into 2^level x 2^level cells, level 1 to this. At 9 a cell of a 1600 px photo is
#: 3 px wide and nearly every point has its own; the few that have not come last, by priority.
_LEVELS = 9


def spatially_even(
    xy: Float[Array, "n 2"], priority: Shaped[Array, " n"], image_wh: tuple[int, int], k: int | None = None
) -> Int64[Array, " m"]:
    """Indices of ``min(k, n)`` points spread over the image, in an order whose prefixes are spread too.

    A grid is refined step by step; each step adds, in every cell that has points, the one of highest
    priority. Points first chosen at the same step are ordered by priority, equal priorities by index.

    Args:
        xy: pixels, corner origin.
        priority: preferred within a cell where larger; any numeric dtype, not NaN.
        image_wh: size of the image in px.
        k: how many at most; None orders all.

    Returns:
        ``(min(k, n),)`` int64. The result for a smaller ``k`` is a prefix of that for a larger one.
    """
    n = len(xy)
    if n == 0:
        return np.zeros(0, np.int64)
    by_priority = np.argsort(-np.asarray(priority, dtype=np.float64), kind="stable")
    points = xy[by_priority]
    step = np.full(n, _LEVELS + 1, np.int64)
    for level in range(_LEVELS, 0, -1):
        step[_first_in_cell(points, image_wh, 2**level)] = level
    order = by_priority[np.argsort(step, kind="stable")]
    return order[:k].astype(np.int64, copy=False)


def coverage(xy: Float[Array, "n 2"], image_wh: tuple[int, int], cells: int = 16) -> float:
    """Fraction in [0, 1] of the cells of a ``cells`` x ``cells`` grid that hold at least one point."""
    return len(np.unique(_cell_of(xy, image_wh, cells))) / cells**2


def _first_in_cell(points: Float[Array, "n 2"], image_wh: tuple[int, int], cells: int) -> Int64[Array, " c"]:
    """Row of the first point of every occupied cell."""
    cell = _cell_of(points, image_wh, cells)
    first = np.full(cells * cells, -1, np.int64)
    rows = np.arange(len(points) - 1, -1, -1)
    first[cell[rows]] = rows  # NumPy keeps the last value written to a repeated index: the lowest row
    return first[first >= 0]


def _cell_of(xy: Float[Array, "n 2"], image_wh: tuple[int, int], cells: int) -> Int64[Array, " n"]:
    column_row = np.floor(xy * (cells / np.asarray(image_wh, np.float64))).astype(np.int64)
    column_row = column_row.clip(0, cells - 1)
    out: Int64[Array, " n"] = column_row[:, 1] * cells + column_row[:, 0]
    return out
