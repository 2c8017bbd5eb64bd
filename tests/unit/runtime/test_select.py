"""Spatially even selection: nested, spread, deterministic, by priority within a place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loc.errors import ContractError
from loc.runtime.select import coverage, spatially_even

WH = (640, 480)


def clustered(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Nine tenths of the points in a tenth of the image, where the priorities are highest, too."""
    rng = np.random.default_rng(seed)
    xy = rng.random((n, 2)) * WH
    dense = rng.random(n) < 0.9
    xy[dense] *= 0.3
    priority = rng.random(n) + dense
    return xy.astype(np.float32), priority.astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 400), k1=st.integers(0, 500), k2=st.integers(0, 500), seed=st.integers(0, 9))
def test_a_smaller_selection_is_a_prefix_of_a_larger_one(n, k1, k2, seed):
    xy, priority = clustered(n, seed)
    small, large = (spatially_even(xy, priority, WH, k) for k in sorted((k1, k2)))
    assert np.array_equal(large[: len(small)], small)
    assert len(large) == min(n, max(k1, k2))
    assert len(np.unique(large)) == len(large)


def test_no_limit_orders_every_point():
    xy, priority = clustered(1000)
    assert np.array_equal(np.sort(spatially_even(xy, priority, WH)), np.arange(1000))


@pytest.mark.parametrize("k", [200, 500, 1000])
def test_the_selection_covers_the_image_where_the_top_ones_do_not(k):
    xy, priority = clustered(5000)
    even = coverage(xy[spatially_even(xy, priority, WH, k)], WH, cells=8)
    top = coverage(xy[np.argsort(-priority)[:k]], WH, cells=8)
    assert even > 0.7 > 2 * top


def test_a_good_point_in_a_crowd_still_beats_a_bad_one_alone():
    xy = np.array([[10, 10]] * 4 + [[600, 400]], np.float32)
    # Third in its cell: 0.9 / sqrt(3) = 0.52; the lonely one has 0.4.
    assert spatially_even(xy, np.array([1.0, 0.9, 0.9, 0.1, 0.4]), WH, 4).tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_priorities_that_cannot_be_discounted_are_refused(wrong):
    with pytest.raises(ContractError, match="finite and not negative"):
        spatially_even(np.ones((1, 2)), np.array([wrong]), WH)


def test_within_a_place_the_higher_priority_comes_first():
    xy = np.array([[10, 10], [10.5, 10.5], [600, 400]], np.float32)
    assert spatially_even(xy, np.array([1.0, 1.1, 0.8]), WH, 2).tolist() == [1, 2]
    assert spatially_even(xy, np.array([1.1, 1.0, 0.8]), WH, 2).tolist() == [0, 2]


def test_equal_priorities_fall_back_to_the_index():
    xy = np.full((6, 2), 100.0, np.float32)
    assert spatially_even(xy, np.ones(6), WH).tolist() == [0, 1, 2, 3, 4, 5]


def test_points_on_the_far_border_are_selected():
    xy = np.array([[640, 480], [0, 0], [640, 0]], np.float32)
    assert sorted(spatially_even(xy, np.ones(3), WH, 3).tolist()) == [0, 1, 2]


def test_no_points_give_no_indices():
    out = spatially_even(np.zeros((0, 2), np.float32), np.zeros(0), WH, 10)
    assert out.shape == (0,)
    assert out.dtype == np.int64


def test_coverage_counts_occupied_cells():
    assert coverage(np.zeros((0, 2)), WH, cells=4) == 0.0
    assert coverage(np.array([[1, 1], [2, 2], [639, 479]]), WH, cells=4) == 2 / 16
    centers = (np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) + 0.5) / 4 * WH
    assert coverage(centers, WH, cells=4) == 1.0
