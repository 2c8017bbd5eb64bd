"""The union of pair generators, and how many pairs it will give."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from loc.config import AutoPairs, ExhaustivePairs, PairsConfig, RetrievalPairs, SequentialPairs
from loc.retrieval.ranking import Ranks
from loc.stages.pair_generators import (
    Described,
    Descriptors,
    Pair,
    PairRole,
    Request,
    generate,
    ordered_sequences,
    usable_names,
)
from loc.stages.reranking import LocalSource
from loc.types import Array, Scene


@dataclass(frozen=True)
class Prediction:
    """How many pairs a run will match; ``exact`` is False where ``count`` is an upper bound."""

    count: int
    exact: bool


def generate_pairs(
    role: PairRole,
    configs: Sequence[PairsConfig],
    scene: Scene,
    usable: Collection[str],
    global_descriptors: Descriptors | None,
    *,
    regions: int = 1,
    own: Callable[[Array], Ranks] | None = None,
    others: Mapping[str, Described] | None = None,
    local: LocalSource | None = None,
) -> list[Pair]:
    """The union of the generators for ``role``, without repetition.

    Args:
        usable: names of images that have features; others are in no pair.
        global_descriptors: rows for names; None where the run has no global features.
        regions: vectors in each of those rows.
        own: what ranks those rows, where they are no vectors.
        others: further descriptors, which generators fuse with these.
        local: local features by name, by which generators re-rank.

    Returns:
        Map pairs sorted. Query pairs by query, and for each query in rank order: most similar first
        where a retrieval says so, generators in the order of the config.

    Raises:
        ConfigError: a generator needs global descriptors, local features, a reference model or known
            poses, and there is none.
        DataError: a list is wrong, or no database photo has the GPS position that was asked for.
    """
    found: dict[Pair, None] = {}
    request = Request(role, scene, usable, global_descriptors, regions, others or {}, own, local)
    for config in _of_role(role, configs, scene):
        for pair in generate(config, request):
            if pair[0] in usable and pair[1] in usable:
                found[pair] = None
    if role == "map":
        return sorted(found)
    return sorted(found, key=lambda pair: pair[0])  # stable: keeps the rank order


def no_generator(role: PairRole, configs: Sequence[PairsConfig]) -> str:
    """Why the config can give no pair for ``role``; empty where a generator is for it."""
    if any(config.for_ in (role, "both") for config in configs):
        return ""
    return f"no generator of the `pairs` section is for: {role} or both"


def needs_globals(configs: Sequence[PairsConfig], scene: Scene) -> bool:
    """Whether any generator will ask for global descriptors of this scene's images."""
    return any(_retrieves(config) for role in ("map", "query") for config in _of_role(role, configs, scene))


def predict_pairs(
    role: PairRole, configs: Sequence[PairsConfig], scene: Scene, usable: Collection[str]
) -> Prediction:
    """How many pairs :func:`generate_pairs` will return, without descriptors.

    Exact for everything but map pairs by retrieval (two images may retrieve each other; loop closure is
    retrieval), a similarity threshold, and retrieval united with others. It is assumed that every image has a
    descriptor; for queries, that every usable database image gets into the map.
    """
    n, q = len(usable_names(scene, "db", usable)), len(usable_names(scene, "query", usable))
    complete = n * (n - 1) // 2 if role == "map" else q * n
    chosen = _of_role(role, configs, scene)
    if any(isinstance(config, ExhaustivePairs) for config in chosen):
        return Prediction(complete, True)
    known = [without for config in chosen if (without := _without_retrieval(config)) is not None]
    count = len(generate_pairs(role, known, scene, usable, None))
    bounds = [_retrieval_bound(role, config, scene, usable) for config in chosen if _retrieves(config)]
    total = min(complete, count + sum(bound.count for bound in bounds))
    exact = not bounds or (not known and len(bounds) == 1 and bounds[0].exact) or count == complete
    return Prediction(total, exact)


def _retrieves(config: PairsConfig) -> bool:
    return isinstance(config, RetrievalPairs) or _closes_loops(config)


def _closes_loops(config: PairsConfig) -> bool:
    return isinstance(config, SequentialPairs) and config.loop_closure is not None


def _without_retrieval(config: PairsConfig) -> PairsConfig | None:
    """The part of a generator that needs no descriptors."""
    if isinstance(config, SequentialPairs):
        return config.model_copy(update={"loop_closure": None})
    return None if isinstance(config, RetrievalPairs) else config


def _retrieval_bound(
    role: PairRole, config: PairsConfig, scene: Scene, usable: Collection[str]
) -> Prediction:
    """Of one retrieval: ``k`` per image, but a pair of map images that retrieve each other counts once."""
    n, q = len(usable_names(scene, "db", usable)), len(usable_names(scene, "query", usable))
    if isinstance(config, SequentialPairs):
        asking = sum(len(each[:: config.loop_closure]) for each in ordered_sequences(config, scene, usable))
        return Prediction(min(asking * min(config.loop_closure_k, max(0, n - 1)), n * (n - 1) // 2), False)
    if not isinstance(config, RetrievalPairs):
        return Prediction(0, True)
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
