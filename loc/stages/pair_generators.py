"""Generators of pairs: pure functions from names (and descriptors) to pairs, and their union.

Map pairs are ``(smaller, larger)`` names of database images; query pairs are ``(query, database
image)``. Queries never retrieve queries, and no image is paired with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from loc.config import (
    AutoPairs,
    CovisibilityPairs,
    ExhaustivePairs,
    ListedPairs,
    PairsConfig,
    RetrievalPairs,
)
from loc.errors import ConfigError, DataError
from loc.layouts.lists import read_pairs
from loc.retrieval.topk import top_k
from loc.stages.covisibility import from_covisibility
from loc.types import Array, Scene

Pair = tuple[str, str]
PairRole = Literal["map", "query"]
#: Rows are the global descriptors of the names, ``(n, d)`` float32.
Descriptors = Callable[[list[str]], Float32[Array, "n d"]]


@dataclass(frozen=True)
class Prediction:
    """How many pairs a run will match; ``exact`` is False where ``count`` is an upper bound."""

    count: int
    exact: bool


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
    query_descriptors: Float32[Array, "q d"],
    database_descriptors: Float32[Array, "n d"],
    k: int,
    *,
    min_similarity: float | None = None,
) -> list[Pair]:
    """``(query, database image)`` by similarity of global descriptors: by query, most similar first.

    An image is never retrieved for itself (the same name on both sides). An image whose descriptor is
    zero, because it has nothing to aggregate, is in no pair. ``k`` may be larger than the database.

    Args:
        query_descriptors, database_descriptors: a row per name, unit norm or zero.
        k: database images per query.
        min_similarity: least dot product of a pair.
    """
    rows = {name: row for row, name in enumerate(database)}
    same = [(row, rows[name]) for row, name in enumerate(queries) if name in rows]
    exclude = np.array(same, np.int64).reshape(-1, 2)
    indices, similarities = top_k(query_descriptors, database_descriptors, k, exclude=exclude)
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


def generate_pairs(
    role: PairRole,
    configs: Sequence[PairsConfig],
    scene: Scene,
    usable: Collection[str],
    global_descriptors: Descriptors | None,
) -> list[Pair]:
    """The union of the generators for ``role``, without repetition.

    Args:
        usable: names of images that have features; others are in no pair.
        global_descriptors: rows for names; None where the run has no global features.

    Returns:
        Map pairs sorted. Query pairs by query, and for each query in rank order: most similar first
        where a retrieval says so, generators in the order of the config.

    Raises:
        ConfigError: a generator needs global descriptors, or a reference model, and there is none.
    """
    found: dict[Pair, None] = {}
    for config in _of_role(role, configs, scene):
        for pair in _generate(role, config, scene, usable, global_descriptors):
            if pair[0] in usable and pair[1] in usable:
                found[pair] = None
    if role == "map":
        return sorted(found)
    return sorted(found, key=lambda pair: pair[0])  # stable: keeps the rank order


def needs_globals(configs: Sequence[PairsConfig], scene: Scene) -> bool:
    """Whether any generator will ask for global descriptors of this scene's images."""
    return any(
        isinstance(config, RetrievalPairs)
        for role in ("map", "query")
        for config in _of_role(role, configs, scene)
    )


def predict_pairs(
    role: PairRole, configs: Sequence[PairsConfig], scene: Scene, usable: Collection[str]
) -> Prediction:
    """How many pairs :func:`generate_pairs` will return, without descriptors.

    Exact for everything but map pairs by retrieval (two images may retrieve each other), a similarity
    threshold, and retrieval united with others. For retrieval it is assumed that every image has a
    descriptor; for queries, that every usable database image gets into the map.
    """
    database = _usable(scene, "db", usable)
    queries = _usable(scene, "query", usable)
    n, q = len(database), len(queries)
    complete = n * (n - 1) // 2 if role == "map" else q * n
    chosen = _of_role(role, configs, scene)
    if any(isinstance(config, ExhaustivePairs) for config in chosen):
        return Prediction(complete, True)
    known = [config for config in chosen if not isinstance(config, RetrievalPairs)]
    count = len(generate_pairs(role, known, scene, usable, None))
    bounds = [_retrieval_bound(role, config, n, q) for config in chosen if isinstance(config, RetrievalPairs)]
    total = min(complete, count + sum(bound.count for bound in bounds))
    exact = not bounds or (len(chosen) == 1 and bounds[0].exact) or count == complete
    return Prediction(total, exact)


def _retrieval_bound(role: PairRole, config: RetrievalPairs, n: int, q: int) -> Prediction:
    """Of one retrieval: ``k`` per image, but a pair of map images that retrieve each other counts once."""
    every = config.min_similarity is None
    if role == "query":
        return Prediction(q * min(config.k, n), every)
    k = min(config.k, max(0, n - 1))
    return Prediction(min(n * k, n * (n - 1) // 2), every and k == max(0, n - 1))


def _of_role(role: str, configs: Sequence[PairsConfig], scene: Scene) -> list[PairsConfig]:
    """The generators for a role, with ``auto`` replaced by what it stands for in this scene."""
    chosen: list[PairsConfig] = []
    for config in configs:
        if config.for_ not in (role, "both"):
            continue
        if isinstance(config, AutoPairs):
            few = len(scene.db) < config.exhaustive_below
            chosen.append(ExhaustivePairs(for_="both") if few else RetrievalPairs(for_="both", k=config.k))
        else:
            chosen.append(config)
    return chosen


def _generate(
    role: PairRole,
    config: PairsConfig,
    scene: Scene,
    usable: Collection[str],
    global_descriptors: Descriptors | None,
) -> list[Pair]:
    database = _usable(scene, "db", usable)
    queries = _usable(scene, "query", usable)
    if isinstance(config, ExhaustivePairs):
        return exhaustive(database) if role == "map" else exhaustive_query(queries, database)
    if isinstance(config, ListedPairs):
        return from_list(config.path, scene, role, both=config.for_ == "both")
    if isinstance(config, CovisibilityPairs):
        if scene.model is None:
            raise ConfigError(
                "pairs by covisibility need a reference model",
                "set scene.model (layout colmap), or use pairs: [{use: retrieval}]",
            )
        return from_covisibility(scene.model, database, config.k)
    if not isinstance(config, RetrievalPairs):
        raise ConfigError(f"pairs: {type(config).__name__} cannot generate pairs", "see: loc plugins config")
    if global_descriptors is None:
        raise ConfigError(
            "pairs by retrieval need global features, and this run has none",
            "set globals (for example globals: vlad), or use pairs: [{use: exhaustive, for: both}]",
        )
    asking = database if role == "map" else queries
    if not asking or not database:
        return []
    db_rows = global_descriptors(database)
    rows = db_rows if role == "map" else global_descriptors(queries)
    pairs = from_retrieval(asking, database, rows, db_rows, config.k, min_similarity=config.min_similarity)
    return [(min(pair), max(pair)) for pair in pairs] if role == "map" else pairs


def _usable(scene: Scene, role: Literal["db", "query"], usable: Collection[str]) -> list[str]:
    return [image.name for image in scene.of_role(role) if image.name in usable]
