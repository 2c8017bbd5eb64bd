"""Exact retrieval against a full sort."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from loc.errors import DataError
from loc.retrieval import topk
from loc.retrieval.topk import top_k


def unit_rows(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_full_sort(queries, database, k, banned=()) -> tuple[np.ndarray, np.ndarray]:
    similarity = (queries @ database.T).astype(np.float64)
    for pair in banned:
        similarity[tuple(pair)] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarity, order, axis=1)


@pytest.mark.parametrize("block_bytes", [1, 4000, 100_000, 2**26])
@pytest.mark.parametrize("k", [1, 5, 40, 1000])
def test_equals_a_full_sort(k, block_bytes) -> None:
    queries, database = unit_rows(30), unit_rows(83, seed=1)
    indices, similarities = top_k(queries, database, k, block_bytes=block_bytes)
    expected, values = by_full_sort(queries, database, k)
    assert indices.shape == (30, min(k, 83))
    np.testing.assert_array_equal(indices, expected)  # with k = 1000 negative similarities are in, too
    np.testing.assert_allclose(similarities, values, atol=1e-6)
    assert (similarities < 0).any() == (k >= 40)


def test_excluded_pairs_never_appear() -> None:
    rows = unit_rows(60)
    itself = np.stack([np.arange(60)] * 2, axis=1)
    more = np.array([[5, 7], [5, 59], [0, 1]])
    banned = np.concatenate([itself, more])[::-1]
    indices, similarities = top_k(rows, rows, 100, exclude=banned, block_bytes=5000)
    expected, values = by_full_sort(rows, rows, 60, banned)
    np.testing.assert_array_equal(indices[1:5, :59], expected[1:5, :59])
    assert (indices[1:5, 59] == -1).all()
    np.testing.assert_array_equal(indices[5, :57], expected[5, :57])
    assert (indices[5, 57:] == -1).all()
    assert (similarities[5, 57:] == -np.inf).all()
    assert not (indices == np.arange(60)[:, None]).any()
    np.testing.assert_allclose(similarities[:, 0], values[:, 0], atol=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_a_long_database_of_ties_and_negatives(order) -> None:
    # Quantised: every value occurs hundreds of times. Ascending, each part replaces all before it;
    # descending, nothing of a later part enters.
    values = np.repeat(np.linspace(-1, 1, 9), 400)[::order].astype(np.float32)
    database = np.stack([values, np.sqrt(1 - values**2)], axis=1)
    queries = np.array([[1, 0], [-1, 0], [0, 0]], np.float32)
    indices, similarities = top_k(queries, database, 7, block_bytes=40_000)
    ascending = np.arange(7) + (3200 if order == 1 else 0)
    descending = np.arange(7) + (0 if order == 1 else 3200)
    assert indices.tolist() == [ascending.tolist(), descending.tolist(), [-1] * 7]
    assert similarities[:2].tolist() == [[1.0] * 7] * 2


def test_ties_are_ordered_by_index() -> None:
    database = np.tile(np.eye(2, dtype=np.float32), (20, 1))
    query = np.array([[1, 0]], np.float32)
    for block_bytes in (300, 2**20):
        indices, _ = top_k(query, database, 25, block_bytes=block_bytes)
        assert indices[0].tolist() == [*range(0, 40, 2), 1, 3, 5, 7, 9]


def test_minus_zero_ties_with_zero() -> None:
    keys = topk._keys_of(np.array([[-0.0, 0.0, -1e-30, 1e-30]], np.float32), np.arange(4))
    assert np.argsort(-keys[0]).tolist() == [3, 0, 1, 2]


def test_rows_of_zeros_retrieve_nothing_and_are_not_retrieved() -> None:
    queries, database = unit_rows(3), -unit_rows(3)
    queries[1] = 0
    database[2] = 0
    indices, similarities = top_k(queries, database, 3)
    assert indices[1].tolist() == [-1, -1, -1]
    assert 2 not in indices
    assert sorted(indices[0].tolist()) == [-1, 0, 1]  # negative similarities beat nothing
    assert np.isneginf(similarities[0, 2])


@pytest.mark.parametrize(("q", "n", "k"), [(0, 5, 3), (5, 0, 3), (0, 0, 3), (5, 5, 0)])
def test_empty(q, n, k) -> None:
    indices, similarities = top_k(unit_rows(q), unit_rows(n), k)
    assert indices.shape == similarities.shape == (q, min(k, n))


def test_errors_name_what_is_wrong() -> None:
    rows = unit_rows(4)
    with pytest.raises(DataError, match="16 dimensions, of the database 8"):
        top_k(rows, unit_rows(4, 8), 1)
    with pytest.raises(DataError, match="reach rows \\[9, 1\\]"):
        top_k(rows, rows, 1, exclude=np.array([[9, 1]]))
    broken = rows.copy()
    broken[2, 3] = np.nan
    with pytest.raises(DataError, match="database row 2 holds NaN"):
        top_k(rows, broken, 1)


def test_memory_stays_within_the_block_budget() -> None:
    queries, database = unit_rows(2000, 8), unit_rows(5000, 8, seed=1)
    budget, result = 4 * 2**20, 2000 * 10 * (8 + 4)
    tracemalloc.start()
    try:
        top_k(queries, database, 10, block_bytes=budget)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < budget + 6 * result  # the whole matrix has 40 MB, as keys 80 MB
