"""Pairs by retrieval, reordered by what the local features of their images agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

import numpy as np

from loc.config import RerankConfig
from loc.errors import ConfigError
from loc.retrieval.verification import rerank
from loc.types import LocalFeatures

Pair = tuple[str, str]


def _untracked(queries: Sequence[str]) -> Iterable[str]:
    return queries


@dataclass(frozen=True)
class LocalSource:
    """Local features of images by name; ``track`` passes the queries through and tells of the progress."""

    get: Callable[[str], LocalFeatures]
    track: Callable[[Sequence[str]], Iterable[str]] = _untracked


def rerank_pairs(pairs: list[Pair], config: RerankConfig, k: int, source: LocalSource | None) -> list[Pair]:
    """The ``k`` best database images of each query by (inliers, rank so far).

    Args:
        pairs: ``(query, database image)``, all of a query together, most similar first; of an order that
            has as many images as are to be verified.

    Raises:
        ConfigError: the run has no local features.
    """
    if source is None:
        raise ConfigError(
            "re-ranking compares local features, and this run has none",
            "set features (for example features: sift), or take rerank out of the pair generator",
        )
    ranked = {query: [name for _, name in group] for query, group in groupby(pairs, key=itemgetter(0))}
    features_of = remembered(source.get, config)
    return [
        (query, name)
        for query in source.track(list(ranked))
        for name in reranked(features_of(query), ranked[query], features_of, config, k)
    ]


def reranked(
    query: LocalFeatures,
    names: Sequence[str],
    features_of: Callable[[str], LocalFeatures],
    config: RerankConfig,
    k: int,
) -> Iterator[str]:
    """The ``k`` best of the images found for one query, most similar first."""
    scored = [(name, -float(rank)) for rank, name in enumerate(names)]
    return (name for name, _, _ in rerank(query, scored, features_of, config)[:k])


def remembered(get: Callable[[str], LocalFeatures], config: RerankConfig) -> Callable[[str], LocalFeatures]:
    """``get`` for queries whose candidates are much the same: it keeps what verification looks at."""

    @lru_cache(maxsize=2 * config.candidates)
    def features_of(name: str) -> LocalFeatures:
        features = get(name)
        return features.select(np.arange(len(features))[: config.max_keypoints])

    return features_of
