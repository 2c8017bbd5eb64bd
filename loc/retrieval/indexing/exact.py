"""Exact search over vectors that lie in several blocks, with the same result however they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loc.retrieval.topk import largest_products

Array = np.ndarray
#: Matrix products round as their shapes make them: this many more than asked are compared again in float64.
_MARGIN = 32
#: Working memory of the second comparison.
_BYTES = 32 * 2**20
#: Blocks below this size are joined: a search then goes through few of them.
_JOINED_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of an index.

    Attributes:
        first: number of the first row.
        vectors: ``(n, d)`` float32, in memory or mapped.
    """

    first: int
    vectors: Array

    def __len__(self) -> int:
        return len(self.vectors)


def append(blocks: list[Block], vectors: Array, first: int, *, keep: int = 0) -> None:
    """Add rows to the end; small blocks are joined like digits of a binary number, so that few are left.

    Args:
        keep: blocks at the start that are never joined with others.
    """
    if not len(vectors):
        return
    blocks.append(Block(first, vectors))
    while len(blocks) > keep + 1:
        before, last = blocks[-2:]
        if len(before) > 2 * len(last) or before.vectors.nbytes + last.vectors.nbytes > _JOINED_BYTES:
            break
        blocks[-2:] = [Block(before.first, np.concatenate([before.vectors, last.vectors]))]


def nearest(
    queries: Array, blocks: Sequence[Block], k: int, *, alive: Array, slots: Array
) -> tuple[Array, Array]:
    """The ``k`` live rows with the largest dot product, equal ones by slot, then by row.

    The product is that of :func:`similarities`, so neither blocks nor batches nor threads can change it.

    Args:
        queries: ``(q, d)`` float32 of unit norm.
        alive, slots: of every row of the index.

    Returns:
        Rows ``(q, k)`` int64 and similarities ``(q, k)`` float32; -1 and -inf where there are fewer.
    """
    wanted = k + _MARGIN
    found = [_candidates(queries, block, wanted, alive) for block in blocks]
    none = np.zeros((len(queries), 0))
    rows = np.concatenate([none.astype(np.int64), *(each for each, _ in found)], axis=1)
    rough = np.concatenate([none.astype(np.float32), *(each for _, each in found)], axis=1)
    order = np.argsort(-rough, axis=1, kind="stable")[:, :wanted]
    rows, rough = np.take_along_axis(rows, order, axis=1), np.take_along_axis(rough, order, axis=1)
    exact = similarities(queries, blocks, rows)
    out = best(rows, exact, k, slots)
    if rows.shape[1] == wanted and k:
        # A row that is not among the candidates is at most as similar as the last one, give or take rounding.
        unsure = rough[:, -1] + _rounding(queries.shape[1]) >= out[1][:, -1]
        for query in np.flatnonzero(unsure & (rows[:, -1] >= 0)):
            one = queries[query : query + 1]
            every = _at_least(one, blocks, float(out[1][query, -1]), alive)[None]
            found_rows, found_values = best(every, similarities(one, blocks, every), k, slots)
            out[0][query], out[1][query] = found_rows[0], found_values[0]
    return out


def similarities(queries: Array, blocks: Sequence[Block], rows: Array) -> Array:
    """Dot products ``(q, m)`` of queries and rows, summed in float64 and rounded once; -inf for row -1."""
    out = np.full(rows.shape, -np.inf, np.float32)
    for block in blocks:
        query, place = np.nonzero((rows >= block.first) & (rows < block.first + len(block)))
        step = max(1, _BYTES // (16 * queries.shape[1]))
        for top in range(0, len(query), step):
            some, where = query[top : top + step], place[top : top + step]
            stored = block.vectors[rows[some, where] - block.first].astype(np.float64)
            stored *= queries[some]
            out[some, where] = stored.sum(axis=1)
    return out


def best(rows: Array, values: Array, k: int, slots: Array) -> tuple[Array, Array]:
    """The ``k`` best of each row of candidates, equal ones by slot, then by row; filled with -1 and -inf."""
    if not len(slots):
        rows, values = rows[:, :0], values[:, :0]
    else:
        order = np.lexsort((rows, slots[rows], -values), axis=1)[:, :k]
        rows, values = np.take_along_axis(rows, order, axis=1), np.take_along_axis(values, order, axis=1)
    missing = ((0, 0), (0, k - rows.shape[1]))
    rows = np.where(np.isneginf(values), -1, rows)
    return np.pad(rows, missing, constant_values=-1), np.pad(values, missing, constant_values=-np.inf)


def _candidates(queries: Array, block: Block, k: int, alive: Array) -> tuple[Array, Array]:
    hidden = ~alive[block.first : block.first + len(block)]
    rows, values = largest_products(queries, block.vectors, k, hidden=hidden)
    return np.where(rows >= 0, rows + block.first, -1), values


def _at_least(query: Array, blocks: Sequence[Block], value: float, alive: Array) -> Array:
    """All live rows whose product with one query may be ``value`` or more: for runs of equal vectors."""
    floor = value - _rounding(query.shape[1])
    rows = [np.zeros(0, np.int64)]
    step = max(1, _BYTES // (4 * query.shape[1]))
    for block in blocks:
        for top in range(0, len(block), step):
            near = np.flatnonzero(block.vectors[top : top + step] @ query[0] >= floor)
            near += block.first + top
            rows.append(near[alive[near]])
    return np.concatenate(rows)


def _rounding(dim: int) -> float:
    """Twice the bound on the error of a float32 dot product of unit vectors (Higham, 2002, section 3.1)."""
    return (dim + 4) * 2.0**-23
