"""2D-3D matches through the index: merged, sorted, counted."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import DataError
from loc.sfm.gather import gather
from loc.sfm.index import PointIndex
from loc.types import Matches


@pytest.fixture
def index() -> PointIndex:
    """Image a: keypoints 0..3 see points 2, -, 0, 2. Image b: keypoints 0..2 see 2, 1, -."""
    return PointIndex(
        names=("a", "b"),
        offsets=np.array([0, 4, 7]),
        rows=np.array([2, -1, 0, 2, 2, 1, -1], np.int32),
        xyz=np.arange(9.0).reshape(3, 3),
        point_ids=np.array([10, 20, 30]),
        track_lengths=np.array([1, 1, 3], np.int32),
    )


def matches(*pairs: tuple[int, int]) -> Matches:
    return Matches(np.array(pairs, np.int32).reshape(-1, 2), np.ones(len(pairs), np.float32))


def test_duplicates_merge_and_count_images(index: PointIndex) -> None:
    found = gather(index, [("a", matches((5, 0), (5, 3), (7, 2), (8, 1))), ("b", matches((5, 0), (5, 1)))])
    assert list(zip(found.keypoints, found.points, found.support, strict=True)) == [
        (5, 1, 1),
        (5, 2, 2),  # both keypoints of a that see point 2 count once, b once
        (7, 0, 1),
    ]
    assert found.keypoints.dtype == np.int32


def test_references_by_number_of_matches_then_in_the_order_given(index: PointIndex) -> None:
    one, two = matches((1, 0)), matches((1, 0), (2, 1))
    assert gather(index, [("a", one), ("b", two)]).references == ("b", "a")
    assert gather(index, [("b", one), ("a", one)]).references == ("b", "a")


def test_the_order_of_references_does_not_change_the_matches(index: PointIndex) -> None:
    both = [("a", matches((0, 0), (3, 2))), ("b", matches((0, 0), (9, 1)))]
    forward, backward = gather(index, both), gather(index, both[::-1])
    assert forward.keypoints.tolist() == backward.keypoints.tolist() == [0, 3, 9]
    assert forward.points.tolist() == backward.points.tolist()


def test_nothing_flows_through(index: PointIndex) -> None:
    for matched in (
        [],
        [("a", Matches.empty())],
        [("not in the map", matches((0, 0)))],
        [("a", matches((0, 1)))],
    ):
        found = gather(index, matched)
        assert len(found) == 0
        assert found.references == ()


def test_large_keypoint_numbers_survive(index: PointIndex) -> None:
    assert gather(index, [("a", matches((2_000_000_000, 0)))]).keypoints.tolist() == [2_000_000_000]


def test_matches_of_other_features_are_an_error(index: PointIndex) -> None:
    with pytest.raises(DataError, match="refer to keypoint 4, the map knows 4 keypoints"):
        gather(index, [("a", matches((0, 4)))])
