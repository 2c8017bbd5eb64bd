"""Ranking database images for queries as a config says: similarity, expansion, diffusion."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from loc.config.ranking import DiffusionConfig, ExpansionConfig
from loc.retrieval.diffusion import Diffusion, Solver, conjugate_gradients, offline, ranked, spectral
from loc.retrieval.expansion import augment_database, expand_queries
from loc.retrieval.graph import Graph, knn_graph
from loc.retrieval.topk import top_k

Array = np.ndarray


class Ranking:
    """A database of global descriptors, prepared for queries.

    Database-side augmentation comes first, query expansion runs on what it made, and diffusion on both. The
    graph is built here, once; queries are never part of it.
    """

    def __init__(
        self,
        database: Float32[Array, "n d"],
        *,
        expansion: ExpansionConfig | None = None,
        diffusion: DiffusionConfig | None = None,
    ) -> None:
        """Prepare ``database`` (rows of unit norm, or zero: never found)."""
        self._expansion = expansion or ExpansionConfig()
        self._options = diffusion
        if self._expansion.database:
            database = augment_database(database, self._expansion.database, alpha=self._expansion.alpha)
        self._database = database
        if diffusion is not None:
            self._graph = knn_graph(database, diffusion.k, gamma=diffusion.gamma)
            self._diffusion = Diffusion(
                database,
                _solver(diffusion, self._graph, database),
                k=diffusion.query_k,
                gamma=diffusion.gamma,
            )

    def __call__(
        self, queries: Float32[Array, "q d"], k: int, *, exclude: Int[Array, "e 2"] | None = None
    ) -> tuple[Int64[Array, "q m"], Float32[Array, "q m"]]:
        """The ``min(k, n)`` best images per query and their scores, best first.

        Scores are similarities; with diffusion they are those of diffusion, which has no scale, and images
        that it does not reach follow by similarity with a score of 0. -1 and -inf fill short rows.

        Args:
            exclude: ``(query row, database row)`` that must not appear.
        """
        if self._expansion.queries:
            queries = expand_queries(
                queries, self._database, self._expansion.queries, alpha=self._expansion.alpha
            )
        indices, similarities = top_k(queries, self._database, k, exclude=exclude)
        if self._options is None:
            return indices, similarities
        out, scores = np.full_like(indices, -1), np.full_like(similarities, -np.inf)
        for row, query in enumerate(queries):
            found = self._scores(query[None])
            if exclude is not None:
                found[exclude[exclude[:, 0] == row, 1]] = 0
            order = ranked(found, indices[row], indices.shape[1])
            out[row, : len(order)] = order
            scores[row, : len(order)] = np.maximum(found[order], 0)
        return out, scores

    def _scores(self, query: Float32[Array, "1 d"]) -> Float64[Array, " n"]:
        options = self._options
        if options is None or options.truncate is None or options.truncate >= len(self._database):
            return self._diffusion.scores(query)
        nearest, _ = top_k(query, self._database, options.truncate)
        images = nearest[0][nearest[0] >= 0]
        return self._diffusion.truncated_scores(
            query, self._graph, images, alpha=options.alpha, iterations=options.iterations
        )


def _solver(options: DiffusionConfig, graph: Graph, database: Float32[Array, "n d"]) -> Solver:
    if options.solver == "spectral":
        return spectral(graph, options.rank, alpha=options.alpha)
    if options.solver == "offline":
        nearest, _ = top_k(database, database, options.neighbourhood)
        return offline(graph, nearest, alpha=options.alpha, iterations=options.iterations)
    return conjugate_gradients(graph, alpha=options.alpha, iterations=options.iterations)
