"""Diffusion against dense solves, and on what it is for: neighbours of neighbours."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, cg

from loc.errors import DataError
from loc.retrieval.diffusion import (
    Diffusion,
    conjugate_gradients,
    offline,
    query_signal,
    ranked,
    solve,
    spectral,
)
from loc.retrieval.graph import Graph, knn_graph, mutual_graph
from loc.retrieval.regions import Regions, reduced_regions, weighted_regions
from loc.retrieval.topk import top_k

NODES = 300
EXACT = {"iterations": 2000, "tolerance": 1e-13}


def unit_rows(count, dim, seed=0, spread=1.0):
    """Clusters on the sphere."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count // 12 + 1, dim))[rng.integers(0, count // 12 + 1, count)]
    rows = rows + spread * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    rows = unit_rows(NODES, 16)
    rows[7] = 0  # an image with nothing to describe: no edges
    return rows


@pytest.fixture(scope="module")
def graph(vectors):
    return knn_graph(vectors, 15)


def dense_affinity(vectors, k, gamma=3):
    """The definition, with n x n arrays."""
    similarities = vectors @ vectors.T
    lists = [
        set(np.argsort(-row, kind="stable")[:k].tolist()) if row.any() else set() for row in similarities
    ]
    out = np.zeros_like(similarities, np.float64)
    for i in range(len(vectors)):
        for j in lists[i]:
            if i != j and i in lists[j]:
                out[i, j] = max(similarities[i, j], 0) ** gamma
    return out


def dense_transition(weights):
    degrees = weights.sum(axis=1)
    scale = np.where(degrees > 0, 1 / np.sqrt(np.where(degrees > 0, degrees, 1)), 0)
    return scale[:, None] * weights * scale


def closed_form(graph, y, alpha=0.99):
    return np.linalg.solve(np.eye(len(graph)) - alpha * dense_transition(graph.weights.toarray()), y)


def test_graph_equals_the_definition(vectors, graph):
    expected = dense_affinity(vectors, 15)
    ours = graph.weights.toarray()
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    np.testing.assert_array_equal(ours, ours.T)
    assert not ours.diagonal().any()
    x = np.random.default_rng(0).standard_normal(NODES)
    np.testing.assert_allclose(graph.step(x), dense_transition(ours) @ x, atol=1e-12)
    assert graph.weights.indices.dtype == np.int32


def test_conjugate_gradients_equal_the_dense_solve(graph):
    for seed in range(3):
        y = np.random.default_rng(seed).random(NODES)
        error = np.linalg.norm(solve(graph, y, **EXACT) - closed_form(graph, y))
        assert error <= 1e-9 * np.linalg.norm(y)


@pytest.mark.parametrize("k", [15, 10 * NODES])
def test_single_precision_ranks_as_double(vectors, k):
    double, single = knn_graph(vectors, k), knn_graph(vectors, k, precision=np.float32)
    assert single.weights.dtype == np.float32
    nodes, values = np.array([3, 50, 120]), np.array([1, 0.5, 0.2])
    y = np.zeros(NODES)
    y[nodes] = values
    for make, tolerance in ((conjugate_gradients, 1e-4), (lambda graph: spectral(graph, NODES), 1e-4)):
        expected, found = make(double)(nodes, values), make(single)(nodes, values)
        assert found.dtype == np.float64
        assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(y)
        np.testing.assert_array_equal(np.argsort(-found)[:50], np.argsort(-expected)[:50])
    exact = solve(single, y, **EXACT)
    assert np.linalg.norm(exact - closed_form(single, y)) <= 1e-4 * np.linalg.norm(y)


def test_twenty_iterations_are_those_of_any_conjugate_gradients(graph):
    y = np.zeros(NODES)
    y[[3, 50, 120]] = 1, 0.5, 0.2
    system = LinearOperator((NODES, NODES), matvec=lambda x: x - 0.99 * graph.step(np.ravel(x)), dtype=float)
    reference, _ = cg(system, y, rtol=1e-6, maxiter=20)
    ours = solve(graph, y)
    assert np.linalg.norm(ours - reference) <= 1e-10 * np.linalg.norm(y)
    exact = closed_form(graph, y)
    matrix = np.eye(NODES) - 0.99 * dense_transition(graph.weights.toarray())
    energy = np.sqrt((ours - exact) @ matrix @ (ours - exact) / (exact @ matrix @ exact))
    assert energy <= 0.117  # the bound for a condition number of 199


def test_two_nodes():
    graph = mutual_graph(np.array([[0, 1], [1, 0]]), np.float32([[1, 1], [1, 1]]))
    f = solve(graph, np.array([1.0, 0]), **EXACT)
    np.testing.assert_allclose(f, [50.2513, 49.7487], atol=1e-3)


def test_an_isolated_node_keeps_what_it_was_given(graph):
    assert graph.scale[7] == 0
    y = np.zeros(NODES)
    y[7] = 2
    expected = y.copy()
    np.testing.assert_allclose(solve(graph, y), expected)
    nodes, values = np.array([7]), np.array([2.0])
    np.testing.assert_allclose(conjugate_gradients(graph)(nodes, values), expected)
    np.testing.assert_allclose(spectral(graph, NODES)(nodes, values), expected, atol=1e-9)


@pytest.mark.parametrize("k", [NODES, 10 * NODES])
def test_k_at_least_n(vectors, k):
    graph = knn_graph(vectors, k)
    np.testing.assert_allclose(graph.weights.toarray(), dense_affinity(vectors, NODES), atol=1e-6)
    y = np.random.default_rng(0).random(NODES)
    error = np.linalg.norm(solve(graph, y, **EXACT) - closed_form(graph, y))
    assert error <= 1e-9 * np.linalg.norm(y)
    found = Diffusion(vectors, conjugate_gradients(graph), k=k).scores(vectors[:1])
    assert np.isfinite(found).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_databases(count):
    vectors = unit_rows(4, 8)[:count]
    graph = knn_graph(vectors, 50)
    found = Diffusion(vectors, conjugate_gradients(graph)).scores(unit_rows(4, 8)[:1])
    assert found.shape == (count,)
    if count:
        assert found[0] > 0
        np.testing.assert_allclose(
            Diffusion(vectors, spectral(graph, 5)).scores(vectors[:1]),
            Diffusion(vectors, conjugate_gradients(graph, **EXACT)).scores(vectors[:1]),
            rtol=1e-6,
        )
    lists = np.arange(count)[None].repeat(count, axis=0)
    assert Diffusion(vectors, offline(graph, lists)).scores(vectors[:1]).shape == (count,)


def test_full_rank_and_full_neighbourhoods_equal_the_closed_form(vectors, graph):
    nodes, values = query_signal(*top_k(unit_rows(1, 16, seed=5), vectors, 10), 10)
    y = np.zeros(NODES)
    y[nodes] = values
    expected = closed_form(graph, y)
    assert np.linalg.norm(spectral(graph, NODES)(nodes, values) - expected) <= 1e-9 * np.linalg.norm(y)
    everything = np.full((NODES, NODES), -1)
    everything[nodes] = np.arange(NODES)  # the rows that the query will use
    found = offline(graph, everything, iterations=300, tolerance=1e-9)(nodes, values)
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(y)  # rows are kept as float32


def test_truncated_variants_find_what_conjugate_gradients_find(vectors, graph, say):
    queries = unit_rows(NODES, 16, seed=0)[::20] + np.float32(0.02)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    nearest, _ = top_k(vectors, vectors, 60)
    solvers = {
        "spectral, rank 60 of 300": spectral(graph, 60),
        "offline, 60 of 300": offline(graph, nearest),
    }
    reference = Diffusion(vectors, conjugate_gradients(graph))
    for name, solver in solvers.items():
        shares = []
        for query in queries:
            ours = Diffusion(vectors, solver).scores(query[None])
            best = [set(np.argsort(-each)[:10]) for each in (ours, reference.scores(query[None]))]
            shares.append(len(best[0] & best[1]) / 10)
        say(f"diffusion, {name}: recall@10 against conjugate gradients {np.mean(shares):.3f}")
        assert np.mean(shares) > 0.7


def arcs(count):
    """Two half circles in the plane of the sphere's first axes: near in space, far along themselves."""
    t = np.linspace(0, np.pi, count)
    upper = np.stack([np.cos(t), np.sin(t), np.full(count, 1.0)], axis=1)
    lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t), np.full(count, 1.0)], axis=1)
    rows = np.concatenate([upper, lower]) + np.array([0, 0, 0.5])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_diffusion_follows_the_manifold_where_similarity_cuts_across():
    vectors = arcs(100)
    graph = knn_graph(vectors, 8, gamma=200.0)  # a sharp kernel: the points are dense
    scores = Diffusion(vectors, conjugate_gradients(graph, iterations=300), k=3, gamma=200.0).scores(
        vectors[:1]
    )
    first = ranked(scores, np.arange(200), 100)
    assert (first < 100).mean() > 0.95
    plain, _ = top_k(vectors[:1], vectors, 100)
    assert (plain[0] < 100).mean() < 0.8


def test_signal_of_a_query_with_regions():
    """Sums per node, then the k largest, then the power: node 4 wins by its two regions."""
    neighbours = np.array([[1, 4, 2], [3, 4, -1]])
    similarities = np.float32([[0.7, 0.5, 0.1], [0.6, 0.4, -np.inf]])
    nodes, values = query_signal(neighbours, similarities, 2)
    assert nodes.tolist() == [4, 1]
    np.testing.assert_allclose(values, [0.9**3, 0.7**3], rtol=1e-6)
    nodes, values = query_signal(np.array([[0, 1]]), np.float32([[0.5, -0.5]]), 10)
    assert nodes.tolist() == [0]
    assert query_signal(np.full((1, 3), -1), np.full((1, 3), -np.inf, np.float32), 3)[0].size == 0


def test_regions_are_pooled_by_weight():
    vectors = unit_rows(9, 4)
    vectors[1] = vectors[0]  # a repeated region
    owners = np.array([0, 0, 0, 2, 2, 3, 3, 3, 3])
    regions = weighted_regions(vectors, owners, 4)
    rows = vectors[:3].astype(np.float64)
    np.testing.assert_allclose((rows @ rows.T + np.eye(3)) @ regions.weights[:3], 1, atol=1e-9)
    assert regions.weights[0] == pytest.approx(regions.weights[1])
    graph = knn_graph(vectors, 5)
    diffusion = Diffusion(vectors, conjugate_gradients(graph), regions, k=6)
    query = unit_rows(3, 4, seed=3)
    f = Diffusion(vectors, conjugate_gradients(graph), k=6).scores(query)
    expected = [(regions.weights * f)[owners == image].sum() for image in range(4)]
    np.testing.assert_allclose(diffusion.scores(query), expected, atol=1e-12)
    assert diffusion.scores(query)[1] == 0  # no region at all


def test_one_region_per_image_ranks_as_the_global_vector(vectors, graph):
    solver = conjugate_gradients(graph)
    regions = weighted_regions(vectors, np.arange(NODES), NODES)
    query = unit_rows(1, 16, seed=9)
    plain = Diffusion(vectors, solver).scores(query)
    np.testing.assert_allclose(Diffusion(vectors, solver, regions).scores(query) * 2, plain, rtol=1e-5)


def test_truncation_is_a_database_of_its_own(vectors, graph):
    images = np.array([250, 3, 40, 41, 99, 150, 7, *range(160, 230)])
    query = unit_rows(1, 16, seed=4)
    found = Diffusion(vectors, conjugate_gradients(graph)).truncated_scores(query, graph, images)
    nodes = np.sort(images)
    weights = graph.weights.toarray()[np.ix_(nodes, nodes)]
    signal = query_signal(*top_k(query, vectors[nodes], 10), 10)
    small = mutual_graph(np.zeros((len(nodes), 0), np.int64), np.zeros((len(nodes), 0), np.float32))
    small = Graph(type(small.weights)(weights), 1 / np.sqrt(np.where(weights.any(1), weights.sum(1), np.inf)))
    expected = np.zeros(NODES)
    expected[nodes] = conjugate_gradients(small)(*signal)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found[np.setdiff1d(np.arange(NODES), images)] == 0).all()
    assert Regions(np.array([0, 0, 2]), np.ones(3), 3).nodes_of(np.array([2, 0])).tolist() == [0, 1, 2]


def test_few_gaussians_instead_of_many_regions():
    rng = np.random.default_rng(0)
    centres = np.eye(8, dtype=np.float32)[:3]
    rows = centres[np.array([0, 1, 2] * 7)] + 0.02 * rng.standard_normal((21, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = np.concatenate([rows, unit_rows(2, 8)])
    kept, owners = reduced_regions(vectors, np.array([0] * 21 + [3] * 2), 3)
    assert owners.tolist() == [0, 0, 0, 3, 3]
    assert (kept[:3] @ centres.T).max(axis=0) == pytest.approx([1, 1, 1], abs=1e-3)
    np.testing.assert_array_equal(kept[3:], vectors[21:])
    same, _ = reduced_regions(np.repeat(vectors[:1], 6, axis=0), np.zeros(6, np.int64), 2)
    np.testing.assert_allclose(same, vectors[[0, 0]], atol=1e-6)
    assert len(reduced_regions(vectors[:0], np.zeros(0, np.int64), 5)[0]) == 0


def test_what_diffusion_does_not_reach_follows_by_similarity():
    scores = np.array([0, 0.5, 0, 0.9, 0])
    similar = np.array([4, 3, 0, -1])
    assert ranked(scores, similar, 5).tolist() == [3, 1, 4, 0]
    assert ranked(scores, similar, 2).tolist() == [3, 1]


@pytest.mark.parametrize("rank", [41, 30, 20])
def test_the_spectral_form_reaches_no_other_component(rank):
    """Two places in planes of their own, and a photo without a descriptor, which nothing ever finds."""
    rng = np.random.default_rng(0)
    vectors = np.zeros((41, 8), np.float32)
    vectors[:20, :4], vectors[20:40, 4:] = rng.random((20, 4)), rng.random((20, 4))
    vectors[:40] /= np.linalg.norm(vectors[:40], axis=1, keepdims=True)
    graph = knn_graph(vectors, 5)
    solver = spectral(graph, rank)
    scores = Diffusion(vectors, solver).scores(vectors[:1])
    assert scores[:20].max() > 0
    assert scores[40] == 0
    if rank >= 30:  # with less, an eigenspace that both places share may be cut
        np.testing.assert_array_equal(scores[20:], 0)
    np.testing.assert_array_equal(solver(np.array([40]), np.array([2.0])), 2.0 * (np.arange(41) == 40))


def test_memory_is_linear_in_the_graph():
    """No array of n x n: 4000 nodes would take 128 MB in float64, 16 MB as a mask."""
    vectors = unit_rows(4000, 8)
    neighbours, similarities = top_k(vectors, vectors, 10)
    tracemalloc.start()
    try:
        graph = mutual_graph(neighbours, similarities)
        Diffusion(vectors, conjugate_gradients(graph)).scores(vectors[:1])
        Diffusion(vectors, spectral(graph, 20)).scores(vectors[:1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 14e6


def test_errors(graph):
    with pytest.raises(DataError, match="neighbours are numbers of nodes, 0 to 1, or -1"):
        mutual_graph(np.array([[1], [2]]), np.ones((2, 1), np.float32))
    with pytest.raises(DataError, match=r"alpha of diffusion must be at least 0 and below 1, got 1\.0"):
        solve(graph, np.ones(NODES), alpha=1.0)
    with pytest.raises(DataError, match="rank must be at least 1"):
        spectral(graph, 0)
    with pytest.raises(DataError, match="at least 1 region"):
        reduced_regions(unit_rows(2, 3), np.array([0, 0]), 0)
    with pytest.raises(DataError, match="image_of must ascend within 0 to 1"):
        Regions(np.array([1, 0]), np.ones(2), 2)
