"""Late fusion of rankings."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import DataError
from loc.retrieval.fusion import fuse_ranks, fuse_scores


def test_reciprocal_ranks_by_hand():
    first, second = np.array([[5, 1, 2]]), np.array([[1, 3, -1]])
    ids, scores = fuse_ranks([first, second], 10)
    assert ids[0].tolist() == [1, 5, 3, 2, *[-1] * 6]
    np.testing.assert_allclose(scores[0, :4], [1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])
    assert (scores[0, 4:] == -np.inf).all()


def test_scores_of_other_ranges_count_alike():
    cosines = np.array([[0, 1, 2]]), np.float32([[0.9, 0.8, 0.1]])
    inliers = np.array([[1, 3, 0]]), np.array([[500.0, 20, 10]])
    ids, scores = fuse_scores([cosines, inliers], 3)
    assert ids[0].tolist() == [1, 0, 3]
    np.testing.assert_allclose(scores[0], [0.875 + 1, 1, 10 / 490], rtol=1e-6)


def test_weights():
    first, second = np.array([[0, 1]]), np.array([[1, 0]])
    assert fuse_ranks([first, second], 1, weights=[1.0, 2.0])[0].tolist() == [[1]]
    assert fuse_ranks([first, second], 1, weights=[2.0, 1.0])[0].tolist() == [[0]]
    assert fuse_ranks([first, second], 2)[0].tolist() == [[0, 1]]  # a tie: by id
    assert fuse_ranks([first, second], 2, weights=[0.0, 1.0])[0].tolist() == [[1, 0]]


def test_one_ranking_stays_as_it_is():
    ids, similarities = np.array([[3, 1, 7, -1]]), np.float32([[0.9, 0.5, 0.2, -np.inf]])
    assert fuse_ranks([ids], 4)[0].tolist() == ids.tolist()
    assert fuse_scores([(ids, similarities)], 4)[0].tolist() == ids.tolist()


def test_equal_scores_and_empty_lists():
    equal = np.array([[4, 2]]), np.float32([[0.5, 0.5]])
    nothing = np.array([[-1, -1]]), np.full((1, 2), -np.inf)
    ids, scores = fuse_scores([equal, nothing], 2)
    assert ids.tolist() == [[2, 4]]
    assert scores.tolist() == [[1, 1]]
    assert fuse_ranks([np.zeros((0, 3), np.int64)], 2)[0].shape == (0, 2)


def test_errors():
    one = np.array([[0]])
    with pytest.raises(DataError, match="cannot fuse 0 rankings"):
        fuse_ranks([], 1)
    with pytest.raises(DataError, match=r"weights \[1.0, -1.0\]"):
        fuse_ranks([one, one], 1, weights=[1.0, -1.0])
    with pytest.raises(DataError, match="cannot fuse 1 rankings with the weights"):
        fuse_ranks([one], 1, weights=[1.0, 1.0])
    with pytest.raises(DataError, match=r"rankings of \[1, 2\] queries"):
        fuse_ranks([one, np.array([[0], [1]])], 1)
