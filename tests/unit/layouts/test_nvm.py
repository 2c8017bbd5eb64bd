"""NVM files: what VisualSFM and the Aachen benchmark write, and the text of what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loc.colmap import pose_from_colmap
from loc.errors import DataError
from loc.layouts.nvm import parse_nvm, read_nvm
from loc.types import Camera, Pose

QUAT_WXYZ = (0.8, 0.0, 0.6, 0.0)
CENTER = (1.0, 2.0, 3.0)


def nvm_text(*, header="NVM_V3", offset=(400.0, 300.0), tail="0\n") -> str:
    """Two cameras, and points projected into both with f = 500, r = 0."""
    in_camera = [(-1.0, 0.5, 10.0), (0.5, -1.0, 12.0)]
    points = [tuple((rotation().T @ xyz + CENTER).tolist()) for xyz in in_camera]
    centers = [CENTER, (2.0, 2.0, 3.0)]
    lines = [header, "", "2"]
    for number, center in enumerate(centers):
        lines.append(" ".join(map(str, [f"db/{number}.jpg", 500.0, *QUAT_WXYZ, *center, 0, 0])))
    lines += ["", str(len(points))]
    for row, xyz in enumerate(points):
        seen = []
        for number, center in enumerate(centers):
            x, y, z = rotation() @ (np.array(xyz) - center)
            seen += [number, row, float(500 * x / z + offset[0]), float(500 * y / z + offset[1])]
        lines.append(" ".join(map(str, [*xyz, 10, 20, 30, 2, *seen])))
    return "\n".join([*lines, "", tail])


def rotation():
    return Pose(np.array([0.0, 0.6, 0.0, 0.8]), np.zeros(3)).rotation


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "model.nvm"
    path.write_text(text)
    return path


def test_poses_are_from_centres(tmp_path):
    found = parse_nvm(written(tmp_path, nvm_text()))
    assert found.names == ("db/0.jpg", "db/1.jpg")
    np.testing.assert_allclose(found.poses[0].center_in_world, CENTER, atol=1e-12)
    np.testing.assert_allclose(found.poses[0].rotation, rotation(), atol=1e-12)
    assert found.focal_px.tolist() == [500, 500]
    assert found.rgb.tolist() == [[10, 20, 30]] * 2
    assert {name: rows.tolist() for name, rows in found.points_of_images().items()} == {
        "db/0.jpg": [0, 1],
        "db/1.jpg": [0, 1],
    }


@pytest.mark.parametrize("offset", [(400.0, 300.0), (0.0, 0.0)], ids=["top left", "middle"])
def test_colmap_model_projects_onto_its_observations(tmp_path, offset):
    camera = Camera("PINHOLE", 800, 600, np.array([500.0, 500, 400, 300]))
    path = written(tmp_path, nvm_text(offset=offset))
    model = read_nvm(path, {"db/0.jpg": camera, "db/1.jpg": camera})
    assert (model.num_reg_images(), model.num_points3D()) == (2, 2)
    for image in model.images.values():
        pose = pose_from_colmap(image.cam_from_world())
        for point2d in image.points2D:
            x, y, z = pose.rotation @ model.points3D[point2d.point3D_id].xyz + pose.translation
            np.testing.assert_allclose(point2d.xy, [500 * x / z + 400, 500 * y / z + 300], atol=1e-6)


def test_without_cameras_the_size_is_what_the_observations_fill(tmp_path):
    model = read_nvm(written(tmp_path, nvm_text()))
    camera = model.cameras[1]
    assert camera.model.name == "SIMPLE_RADIAL"
    assert camera.params[0] == 500
    for point2d in model.images[1].points2D:
        assert 0 <= point2d.xy[0] <= camera.width
        assert 0 <= point2d.xy[1] <= camera.height


def test_cameras_alone(tmp_path):
    text = nvm_text()
    found = parse_nvm(written(tmp_path, text[: text.rindex("\n\n2\n")]), points=False)
    assert (len(found.names), len(found.xyz)) == (2, 0)


def test_spaces_and_fixed_calibration(tmp_path):
    text = nvm_text(header="NVM_V3 FixedK 500 400 500 300 0").replace("db/0.jpg", 'db/a"b.jpg')
    assert parse_nvm(written(tmp_path, text)).names[0] == "db/a b.jpg"


def test_largest_of_several_models(tmp_path):
    one = "1\nsmall.jpg 1 1 0 0 0 0 0 0 0 0\n0\n"
    found = parse_nvm(written(tmp_path, nvm_text(tail=one + "0\n").replace("NVM_V3\n", "NVM_V3\n" + one, 1)))
    assert found.names == ("db/0.jpg", "db/1.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("NVM_V3", "ply"), "not an NVM file"),
        (lambda text: "", "ends where the header should be"),
        (lambda text: "NVM_V3\n\n0\n", "has no cameras"),
        (lambda text: "NVM_V3\n", "ends where the number of cameras"),
        (lambda text: text.replace("\n2\n", "\n3\n", 1), "line 7: not a camera line|a camera is"),
        (lambda text: text.replace("db/1.jpg", "db/0.jpg"), "two images called 'db/0.jpg'"),
        (lambda text: text.replace("db/1.jpg", "/etc/1.jpg"), "line 5\\) cannot be used: it is absolute"),
        (lambda text: text.replace("0.8 0.0 0.6", "0.0 0.0 0.0"), "line 4: not a pose"),
        (lambda text: text.replace("1.0 2.0 3.0", "nan 2.0 3.0"), "line 4: not a pose"),
        (lambda text: text.replace("10 20 30 2 0", "10 20 30 2 7"), "refers to camera 7 of 2"),
        (lambda text: text.replace("10 20 30 2 ", "10 20 30 3 ", 1), "line 8: a point is"),
        (lambda text: text.replace(" 10 20 30", "e999 10 20 30"), "NaN"),
        (lambda text: text.replace(" 10 20 30", "x 10 20 30"), "could not convert"),
        (lambda text: text[: text.rindex(" 10 20 30")].rpartition("\n")[0], "ends after 1 of 2 points"),
        (lambda text: text.replace("\n2\n", "\ntwo\n", 1), "line 3: expected the number of cameras"),
    ],
)
def test_damaged_files(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        parse_nvm(written(tmp_path, change(nvm_text())))


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot read the model"):
        parse_nvm(tmp_path / "none.nvm")
