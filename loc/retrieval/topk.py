"""The most similar database images of every query: exact, blocked, with deterministic ties."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from loc.errors import DataError

Array = np.ndarray

#: Working memory of :func:`top_k` beyond its inputs and its result. A constant, so that the shapes
#: of the matrix products, and with them the last bits, do not depend on the free memory.
BLOCK_BYTES = 64 * 2**20
#: Similarity float32, its sortable form, 64-bit key, copies of both while they are merged.
_BYTES_PER_PAIR = 40
_MAX_ROWS = 256

_NOTHING = np.iinfo(np.int64).min
_LOW_BITS = 0xFFFFFFFF


def top_k(
    queries: Float32[Array, "q d"],
    database: Float32[Array, "n _"],
    k: int,
    *,
    exclude: Int[Array, "e 2"] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Int64[Array, "q m"], Float32[Array, "q m"]]:
    """Rows of ``database`` with the largest dot product, for every row of ``queries``.

    A row of zeros (an image with nothing to aggregate) retrieves nothing and is never retrieved.
    Negative similarities count like others. Equal similarities are ordered by index.

    Args:
        queries, database: descriptors of unit norm (or zero), so that the product is the cosine.
        k: how many; more than there are is fine.
        exclude: ``(query row, database row)`` that must not appear, e.g. an image and itself.
        block_bytes: working memory; the whole ``q x n`` matrix is never made.

    Returns:
        ``(indices, similarities)``, each ``(q, min(k, n))``, best first. Where a query has fewer
        neighbours left, index -1 and similarity -inf fill the end of its row.

    Raises:
        DataError: a descriptor is not finite, dimensions differ, or ``exclude`` is out of range.
    """
    _validate(queries, database, k, exclude)
    silent, hidden = _zero_rows(queries, "queries"), _zero_rows(database, "database")
    banned = np.zeros((0, 2), np.int64) if exclude is None else _sorted_by_query(exclude)
    return _largest(queries, database, k, silent, hidden, banned, block_bytes)


def largest_products(
    queries: Float32[Array, "q d"],
    database: Float32[Array, "n d"],
    k: int,
    *,
    hidden: Bool[Array, " n"],
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Int64[Array, "q m"], Float32[Array, "q m"]]:
    """:func:`top_k` of descriptors that were checked when they were stored; they are read once.

    Args:
        hidden: rows of ``database`` that must not appear.
    """
    silent, banned = np.zeros(len(queries), bool), np.zeros((0, 2), np.int64)
    return _largest(queries, database, k, silent, hidden, banned, block_bytes)


def _largest(
    queries: Float32[Array, "q d"],
    database: Float32[Array, "n _"],
    k: int,
    silent: Bool[Array, " q"],
    hidden: Bool[Array, " n"],
    banned: Int64[Array, "e 2"],
    block_bytes: int,
) -> tuple[Int64[Array, "q m"], Float32[Array, "q m"]]:
    width = min(k, len(database))
    keys = np.full((len(queries), width), _NOTHING, dtype=np.int64)
    if keys.size:
        pairs = max(1, block_bytes // _BYTES_PER_PAIR)
        rows = max(1, min(_MAX_ROWS, pairs // (2 * width)))
        for top in range(0, len(queries), rows):
            low, high = np.searchsorted(banned[:, 0], [top, top + rows])
            keys[top : top + rows] = _best_keys(
                queries[top : top + rows],
                database,
                width,
                silent=silent[top : top + rows],
                hidden=hidden,
                banned=banned[low:high] - [top, 0],
                columns=max(1, pairs // rows - width),
            )
    return _indices_of(keys), _similarities_of(keys)


def _best_keys(
    queries: Float32[Array, "b d"],
    database: Float32[Array, "n d"],
    k: int,
    *,
    silent: Bool[Array, " b"],
    hidden: Bool[Array, " n"],
    banned: Int64[Array, "e 2"],
    columns: int,
) -> Int64[Array, "b k"]:
    """The ``k`` largest keys of a block of queries, descending, a part of the database at a time."""
    best = np.full((len(queries), k), _NOTHING, dtype=np.int64)
    for left in range(0, len(database), columns):
        part = slice(left, min(left + columns, len(database)))
        similarities = queries @ database[part].T
        similarities[silent] = -np.inf
        similarities[:, hidden[part]] = -np.inf
        inside = banned[(banned[:, 1] >= part.start) & (banned[:, 1] < part.stop)]
        similarities[inside[:, 0], inside[:, 1] - left] = -np.inf
        # Of equals the earlier stays, so only what is better than the k-th so far can enter.
        keys = _keys_above(similarities, _similarities_of(best[:, :1]), left)
        merged = np.concatenate([best, keys], axis=1)
        merged.partition(merged.shape[1] - k, axis=1)
        best = merged[:, -k:]
    return np.sort(best, axis=1)[:, ::-1]


def _keys_above(
    similarities: Float32[Array, "b c"], floor: Float32[Array, "b 1"], first_index: int
) -> Int64[Array, "b m"]:
    """Keys of the similarities above each row's floor; shorter rows are filled with nothing.

    After the first parts of a database few are: making and sorting keys of all took as long as half
    of the matrix product.
    """
    above = similarities > floor
    counts = np.count_nonzero(above, axis=1)
    most = int(counts.max(initial=0))
    if 4 * most > above.shape[1]:
        keys = _keys_of(similarities, np.arange(first_index, first_index + above.shape[1]))
        keys[~above] = _NOTHING
        return keys
    rows, columns = np.nonzero(above)
    starts = np.cumsum(counts) - counts
    keys = np.full((len(above), most), _NOTHING, dtype=np.int64)
    keys[rows, np.arange(len(rows)) - starts[rows]] = _keys_of(
        similarities[rows, columns], first_index + columns
    )
    return keys


def _keys_of(similarities: Float32[Array, "*s"], index: Int64[Array, " c"]) -> Int64[Array, "*s"]:
    """One integer per pair that sorts by similarity, then by lower index: no two are equal.

    The bits of a float32 sort like an integer once those of negative numbers are flipped.
    """
    similarities += 0.0  # -0.0 becomes 0.0
    bits = similarities.view(np.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys <<= 32
    keys |= _LOW_BITS - index
    return keys


def _indices_of(keys: Int64[Array, "q m"]) -> Int64[Array, "q m"]:
    return np.where(keys == _NOTHING, -1, _LOW_BITS - (keys & _LOW_BITS))


def _similarities_of(keys: Int64[Array, "q m"]) -> Float32[Array, "q m"]:
    bits = (keys >> 32).astype(np.int32)
    values = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
    return np.where(keys == _NOTHING, np.float32(-np.inf), values)


def _sorted_by_query(exclude: Int[Array, "e 2"]) -> Int64[Array, "e 2"]:
    return exclude[np.argsort(exclude[:, 0], kind="stable")].astype(np.int64)


def _validate(
    queries: Float32[Array, "q d"],
    database: Float32[Array, "n _"],
    k: int,
    exclude: Int[Array, "x 2"] | None,
) -> None:
    if len(queries) and len(database) and queries.shape[1] != database.shape[1]:
        raise DataError(
            f"global descriptors of queries have {queries.shape[1]} dimensions,"
            f" of the database {database.shape[1]}",
            "extract both with the same global extractor and the same fit",
        )
    if k < 0:
        raise DataError(f"k must not be negative, got {k}")
    if exclude is not None and len(exclude):
        low, high = exclude.min(axis=0), exclude.max(axis=0)
        if (low < 0).any() or high[0] >= len(queries) or high[1] >= len(database):
            raise DataError(
                f"excluded pairs reach rows {high.tolist()}, but there are"
                f" {len(queries)} queries and {len(database)} database images"
            )


def _zero_rows(values: Float32[Array, "n d"], name: str) -> Bool[Array, " n"]:
    """Which rows are all zero; a block at a time, so that no mask of the size of ``values`` is made.

    Raises:
        DataError: a value is not finite.
    """
    out = np.empty(len(values), bool)
    for top in range(0, len(values), _MAX_ROWS):
        block = values[top : top + _MAX_ROWS]
        highest, lowest = block.max(axis=1, initial=0), block.min(axis=1, initial=0)
        finite = np.isfinite(highest) & np.isfinite(lowest)
        if not finite.all():
            row = top + int(np.flatnonzero(~finite)[0])
            raise DataError(
                f"global descriptor of {name} row {row} holds NaN or infinity",
                "extract it again",
            )
        out[top : top + _MAX_ROWS] = (highest == 0) & (lowest == 0)
    return out
