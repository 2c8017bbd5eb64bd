"""Rankings as a config asks for them."""

from __future__ import annotations

import numpy as np
import pytest

from loc.config import DiffusionConfig, ExpansionConfig
from loc.errors import ConfigError, DataError
from loc.retrieval.diffusion import Diffusion, conjugate_gradients
from loc.retrieval.expansion import augment_database, expand_queries
from loc.retrieval.graph import knn_graph
from loc.retrieval.ranking import Ranking
from loc.retrieval.regions import pooled_rows, regions_of_rows, weighted_regions
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


def regional_rows(images, regions, dim=8, seed=0):
    """Rows of several vectors each; the last region of every other image is absent."""
    rows = unit_rows(images * regions, dim, seed).reshape(images, regions, dim)
    rows[::2, -1] = 0
    return (rows / np.float32(np.sqrt(regions))).reshape(images, -1)


def test_rows_of_regions():
    rows = regional_rows(30, 3)
    vectors, owners = regions_of_rows(rows, 3)
    assert len(vectors) == 30 * 3 - 15
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert owners[:6].tolist() == [0, 0, 1, 1, 1, 2]
    sums = np.stack([vectors[owners == image].sum(axis=0) for image in range(30)])
    expected = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled_rows(rows, 3), expected, rtol=1e-5, atol=1e-6)
    ours, _ = Ranking(rows, regions=3)(rows[:2], 5)
    np.testing.assert_array_equal(ours, top_k(pooled_rows(rows[:2], 3), pooled_rows(rows, 3), 5)[0])
    with pytest.raises(DataError, match="rows of 24 values do not hold 5 vectors each"):
        Ranking(rows, regions=5)


def test_regional_diffusion():
    rows, queries = regional_rows(30, 3), regional_rows(4, 3, seed=1)
    options = DiffusionConfig(k=9, query_k=6)
    ranks, scores = Ranking(rows, regions=3, diffusion=options)(queries, 30)
    vectors, owners = regions_of_rows(rows, 3)
    whole = Diffusion(
        vectors, conjugate_gradients(knn_graph(vectors, 9)), weighted_regions(vectors, owners, 30), k=6
    )
    for query, order, found in zip(queries, ranks, scores, strict=True):
        expected = whole.scores(regions_of_rows(query[None], 3)[0])
        np.testing.assert_allclose(found, np.maximum(expected[order], 0), rtol=1e-5)
        assert sorted(order) == list(range(30))
    truncated = options.model_copy(update={"truncate": 30})
    np.testing.assert_array_equal(Ranking(rows, regions=3, diffusion=truncated)(queries, 30)[0], ranks)
    few = options.model_copy(update={"regions": 1, "truncate": 12})
    assert Ranking(rows, regions=3, diffusion=few)(queries, 5)[0].shape == (4, 5)
    excluded, _ = Ranking(rows, regions=3, diffusion=options)(rows[:1], 30, exclude=np.array([[0, 0]]))
    assert 0 not in excluded


def test_an_object_that_fills_a_region_is_found_by_diffusion_over_regions():
    """Images 0 to 9 share one small object before ten scenes; as wholes they are like the scenes."""
    rng = np.random.default_rng(0)
    scenes, regions = np.linalg.qr(rng.standard_normal((64, 64)))[0].astype(np.float32)[:40], 5
    thing = scenes[-1]
    rows = np.stack([scenes[3 * (i % 10) + rng.integers(0, 3, regions)] for i in range(40)])
    rows[:10, 2] = thing
    rows = rows + 0.02 * rng.standard_normal(rows.shape).astype(np.float32)
    query = np.zeros((1, regions, 64), np.float32)
    query[0, 0] = thing
    rank = Ranking(
        rows.reshape(40, -1), regions=regions, diffusion=DiffusionConfig(k=12, query_k=3, iterations=100)
    )
    assert set(rank(query.reshape(1, -1), 10)[0][0].tolist()) == set(range(10))


def test_options_that_do_not_fit_the_descriptor():
    with pytest.raises(ConfigError, match=r"diffusion.regions reduces"):
        Ranking(DATABASE, diffusion=DiffusionConfig(regions=5))
    with pytest.raises(ConfigError, match="diffusion of regions uses none"):
        Ranking(
            regional_rows(4, 2),
            regions=2,
            expansion=ExpansionConfig(queries=2),
            diffusion=DiffusionConfig(),
        )
