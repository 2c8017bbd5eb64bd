"""PnP on synthetic truth: accuracy, outliers, focal length, covariance, and refusing nonsense."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from loc.colmap import camera_to_colmap
from loc.errors import DataError
from loc.sfm.pnp import PnPResult, estimate_pose, reprojection_errors_px
from loc.types import Camera, Pose

CAMERA = Camera("SIMPLE_RADIAL", 1000, 800, np.array([900.0, 500.0, 400.0, -0.08]))
# The map is far from the world's origin: rotation and translation errors are strongly correlated.
TRUTH = Pose(np.array([0.1, -0.3, 0.2, 0.9]), np.array([20.0, -35.0, 50.0]))


def scene(n: int, *, noise_px: float, outliers: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    in_camera = rng.uniform([-2, -1.5, 4], [2, 1.5, 8], (n, 3))
    xy = camera_to_colmap(CAMERA).img_from_cam(in_camera) + rng.normal(0, noise_px, (n, 2))
    xy[:outliers] = rng.uniform([0, 0], [1000, 800], (outliers, 2))
    xyz = (in_camera - TRUTH.translation) @ TRUTH.rotation
    return xy, xyz


def center_error(found: PnPResult) -> float:
    return float(np.linalg.norm(found.pose.center_in_world - TRUTH.center_in_world))


def rotation_error_deg(found: PnPResult) -> float:
    relative = found.pose.rotation @ TRUTH.rotation.T
    return float(np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))))


def test_exact_points_give_the_true_pose() -> None:
    xy, xyz = scene(50, noise_px=0)
    found = estimate_pose(xy, xyz, CAMERA, max_error_px=4.0)
    assert found is not None
    assert center_error(found) < 1e-6
    assert rotation_error_deg(found) < 1e-6
    assert found.inliers.all()
    assert found.camera is CAMERA
    assert found.residuals_px.max() < 1e-6


def test_seventy_percent_outliers() -> None:
    xy, xyz = scene(200, noise_px=0.5, outliers=140)
    found = estimate_pose(xy, xyz, CAMERA, max_error_px=4.0)
    assert found is not None
    assert center_error(found) < 0.03
    assert rotation_error_deg(found) < 0.2
    assert found.inliers[140:].all()
    assert found.inliers[:140].sum() <= 5
    assert found.num_inliers == int((found.residuals_px <= 4).sum())


def test_unknown_focal_length_is_found_and_returned_and_the_given_camera_stays() -> None:
    guess = Camera(
        "SIMPLE_RADIAL", 1000, 800, np.array([1200.0, 500, 400, -0.08]), has_prior_focal_length=False
    )
    xy, xyz = scene(200, noise_px=0.3, outliers=60)
    found = estimate_pose(xy, xyz, guess, max_error_px=4.0, focal="estimate")
    assert found is not None
    assert abs(found.camera.focal_px - 900) < 10
    assert found.camera.params[1:].tolist() == guess.params[1:].tolist()
    assert guess.focal_px == 1200
    assert center_error(found) < 0.1
    wrong = estimate_pose(xy, xyz, guess, max_error_px=4.0, focal="fixed")
    assert wrong is None or center_error(wrong) > 5 * center_error(found)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_points_are_no_pose(n: int) -> None:
    xy, xyz = scene(n, noise_px=0)
    assert estimate_pose(xy, xyz, CAMERA, max_error_px=4.0) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_input_that_is_not_finite_is_refused(value: float, side: int) -> None:
    arrays = scene(50, noise_px=0)
    arrays[side][7, 1] = value
    with pytest.raises(DataError, match=r"2D-3D matches hold NaN or infinity \(50 matches\)"):
        estimate_pose(*arrays, CAMERA, max_error_px=4.0)


def test_pure_noise_is_no_pose_or_has_hardly_an_inlier() -> None:
    rng = np.random.default_rng(1)
    xy, xyz = rng.uniform(0, 800, (100, 2)), rng.normal(size=(100, 3))
    for focal in ("fixed", "estimate"):
        found = estimate_pose(xy, xyz, CAMERA, max_error_px=4.0, focal=focal)
        assert found is None or found.num_inliers < 12


def test_points_that_coincide_are_no_pose() -> None:
    assert estimate_pose(np.full((50, 2), 300.0), np.ones((50, 3)), CAMERA, max_error_px=4.0) is None


def test_a_focal_length_no_camera_has_is_no_pose() -> None:
    # A photo of a flat, distant thing: an extreme focal length explains it as well as the true one.
    far = Camera("SIMPLE_PINHOLE", 1000, 800, np.array([40_000.0, 500, 400]))
    rng = np.random.default_rng(0)
    in_camera = rng.uniform([-1, -1, 100], [1, 1, 140], (100, 3))
    xy = camera_to_colmap(far).img_from_cam(in_camera)
    assert estimate_pose(xy, in_camera, far, max_error_px=4.0, focal="estimate") is None


def test_the_covariance_is_what_repeated_noise_shows() -> None:
    """COLMAP's raw matrix has half of the rotation's spread (a quaternion's tangent)."""
    found = [estimate_pose(*scene_with_new_noise(seed), CAMERA, max_error_px=12.0) for seed in range(120)]
    poses = [each for each in found if each is not None]
    centers = np.array([each.pose.center_in_world for each in poses])
    angles = np.radians([rotation_error_deg(each) for each in poses])
    rotation_deg, center = poses[0].std
    measured = float(np.sqrt(np.linalg.eigvalsh(np.cov(centers.T))[-1]))
    assert 0.6 < measured / center < 1.6
    assert 0.8 < poses[0].noise_px < 1.2
    total = np.sqrt(np.trace(poses[0].covariance[:3, :3]))  # RMS angle of all three axes
    assert 0.75 < float(np.sqrt(np.mean(angles**2))) / total < 1.3
    assert 0 < rotation_deg < 1


def scene_with_new_noise(seed: int) -> tuple[np.ndarray, np.ndarray]:
    xy, xyz = scene(80, noise_px=0)
    return xy + np.random.default_rng(seed).normal(0, 1.0, xy.shape), xyz


def test_the_same_from_any_thread() -> None:
    xy, xyz = scene(150, noise_px=1.0, outliers=90)

    def pose(_: int) -> bytes:
        found = estimate_pose(xy, xyz, CAMERA, max_error_px=6.0)
        assert found is not None
        return found.pose.quat_xyzw.tobytes() + found.pose.translation.tobytes()

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(pose, range(8)))) == 1


def test_reprojection_error_is_infinite_behind_the_camera() -> None:
    xy, xyz = scene(5, noise_px=0)
    behind = 2 * TRUTH.center_in_world - xyz
    assert np.isinf(reprojection_errors_px(TRUTH, CAMERA, xy, behind)).all()
    assert reprojection_errors_px(TRUTH, CAMERA, xy + np.array([3, 4]), xyz) == pytest.approx(5.0)


def test_a_focal_length_that_is_nearly_right_is_refined() -> None:
    nearly = Camera("SIMPLE_RADIAL", 1000, 800, np.array([870.0, 500, 400, -0.08]))
    xy, xyz = scene(200, noise_px=0.3)
    refined = estimate_pose(xy, xyz, nearly, max_error_px=12.0, focal="refine")
    fixed = estimate_pose(xy, xyz, nearly, max_error_px=12.0)
    assert refined is not None
    assert fixed is not None
    assert abs(refined.camera.focal_px - 900) < 5
    assert center_error(refined) < 0.3 * center_error(fixed)
