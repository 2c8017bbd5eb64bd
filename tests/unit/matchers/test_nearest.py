"""The matcher `nearest` against a plain reference that holds the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from loc.errors import ContractError
from loc.matchers import nearest as module
from loc.matchers.nearest import Nearest, NearestConfig
from loc.plugins.blocks import resolve_block
from loc.types import LocalFeatures


def features(descriptors: np.ndarray) -> LocalFeatures:
    n = len(descriptors)
    return LocalFeatures(np.zeros((n, 2), np.float32), np.zeros(n, np.float32), descriptors, (640, 480))


def match(a: np.ndarray, b: np.ndarray, **options: object):
    matcher = Nearest(NearestConfig(**options), device="cpu")
    return matcher([(matcher.prepare(features(a)), matcher.prepare(features(b)))])[0]


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    is_integer = a.dtype == np.uint8
    a, b = a.astype(np.float64), b.astype(np.float64)
    if is_integer:
        a, b = a / 512, b / 512
    else:
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def reference(distance: np.ndarray, *, mutual, ratio, max_distance, min_similarity) -> list[tuple[int, int]]:
    def one_way(d: np.ndarray) -> dict[int, int]:
        out = {}
        for row, values in enumerate(d):
            order = np.argsort(values, kind="stable")
            best = values[order[0]]
            second = values[order[1]] if len(values) > 1 else np.inf
            ok = ratio is None or best < ratio * second
            ok &= max_distance is None or best <= max_distance
            ok &= min_similarity is None or 1 - best**2 / 2 >= min_similarity
            if ok:
                out[row] = int(order[0])
        return out

    forward, backward = one_way(distance), one_way(distance.T)
    return [(i, j) for i, j in sorted(forward.items()) if not mutual or backward.get(j) == i]


def noisy_pair(dtype: str, n0: int, n1: int, dim: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of descriptors of which about half correspond, in another order."""
    rng = np.random.default_rng(n0 * 1000 + n1)
    if dtype == "uint8":
        a = rng.integers(0, 160, (n0, dim))
        b = rng.integers(0, 160, (n1, dim))
        shared = min(n0, n1) // 2
        b[:shared] = np.clip(a[:shared] + rng.integers(-30, 31, (shared, dim)), 0, 255)
        return a.astype(np.uint8), b[rng.permutation(n1)].astype(np.uint8)
    a, b = rng.normal(size=(n0, dim)), rng.normal(size=(n1, dim))
    shared = min(n0, n1) // 2
    b[:shared] = a[:shared] + 0.6 * rng.normal(size=(shared, dim))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    return a.astype(dtype), b[rng.permutation(n1)].astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"mutual": True, "ratio": 0.85},
        {"mutual": False, "ratio": 0.85},
        {"mutual": True, "ratio": None},
        {"mutual": False, "ratio": None, "max_distance": 0.8},
        {"mutual": True, "ratio": None, "min_similarity": 0.7},
    ],
)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (7, 1), (2, 33), (150, 201), (64, 64)])
def test_equals_the_plain_reference(dtype, options, sizes, monkeypatch) -> None:
    monkeypatch.setattr(module, "TILE_BYTES", {"cpu": 4 * 64 * 64})
    monkeypatch.setattr(module, "TILE_COLUMNS", 64)  # so that several tiles in both directions are merged
    a, b = noisy_pair(dtype, *sizes)
    full = {"max_distance": None, "min_similarity": None, **options}
    got = match(a, b, **options)
    assert got.indices.tolist() == [list(pair) for pair in reference(distances(a, b), **full)]
    similarity = 1 - distances(a, b)[got.indices[:, 0], got.indices[:, 1]] ** 2 / 2
    np.testing.assert_allclose(got.scores, np.clip((1 + similarity) / 2, 0, 1), atol=1e-5)
    if sizes == (150, 201) and options["mutual"]:
        assert 40 < len(got) <= 110  # the test would say nothing if all or none passed


def test_uint8_distances_are_in_units_of_the_norm_512() -> None:
    a = np.zeros((1, 128), np.uint8)
    b = np.zeros((1, 128), np.uint8)
    a[0, :4] = 255
    b[0, 1:5] = 255  # apart by 255 in two coordinates
    apart = 255 * np.sqrt(2) / 512
    assert len(match(a, b, ratio=None, max_distance=apart + 1e-5)) == 1
    assert len(match(a, b, ratio=None, max_distance=apart - 1e-5)) == 0


def test_uint8_results_are_exact_for_extreme_values() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(250, 256, (300, 128)).astype(np.uint8)  # the largest sums there are
    d = ((a[:, None].astype(np.int64) - a[None, ::-1].astype(np.int64)) ** 2).sum(2)
    got = match(a, a[::-1].copy(), mutual=False, ratio=None)
    np.testing.assert_array_equal(got.indices[:, 1], d.argmin(1))


@pytest.mark.parametrize("mutual", [True, False])
def test_ties_go_to_the_lowest_index(mutual) -> None:
    one = np.eye(4, dtype=np.float32)[[0]]
    b = np.eye(4, dtype=np.float32)[[1, 0, 0, 0]]
    assert match(one, b, ratio=None, mutual=mutual).indices.tolist() == [[0, 1]]
    assert match(b, one, ratio=None, mutual=True).indices.tolist() == [[1, 0]]
    assert len(match(one, b, ratio=0.9, mutual=mutual)) == 0  # equal nearest neighbours are ambiguous


def test_ties_across_tiles(monkeypatch) -> None:
    monkeypatch.setattr(module, "TILE_BYTES", {"cpu": 4 * 32 * 32})
    monkeypatch.setattr(module, "TILE_COLUMNS", 32)
    same = np.ones((100, 8), np.uint8)
    assert match(same, same, ratio=None, mutual=False).indices[:, 1].tolist() == [0] * 100
    assert match(same, same, ratio=None).indices.tolist() == [[0, 0]]


def test_ratio_is_tested_from_both_sides_when_mutual() -> None:
    a = np.array([[1, 0, 0], [0.99, 0.1, 0]], np.float32)  # both near b[0]: ambiguous seen from b
    b = np.array([[1, 0.01, 0], [0, 0, 1]], np.float32)
    assert match(a, b, ratio=0.8, mutual=False).indices.tolist() == [[0, 0], [1, 0]]
    assert match(a, b, ratio=0.8, mutual=True).indices.tolist() == [[0, 0]]
    assert match(a[[1, 1]], b, ratio=0.8, mutual=True).indices.tolist() == []


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
def test_empty_and_single(dtype) -> None:
    none, one = np.zeros((0, 8), dtype), np.ones((1, 8), dtype)
    for a, b in ((none, none), (none, one), (one, none)):
        assert match(a, b).indices.shape == (0, 2)
    assert match(one, one).indices.tolist() == [[0, 0]]  # no second neighbour: the ratio test passes


def test_zero_descriptors_are_not_nan() -> None:
    got = match(np.zeros((2, 8), np.float32), np.zeros((2, 8), np.float32), ratio=None)
    assert got.indices.tolist() == [[0, 0]]
    assert got.scores.tolist() == [0.5]


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (np.ones((2, 8), np.float32), np.ones((2, 9), np.float32), "dimension 8 (float32) with dimension 9"),
        (
            np.ones((2, 8), np.float32),
            np.ones((2, 8), np.uint8),
            "dimension 8 (float32) with dimension 8 (uint8)",
        ),
    ],
)
def test_descriptors_that_cannot_be_compared(a, b, text) -> None:
    with pytest.raises(ContractError) as raised:
        match(a, b)
    assert text in str(raised.value)
    assert "same extractor" in str(raised.value)


def test_read_only_descriptors() -> None:
    a = np.ones((3, 8), np.float32)
    a.setflags(write=False)
    match(a, a)  # a store hands out views of its file


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.bytes = max(self.bytes, value.untyped_storage().nbytes())
        return out


def test_the_matrix_is_never_held(monkeypatch) -> None:
    monkeypatch.setattr(module, "TILE_BYTES", {"cpu": 2**17})
    a, b = noisy_pair("uint8", 1000, 800, 16)
    matcher = Nearest(NearestConfig(), device="cpu")
    pair = matcher.prepare(features(a)), matcher.prepare(features(b))
    with Largest() as largest:
        matcher([pair])
    assert pair[0].matrix.numel() * 4 < largest.bytes <= 2**17 < 1000 * 800


def test_thread_count_and_tiles_do_not_change_integer_matches(monkeypatch) -> None:
    a, b = noisy_pair("uint8", 1500, 1300, 128)
    expected = match(a, b)
    threads = torch.get_num_threads()
    monkeypatch.setattr(module, "TILE_BYTES", {"cpu": 2**18})
    try:
        torch.set_num_threads(1)
        got = match(a, b)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(got.indices, expected.indices)
    np.testing.assert_array_equal(got.scores, expected.scores)


COUNTS = [(200, 150), (256, 33), (1, 90), (77, 1), (300, 310), (0, 5), (250, 256), (130, 131), (400, 290)]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize(
    "options", [{}, {"mutual": False, "ratio": None}, {"ratio": None, "min_similarity": 0.7}, {"ratio": None}]
)
def test_batches_of_unequal_pairs(dtype, options) -> None:
    """Batches of 1, 3 and 8 find what pairs find alone; for integers also the scores are the same bits."""
    pairs = [tuple(map(features, noisy_pair(dtype, *counts))) for counts in COUNTS if all(counts)]
    pairs.insert(5, (features(np.zeros((0, 32), dtype)), pairs[0][1]))
    alone = Nearest(NearestConfig(**options, batch="never"), device="cpu")
    prepared = [tuple(map(alone.prepare, pair)) for pair in pairs]
    expected = alone(prepared)
    assert sum(map(len, expected)) > 300
    for size in (1, 3, 8):
        batched = Nearest(NearestConfig(**options, batch=size), device="cpu")
        for mine, other in zip(batched(prepared), expected, strict=True):
            np.testing.assert_array_equal(mine.indices, other.indices)
            if dtype == "uint8":
                np.testing.assert_array_equal(mine.scores, other.scores)
            np.testing.assert_allclose(mine.scores, other.scores, atol=1e-6)


def test_one_product_per_bucket(monkeypatch) -> None:
    made: list[tuple[int, ...]] = []
    bmm = torch.bmm

    def counting(a, b):
        made.append((*a.shape[:2], b.shape[2]))
        return bmm(a, b)

    monkeypatch.setattr(torch, "bmm", counting)
    matcher = Nearest(NearestConfig(batch=8), device="cpu")
    pairs = [
        tuple(matcher.prepare(features(rows)) for rows in noisy_pair("uint8", *c)) for c in COUNTS if all(c)
    ]
    matcher(pairs)
    assert made == [(6, 256, 256), (2, 512, 512)]
    made.clear()
    monkeypatch.setattr(module, "TILE_BYTES", {"cpu": 4 * 3 * 256 * 256})  # the constant bounds the batch
    matcher(pairs)
    assert made == [(3, 256, 256), (3, 256, 256)]


def test_pairs_of_different_kinds_are_not_batched() -> None:
    matcher = Nearest(NearestConfig(batch=8), device="cpu")
    kinds = [noisy_pair("uint8", 50, 60), noisy_pair("float32", 50, 60), noisy_pair("float32", 50, 60, 8)]
    found = matcher([tuple(matcher.prepare(features(rows)) for rows in pair) for pair in kinds])
    for (a, b), mine in zip(kinds, found, strict=True):
        np.testing.assert_array_equal(mine.indices, match(a, b).indices)


def test_the_batch_is_no_part_of_the_fingerprint() -> None:
    plain, batched = (
        resolve_block("matcher", {"use": "nearest", **more}).fingerprint_fields()
        for more in ({}, {"batch": 3})
    )
    assert plain == batched
