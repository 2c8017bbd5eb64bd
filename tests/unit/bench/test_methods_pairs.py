"""Epipolar geometry of matches, judged by annotated points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loc.bench.methods_pairs import (
    epipolar_distances_px,
    judge,
    measure_pairs,
    read_pairs,
)
from loc.errors import ConfigError, DataError
from loc.plugins.blocks import resolve_block
from loc.runtime.runtime import Runtime
from loc.sfm.twoview import fundamental_matrix

#: A camera that moves to the side: epipolar lines are the rows of the photo.
SIDEWAYS = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def views(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Projections of points in space in two photos of 800 x 600 whose cameras differ in place and angle."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-4, -3, 6), (4, 3, 14), (count, 3))
    angle = np.radians(10)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    moved = points @ turn.T + (-1.5, 0.2, 0.1)
    first, second = (each[:, :2] / each[:, 2:] * 700 + (400, 300) for each in (points, moved))
    return first, second


def test_distance_is_the_mean_over_both_photos() -> None:
    first = np.array([[10.0, 50.0], [200.0, 80.0]])
    second = np.array([[99.0, 53.0], [7.0, 80.0]])
    assert epipolar_distances_px(SIDEWAYS, first, second) == pytest.approx([3, 0])
    # Twice as large a second photo: three and six pixels, in the mean 4.5.
    larger = np.diag([0.5, 0.5, 1]) @ SIDEWAYS
    assert epipolar_distances_px(larger, first, second * 2) == pytest.approx([4.5, 0])


def test_good_matches_give_the_geometry_of_the_scene() -> None:
    first, second = views(300)
    rng = np.random.default_rng(1)
    wrong = rng.permutation(300)[:150]
    mixed = second.copy()
    mixed[wrong] = rng.uniform((0, 0), (800, 600), (150, 2))
    row, inliers = judge((first, mixed), views(30, seed=2))
    assert row["right"]
    assert row["best_px"] <= row["median_px"] <= row["worst_px"] < 1
    assert 150 <= row["inliers"] == inliers.sum() < 190
    again, _ = judge((first, mixed), views(30, seed=2))
    assert again == row


def test_wrong_matches_have_inliers_and_are_not_right() -> None:
    rng = np.random.default_rng(3)
    matched = rng.uniform((0, 0), (800, 600), (200, 2)), rng.uniform((0, 0), (800, 600), (200, 2))
    row, _ = judge(matched, views(30))
    assert row["inliers"] >= 8
    assert not row["right"]
    assert row["median_px"] > 12


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_matches_give_no_geometry(count: int) -> None:
    first, second = views(count)
    matrix, inliers = fundamental_matrix(first, second)
    assert matrix is None
    assert inliers.shape == (count,)
    row, _ = judge((first, second), views(30))
    assert row == {"inliers": 0, "median_px": None, "best_px": None, "worst_px": None, "right": False}


def test_only_pairs_by_day_and_night_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2 3 4\n5 6 7 8\n")
    (tmp_path / "pairs.csv").write_text(
        "pair,image1,image2,corrs_file,tags\n"
        "old/a,a1.jpg,a2.jpg,a.txt,day-night(image1 is night)\n"
        "old/b,b1.jpg,b2.jpg,b.txt,season\n"
    )
    (pair,) = read_pairs(tmp_path)
    assert pair.name == "old/a"
    assert pair.photos == ("a1.jpg", "a2.jpg")
    assert pair.first == pytest.approx(np.array([[1.5, 2.5], [5.5, 6.5]]))  # corner origin
    assert pair.second == pytest.approx(np.array([[3.5, 4.5], [7.5, 8.5]]))


def test_a_folder_that_is_no_such_set_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*pairs\.csv"):
        read_pairs(tmp_path)
    (tmp_path / "pairs.csv").write_text("pair,image1,image2,corrs_file,tags\nb,1,2,b.txt,season\n")
    with pytest.raises(DataError, match="has no pair with the tag day-night"):
        read_pairs(tmp_path)
    (tmp_path / "b.txt").write_text("1 2 3\n")
    (tmp_path / "pairs.csv").write_text("pair,image1,image2,corrs_file,tags\nb,1,2,b.txt,day-night\n")
    with pytest.raises(DataError, match="is no list of x1 y1 x2 y2"):
        read_pairs(tmp_path)


def test_a_matcher_that_finds_its_own_points_is_refused(tmp_path: Path) -> None:
    plugins = resolve_block("features", "sift"), resolve_block("matcher", "dense_oracle:DenseOracle")
    with pytest.raises(ConfigError, match="finds its own points"):
        measure_pairs(tmp_path, plugins, tmp_path, long_side=160, runtime=Runtime(device="cpu"))
