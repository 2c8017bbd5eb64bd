"""The verdict: every status from matches, and doubt where the counts look fine but the pose is not."""

from __future__ import annotations

import numpy as np
import pytest

from loc.colmap import camera_to_colmap
from loc.config import LocalizeConfig
from loc.sfm.index import PointIndex
from loc.sfm.locate import MatchedQuery, locate
from loc.types import Camera, Matches, QueryResult

CAMERA = Camera("PINHOLE", 1000, 800, np.array([900.0, 900.0, 500.0, 400.0]))
CONFIG = LocalizeConfig()
ORIGIN = np.array([5.0, 6.0, 7.0])  # of the camera, in the world


def query_of(
    in_camera: np.ndarray, *, right: int, noise_px: float = 0.3, seed: int = 0
) -> tuple[PointIndex, MatchedQuery]:
    """A query of ``len(in_camera)`` keypoints, matched one to one with the points; ``right`` correctly."""
    rng = np.random.default_rng(seed)
    n = len(in_camera)
    xy = camera_to_colmap(CAMERA).img_from_cam(in_camera) + rng.normal(0, noise_px, (n, 2))
    xy[right:] = rng.uniform([0, 0], [1000, 800], (n - right, 2))
    index = PointIndex(
        names=("db.jpg",),
        offsets=np.array([0, n]),
        rows=np.arange(n, dtype=np.int32),
        xyz=in_camera + ORIGIN,
        point_ids=np.arange(n, dtype=np.int64) + 100,
        track_lengths=np.full(n, 2, np.int32),
    )
    both = np.arange(n, dtype=np.int32)
    matches = Matches(np.stack([both, both], axis=1), np.ones(n, np.float32))
    return index, MatchedQuery("q.jpg", CAMERA, xy.astype(np.float32), [("db.jpg", matches)])


def cloud(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([-2, -1.5, 4], [2, 1.5, 8], (n, 3))


def found(points: np.ndarray, *, right: int, noise_px: float = 0.3, **config: float | str) -> QueryResult:
    index, query = query_of(points, right=right, noise_px=noise_px)
    return locate(index, query, CONFIG.model_copy(update=config))


def test_ok() -> None:
    result = found(cloud(100), right=80)
    assert result.status == "ok"
    assert result.pose is not None
    assert np.linalg.norm(result.pose.center_in_world - ORIGIN) < 0.02
    assert result.num_matches == 100
    assert 80 <= result.num_inliers == len(result.inlier_xy) == len(result.inlier_points3d)
    assert result.inlier_points3d[:3].tolist() == [100, 101, 102]
    assert result.references == ("db.jpg",)
    assert result.covariance.shape == (6, 6)
    assert result.camera is CAMERA


def test_few_inliers_are_doubtful() -> None:
    result = found(cloud(25), right=25)
    assert result.status == "doubtful"
    assert result.pose is not None
    assert result.reason == "25 independent inliers, 30 are needed for ok"


def test_a_low_ratio_is_doubtful() -> None:
    result = found(cloud(400), right=60)
    assert result.status == "doubtful"
    assert result.reason.startswith("inlier ratio 0.1")


def test_fewer_than_twelve_are_no_pose() -> None:
    result = found(cloud(60), right=9)
    assert result.status == "pnp_failed"
    assert result.pose is None
    assert result.covariance is None
    assert result.num_matches == 60
    assert "12 are needed" in result.reason


def test_three_matches_are_no_pose() -> None:
    result = found(cloud(3), right=3)
    assert (result.status, result.reason) == (
        "pnp_failed",
        "0 independent inliers of 3 2D-3D matches, 12 are needed",
    )


@pytest.mark.parametrize("n", [30, 300, 3000])
@pytest.mark.parametrize("focal", ["fixed", "estimate"])
def test_chance_alone_is_never_ok(n: int, focal: str) -> None:
    """Wrong matches only, as a photo of another place gives them."""
    result = found(cloud(n), right=0, focal=focal)
    assert result.status in ("pnp_failed", "doubtful")
    assert result.num_inliers < 30


def test_inliers_that_fill_the_tolerance_are_doubtful() -> None:
    result = found(cloud(200), right=200, noise_px=8.0)
    assert result.status == "doubtful"
    assert "fit as chance would" in result.reason


def test_inliers_along_a_line_are_doubtful() -> None:
    t = np.linspace(-1, 1, 100)
    line = np.stack([2 * t, 0.2 * t, 6 + t], axis=1)
    result = found(line, right=100)
    assert result.status in ("doubtful", "pnp_failed")
    assert result.status != "doubtful" or "line" in result.reason or "singular" in result.reason


def test_inliers_in_a_spot_are_doubtful() -> None:
    spot = np.random.default_rng(0).normal(0, 0.05, (100, 3)) + np.array([1.0, 0.5, 6.0])
    result = found(spot, right=100)
    assert result.status == "doubtful"
    assert "in a spot" in result.reason


def test_weak_geometry_is_doubtful() -> None:
    """Enough spread for the line test, but so distant and flat that the position is a guess."""
    far = np.random.default_rng(0).uniform([-0.36, -0.36, 6], [0.36, 0.36, 6.01], (40, 3))
    result = found(far, right=40, noise_px=1.0)
    assert result.status == "doubtful"
    assert "weak geometry" in result.reason
    assert found(far, right=40, noise_px=1.0, max_rotation_std_deg=9.0, max_position_std=9.0).status == "ok"


def test_copies_of_one_point_are_one_observation() -> None:
    """40 keypoints on 10 points: counts alone would call it ok."""
    points = np.repeat(cloud(10), 4, axis=0)
    index, query = query_of(points, right=40)
    index = PointIndex(
        index.names, index.offsets, np.repeat(np.arange(10, dtype=np.int32), 4), points[::4] + ORIGIN,
        np.arange(10, dtype=np.int64), np.full(10, 2, np.int32),
    )  # fmt: skip
    result = locate(index, query, CONFIG)
    assert result.status == "pnp_failed"
    assert result.reason.startswith("10 independent inliers of 40")


def test_no_pairs_and_no_matches() -> None:
    index, query = query_of(cloud(20), right=20)
    alone = MatchedQuery("q.jpg", CAMERA, query.keypoints, [])
    assert locate(index, alone, CONFIG).status == "no_pairs"
    elsewhere = MatchedQuery("q.jpg", CAMERA, query.keypoints, [("gone.jpg", query.matched[0][1])])
    result = locate(index, elsewhere, CONFIG)
    assert (result.status, result.reason) == ("no_matches", "none of its 1 database images is in the map")
    unmatched = MatchedQuery("q.jpg", CAMERA, query.keypoints, [("db.jpg", Matches.empty())])
    result = locate(index, unmatched, CONFIG)
    assert (result.status, result.reason) == (
        "no_matches",
        "none of 0 matches with 1 mapped images leads to a 3-D point",
    )
    blank = MatchedQuery("q.jpg", CAMERA, np.zeros((0, 2), np.float32), [("db.jpg", Matches.empty())])
    assert locate(index, blank, CONFIG).reason == "the photo has no keypoints"


@pytest.mark.parametrize(("mode", "known", "expected"), [
    ("auto", True, 1100.0), ("auto", False, 900.0), ("fixed", False, 1100.0), ("estimate", True, 900.0),
])  # fmt: skip
def test_the_focal_length_is_estimated_where_it_is_not_known(mode: str, known: bool, expected: float) -> None:
    index, query = query_of(cloud(200), right=200)
    guess = Camera(
        "SIMPLE_PINHOLE", 1000, 800, np.array([1100.0, 500.0, 400.0]), has_prior_focal_length=known
    )
    given = MatchedQuery("q.jpg", guess, query.keypoints, query.matched)
    result = locate(index, given, LocalizeConfig(focal=mode))
    assert result.camera is not None
    assert result.camera.focal_px == pytest.approx(expected, abs=5)
