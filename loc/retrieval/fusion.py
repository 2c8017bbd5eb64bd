"""Late fusion: one ranking from those of several retrievers, whose scores need not be comparable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from loc.errors import DataError

Array = np.ndarray
#: Of Cormack et al.: how little the first ranks differ.
RANK_CONSTANT = 60.0


def fuse_ranks(
    rankings: Sequence[Int64[Array, "q _"]],
    k: int,
    *,
    weights: Sequence[float] | None = None,
    constant: float = RANK_CONSTANT,
) -> tuple[Int64[Array, "q k"], Float64[Array, "q k"]]:
    """Reciprocal rank fusion: score = sum over retrievers of weight / (constant + rank), ranks from 1.

    Cormack et al., SIGIR 2009. An image that a retriever does not list gets nothing from it.

    Args:
        rankings: per retriever, ids of images, best first, one row per query; -1 fills short rows.

    Returns:
        ``(ids, scores)``, best first, equal scores by id; -1 and -inf fill short rows.

    Raises:
        DataError: no retriever, other numbers of queries or weights, or a negative weight.
    """
    scores = [
        np.broadcast_to(1 / (constant + np.arange(1, each.shape[1] + 1)), each.shape) for each in rankings
    ]
    return _fused(rankings, scores, k, weights)


def fuse_scores(
    rankings: Sequence[tuple[Int64[Array, "q _"], Float[Array, "q _"]]],
    k: int,
    *,
    weights: Sequence[float] | None = None,
) -> tuple[Int64[Array, "q k"], Float64[Array, "q k"]]:
    """Weighted sum of the scores, each retriever's scaled to [0, 1] over what it lists for the query.

    An image that a retriever does not list gets 0 from it, as its last does; a list of equal scores gives 1.

    Args:
        rankings: per retriever, ids and their scores (larger is better), as :func:`fuse_ranks`.

    Returns, Raises:
        As :func:`fuse_ranks`.
    """
    ids = [each for each, _ in rankings]
    return _fused(ids, [_unit_range(each, values) for each, values in rankings], k, weights)


def _unit_range(ids: Int64[Array, "q m"], scores: Float[Array, "q m"]) -> Float64[Array, "q m"]:
    listed = ids >= 0
    values = np.where(listed, scores, np.nan).astype(np.float64)
    out = np.zeros_like(values)
    for row, mask in enumerate(listed):
        if mask.any():
            low, high = values[row, mask].min(), values[row, mask].max()
            out[row, mask] = 1.0 if high == low else (values[row, mask] - low) / (high - low)
    return out


def _fused(
    ids: Sequence[Int64[Array, "q _"]],
    scores: Sequence[Float64[Array, "q _"]],
    k: int,
    weights: Sequence[float] | None,
) -> tuple[Int64[Array, "q k"], Float64[Array, "q k"]]:
    weights = [1.0] * len(ids) if weights is None else list(weights)
    if not ids or len(weights) != len(ids) or any(not weight >= 0 for weight in weights):
        raise DataError(
            f"cannot fuse {len(ids)} rankings with the weights {weights}",
            "give at least one ranking, and one weight >= 0 for each",
        )
    if len({len(each) for each in ids}) != 1:
        raise DataError(
            f"rankings of {[len(each) for each in ids]} queries", "fuse rankings of the same queries"
        )
    out = np.full((len(ids[0]), k), -1, np.int64)
    best = np.full((len(ids[0]), k), -np.inf)
    for row in range(len(out)):
        listed = np.concatenate([each[row] for each in ids])
        values = np.concatenate([weight * each[row] for weight, each in zip(weights, scores, strict=True)])
        images, where = np.unique(listed[listed >= 0], return_inverse=True)
        sums = np.bincount(where, values[listed >= 0], minlength=len(images))
        order = np.lexsort((images, -sums))[:k]
        out[row, : len(order)], best[row, : len(order)] = images[order], sums[order]
    return out, best
