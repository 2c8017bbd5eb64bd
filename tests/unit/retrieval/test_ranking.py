"""Rankings as a config asks for them."""

from __future__ import annotations

import numpy as np
import pytest

from loc.config import DiffusionConfig, ExpansionConfig
from loc.retrieval.diffusion import Diffusion, conjugate_gradients
from loc.retrieval.expansion import augment_database, expand_queries
from loc.retrieval.graph import knn_graph
from loc.retrieval.ranking import Ranking
from loc.retrieval.topk import top_k


def unit_rows(count, dim=8, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


DATABASE, QUERIES = unit_rows(60), unit_rows(4, seed=1)
SELF = np.repeat(np.arange(60)[:, None], 2, axis=1)


def test_without_options_it_is_the_search():
    for ours, theirs in zip(Ranking(DATABASE)(QUERIES, 7), top_k(QUERIES, DATABASE, 7), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_expansion_of_both_sides():
    options = ExpansionConfig(queries=3, database=4, alpha=2)
    database = augment_database(DATABASE, 4, alpha=2.0)
    expected = top_k(expand_queries(QUERIES, database, 3, alpha=2.0), database, 60)
    for ours, theirs in zip(Ranking(DATABASE, expansion=options)(QUERIES, 60), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_diffusion_orders_by_its_scores():
    ranks, scores = Ranking(DATABASE, diffusion=DiffusionConfig(k=8, query_k=4))(QUERIES, 60)
    assert (np.sort(ranks, axis=1) == np.arange(60)).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    graph = knn_graph(DATABASE, 8)
    for query, order, found in zip(QUERIES, ranks, scores, strict=True):
        expected = Diffusion(DATABASE, conjugate_gradients(graph), k=4).scores(query[None])
        np.testing.assert_allclose(found, np.maximum(expected[order], 0), rtol=1e-6)
        assert order[0] == np.argmax(expected)


@pytest.mark.parametrize(
    "options",
    [
        {"truncate": 60},
        {"truncate": 500},
        {"solver": "offline", "neighbourhood": 60},
        {"solver": "spectral", "rank": 60, "iterations": 1},
    ],
)
def test_other_ways_to_the_same_ranking(options):
    exact = DiffusionConfig(k=8, query_k=4, iterations=400)
    expected, _ = Ranking(DATABASE, diffusion=exact)(QUERIES, 20)
    ways = exact.model_copy(update=options)
    np.testing.assert_array_equal(Ranking(DATABASE, diffusion=ways)(QUERIES, 20)[0], expected)


def test_truncation_ranks_what_it_left_out_by_similarity():
    ranks, scores = Ranking(DATABASE, diffusion=DiffusionConfig(k=8, truncate=10))(QUERIES, 60)
    nearest, _ = top_k(QUERIES, DATABASE, 60)
    for order, similar, found in zip(ranks, nearest, scores, strict=True):
        assert set(order[:10]) == set(similar[:10])
        assert order[10:].tolist() == similar[10:].tolist()
        assert (found[10:] == 0).all()


@pytest.mark.parametrize("diffusion", [None, DiffusionConfig(k=8)])
@pytest.mark.parametrize("expansion", [None, ExpansionConfig(queries=2, database=2)])
def test_what_is_excluded_does_not_appear(expansion, diffusion):
    rank = Ranking(DATABASE, expansion=expansion, diffusion=diffusion)
    ranks, scores = rank(DATABASE, 60, exclude=SELF)
    assert not (ranks == np.arange(60)[:, None]).any()
    assert (ranks[:, -1] == -1).all()
    assert (scores[:, -1] == -np.inf).all()
    assert (np.sort(ranks, axis=1)[:, 1:] >= 0).all()


@pytest.mark.parametrize("diffusion", [None, DiffusionConfig()])
def test_images_with_nothing_to_describe_and_empty_databases(diffusion):
    database = DATABASE.copy()
    database[5] = 0
    ranks, _ = Ranking(database, diffusion=diffusion)(np.stack([QUERIES[0], 0 * QUERIES[0]]), 60)
    assert 5 not in ranks
    assert (ranks[1] == -1).all()
    assert Ranking(DATABASE[:0], diffusion=diffusion)(QUERIES, 5)[0].shape == (4, 0)
    assert Ranking(DATABASE, diffusion=diffusion)(QUERIES[:0], 5)[0].shape == (0, 5)
