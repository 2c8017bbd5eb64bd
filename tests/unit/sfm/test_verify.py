import numpy as np
import pytest
from synthetic_map import Synthetic, synthesize

from loc.colmap import pycolmap
from loc.sfm.verify import PairJob, VerifiedPair, View, verify_known_poses, verify_pair, verify_pairs
from loc.types import Camera, Pose

CALIBRATED = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
DEGENERATE = int(pycolmap.TwoViewGeometryConfiguration.DEGENERATE)
IDENTITY = Pose(np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3))
SIDEWAYS = Pose(np.array([0.0, 0.0, 0.0, 1.0]), np.array([-1.0, 0.0, 0.0]))
CAMERA = Camera("OPENCV", 800, 600, np.array([500.0, 500.0, 400.0, 300.0, -0.2, 0.05, 1e-3, -1e-3]))
OTHER = Camera("SIMPLE_RADIAL", 1600, 1200, np.array([1000.0, 800.0, 600.0, 0.1]))


def _project(points: np.ndarray, camera: Camera, pose: Pose) -> np.ndarray:
    from loc.colmap import camera_to_colmap

    seen = points @ pose.rotation.T + pose.translation
    return camera_to_colmap(camera).img_from_cam(seen).astype(np.float32)


def _points(n: int = 50) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.uniform([-2, -1.5, 5], [2, 1.5, 9], (n, 3))


def _rows(n: int) -> np.ndarray:
    return np.repeat(np.arange(n, dtype=np.int32)[:, None], 2, axis=1)


def _verify(xy0, xy1, pose0=IDENTITY, pose1=SIDEWAYS, max_error_px=1.0, indices=None):
    indices = _rows(len(xy0)) if indices is None else indices
    return verify_known_poses(xy0, xy1, indices, CAMERA, OTHER, pose0, pose1, max_error_px=max_error_px)


def test_true_matches_of_two_distorted_cameras_pass():
    xy0, xy1 = _project(_points(), CAMERA, IDENTITY), _project(_points(), OTHER, SIDEWAYS)
    assert _verify(xy0, xy1, max_error_px=0.01).all()


def test_ignoring_the_distortion_would_fail():
    pinhole = Camera("PINHOLE", 800, 600, CAMERA.params[:4])
    xy0, xy1 = _project(_points(), CAMERA, IDENTITY), _project(_points(), OTHER, SIDEWAYS)
    mask = verify_known_poses(xy0, xy1, _rows(50), pinhole, OTHER, IDENTITY, SIDEWAYS, max_error_px=1.0)
    assert not mask.all()


@pytest.mark.parametrize("image", [0, 1])
def test_the_distance_is_in_pixels_of_each_image(image):
    xy = [_project(_points(), CAMERA, IDENTITY), _project(_points(), OTHER, SIDEWAYS)]
    xy[image][:, 1] += 3.0  # epipolar lines of a sideways motion are close to rows
    # One pixel of the first camera is two of the second, so the second image decides.
    shift = 6.0 if image == 0 else 3.0
    assert not _verify(*xy, max_error_px=shift * 0.7).any()
    assert _verify(*xy, max_error_px=shift * 1.5).mean() > 0.9


def test_wrong_order_of_points_fails():
    xy0, xy1 = _project(_points(), CAMERA, IDENTITY), _project(_points(), OTHER, SIDEWAYS)
    assert _verify(xy0, np.roll(xy1, 1, axis=0)).mean() < 0.1


def test_indices_choose_the_keypoints():
    xy0, xy1 = _project(_points(), CAMERA, IDENTITY), _project(_points(), OTHER, SIDEWAYS)
    order = np.random.default_rng(1).permutation(50)
    indices = np.column_stack([np.argsort(order), np.arange(50)]).astype(np.int32)
    assert _verify(xy0[order], xy1, indices=indices[np.argsort(indices[:, 1])]).all()


def test_without_a_baseline_rotation_decides():
    turn = Pose(np.array([0.0, 0.05, 0.0, 1.0]), np.zeros(3))
    xy0, xy1 = _project(_points(), CAMERA, IDENTITY), _project(_points(), OTHER, turn)
    assert _verify(xy0, xy1, pose1=turn, max_error_px=0.05).all()
    assert not _verify(xy0, xy1 + 5, pose1=turn, max_error_px=1.0).any()


def test_nan_and_empty_are_safe():
    xy0, xy1 = _project(_points(4), CAMERA, IDENTITY), _project(_points(4), OTHER, SIDEWAYS)
    xy0[1] = np.nan
    assert _verify(xy0, xy1).tolist() == [True, False, True, True]
    assert _verify(xy0[:0], xy1[:0]).shape == (0,)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Synthetic:
    return synthesize(tmp_path_factory.mktemp("verify"), images=4, wrong_matches=60)


def _jobs(scene: Synthetic) -> list[PairJob]:
    def view(name: str) -> View:
        record = scene.scene[name]
        return View(name, scene.features.keypoints(name), scene.scene.camera_of(record), record.pose)

    return [PairJob(view(a), view(b), scene.matches.get((a, b)).indices) for a, b in scene.pairs.pairs]


def _same(first: VerifiedPair, second: VerifiedPair) -> bool:
    return (
        (first.first, first.second, first.config) == (second.first, second.second, second.config)
        and np.array_equal(first.indices, second.indices)
        and all(np.array_equal(getattr(first, k), getattr(second, k)) for k in ("E", "F", "H"))
    )


@pytest.mark.parametrize("known_poses", [True, False])
def test_wrong_matches_are_dropped_and_the_config_is_explicit(scene, known_poses):
    for job in _jobs(scene):
        pair = verify_pair(job, known_poses=known_poses, max_error_px=4.0, min_num_inliers=15)
        assert pair.config == CALIBRATED
        assert 100 <= len(pair) < len(job.indices) - 30
        assert pair.E is not None


@pytest.mark.parametrize("known_poses", [True, False])
def test_the_result_does_not_depend_on_the_number_of_workers(scene, known_poses):
    runs = [
        list(
            verify_pairs(
                iter(_jobs(scene)), known_poses=known_poses, max_error_px=4.0, min_num_inliers=15, workers=n
            )
        )
        for n in (1, 2, 4)
    ]
    for run in runs[1:]:
        assert all(_same(a, b) for a, b in zip(runs[0], run, strict=True))


def test_unknown_focal_lengths_use_the_fundamental_matrix(tmp_path):
    scene = synthesize(tmp_path, images=2, has_prior_focal_length=False)
    pair = verify_pair(_jobs(scene)[0], known_poses=False, max_error_px=4.0, min_num_inliers=15)
    assert pair.config == int(pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED)
    assert pair.F is not None


@pytest.mark.parametrize("known_poses", [True, False])
def test_too_few_matches_are_degenerate_and_empty(scene, known_poses):
    job = _jobs(scene)[0]
    few = PairJob(job.first, job.second, job.indices[:14])
    pair = verify_pair(few, known_poses=known_poses, max_error_px=4.0, min_num_inliers=15)
    assert (pair.config, len(pair)) == (DEGENERATE, 0)
