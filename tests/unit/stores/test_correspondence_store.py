from __future__ import annotations

import h5py
import numpy as np
import pytest

from loc.errors import ContractError, StoreError
from loc.stores.correspondences import CorrespondenceStore
from loc.stores.matches import PairKey
from loc.stores.parts import ItemKey
from loc.types import Correspondences


def key(first: str, second: str) -> PairKey:
    return PairKey(ItemKey(first, "1"), ItemKey(second, "2"))


def some(count: int, seed: int = 0) -> Correspondences:
    rng = np.random.default_rng(seed)
    xy0, xy1 = rng.random((2, count, 2)).astype(np.float32) * 100
    return Correspondences(xy0, xy1, rng.random(count).astype(np.float32))


def filled(folder, items) -> CorrespondenceStore:
    store = CorrespondenceStore(folder, {"kind": "correspondences"})
    with store.writer() as writer:
        for pair, found in items.items():
            writer.put(pair, found)
    return store


def test_what_is_put_is_got(tmp_path) -> None:
    items = {key("a", "b"): some(5), key("a", "c/d"): some(0), key("b", "ü"): some(7, seed=1)}
    filled(tmp_path / "store", items)
    store = CorrespondenceStore(tmp_path / "store")
    assert sorted(store.keys()) == sorted(items)
    for pair, found in items.items():
        got = store.get(pair)
        assert np.allclose(got.xy0, found.xy0, atol=1e-5)
        assert np.allclose(got.xy1, found.xy1, atol=1e-5)
        assert np.array_equal(got.scores, found.scores)
        assert store.count(pair) == len(found)
    assert store.count(key("x", "y")) == 0
    with pytest.raises(StoreError, match="is not in the store"):
        store.get(key("x", "y"))


def test_on_disk_the_origin_is_the_centre(tmp_path) -> None:
    xy = np.array([[0.5, 0.5]], np.float32)
    filled(tmp_path / "store", {key("a", "b"): Correspondences(xy, xy, np.ones(1, np.float32))})
    (part,) = (tmp_path / "store" / "parts").glob("*.h5")
    with h5py.File(part) as file:
        assert file["xy0"][()].tolist() == [[0.0, 0.0]]


def test_a_flipped_bit_is_an_error(tmp_path) -> None:
    filled(tmp_path / "store", {key("a", "b"): some(4000)})
    (part,) = (tmp_path / "store" / "parts").glob("*.h5")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        CorrespondenceStore(tmp_path / "store").get(key("a", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xy0": np.zeros((3, 2), np.float32)}, "xy0|Type-check"),
        ({"xy1": np.zeros((2, 2))}, "xy1 must be float32|Type-check"),
        ({"xy1": np.full((2, 2), np.nan, np.float32)}, "xy1 holds NaN"),
        ({"scores": np.array([0.5, 1.5], np.float32)}, r"must lie in \[0, 1\]"),
    ],
)
def test_correspondences_are_checked(change, message) -> None:
    good = {"xy0": np.zeros((2, 2), np.float32), "xy1": np.zeros((2, 2), np.float32)}
    with pytest.raises((ContractError, Exception), match=message):
        Correspondences(**{**good, "scores": np.ones(2, np.float32), **change})
