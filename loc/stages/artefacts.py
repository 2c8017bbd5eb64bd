"""What one stage hands to the next: a store, and which of its items belong to this run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loc.plugins.blocks import ResolvedPlugin
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import LocalFeatures, Matches

Pair = tuple[str, str]


@dataclass(frozen=True)
class Features:
    """Local features of the images of a run.

    Attributes:
        store: where they lie; may hold more than this run's items.
        keys: image name → its item.
        skipped: image name → why it has no features (unreadable photo, extractor crashed).
        plugin: the extractor.
        computed: how many items this run added.
    """

    store: FeatureStore
    keys: dict[str, ItemKey]
    skipped: dict[str, str]
    plugin: ResolvedPlugin
    computed: int = 0

    def get(self, name: str) -> LocalFeatures:
        return self.store.get(self.keys[name])

    def keypoints(self, name: str) -> np.ndarray:
        """``(n, 2)`` float32 px, corner origin, stored image."""
        return self.store.keypoints(self.keys[name])

    def count(self, name: str) -> int:
        return self.store.count(self.keys[name])


@dataclass(frozen=True)
class Globals:
    """Global descriptors of the images of a run.

    Attributes:
        fit: the fitted state's folder, or None.
        others: further descriptors of the same images, which pair generators fuse with these.
    """

    store: GlobalStore
    keys: dict[str, ItemKey]
    plugin: ResolvedPlugin
    fit: Path | None = None
    computed: int = 0
    others: dict[str, Globals] = field(default_factory=dict)

    def matrix(self, names: list[str]) -> np.ndarray:
        """``(n, d)`` float32, one row per name."""
        return self.store.matrix(self.keys[name] for name in names)


@dataclass(frozen=True)
class PairList:
    """Pairs to match: sorted; map pairs as (smaller, larger) name, query pairs as (query, db).

    ``ranked`` gives a query's database images, most similar first. ``empty_because`` says why the
    config can give no pair at all.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    ranked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    empty_because: str = ""


@dataclass(frozen=True)
class Matched:
    """Matches of the pairs of a run, and the keypoints they refer to."""

    store: MatchStore
    keys: dict[Pair, PairKey]
    keypoints: Features
    plugin: ResolvedPlugin
    computed: int = 0

    def get(self, pair: Pair) -> Matches:
        return self.store.get(self.keys[pair])

    def count(self, pair: Pair) -> int:
        return self.store.count(self.keys[pair])
