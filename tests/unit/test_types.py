from __future__ import annotations

import pickle

import numpy as np
import pytest

from loc.conventions import rescale_xy
from loc.errors import ContractError, DataError, MapError
from loc.types import Camera, ImageRecord, LocalFeatures, Matches, Pose, Scene


def features(n: int = 3, **changes: object) -> LocalFeatures:
    fields = {
        "keypoints": np.zeros((n, 2), np.float32),
        "scores": np.ones(n, np.float32),
        "descriptors": np.zeros((n, 8), np.float32),
        "image_wh": (10, 10),
    }
    return LocalFeatures(**(fields | changes))


def test_pose_center_and_inverse_are_consistent() -> None:
    pose = Pose(np.array([0.1, -0.2, 0.3, 0.9]), np.array([1.0, 2.0, 3.0]))
    world = np.array([0.3, -4.0, 2.0])
    cam = pose.rotation @ world + pose.translation
    inverse = pose.inverse()
    assert np.allclose(inverse.rotation @ cam + inverse.translation, world)
    assert np.allclose(pose.rotation @ pose.center_in_world + pose.translation, 0)
    assert np.isclose(np.linalg.norm(pose.quat_xyzw), 1)
    assert np.isclose(np.linalg.det(pose.rotation), 1)


@pytest.mark.parametrize("quat", [[0, 0, 0, 0], [np.nan, 0, 0, 1]])
def test_pose_refuses_what_is_no_rotation(quat: list[float]) -> None:
    with pytest.raises(DataError, match="not a pose"):
        Pose(np.array(quat, float), np.zeros(3))


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        ("PINHOLE", [1.0, 2.0, 3.0], "PINHOLE takes 4 parameters, got 3"),
        ("PINHOLE", [-1.0, 2.0, 3.0, 4.0], "positive focal lengths"),
        ("SIMPLE_RADIAL", [np.nan, 2.0, 3.0, 4.0], "must be finite"),
        ("PINHOL", [1.0], "unknown camera model 'PINHOL'"),
    ],
)
def test_camera_refuses_nonsense(model: str, params: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Camera(model, 640, 480, np.array(params))


def test_camera_round_trips_through_json() -> None:
    camera = Camera("OPENCV", 640, 480, np.arange(1.0, 9.0), has_prior_focal_length=False)
    again = Camera.from_json(camera.to_json())
    assert again.to_json() == camera.to_json()
    assert camera.focal_px == 1.5  # mean of the two focal lengths


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": np.zeros((3, 2), np.float16)}, "keypoints must be float32"),
        ({"keypoints": np.zeros((2, 3), np.float32)}, r"keypoints must be \(n, 2\)"),
        ({"scores": np.ones(2, np.float32)}, r"scores must be \(3,\)"),
        ({"descriptors": np.zeros((8, 3), np.float32)}, r"descriptors must be \(3, d\)"),
        ({"descriptors": np.zeros((3, 8))}, "float32, float16 or uint8"),
        ({"descriptors": np.full((3, 8), np.nan, np.float32)}, "descriptors holds NaN"),
        ({"scales": np.ones(4, np.float32)}, "scales must be"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_features_are_validated(changes: dict[str, object], message: str) -> None:
    from jaxtyping import TypeCheckError

    with pytest.raises((ContractError, TypeCheckError)) as caught:
        features(**changes)
    if caught.type is ContractError:
        assert caught.match(message)


def test_shape_checks_of_jaxtyping_are_on() -> None:
    """One test proves that annotations are enforced in tests (architecture, house rule 4)."""
    with pytest.raises(Exception, match=r"(?i)type-check|beartype|jaxtyping"):
        rescale_xy(np.zeros((4, 3)), from_wh=(1, 1), to_wh=(2, 2))


def test_matches_must_be_sorted_and_unique() -> None:
    ones = np.ones(2, np.float32)
    Matches(np.array([[0, 1], [0, 2]], np.int32), ones)
    for rows in ([[1, 0], [0, 0]], [[0, 1], [0, 1]]):
        with pytest.raises(ContractError, match="sorted"):
            Matches(np.array(rows, np.int32), ones)
    with pytest.raises(ContractError, match=r"\[0, 1\]"):
        Matches(np.array([[0, 0], [1, 1]], np.int32), 2 * ones)


def test_scene_names_are_unique_and_sorted(tmp_path) -> None:
    camera = {"c": Camera("SIMPLE_PINHOLE", 4, 4, np.array([4.0, 2.0, 2.0]))}
    b, a = (ImageRecord(name, tmp_path / name, "db", "c") for name in ("b", "a"))
    assert [image.name for image in Scene((b, a), camera).images] == ["a", "b"]
    with pytest.raises(DataError, match="two images are called 'a'"):
        Scene((a, a), camera)
    with pytest.raises(DataError, match="unknown camera"):
        Scene((a,), {})


def test_errors_survive_process_borders() -> None:
    error = pickle.loads(pickle.dumps(MapError("what", "next")))
    assert (type(error), str(error)) == (MapError, "what\n  next")
