"""Ranking database images for queries as a config says: similarity, expansion, diffusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from loc.config.ranking import DiffusionConfig, ExpansionConfig
from loc.errors import ConfigError
from loc.retrieval.diffusion import Diffusion, Solver, conjugate_gradients, offline, ranked, spectral
from loc.retrieval.expansion import augment_database, expand_queries
from loc.retrieval.graph import Graph, knn_graph
from loc.retrieval.regions import pooled_rows, reduced_regions, regions_of_rows, weighted_regions
from loc.retrieval.topk import top_k

Array = np.ndarray
#: Neighbours in the graph and of a query (Iscen et al., CVPR 2017): for one vector per image, for regions.
_NEIGHBOURS = {False: (50, 10), True: (200, 200)}


@runtime_checkable
class Ranks(Protocol):
    """A database that ranks itself for queries: :class:`Ranking`, or a plug-in's own."""

    def __call__(
        self, queries: Array, k: int, *, exclude: Int[Array, "e 2"] | None = None
    ) -> tuple[Int64[Array, "q m"], Float32[Array, "q m"]]: ...


def ranking_of(
    rows: Array,
    *,
    regions: int = 1,
    own: Callable[[Array], Ranks] | None = None,
    expansion: ExpansionConfig | None = None,
    diffusion: DiffusionConfig | None = None,
) -> Ranks:
    """The ranking of a database: by the plug-in's ``own``, or else :class:`Ranking` with the other arguments.

    Raises:
        ConfigError: expansion or diffusion of what is no vector; else as :class:`Ranking`.
    """
    if own is None:
        return Ranking(rows, regions=regions, expansion=expansion, diffusion=diffusion)
    if expansion is not None or diffusion is not None:
        raise ConfigError(
            "expansion and diffusion need global descriptors that are vectors, and these are visual words",
            "take them out of the pair generator, or fuse: {fusion: {of: [vlad]}}",
        )
    return own(rows)


class Ranking:
    """A database of global descriptors, prepared for queries.

    Database-side augmentation comes first, query expansion runs on what it made, and diffusion on both. The
    graph is built here, once; queries are never part of it.

    A row may hold several vectors of an image one after another (its regions, zeros for none). Diffusion then
    runs on the regions; similarity is that of their normalised sums.
    """

    def __init__(
        self,
        database: Float32[Array, "n d"],
        *,
        regions: int = 1,
        expansion: ExpansionConfig | None = None,
        diffusion: DiffusionConfig | None = None,
    ) -> None:
        """Prepare a database.

        Args:
            database: rows of unit norm, or zero: never found.
            regions: vectors in a row.

        Raises:
            ConfigError: expansion together with diffusion of regions, or regions where there are none.
            DataError: rows that are no multiple of ``regions``, or not finite.
        """
        self._expansion = expansion or ExpansionConfig()
        self._options = diffusion
        self._per_row = regions
        if regions > 1 and diffusion is not None and (self._expansion.queries or self._expansion.database):
            raise ConfigError(
                "expansion averages whole descriptors, and diffusion of regions uses none",
                "take one of them out of the pair generator",
            )
        if regions == 1 and diffusion is not None and diffusion.regions is not None:
            raise ConfigError(
                "diffusion.regions reduces the regions of images, and this descriptor has one vector each",
                "take it out, or use a regional descriptor",
            )
        self._database = pooled_rows(database, regions)
        if self._expansion.database:
            self._database = augment_database(
                self._database, self._expansion.database, alpha=self._expansion.alpha
            )
        if diffusion is not None:
            self._prepare(database if regions > 1 else self._database, diffusion)

    def __call__(
        self, queries: Float32[Array, "q d"], k: int, *, exclude: Int[Array, "e 2"] | None = None
    ) -> tuple[Int64[Array, "q m"], Float32[Array, "q m"]]:
        """The ``min(k, n)`` best images per query and their scores, best first.

        Scores are similarities; with diffusion they are those of diffusion, which has no scale, and images
        that it does not reach follow by similarity with a score of 0. -1 and -inf fill short rows.

        Args:
            queries: rows like those of the database.
            exclude: ``(query row, database row)`` that must not appear.
        """
        rows = pooled_rows(queries, self._per_row)
        if self._expansion.queries:
            rows = expand_queries(rows, self._database, self._expansion.queries, alpha=self._expansion.alpha)
        indices, similarities = top_k(rows, self._database, k, exclude=exclude)
        if self._options is None:
            return indices, similarities
        out, scores = np.full_like(indices, -1), np.full_like(similarities, -np.inf)
        for row, found in enumerate(self._diffused(queries, rows, self._options)):
            if exclude is not None:
                found[exclude[exclude[:, 0] == row, 1]] = 0
            order = ranked(found, indices[row], indices.shape[1])
            out[row, : len(order)] = order
            scores[row, : len(order)] = np.maximum(found[order], 0)
        return out, scores

    def _prepare(self, rows: Float32[Array, "n d"], options: DiffusionConfig) -> None:
        many = self._per_row > 1
        vectors, regions = rows, None
        if many:
            vectors, image_of = regions_of_rows(rows, self._per_row)
            if options.regions is not None:
                vectors, image_of = reduced_regions(vectors, image_of, options.regions)
            regions = weighted_regions(vectors, image_of, len(rows))
        k, query_k = _NEIGHBOURS[many]
        self._graph = knn_graph(vectors, options.k or k, gamma=options.gamma, precision=np.float32)
        solver = _solver(options, self._graph, vectors)
        self._diffusion = Diffusion(
            vectors, solver, regions, k=options.query_k or query_k, gamma=options.gamma
        )

    def _diffused(
        self, queries: Float32[Array, "q d"], rows: Float32[Array, "q e"], options: DiffusionConfig
    ) -> Iterator[Float64[Array, " n"]]:
        """Scores of all images, query by query; ``rows`` are the queries as wholes."""
        parts, owners = rows, np.arange(len(rows))
        if self._per_row > 1:
            parts, owners = regions_of_rows(queries, self._per_row)
        whole_graph = options.truncate is None or options.truncate >= len(self._database)
        if whole_graph:
            neighbours, similarities = self._diffusion.neighbours(parts)
        else:
            nearest, _ = top_k(rows, self._database, options.truncate or 0)
        for row in range(len(rows)):
            own = slice(*np.searchsorted(owners, [row, row + 1]))
            if whole_graph:
                yield self._diffusion.scores_from(neighbours[own], similarities[own])
            else:
                images = nearest[row][nearest[row] >= 0]
                yield self._diffusion.truncated_scores(
                    parts[own], self._graph, images, alpha=options.alpha, iterations=options.iterations
                )


def _solver(options: DiffusionConfig, graph: Graph, vectors: Float32[Array, "m d"]) -> Solver:
    if options.solver == "spectral":
        return spectral(graph, options.rank, alpha=options.alpha)
    if options.solver == "offline":
        nearest, _ = top_k(vectors, vectors, options.neighbourhood)
        return offline(graph, nearest, alpha=options.alpha, iterations=options.iterations)
    return conjugate_gradients(graph, alpha=options.alpha, iterations=options.iterations)
