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
    width = min(k, len(database))
    keys = np.full((len(queries), width), _NOTHING, dtype=np.int64)
    if keys.size:
        hidden = ~database.any(axis=1)
        banned = np.zeros((0, 2), np.int64) if exclude is None else _sorted_by_query(exclude)
        pairs = max(1, block_bytes // _BYTES_PER_PAIR)
        rows = max(1, min(_MAX_ROWS, pairs // (2 * width)))
        for top in range(0, len(queries), rows):
            low, high = np.searchsorted(banned[:, 0], [top, top + rows])
            keys[top : top + rows] = _best_keys(
                queries[top : top + rows],
                database,
                width,
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
    hidden: Bool[Array, " n"],
    banned: Int64[Array, "e 2"],
    columns: int,
) -> Int64[Array, "b k"]:
    """The ``k`` largest keys of a block of queries, descending, a part of the database at a time."""
    best = np.full((len(queries), k), _NOTHING, dtype=np.int64)
    silent = ~queries.any(axis=1)
    for left in range(0, len(database), columns):
        part = slice(left, min(left + columns, len(database)))
        keys = _keys_of(queries @ database[part].T, left)
        keys[:, hidden[part]] = _NOTHING
        keys[silent] = _NOTHING
        inside = banned[(banned[:, 1] >= part.start) & (banned[:, 1] < part.stop)]
        keys[inside[:, 0], inside[:, 1] - left] = _NOTHING
        merged = np.concatenate([best, keys], axis=1)
        merged.partition(merged.shape[1] - k, axis=1)
        best = merged[:, -k:]
    return np.sort(best, axis=1)[:, ::-1]


def _keys_of(similarities: Float32[Array, "b c"], first_index: int) -> Int64[Array, "b c"]:
    """One integer per pair that sorts by similarity, then by lower index: no two are equal.

    The bits of a float32 sort like an integer once those of negative numbers are flipped.
    """
    similarities += 0.0  # -0.0 becomes 0.0
    bits = similarities.view(np.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys <<= 32
    keys |= _LOW_BITS - np.arange(first_index, first_index + similarities.shape[1], dtype=np.int64)
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
    for name, values in (("queries", queries), ("database", database)):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise DataError(
                f"global descriptor of {name} row {row} holds NaN or infinity", "extract it again"
            )
    if exclude is not None and len(exclude):
        low, high = exclude.min(axis=0), exclude.max(axis=0)
        if (low < 0).any() or high[0] >= len(queries) or high[1] >= len(database):
            raise DataError(
                f"excluded pairs reach rows {high.tolist()}, but there are"
                f" {len(queries)} queries and {len(database)} database images"
            )
