"""The stage *matches*: an image is read and prepared once for its pairs, whatever their order."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from loc.plugins.blocks import resolve_block
from loc.runtime.runtime import Runtime
from loc.stages import match as stage
from loc.stages.artefacts import Features
from loc.stages.match import Preparer, in_blocks, match_pairs
from loc.stores.features import FeatureStore
from loc.stores.matches import PairKey
from loc.stores.parts import ItemKey
from loc.types import LocalFeatures


def image_of(seed: int, count: int) -> LocalFeatures:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 160, (count, 16)).astype(np.uint8)
    xy = rng.uniform(0, 90, (count, 2)).astype(np.float32)
    return LocalFeatures(xy, np.ones(count, np.float32), rows, image_wh=(100, 100))


COUNTS = [40, 700, 5, 0, 300, 41, 900, 260]


@pytest.fixture
def features(tmp_path) -> Features:
    store = FeatureStore(tmp_path / "features", {"test": "match"})
    keys = {f"{number}.jpg": ItemKey(f"{number}.jpg", "0" * 16) for number in range(len(COUNTS))}
    with store.writer() as writer:
        for number, key in enumerate(keys.values()):
            writer.put(key, image_of(number, COUNTS[number]))
    return Features(store, keys, {}, resolve_block("features", "sift"))


@pytest.fixture
def counted(monkeypatch) -> dict[str, Counter]:
    """How often each image was read, and prepared (by its number of keypoints)."""
    counts = {"read": Counter(), "prepared": Counter()}
    get, prepared = FeatureStore.get, Preparer.prepared

    def counting_get(self, key):
        counts["read"][key.name] += 1
        return get(self, key)

    def counting_prepared(self, key, found):
        counts["prepared"][len(found)] += 1
        return prepared(self, key, found)

    monkeypatch.setattr(FeatureStore, "get", counting_get)
    monkeypatch.setattr(Preparer, "prepared", counting_prepared)
    return counts


def matched(features, pairs, folder):
    plugin = resolve_block("matcher", {"use": "nearest", "ratio": None})
    return match_pairs(
        features, pairs, plugin=plugin, workdir=folder, runtime=Runtime(device="cpu", workers=1)
    )


def test_each_image_is_read_and_prepared_once(features, counted, tmp_path) -> None:
    pairs = list(combinations(sorted(features.keys), 2))
    found = matched(features, pairs[::-1], tmp_path)
    assert counted["read"] == dict.fromkeys(features.keys, 1)
    assert counted["prepared"] == dict.fromkeys(COUNTS, 1)
    assert found.computed == len(pairs)
    plugin = resolve_block("matcher", {"use": "nearest", "ratio": None}).build()
    for first, second in pairs:
        alone, *_ = plugin([tuple(plugin.prepare(features.get(name)) for name in (first, second))])
        assert found.get((first, second)).indices.tolist() == alone.indices.tolist()


def test_a_block_reads_each_image_once_and_keeps_few(features, counted, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stage, "_LEAST_KEYPOINTS", 1)
    monkeypatch.setattr(stage, "_BLOCK_KEYPOINTS", 1000)
    pairs = list(combinations(sorted(features.keys), 2))
    blocks = in_blocks([PairKey(features.keys[a], features.keys[b]) for a, b in pairs], features.store.count)
    for block in blocks:
        assert sum(features.store.count(key) for key in {pair.first for pair in block}) <= 1000
    matched(features, pairs, tmp_path)
    assert counted["read"] == Counter(
        name for b in blocks for name in {key.name for pair in b for key in pair}
    )


def test_blocks_hold_every_pair_once_and_a_second_image_comes_once() -> None:
    keys = [ItemKey(f"{number:04d}.jpg", "0" * 16) for number in range(300)]
    pairs = [PairKey(*pair) for pair in combinations(keys, 2)]
    blocks = in_blocks(pairs, lambda key: 2048)
    assert sorted(pair for block in blocks for pair in block) == pairs
    reads = [len({key for pair in block for key in pair}) for block in blocks]
    assert reads == [300, 300 - 128, 300 - 256]
    for block in blocks:
        changes = sum(a.second != b.second for a, b in pairwise(block))
        assert changes == len({pair.second for pair in block}) - 1


def test_neighbours_have_similar_sizes() -> None:
    counts = {ItemKey(f"{number}.jpg", "0" * 16): count for number, count in enumerate((2000, 10, 1900, 200))}
    large, small, large_too, small_too = counts
    pairs = [PairKey(*pair) for pair in combinations(counts, 2)]
    (block,) = in_blocks(pairs, counts.__getitem__)
    assert [pair.second for pair in block] == [small, *[small_too] * 3, *[large_too] * 2]
    assert [pair.first for pair in block] == [large, small, large, large_too, small, large]


def test_no_more_than_one_call_is_at_hand_beyond_the_block(features, tmp_path, monkeypatch) -> None:
    calls: list[int] = []
    match = Preparer.match

    def counting(self, pairs):
        calls.append(len(pairs))
        return match(self, pairs)

    monkeypatch.setattr(Preparer, "match", counting)
    matched(features, list(combinations(sorted(features.keys), 2)), tmp_path)
    assert calls == [16, 12]
