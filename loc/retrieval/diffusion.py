"""Ranking by diffusion on the neighbourhood graph of the database: what is near through others is near.

Iscen et al., "Efficient diffusion on region manifolds", CVPR 2017 (conjugate gradients, unseen queries,
truncation); "Fast spectral ranking for similarity search", CVPR 2018 (:func:`spectral`); Yang et al.,
"Efficient image retrieval via decoupling diffusion into online and offline processing", AAAI 2019
(:func:`offline`). All of them give f with (I - alpha S) f = y; the papers' factor 1 - alpha, which changes no
ranking, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh

from loc.errors import DataError
from loc.retrieval.graph import GAMMA, Graph
from loc.retrieval.regions import Regions
from loc.retrieval.topk import top_k

Array = np.ndarray
#: f for a y that is zero outside of a few nodes: ``solver(nodes, values) -> (n,)``.
Solver = Callable[[Int64[Array, " m"], Float64[Array, " m"]], Float64[Array, " n"]]

ALPHA = 0.99
#: Of the published code; the error is then still up to 12 % in energy norm, and rankings depend on it.
ITERATIONS = 20
TOLERANCE = 1e-6
#: Share of the largest value below which those of :func:`spectral` are rounding errors.
_ROUNDING = 1e-12


def solve(
    graph: Graph,
    y: Float64[Array, " n"],
    *,
    alpha: float = ALPHA,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Float64[Array, " n"]:
    """f with (I - alpha S) f = y by conjugate gradients from zero.

    The matrix is symmetric positive definite, with a condition number of at most (1 + alpha) / (1 - alpha).

    Args:
        iterations: at most this many products with S.
        tolerance: it stops where the residual's norm is below this times that of ``y``.
    """
    _check_alpha(alpha)
    f = np.zeros(len(graph))
    residual = y.astype(np.float64)
    direction = residual.copy()
    squared = float(residual @ residual)
    enough = tolerance**2 * squared
    for _ in range(iterations):
        if squared <= enough:
            break
        image = direction - alpha * graph.step(direction)
        length = squared / float(direction @ image)
        f += length * direction
        residual -= length * image
        before, squared = squared, float(residual @ residual)
        direction = residual + (squared / before) * direction
    return f


def conjugate_gradients(
    graph: Graph, *, alpha: float = ALPHA, iterations: int = ITERATIONS, tolerance: float = TOLERANCE
) -> Solver:
    """Solves anew for each query; needs nothing but the graph."""

    def solver(nodes: Int64[Array, " m"], values: Float64[Array, " m"]) -> Float64[Array, " n"]:
        y = np.zeros(len(graph))
        y[nodes] = values
        return solve(graph, y, alpha=alpha, iterations=iterations, tolerance=tolerance)

    return solver


def offline(
    graph: Graph,
    neighbourhoods: Int64[Array, "n t"],
    *,
    alpha: float = ALPHA,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Solver:
    """Solves once per node, on its neighbourhood alone; a query is a sum of few sparse rows.

    Args:
        neighbourhoods: per node, those that its solution may reach, -1 for fewer: its ``t`` nearest by
            descriptor (1000 in the paper). Memory is n · t.
    """
    count = len(graph)
    parts: list[tuple[Int64[Array, " t"], Float32[Array, " t"]]] = []
    for node, listed in enumerate(neighbourhoods):
        nodes = np.unique(np.append(listed[listed >= 0], node))
        y = (nodes == node).astype(np.float64)
        block = graph.block(nodes)
        found = solve(block, y, alpha=alpha, iterations=iterations, tolerance=tolerance)
        parts.append((nodes, found.astype(np.float32)))
    starts = np.cumsum([0] + [len(nodes) for nodes, _ in parts])
    none = np.zeros(0, np.int64), np.zeros(0, np.float32)
    columns, values = (np.concatenate(each) for each in zip(none, *parts, strict=True))
    rows = csr_array((values, columns, starts), shape=(count, count))

    def solver(nodes: Int64[Array, " m"], values: Float64[Array, " m"]) -> Float64[Array, " n"]:
        summed = values @ rows[nodes]
        return np.asarray(summed, np.float64).ravel()

    return solver


def spectral(graph: Graph, rank: int, *, alpha: float = ALPHA, seed: int = 0) -> Solver:
    """Uses the ``rank`` largest eigenvalues of S: f = U diag(1 / (1 - alpha L)) U^T y.

    With full rank it is the closed form; with less, f loses what is orthogonal to U. Memory is n · rank.
    """
    _check_alpha(alpha)
    graph = Graph(graph.weights.astype(np.float64, copy=False), graph.scale)  # less, and it does not converge
    values, vectors = _largest_eigenpairs(graph, rank, seed)
    gains = 1 / (1 - alpha * values)
    alone = graph.scale == 0  # such a node keeps its y, whatever the rank
    vectors[alone] = 0

    def solver(nodes: Int64[Array, " m"], values: Float64[Array, " m"]) -> Float64[Array, " n"]:
        out: Float64[Array, " n"] = vectors @ (gains * (vectors[nodes].T @ values))
        out[nodes] += np.where(alone[nodes], values, 0)
        out[np.abs(out) <= _ROUNDING * np.abs(out).max(initial=0)] = 0  # what nothing reaches stays at zero
        return out

    return solver


def _largest_eigenpairs(
    graph: Graph, rank: int, seed: int
) -> tuple[Float64[Array, " r"], Float64[Array, "n r"]]:
    count = len(graph)
    if rank < 1:
        raise DataError(f"the rank must be at least 1, got {rank}")
    if rank >= count - 1:  # Lanczos cannot give all of them; U has as many values as the dense matrix
        dense = graph.scale[:, None] * graph.weights.toarray() * graph.scale
        values, vectors = np.linalg.eigh(dense)
        return values[::-1][:rank].copy(), vectors[:, ::-1][:, :rank].copy()
    start = np.random.default_rng(seed).standard_normal(count)
    product = LinearOperator((count, count), matvec=lambda x: graph.step(np.ravel(x)), dtype=np.float64)
    values, vectors = eigsh(product, k=rank, which="LA", v0=start)
    return values, vectors


def query_signal(
    neighbours: Int64[Array, "r m"], similarities: Float32[Array, "r m"], k: int, *, gamma: float = GAMMA
) -> tuple[Int64[Array, " k"], Float64[Array, " k"]]:
    """y of an unseen query: where it is not zero, and what it is there.

    The neighbours of all regions of the query are taken together: their similarities are summed per node, the
    ``k`` largest sums kept, and only then raised to the power gamma (the order of the published code).

    Args:
        neighbours, similarities: one row per region of the query (one row for a global descriptor), from
            :func:`loc.retrieval.topk.top_k`.
    """
    found = neighbours >= 0
    nodes, where = np.unique(neighbours[found], return_inverse=True)
    sums = np.bincount(where, similarities[found].astype(np.float64), minlength=len(nodes))
    best = np.lexsort((nodes, -sums))[:k]
    best = best[sums[best] > 0]
    return nodes[best], sums[best] ** gamma


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Ranks images for queries that are not in the graph.

    Attributes:
        vectors: ``(m, d)`` float32, the nodes of the graph: one per image, or its regions.
        solver: one of :func:`conjugate_gradients`, :func:`offline`, :func:`spectral`.
        regions: which image each vector belongs to; None: one vector per image.
        k: of :func:`query_signal`, 10 for global and 200 for regional vectors in the paper.
        gamma: exponent of similarities, that of the graph.
    """

    vectors: Float32[Array, "m d"]
    solver: Solver
    regions: Regions | None = None
    k: int = 10
    gamma: float = GAMMA

    def scores(self, query: Float32[Array, "r d"]) -> Float64[Array, " n"]:
        """Score of every image for one query with ``r`` regions; zero where nothing reached it."""
        return self.scores_from(*self.neighbours(query))

    def neighbours(self, queries: Float32[Array, "r d"]) -> tuple[Int64[Array, "r m"], Float32[Array, "r m"]]:
        """The vectors by which queries enter the graph; many at once are faster than one by one."""
        return top_k(queries, self.vectors, self.k)

    def scores_from(
        self, neighbours: Int64[Array, "r m"], similarities: Float32[Array, "r m"]
    ) -> Float64[Array, " n"]:
        """:meth:`scores` of a query whose regions have these :meth:`neighbours`."""
        signal = query_signal(neighbours, similarities, self.k, gamma=self.gamma)
        return self._pooled(self.solver(*signal))

    def truncated_scores(
        self,
        query: Float32[Array, "r d"],
        graph: Graph,
        images: Int64[Array, " t"],
        *,
        alpha: float = ALPHA,
        iterations: int = ITERATIONS,
    ) -> Float64[Array, " n"]:
        """The same by conjugate gradients on the part of the graph that belongs to ``images``; else zero.

        The part has degrees, neighbours of the query and a solution of its own; 10,000 nearest images by a
        global descriptor in the paper, for databases of 10^5.
        """
        nodes = np.sort(images) if self.regions is None else self.regions.nodes_of(images)
        signal = query_signal(*top_k(query, self.vectors[nodes], self.k), self.k, gamma=self.gamma)
        f = np.zeros(len(self.vectors))
        f[nodes] = conjugate_gradients(graph.part(nodes), alpha=alpha, iterations=iterations)(*signal)
        return self._pooled(f)

    def _pooled(self, f: Float64[Array, " m"]) -> Float64[Array, " n"]:
        return f if self.regions is None else self.regions.pooled(f)


def ranked(scores: Float64[Array, " n"], similar: Int64[Array, " m"], k: int) -> Int64[Array, " _"]:
    """At most ``k`` images: those with a positive score, best first, then the most similar of the others.

    Args:
        scores: zero or less where diffusion did not reach.
        similar: images by descriptor alone, most similar first; -1 is skipped.
    """
    reached = np.flatnonzero(scores > 0)
    order = reached[np.lexsort((reached, -scores[reached]))]
    rest = similar[(similar >= 0) & ~np.isin(similar, reached)]
    return np.concatenate([order, rest])[:k]


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha < 1:
        raise DataError(f"alpha of diffusion must be at least 0 and below 1, got {alpha}", "0.99 is usual")
