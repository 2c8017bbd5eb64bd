"""Generators of pairs: functions from names, and what is known of the images, to pairs.

Map pairs are ``(smaller, larger)`` names of database images; query pairs are ``(query, database
image)``. Queries never retrieve queries, and no image is paired with itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loc.config import (
    CovisibilityPairs,
    DiffusionConfig,
    ExhaustivePairs,
    ExpansionConfig,
    FusionConfig,
    GpsPairs,
    ListedPairs,
    PairsConfig,
    PosePairs,
    RetrievalPairs,
    SequentialPairs,
)
from loc.errors import ConfigError, DataError
from loc.layouts.lists import read_pairs
from loc.retrieval.fusion import fuse_ranks, fuse_scores
from loc.retrieval.ranking import Ranks, ranking_of
from loc.stages.covisibility import from_covisibility
from loc.stages.nearby import nearest_gps, nearest_poses
from loc.stages.reranking import LocalSource, rerank_pairs
from loc.stages.sequences import neighbours, sequences
from loc.types import Array, GpsPosition, ImageRecord, Pose, Scene

log = logging.getLogger(__name__)

Pair = tuple[str, str]
PairRole = Literal["map", "query"]
#: Rows are the global descriptors of the names, ``(n, d)`` float32, or ``(n,)`` what a plug-in ranks itself.
Descriptors = Callable[[list[str]], Array]


def exhaustive(names: Iterable[str]) -> list[Pair]:
    """Every pair of different images once, sorted.

    >>> exhaustive(["b", "a", "c"])
    [('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    return list(combinations(sorted(set(names)), 2))


def exhaustive_query(queries: Iterable[str], database: Iterable[str]) -> list[Pair]:
    """Every query with every database image, sorted.

    >>> exhaustive_query(["q"], ["b", "a"])
    [('q', 'a'), ('q', 'b')]
    """
    ordered = sorted(set(database))
    return [(query, name) for query in sorted(set(queries)) for name in ordered]


def from_retrieval(
    queries: Sequence[str],
    database: Sequence[str],
    query_descriptors: Array,
    database_descriptors: Array,
    k: int,
    *,
    min_similarity: float | None = None,
    exclude: Iterable[Pair] = (),
    expansion: ExpansionConfig | None = None,
    diffusion: DiffusionConfig | None = None,
    regions: int = 1,
    own: Callable[[Array], Ranks] | None = None,
) -> list[Pair]:
    """``(query, database image)`` by similarity of global descriptors: by query, most similar first.

    An image is never retrieved for itself (the same name on both sides). An image whose descriptor is
    zero, because it has nothing to aggregate, is in no pair. ``k`` may be larger than the database.

    Args:
        query_descriptors, database_descriptors: a row per name, unit norm or zero; of ``own`` what it takes.
        k: database images per query.
        min_similarity: least dot product of a pair.
        exclude: ``(query, database image)`` that must not be retrieved.
        expansion, diffusion, regions, own: other orders than that of similarity
            (:mod:`loc.retrieval.ranking`).
    """
    rows = {name: row for row, name in enumerate(database)}
    asked = {name: row for row, name in enumerate(queries)}
    banned = {(row, rows[name]) for name, row in asked.items() if name in rows}
    banned |= {(asked[query], rows[name]) for query, name in exclude if query in asked and name in rows}
    rank = ranking_of(
        database_descriptors, regions=regions, own=own, expansion=expansion, diffusion=diffusion
    )
    indices, similarities = rank(
        query_descriptors, k, exclude=np.array(sorted(banned), np.int64).reshape(-1, 2)
    )
    wanted = indices >= 0
    if min_similarity is not None:
        wanted &= similarities >= min_similarity
    pairs = []
    for row in sorted(range(len(queries)), key=lambda row: queries[row]):
        pairs += [(queries[row], database[column]) for column in indices[row][wanted[row]].tolist()]
    return pairs


def from_list(path: Path, scene: Scene, role: PairRole, *, both: bool = False) -> list[Pair]:
    """Pairs of a list, in its order; names of skipped photos and pairs of one image are left out.

    Args:
        path: ``name0 name1`` per line; query pairs may have either first.
        both: the list serves both roles: pairs of the other role are left out instead of refused.

    Raises:
        DataError: an unknown name, two queries, or a pair of the other role; with the file.
    """
    queries = {image.name for image in scene.queries}
    known = [image.name for image in scene.images] + list(scene.skipped)
    pairs = []
    for first, second in read_pairs(path, known):
        if first == second or first in scene.skipped or second in scene.skipped:
            continue
        of_queries = (first in queries) + (second in queries)
        if of_queries == 2 or (not both and of_queries != (role == "query")):
            kind = ("two database images", "a query and a database image", "two queries")[of_queries]
            raise DataError(
                f"the pair list {path} for {role} pairs has {first!r} {second!r}: {kind}",
                "queries are never paired with queries; set 'for: both' for a list with map and query pairs",
            )
        if of_queries == (role == "query"):
            swap = second in queries if role == "query" else second < first
            pairs.append((second, first) if swap else (first, second))
    return pairs


@dataclass(frozen=True)
class Described:
    """Global descriptors: rows for names, how many vectors each row holds, and their own ranking if any."""

    rows: Descriptors
    regions: int = 1
    own: Callable[[Array], Ranks] | None = None


@dataclass(frozen=True)
class Request:
    """What a generator may look at.

    Attributes:
        usable: names of images that have features.
        global_descriptors: rows for names; None where the run has no global features.
        regions: vectors in each of those rows.
        own: what ranks those rows, where they are no vectors.
        others: further descriptors by the keys of their blocks (``fusion``).
        local: local features by name (``rerank``).
    """

    role: PairRole
    scene: Scene
    usable: Collection[str]
    global_descriptors: Descriptors | None
    regions: int = 1
    others: Mapping[str, Described] = field(default_factory=dict)
    own: Callable[[Array], Ranks] | None = None
    local: LocalSource | None = None

    @property
    def database(self) -> list[str]:
        return usable_names(self.scene, "db", self.usable)

    @property
    def asking(self) -> list[str]:
        """The images that look for partners: database images for the map, else queries."""
        return usable_names(self.scene, "db" if self.role == "map" else "query", self.usable)

    def records(self, names: Iterable[str]) -> list[ImageRecord]:
        by_name = {image.name: image for image in self.scene.images}
        return [by_name[name] for name in names]

    def descriptors(self, names: list[str]) -> Array:
        if self.global_descriptors is None:
            raise ConfigError(
                "pairs by retrieval need global features, and this run has none",
                "set globals (for example globals: vlad), or use pairs: [{use: exhaustive, for: both}]",
            )
        return self.global_descriptors(names)


def generate(config: PairsConfig, request: Request) -> list[Pair]:
    """The pairs of one generator, in its order; errors: see :func:`loc.stages.pair_union.generate_pairs`."""
    if isinstance(config, ListedPairs):
        return from_list(config.path, request.scene, request.role, both=config.for_ == "both")
    for kind, generator in _GENERATORS.items():
        if isinstance(config, kind):
            pairs = generator(config, request)
            return [(min(pair), max(pair)) for pair in pairs] if request.role == "map" else pairs
    raise ConfigError(f"pairs: {type(config).__name__} cannot generate pairs", "see: loc plugins config")


def _exhaustive(_: ExhaustivePairs, request: Request) -> list[Pair]:
    if request.role == "map":
        return exhaustive(request.database)
    return exhaustive_query(request.asking, request.database)


def _retrieval(config: RetrievalPairs, request: Request) -> list[Pair]:
    if config.rerank is not None:
        depth = max(config.k, config.rerank.candidates)
        pairs = _retrieval(config.model_copy(update={"rerank": None, "k": depth}), request)
        return rerank_pairs(pairs, config.rerank, config.k, request.local)
    asking, database = request.asking, request.database
    db_rows = request.descriptors(database)
    if not asking or not database:
        return []
    if config.fusion is not None:
        return _fused(config, config.fusion, request)
    rows = db_rows if request.role == "map" else request.descriptors(asking)
    return from_retrieval(
        asking,
        database,
        rows,
        db_rows,
        config.k,
        min_similarity=config.min_similarity,
        expansion=config.expansion,
        diffusion=config.diffusion,
        regions=request.regions,
        own=request.own,
    )


def _fused(config: RetrievalPairs, fusion: FusionConfig, request: Request) -> list[Pair]:
    """By the rankings of several global descriptors, each to the depth that the fusion looks at."""
    asking, database = request.asking, request.database
    itself = np.array([(row, row) for row in range(len(asking))] if request.role == "map" else [], np.int64)
    retrievers = [Described(request.descriptors, request.regions, request.own)]
    retrievers += [request.others[key] for key in fusion.blocks]
    found = []
    for each in retrievers:
        rows = each.rows(database)
        rank = ranking_of(
            rows,
            regions=each.regions,
            own=each.own,
            expansion=config.expansion,
            diffusion=config.diffusion,
        )
        depth = max(config.k, fusion.depth)
        found.append(rank(each.rows(asking), depth, exclude=itself.reshape(-1, 2)))
    if fusion.by == "scores":
        fused, _ = fuse_scores(found, config.k, weights=fusion.weights)
    else:
        fused, _ = fuse_ranks([ids for ids, _ in found], config.k, weights=fusion.weights)
    return [
        (query, database[row])
        for query, ids in zip(asking, fused, strict=True)
        for row in ids.tolist()
        if row >= 0
    ]


def _covisibility(config: CovisibilityPairs, request: Request) -> list[Pair]:
    if request.scene.model is None:
        raise ConfigError(
            "pairs by covisibility need a reference model",
            "set scene.model (layout colmap), or use pairs: [{use: retrieval}]",
        )
    return from_covisibility(request.scene.model, request.database, config.k)


def _sequential(config: SequentialPairs, request: Request) -> list[Pair]:
    ordered = ordered_sequences(config, request.scene, request.usable)
    pairs = [
        pair for each in ordered for pair in neighbours(each, config.overlap, quadratic=config.quadratic)
    ]
    if config.loop_closure is None:
        return pairs
    # A loop leads elsewhere: an image's own neighbourhood is matched already and would fill its k.
    near = [pair for each in ordered for pair in neighbours(each, config.overlap)]
    asking = sorted(name for each in ordered for name in each[:: config.loop_closure])
    database = request.database
    db_rows = request.descriptors(database)
    if not asking:
        return pairs
    return pairs + from_retrieval(
        asking,
        database,
        db_rows[np.searchsorted(database, asking)],
        db_rows,
        config.loop_closure_k,
        exclude=near + [(second, first) for first, second in near],
        regions=request.regions,
        own=request.own,
    )


def ordered_sequences(config: SequentialPairs, scene: Scene, usable: Collection[str]) -> list[list[str]]:
    images = [image for image in scene.db if image.name in usable]
    return sequences(images, by_time=config.order == "timestamp")


def _poses(config: PosePairs, request: Request) -> list[Pair]:
    database: dict[str, Pose] = {}
    for image in request.records(request.database):
        if image.pose is not None:
            database[image.name] = image.pose
    if request.database and not database:
        raise ConfigError(
            "pairs by poses need database images with known poses, and this scene has none",
            "use a layout with a reference model (colmap, aachen), or pairs: [{use: retrieval}]",
        )
    asking = database
    if request.role == "query":
        asking = {
            image.name: image.pose_prior
            for image in request.records(request.asking)
            if image.pose_prior is not None
        }
        if request.asking and not asking:
            raise ConfigError(
                "pairs of queries by poses need rough poses of the queries, and there are none",
                "give a file 'name qw qx qy qz tx ty tz': --set scene.priors=FILE, or use for: map",
            )
        _tell_without("prior pose", request.asking, asking)
    return nearest_poses(
        asking, database, config.k, max_distance=config.max_distance, max_angle_deg=config.max_angle_deg
    )


def _gps(config: GpsPairs, request: Request) -> list[Pair]:
    database = _positions(request.records(request.database))
    if request.database and not database:
        raise DataError(
            f"pairs by gps: none of the {len(request.database)} database photos has a GPS position in its "
            "EXIF data",
            "photos lose it when they are edited or sent: use the originals, or pairs: [{use: retrieval}]",
        )
    asking = database if request.role == "map" else _positions(request.records(request.asking))
    _tell_without("GPS position", request.asking, asking)
    return nearest_gps(
        asking,
        database,
        config.k,
        max_distance_m=config.max_distance_m,
        use_altitude=config.use_altitude,
    )


def _positions(images: Iterable[ImageRecord]) -> dict[str, GpsPosition]:
    return {image.name: image.gps for image in images if image.gps is not None}


def _tell_without(what: str, names: Sequence[str], known: Collection[str]) -> None:
    without = [name for name in names if name not in known]
    if without:
        log.warning(
            "%d of %d images have no %s and are in no pair by it, e.g. %s",
            len(without),
            len(names),
            what,
            without[0],
        )


#: A generator by its section of the config; ``list`` is apart, since its pairs have their order already.
_GENERATORS: dict[type, Callable[[Any, Request], list[Pair]]] = {
    ExhaustivePairs: _exhaustive,
    RetrievalPairs: _retrieval,
    CovisibilityPairs: _covisibility,
    SequentialPairs: _sequential,
    PosePairs: _poses,
    GpsPairs: _gps,
}


def usable_names(scene: Scene, role: Literal["db", "query"], usable: Collection[str]) -> list[str]:
    return [image.name for image in scene.of_role(role) if image.name in usable]
