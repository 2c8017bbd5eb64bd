"""Matches of a part are checked as a whole, once, when they are read."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from loc.errors import StoreError
from loc.stores import parts
from loc.stores.features import FeatureStore
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import LocalFeatures, Matches

KEYS = [PairKey(ItemKey("a.jpg", "1"), ItemKey(f"{name}.jpg", "2")) for name in "bcd"]


def _stored(folder: Path) -> Path:
    items = [
        Matches(np.array([[0, 5], [1, 3], [1, 4]], np.int32), np.array([0.5, 1, 0], np.float32)),
        Matches.empty(),
        Matches(np.array([[0, 2], [4, 1]], np.int32), np.array([0.25, 0.75], np.float32)),
    ]
    store = MatchStore(folder, {})
    with store.writer() as writer:
        for key, matches in zip(KEYS, items, strict=True):
            writer.put(key, matches)
    for key, matches in store.items(reversed(KEYS)):
        expected = items[KEYS.index(key)]
        assert np.array_equal(matches.indices, expected.indices)
        assert np.array_equal(matches.scores, expected.scores)
        assert matches.indices.dtype == np.int32
        assert matches.scores.dtype == np.float32
    store.close()
    return next((folder / "parts").glob("*.h5"))


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("indices", 1, [1, 4], "sorted"),  # the same match twice
        ("indices", 2, [1, 2], "sorted"),  # second column falls where the first stays
        ("indices", 4, [-1, 1], "sorted"),  # first column falls, in the last pair
        ("scores", 0, 1.5, "scores"),
        ("scores", 4, np.nan, "scores"),
        ("offsets", 1, 6, "fit together"),
        ("offsets", 3, 4, "fit together"),
    ],
)
def test_what_no_matcher_returns_is_damage(
    tmp_path: Path, name: str, row: int, value: object, message: str
) -> None:
    part = _stored(tmp_path)
    with h5py.File(part, "r+") as file:
        file[name][row] = value
    with pytest.raises(StoreError, match=message) as caught:
        MatchStore(tmp_path).get(KEYS[0])
    assert str(part) in caught.value.message


def test_a_fall_between_two_pairs_is_none_within_one(tmp_path: Path) -> None:
    _stored(tmp_path)
    assert [len(MatchStore(tmp_path).get(key)) for key in KEYS] == [3, 0, 2]


def test_arrays_of_several_chunks_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_CHUNK_BYTES", 1 << 10)
    generator = np.random.default_rng(0)
    features = LocalFeatures(
        generator.random((333, 2), np.float32),
        generator.random(333, np.float32),
        generator.standard_normal((333, 70)).astype(np.float16),
        (100, 80),
    )
    store, key = FeatureStore(tmp_path, {}), ItemKey("a/b.jpg", "1")
    with store.writer() as writer:
        writer.put(key, features)
    found = store.get(key)
    store.close()
    assert np.array_equal(found.descriptors, features.descriptors)
    assert found.descriptors.flags.c_contiguous
    assert np.allclose(found.keypoints, features.keypoints, atol=1e-6)
    with h5py.File(next((tmp_path / "parts").glob("*.h5")), "r") as file:
        descriptors = file["a/b.jpg/descriptors"]
        assert (descriptors.shape, descriptors.chunks) == ((70, 333), (1, 333))
        assert descriptors.fletcher32
