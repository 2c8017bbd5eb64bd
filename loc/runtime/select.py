"""Choosing k of n keypoints so that they cover the image without giving up the good ones.

The best k by score pile up where the texture is, and a pose wants points from edge to edge; one point
per cell of a fine grid is even but takes the worst of every blank wall. Here crowding discounts the
score: the r-th best point of a cell counts as its score divided by ``sqrt(r)``. Measured on real sets
against both extremes in ``docs/sift_defaults.md``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64, Shaped

from loc.errors import ContractError

Array = np.ndarray

#: Crowding is counted in a grid of this many cells along either side of the image.
_CELLS = 16
#: Exponent of the rank in its cell: 0 is the plain top k, infinity fills all cells equally.
_CROWDING = 0.5


def spatially_even(
    xy: Float[Array, "n 2"], priority: Shaped[Array, " n"], image_wh: tuple[int, int], k: int | None = None
) -> Int64[Array, " m"]:
    """Indices of ``min(k, n)`` points that are both good and spread over the image.

    The result for a smaller ``k`` is a prefix of that for a larger one. Equal values are ordered by
    index, so the same input gives the same output.

    Args:
        xy: pixels, corner origin.
        priority: larger is better; finite, not negative.
        image_wh: size of the image in px.
        k: how many at most; None orders all.

    Returns:
        ``(min(k, n),)`` int64, best first.

    Raises:
        ContractError: a priority is negative, NaN or infinite.
    """
    value = np.asarray(priority, dtype=np.float64)
    if not (np.isfinite(value) & (value >= 0)).all():
        raise ContractError(
            "priorities of keypoints must be finite and not negative", "hand over scores, or ones"
        )
    by_value = np.argsort(-value, kind="stable")
    rank = _rank_in_cell(_cell_of(xy[by_value], image_wh, _CELLS))
    discounted = value[by_value] * (1.0 + rank) ** -_CROWDING
    return by_value[np.argsort(-discounted, kind="stable")][:k].astype(np.int64, copy=False)


def coverage(xy: Float[Array, "n 2"], image_wh: tuple[int, int], cells: int = 16) -> float:
    """Fraction in [0, 1] of the cells of a ``cells`` x ``cells`` grid that hold at least one point."""
    return len(np.unique(_cell_of(xy, image_wh, cells))) / cells**2


def _rank_in_cell(cell: Int64[Array, " n"]) -> Int64[Array, " n"]:
    """How many earlier rows have the same cell: 0 for the first."""
    grouped = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[grouped], cell[grouped])  # where each row's group begins
    rank = np.empty(len(cell), np.int64)
    rank[grouped] = np.arange(len(cell)) - starts
    return rank


def _cell_of(xy: Float[Array, "n 2"], image_wh: tuple[int, int], cells: int) -> Int64[Array, " n"]:
    column_row = np.floor(xy * (cells / np.asarray(image_wh, np.float64))).astype(np.int64)
    column_row = column_row.clip(0, cells - 1)
    out: Int64[Array, " n"] = column_row[:, 1] * cells + column_row[:, 0]
    return out
