"""Query expansion and database-side augmentation."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import DataError
from loc.retrieval.expansion import augment_database, expand_queries


def unit_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_hand(row, database, k, alpha, *, without=()):
    similarities = database @ row
    order = [i for i in np.argsort(-similarities, kind="stable") if i not in without][:k]
    weights = np.ones(len(order)) if alpha == 0 else np.maximum(similarities[order], 0) ** alpha
    out = row + (weights[:, None] * database[order]).sum(axis=0)
    return out / np.linalg.norm(out)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0, 2.5])
@pytest.mark.parametrize("k", [1, 4, 100])
def test_equal_to_the_definition(alpha, k):
    queries, database = unit_rows(3, 6), unit_rows(20, 6, seed=1)
    expected = [by_hand(query, database, k, alpha) for query in queries]
    np.testing.assert_allclose(expand_queries(queries, database, k, alpha=alpha), expected, atol=1e-6)
    expected = [by_hand(row, database, k, alpha, without=[i]) for i, row in enumerate(database)]
    np.testing.assert_allclose(augment_database(database, k, alpha=alpha), expected, atol=1e-6)


def test_no_neighbours_change_nothing():
    queries, database = unit_rows(3, 6), unit_rows(20, 6, seed=1)
    np.testing.assert_allclose(expand_queries(queries, database, 0), queries, atol=1e-6)
    np.testing.assert_allclose(expand_queries(queries, database[:0], 5), queries, atol=1e-6)
    np.testing.assert_allclose(augment_database(database[:1], 5), database[:1], atol=1e-6)
    assert augment_database(database[:0], 5).shape == (0, 6)


def test_images_with_nothing_to_describe_stay_so_and_lend_nothing():
    database = unit_rows(5, 4)
    database[2] = 0
    out = augment_database(database, 4)
    assert not out[2].any()
    np.testing.assert_allclose(out[0], by_hand(database[0], database, 3, 0, without=[0, 2]), atol=1e-6)
    assert not expand_queries(np.zeros((1, 4), np.float32), database, 3).any()


def test_a_duplicate_is_a_neighbour_but_an_image_is_not_its_own():
    database = np.float32([[1, 0], [1, 0], [0, 1]])
    np.testing.assert_allclose(augment_database(database, 1)[0], [1, 0], atol=1e-6)
    assert augment_database(database, 1, alpha=3.0)[2] == pytest.approx([0, 1])


def test_expansion_finds_what_the_query_alone_does_not():
    """A view between the query and the target leads from one to the other."""
    angles = np.radians([30, 65, 110])
    database = np.float32(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    query, rival = np.float32([[1, 0]]), np.float32([[np.cos(np.radians(-70)), np.sin(np.radians(-70))]])
    everything = np.concatenate([database, rival])
    assert (everything @ query[0])[[1, 3]].argmax() == 0
    similarities = everything @ expand_queries(query, everything, 2, alpha=1.0)[0]
    assert similarities[2] > similarities[3]
    assert (everything @ query[0])[2] < (everything @ query[0])[3]


def test_errors():
    with pytest.raises(DataError, match="alpha must not be negative"):
        expand_queries(unit_rows(1, 3), unit_rows(2, 3), 1, alpha=-1.0)
