"""Geometric verification against brute force, a k-d tree and known geometry."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from loc.config import RerankConfig
from loc.config.ranking import suited_reranking
from loc.errors import DataError
from loc.retrieval.verification import fit_affine, rerank, verify
from loc.types import LocalFeatures

MAP = np.array([[0.8, 0.2, 10.0], [-0.1, 1.1, 30.0]])


def features(xy, descriptors, wh=(1000, 800)):
    xy = np.asarray(xy, np.float32).reshape(-1, 2)
    return LocalFeatures(xy, np.ones(len(xy), np.float32), np.asarray(descriptors), wh)


def moved(xy, affine=MAP):
    return xy @ affine[:, :2].T + affine[:, 2]


def two_views(count, wrong, *, seed=0, noise=1.0, wh=(1000, 800)):
    """Query and image with ``count`` common points, ``wrong`` of them elsewhere in the query."""
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 32)).astype(np.float32)
    there = rng.uniform(0, 800, (count, 2))
    here = moved(there) + rng.uniform(-noise, noise, (count, 2))
    here[:wrong] = rng.uniform(0, 800, (wrong, 2))
    order = rng.permutation(count)
    return features(here, descriptors, wh), features(there[order], descriptors[order], wh), order


def test_the_published_values():
    values = {
        name: (preset.max_distance, preset.residual_px, preset.trials, preset.candidates, preset.ratio)
        for name in ("d2r", "delg", "example")
        for preset in [RerankConfig.model_validate(name)]
    }
    assert values == {
        "d2r": (0.9, 10, 1000, 100, None),
        "delg": (1.0, 20, 1000, 100, None),
        "example": (0.8, 20, 1000, 100, None),
    }
    assert RerankConfig.model_validate("delg").seed == 0
    assert RerankConfig() == RerankConfig(use="d2r")
    own = RerankConfig.model_validate({"use": "delg", "max_distance": None, "candidates": 5})
    assert (own.max_distance, own.residual_px, own.candidates) == (None, 20, 5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 120), st.floats(0, 0.6))
def test_a_known_map_is_found_among_outliers(seed, count, share):
    wrong = int(count * share)
    query, image, order = two_views(count, wrong, seed=seed)
    found = verify(query, image, RerankConfig())
    right = {(row, column) for column, row in enumerate(order.tolist()) if row >= wrong}
    assert found.putative == count
    assert right <= set(map(tuple, found.pairs.tolist()))
    # Outliers that fell within 10 px of the map are inliers by chance: 800² px hold few of them.
    assert len(right) <= found.inliers <= len(right) + 4
    np.testing.assert_allclose(moved(image.keypoints, found.affine), moved(image.keypoints), atol=8)
    assert (np.diff(found.pairs[:, 0]) > 0).all()
    again = verify(query, image, RerankConfig())
    assert np.array_equal(again.pairs, found.pairs)
    assert np.array_equal(again.affine, found.affine)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 9))
def test_inliers_equal_those_of_all_samples(seed, count):
    """Up to 84 samples of three, of which 2,000 trials miss none."""
    rng = np.random.default_rng(seed)
    source, target = rng.uniform(0, 100, (2, count, 2))
    best = 0
    ones = np.column_stack([source, np.ones(count)])
    for rows in map(list, combinations(range(count), 3)):
        affine = np.linalg.solve(ones[rows], target[rows])
        best = max(best, int((np.linalg.norm(ones @ affine - target, axis=1) < 12).sum()))
    affine, inliers = fit_affine(source, target, 12.0, trials=2000, seed=0)
    assert inliers.sum() == best
    rows = ones[inliers]
    expected = np.linalg.lstsq(rows, target[inliers], rcond=None)[0].T
    np.testing.assert_allclose(affine, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bound", [0.8, 0.9, 1.0])
def test_matches_are_those_of_the_k_d_tree(bound):
    rng = np.random.default_rng(1)
    here, there = (rng.normal(size=(n, 24)).astype(np.float32) for n in (300, 200))
    here[:100] = there[:100] + rng.normal(0, 0.4, (100, 24))
    here, there = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (here, there))
    _, nearest = cKDTree(there).query(here, distance_upper_bound=bound)
    expected = [(row, column) for row, column in enumerate(nearest.tolist()) if column < len(there)]
    xy = np.column_stack([np.arange(300.0), np.arange(300.0) ** 2 % 97])
    image = xy[:200]
    query = np.zeros((300, 2))
    query[[row for row, _ in expected]] = image[[column for _, column in expected]]
    everything = RerankConfig(max_distance=bound, residual_px=1, candidates=1)
    found = verify(features(query, here), features(image, there), everything)
    assert 100 <= len(expected) <= 300
    assert found.pairs.tolist() == [list(pair) for pair in expected]  # the identity fits them all


def test_the_ratio_test():
    there = np.eye(6, dtype=np.float32)
    here = there.copy()
    here[0] += there[1] * 0.9  # nearly as near to the second
    xy = np.random.default_rng(0).uniform(0, 500, (6, 2))
    loose = RerankConfig(max_distance=None)
    strict = RerankConfig(max_distance=None, ratio=0.8)
    query, image = features(xy, here), features(xy, there)
    assert (verify(query, image, loose).inliers, verify(query, image, strict).inliers) == (6, 5)
    one = features(xy[:1], there[:1])
    assert verify(one, one, strict).putative == 1


def test_mutual_matches_are_one_to_one():
    """Across the blocks in which descriptors are compared, and of equal ones the first."""
    rng = np.random.default_rng(2)
    there = rng.normal(size=(500, 24)).astype(np.float32)
    here = np.concatenate([there + rng.normal(0, 0.7, there.shape) for _ in range(3)]).astype(np.float32)
    here[1200] = here[7]
    here, there = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (here, there))
    _, nearest = cKDTree(there).query(here)
    _, back = cKDTree(here).query(there)
    back[back == 1200] = 7
    expected = [[row, column] for row, column in enumerate(nearest.tolist()) if back[column] == row]
    image = rng.uniform(0, 500, (500, 2))
    query = np.zeros((1500, 2))
    query[[row for row, _ in expected]] = image[[column for _, column in expected]]
    found = verify(
        features(query, here),
        features(image, there),
        RerankConfig(max_distance=None, mutual=True, max_keypoints=None),
    )
    assert 300 <= len(expected) <= 500
    assert found.pairs.tolist() == expected


def test_few_inliers_reorder_nothing():
    query, image, _ = two_views(40, 0)
    images = {"few": image.select(np.arange(19)), "fewer": image.select(np.arange(10)), "many": image}
    candidates = [("fewer", 0.9), ("few", 0.8), ("many", 0.7)]

    def order(least):
        config = RerankConfig(min_inliers=least)
        return [(name, found.inliers) for name, _, found in rerank(query, candidates, images.get, config)]

    assert order(0) == [("many", 40), ("few", 19), ("fewer", 10)]
    assert order(19) == [("many", 40), ("few", 19), ("fewer", 10)]
    assert order(20) == [("many", 40), ("fewer", 10), ("few", 19)]
    assert order(41) == [("fewer", 10), ("few", 19), ("many", 40)]


def test_parameter_sets():
    """Those of DELF are as published; ours has no bound on distances."""
    for use, bound, residual in (("d2r", 0.9, 10), ("delg", 1.0, 20), ("example", 0.8, 20)):
        config = RerankConfig(use=use)
        assert (config.max_distance, config.residual_px, config.ratio) == (bound, residual, None)
        assert (config.mutual, config.min_inliers, config.max_keypoints) == (False, 0, 1000)
    for features_name in ("sift", "of a plug-in"):
        config = RerankConfig(use=suited_reranking(features_name))
        assert config.max_distance is None
        assert config.mutual
        assert config.min_inliers > 0
    assert {suited_reranking(name) for name in ("delf", "delf_ots", "delg")} == {"example", "delg"}


def test_few_matches_are_none():
    query, image, _ = two_views(3, 0)
    for sides in ((query, image), (query, query.select(np.arange(0))), (query.select(np.arange(0)), image)):
        found = verify(*sides, RerankConfig())
        assert (found.inliers, found.pairs.shape, found.affine) == (0, (0, 2), None)
        assert found.pairs.dtype == np.int32
    none = features(np.zeros((0, 2)), np.zeros((0, 0), np.float32))  # as of a photo without keypoints
    assert verify(none, image, RerankConfig()).inliers == 0


@pytest.mark.parametrize("direction", [(0.0, 0.0), (1.0, 0.0), (3.0, 2.0)])
def test_points_on_a_line_or_in_one_place_have_no_map(direction):
    descriptors = np.eye(12, dtype=np.float32)
    line = np.arange(12.0)[:, None] * 30 * np.array(direction)
    spread = np.random.default_rng(0).uniform(0, 700, (12, 2))
    found = verify(features(spread, descriptors), features(line, descriptors), RerankConfig())
    assert (found.putative, found.inliers, found.affine) == (12, 0, None)


def test_several_keypoints_at_one_place():
    """SIFT repeats a place for every orientation: samples of them alone are no triangle, others are."""
    query, image, _ = two_views(20, 0)
    twice = np.repeat(np.arange(20), 2)
    assert verify(query.select(twice), image.select(twice), RerankConfig()).inliers == 40
    # Several of the query have one of the image, as in the original.
    assert verify(query.select(twice), image, RerankConfig()).inliers == 40


def test_points_far_from_the_origin_are_as_good():
    query, image, _ = two_views(40, 10, noise=0.0)
    shift = np.float32([2**16, 2**16])
    far = [features(each.keypoints + shift, each.descriptors) for each in (query, image)]
    near = verify(query, image, RerankConfig())
    assert np.array_equal(verify(*far, RerankConfig()).pairs, near.pairs)


def test_descriptors_of_any_norm_and_type():
    query, image, _ = two_views(60, 15)
    expected = verify(query, image, RerankConfig())
    louder = features(query.keypoints, query.descriptors * 37)
    assert np.array_equal(verify(louder, image, RerankConfig()).pairs, expected.pairs)
    stored = features(query.keypoints, query.descriptors.astype(np.float16))
    assert np.array_equal(verify(stored, image, RerankConfig()).pairs, expected.pairs)
    rng = np.random.default_rng(0)
    sift = rng.integers(0, 90, (60, 128)).astype(np.uint8)
    sift[3] = 0  # like nothing
    found = verify(features(image.keypoints, sift), features(image.keypoints, sift), RerankConfig())
    assert found.pairs.tolist() == [[row, row] for row in range(60) if row != 3]


def test_descriptors_that_cannot_be_compared():
    query, image, _ = two_views(10, 0)
    short = features(image.keypoints, image.descriptors[:, :16])
    with pytest.raises(DataError, match="descriptors of 32 and 16 numbers"):
        verify(query, short, RerankConfig())


def test_residuals_are_those_of_a_photo_of_1024_px():
    """A large photo is verified as its shrunk copy is, in its own pixels."""
    query, image, _ = two_views(80, 20, noise=8.0, wh=(1024, 800))
    small = verify(query, image, RerankConfig())
    large = verify(
        features(query.keypoints * 4, query.descriptors, (4096, 3200)),
        features(image.keypoints * 4, image.descriptors, (4096, 3200)),
        RerankConfig(),
    )
    assert np.array_equal(small.pairs, large.pairs)
    np.testing.assert_allclose(large.affine[:, 2], 4 * small.affine[:, 2], rtol=1e-3, atol=1e-2)
    assert verify(query, image, RerankConfig(residual_px=2)).inliers < small.inliers


def test_the_first_keypoints_take_part():
    query, image, _ = two_views(50, 0)
    first = verify(query, image.select(np.arange(10)), RerankConfig())
    assert verify(query, image, RerankConfig(max_keypoints=None)).inliers == 50
    assert first.inliers == 10
    few = verify(query, image, RerankConfig(max_keypoints=10, max_distance=None))
    assert few.putative == 10
    assert few.pairs.max() < 10


def test_reranking_sorts_by_inliers_then_score():
    query, image, _ = two_views(40, 0)
    images = {
        "none": image.select(np.arange(0)),
        "half": image.select(np.arange(20)),
        "all": image,
        "late": image,
        "nothing": image.select(np.arange(0)),
    }
    asked = []

    def features_of(name):
        asked.append(name)
        return images[name]

    candidates = [("none", 0.9), ("half", 0.8), ("all", 0.7), ("nothing", 0.6), ("late", 0.5)]
    ranked = rerank(query, candidates, features_of, RerankConfig(candidates=4))
    assert asked == ["none", "half", "all", "nothing"]
    assert [(name, score) for name, score, _ in ranked] == [
        ("all", 0.7),
        ("half", 0.8),
        ("none", 0.9),
        ("nothing", 0.6),
        ("late", 0.5),
    ]
    assert [None if found is None else found.inliers for *_, found in ranked] == [40, 20, 0, 0, None]
    assert rerank(query, [], features_of, RerankConfig()) == []
    equal = rerank(query, [("b", 0.5), ("a", 0.5)], lambda name: image, RerankConfig())
    assert [name for name, *_ in equal] == ["b", "a"]
