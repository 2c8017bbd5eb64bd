"""nerfstudio's frame: OpenGL's camera, a world whose z is up, and the names of its intrinsics."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from loc.colmap import camera_to_colmap
from loc.errors import DataError
from loc.exchange.nerfstudio import APPLIED_TRANSFORM, camera_to_world, intrinsics
from loc.types import CAMERA_PARAMS, Camera, Pose

PARAMS = {
    "SIMPLE_PINHOLE": [500, 310, 250],
    "PINHOLE": [500, 510, 310, 250],
    "SIMPLE_RADIAL": [500, 310, 250, 0.1],
    "RADIAL": [500, 310, 250, 0.1, -0.05],
    "OPENCV": [500, 510, 310, 250, 0.1, -0.05, 0.002, -0.003],
    "OPENCV_FISHEYE": [500, 510, 310, 250, 0.1, -0.05, 0.02, -0.01],
    "SIMPLE_RADIAL_FISHEYE": [500, 310, 250, 0.1],
    "RADIAL_FISHEYE": [500, 310, 250, 0.1, -0.05],
}


def _project(out: dict, x: float, y: float, z: float) -> tuple[float, float]:
    """OpenCV's formulas, which nerfstudio uses, for a point in OpenCV's camera frame."""
    u, v = x / z, y / z
    k1, k2 = out["k1"], out["k2"]
    if out["camera_model"] == "OPENCV":
        r2, p1, p2 = u * u + v * v, out["p1"], out["p2"]
        radial = 1 + k1 * r2 + k2 * r2 * r2
        du = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)
        dv = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v)
    else:
        r = np.hypot(u, v)
        theta = np.arctan(r)
        powers = [k1, k2, out["k3"], out["k4"]]
        distorted = theta * (1 + sum(k * theta ** (2 * n) for n, k in enumerate(powers, start=1)))
        du, dv = u * distorted / r, v * distorted / r
    return out["fl_x"] * du + out["cx"], out["fl_y"] * dv + out["cy"]


@pytest.mark.parametrize("model", sorted(PARAMS))
def test_a_point_projects_as_in_colmap(model):
    camera = Camera(model, 640, 480, np.array(PARAMS[model], np.float64))
    pose = Pose(Rotation.from_rotvec([0.3, -0.8, 0.2]).as_quat(), np.array([0.5, -1.0, 4.0]))
    point = np.array([0.2, 0.4, -0.3])
    expected = camera_to_colmap(camera).img_from_cam(pose.rotation @ point + pose.translation)
    turned = APPLIED_TRANSFORM[:, :3] @ point  # as the PLY has it
    x, y, z, _ = np.linalg.inv(camera_to_world(pose)) @ [*turned, 1]
    assert z < 0  # OpenGL looks along -z
    found = _project(intrinsics(camera), x, -y, -z)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert intrinsics(camera)["w"] == 640


def test_up_is_z():
    level = camera_to_world(Pose(np.array([0, 0, 0, 1.0]), np.zeros(3)))
    assert level[:3, 1].tolist() == [0, 0, 1]  # the camera's up
    assert level[:3, 2].tolist() == [0, -1, 0]  # its back: it looks along +y
    assert np.linalg.det(APPLIED_TRANSFORM[:, :3]) == 1


@pytest.mark.parametrize("model", sorted(set(CAMERA_PARAMS) - set(PARAMS)))
def test_models_that_nerfstudio_does_not_have(model):
    camera = Camera(model, 640, 480, np.ones(CAMERA_PARAMS[model]))
    with pytest.raises(DataError, match=f"nerfstudio has no camera model for COLMAP's {model}"):
        intrinsics(camera)
