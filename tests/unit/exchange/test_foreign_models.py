"""Bundler and NVM files become COLMAP models whose points project where they were seen."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from loc.colmap import pycolmap
from loc.errors import DataError
from loc.exchange.foreign_models import import_bundler, import_nvm
from loc.layouts.colmap import read_model

WH = (400, 300)


def _photos(folder: Path, names=("db/a.png", "db/b.png")) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", WH).save(folder / name)
    return folder


def _nvm(path: Path, radial: float) -> Path:
    """VisualSFM's formulas: measured m, from the middle; undistorted u = m (1 + r m²) in units of f."""
    random, f = np.random.default_rng(0), 350.0
    poses = [
        (Rotation.from_rotvec(random.normal(0, 0.1, 3)), np.array([0.3 * number, 0, -6])) for number in (0, 1)
    ]
    cameras = [
        f"db/{name}.png {f} {' '.join(map(repr, turn.as_quat()[[3, 0, 1, 2]].tolist()))} "
        f"{' '.join(map(repr, center.tolist()))} {radial} 0"
        for name, (turn, center) in zip("ab", poses, strict=True)
    ]
    lines = []
    for point in random.uniform(-4, 4, (30, 3)):
        views = []
        for number, (turn, center) in enumerate(poses):
            x, y, z = turn.as_matrix() @ (point - center)
            undistorted = np.array([x, y]) / z
            measured = undistorted
            for _ in range(200):  # the inverse, by iteration
                measured = undistorted / (1 + radial * (measured**2).sum())
            views.append(f"{number} 0 {float(f * measured[0])!r} {float(f * measured[1])!r}")
        lines.append(f"{' '.join(map(repr, point.tolist()))} 1 2 3 2 {' '.join(views)}")
    head = ["NVM_V3", "", "2", *cameras, "", str(len(lines))]
    path.write_text("\n".join([*head, *lines, "", "0"]) + "\n")
    return path


@pytest.mark.parametrize(("radial", "error_px"), [(0.0, 1e-6), (0.1, 0.1)])
def test_nvm_with_the_distortion_of_visualsfm(tmp_path, radial, error_px):
    counts = import_nvm(_nvm(tmp_path / "m.nvm", radial), _photos(tmp_path / "i"), tmp_path / "out")
    assert counts["images"] == 2
    assert counts["points"] == 30
    assert counts["observations"] == 60
    assert counts["median_reprojection_error_px"] <= error_px
    assert counts["notes"] == []
    model = pycolmap.Reconstruction(tmp_path / "out")
    assert [model.images[i].name for i in sorted(model.images)] == ["db/a.png", "db/b.png"]
    assert (model.cameras[1].width, model.cameras[1].height) == WH
    poses, _ = read_model(tmp_path / "out")  # usable as scene.model
    np.testing.assert_allclose(poses["db/b.png"].center_in_world, [0.3, 0, -6], atol=1e-9)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["from"] == "m.nvm"


def test_given_intrinsics_take_precedence_and_need_no_photo(tmp_path):
    path = _nvm(tmp_path / "m.nvm", 0.0)
    (tmp_path / "k.txt").write_text("db/* SIMPLE_RADIAL 400 300 350 200 150 0\n")
    (tmp_path / "empty").mkdir()
    import_nvm(path, tmp_path / "empty", tmp_path / "out", intrinsics=tmp_path / "k.txt")
    camera = pycolmap.Reconstruction(tmp_path / "out").cameras[1]
    assert camera.model.name == "SIMPLE_RADIAL"
    wrong = (tmp_path / "k.txt").read_text().replace("400 300", "300 400")
    (tmp_path / "k.txt").write_text(wrong)
    with pytest.raises(DataError, match="they fit only the rotated size"):
        import_nvm(path, _photos(tmp_path / "i"), tmp_path / "o2", intrinsics=tmp_path / "k.txt")


def test_intrinsics_that_do_not_fit_are_noticed(tmp_path):
    (tmp_path / "k.txt").write_text("db/* PINHOLE 400 300 900 900 200 150\n")
    counts = import_nvm(
        _nvm(tmp_path / "m.nvm", 0.0),
        _photos(tmp_path / "i"),
        tmp_path / "out",
        intrinsics=tmp_path / "k.txt",
    )
    assert "half of the points project more than 4 px" in counts["notes"][0]


def test_points_behind_the_cameras_are_told_apart(tmp_path):
    """Cameras that look the other way: there is no reprojection error to speak of."""
    text = _nvm(tmp_path / "m.nvm", 0.0).read_text()
    lines = text.splitlines()
    for number in (3, 4):  # w x y z of a half turn about y, after the pose
        words = lines[number].split()
        w, x, y, z = map(float, words[2:6])
        words[2:6] = [repr(value) for value in (-y, z, w, -x)]
        lines[number] = " ".join(words)
    (tmp_path / "m.nvm").write_text("\n".join(lines) + "\n")
    counts = import_nvm(tmp_path / "m.nvm", _photos(tmp_path / "i"), tmp_path / "out")
    assert counts["median_reprojection_error_px"] is None
    (note,) = counts["notes"]
    assert note.startswith("no point projects into its images")


def test_missing_photos_and_an_image_root_too_high(tmp_path):
    path = _nvm(tmp_path / "m.nvm", 0.0)
    with pytest.raises(DataError, match=r"1 of 2 images .* are not under .*: db/b.png\n  their sizes"):
        import_nvm(path, _photos(tmp_path / "i", ["db/a.png"]), tmp_path / "out")
    _photos(tmp_path / "j" / "images")
    with pytest.raises(DataError, match=r"images/db/a.png exists: scene.images must be the folder"):
        import_nvm(path, tmp_path / "j", tmp_path / "out")
    with pytest.raises(DataError, match="is not a folder"):
        import_nvm(path, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bundler_and_nvm_of_the_aachen_sample_give_one_model(shared, tmp_path):
    folder = shared / "data" / "aachen_lists" / "format_sample"
    stem, images = folder / "3D-models" / "aachen_cvpr2018_db", folder / "images_upright"
    import_bundler(stem.with_suffix(".out"), stem.with_suffix(".list.txt"), images, tmp_path / "b")
    import_nvm(stem.with_suffix(".nvm"), images, tmp_path / "n")
    one, other = (pycolmap.Reconstruction(tmp_path / name) for name in ("b", "n"))
    assert one.num_reg_images() == other.num_reg_images() == 3
    assert one.num_points3D() == other.num_points3D() == 5
    for number in one.images:
        assert one.images[number].name == other.images[number].name
        difference = (
            one.images[number].cam_from_world().matrix() - other.images[number].cam_from_world().matrix()
        )
        assert np.abs(difference).max() < 1e-6
    for number in one.points3D:
        np.testing.assert_allclose(one.points3D[number].xyz, other.points3D[number].xyz, atol=1e-9)
        assert one.points3D[number].track.length() == other.points3D[number].track.length()
