"""VLAD: what it computes, and what it does with little to learn from."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import ContractError, DataError, PluginError, StoreError
from loc.globals import vlad as module
from loc.globals.vlad import Vlad, VladConfig
from loc.types import LocalFeatures


def features(descriptors: np.ndarray, scores: np.ndarray | None = None) -> LocalFeatures:
    n = len(descriptors)
    scores = np.ones(n, np.float32) if scores is None else scores
    return LocalFeatures(np.zeros((n, 2), np.float32), scores, descriptors, (640, 480))


def places(count: int = 6, dim: int = 16, *, dtype: type = np.uint8, seed: int = 0) -> list[LocalFeatures]:
    """Two views of each of ``count`` places: the same descriptors with noise, in another order."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        place = rng.gamma(1.0, 40, (80, dim))
        for _ in range(2):
            view = np.clip(place + rng.normal(0, 8, place.shape), 0, 255)[rng.permutation(80)]
            out.append(features(view.astype(dtype)))
    return out


def fitted(images: list[LocalFeatures], **options: object) -> Vlad:
    plugin = Vlad(VladConfig(**options))
    plugin.load_state(plugin.fit(images))
    return plugin


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_views_of_a_place_find_each_other(dtype) -> None:
    images = places(dtype=dtype)
    rows = fitted(images, words=8)(images)
    assert rows.shape == (12, 8 * 16)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    similarity = rows @ rows.T - 9 * np.eye(12)
    assert similarity.argmax(1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]


def test_values_are_those_of_the_definition() -> None:
    """The method written out with loops, from the fitted state."""
    images = places(3)
    plugin = Vlad(VladConfig(words=4))
    state = plugin.fit(images)
    plugin.load_state(state)
    sums = np.zeros((4, 16))
    for row in images[0].descriptors.astype(np.float64):
        x = (row / np.linalg.norm(row) - state["center"]) @ state["whitening"]
        x /= np.linalg.norm(x)
        distances = np.linalg.norm(state["codebook"] - x, axis=1)
        residual = x - state["codebook"][distances.argmin()]
        sums[distances.argmin()] += residual / np.linalg.norm(residual)
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    expected = np.sign(sums) * np.sqrt(np.abs(sums))
    np.testing.assert_allclose(
        plugin([images[0]])[0], (expected / np.linalg.norm(expected)).ravel(), atol=1e-5
    )


def test_half_whitening_takes_the_square_root_of_the_spread() -> None:
    spread = np.array([8, 4, 2, 1, 0.5])
    rows = (np.random.default_rng(0).normal(size=(20000, 5)) * spread).astype(np.float32)
    center, whitening = module._half_whitening(rows)
    values = np.linalg.eigvalsh(np.cov(((rows - center) @ whitening).T))
    np.testing.assert_allclose(values / values[-1], [0.0625, 0.125, 0.25, 0.5, 1], rtol=0.35)


def test_fit_is_deterministic_and_depends_on_the_seed() -> None:
    images = places()
    first, second = (Vlad(VladConfig(words=8)).fit(images) for _ in range(2))
    assert sorted(first) == ["center", "codebook", "whitening"]
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
    other = Vlad(VladConfig(words=8, seed=1)).fit(images)
    assert not np.array_equal(first["codebook"], other["codebook"])


def test_sample_is_bounded_and_uniform(monkeypatch) -> None:
    monkeypatch.setattr(module, "TRAIN_ROWS", 200)
    images = [features(np.full((100, 4), value, np.uint8)) for value in range(1, 41)]
    for image, value in zip(images, range(1, 41), strict=True):
        image.descriptors[:, 0] = 255 - value  # tells the image of a sampled row
    sample, count = Vlad(VladConfig())._sample(iter(images))
    assert (len(sample), count) == (200, 40)
    ratio = sample[:, 0] / sample[:, 1]
    early = float((ratio > 0.9 * 235 / 20).mean())
    assert 0.35 < early < 0.65


def test_max_keypoints_takes_the_best_then_the_first() -> None:
    rows = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    scores = np.array([0, 0, 5, 0, 0, 0, 0, 9, 0, 0], np.float32)
    taken = Vlad(VladConfig(max_keypoints=4))._descriptors(features(rows, scores))
    expected = rows[[7, 2, 0, 1]]
    np.testing.assert_allclose(taken, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_descriptors_than_words(count) -> None:
    rows = np.random.default_rng(0).integers(0, 200, (count, 16)).astype(np.uint8)
    images = [features(rows), features(rows[:1])]
    out = fitted(images, words=64)(images)
    assert out.shape == (2, count * 16)
    assert np.isfinite(out).all()


def test_an_image_without_keypoints_is_a_row_of_zeros() -> None:
    images = places()
    empty = features(np.zeros((0, 0), np.float32))  # what the runtime makes of a tiny photo
    rows = fitted([empty, *images], words=8)([empty, images[0]])
    assert not rows[0].any()
    assert rows[1].any()
    assert fitted(images, words=8)([]).shape == (0, 8 * 16)


def test_pca_whitening_only_with_ten_images_per_dimension() -> None:
    images = places(30, 8)
    assert "pca" not in Vlad(VladConfig(words=4, pca_dim=7)).fit(images)
    plugin = fitted(images, words=4, pca_dim=6)
    rows = plugin([*images, features(np.zeros((0, 8), np.uint8))])
    assert rows.shape == (61, 6)
    np.testing.assert_allclose(np.linalg.norm(rows[:-1], axis=1), 1, atol=1e-5)
    assert not rows[-1].any()
    values = np.linalg.eigvalsh(np.cov(rows[:-1].T))
    assert values[0] > 0.3 * values[-1]  # about white, though each row was normalised again
    with pytest.raises(PluginError, match="twice"):
        Vlad(VladConfig(words=4, pca_dim=6)).fit(iter(images))
    Vlad(VladConfig(words=4, pca_dim=7)).fit(iter(images))


def test_batch_equals_singles() -> None:
    images = places()
    plugin = fitted(images, words=8)
    together = plugin(images)
    np.testing.assert_array_equal(together, np.concatenate([plugin([image]) for image in images]))


def test_errors() -> None:
    images = places(2)
    with pytest.raises(PluginError, match="no codebook yet"):
        Vlad(VladConfig())(images)
    with pytest.raises(DataError, match="none of 2 images has keypoints"):
        Vlad(VladConfig()).fit([features(np.zeros((0, 8), np.uint8))] * 2)
    with pytest.raises(ContractError, match="dimension 16 and 8"):
        Vlad(VladConfig()).fit([*images, *places(1, 8)])
    plugin = fitted(images, words=4)
    with pytest.raises(ContractError, match="fitted on descriptors of dimension 16, got 8"):
        plugin(places(1, 8))
    state = Vlad(VladConfig(words=4)).fit(images)
    with pytest.raises(StoreError, match="lacks codebook"):
        plugin.load_state({key: state[key] for key in ("center", "whitening")})
    with pytest.raises(StoreError, match="do not fit together"):
        plugin.load_state({**state, "codebook": state["codebook"][:, :3]})
