import shutil

import cv2
import numpy as np
import pytest
from synthetic_map import Synthetic, synthesize

from loc.colmap import pycolmap
from loc.errors import StoreError
from loc.sfm.bundle import MapBundle
from loc.sfm.colors import sample_colors
from loc.sfm.index import PointIndex
from loc.sfm.model import build_index, mean_reprojection_error_px, model_digest, read_model, write_colors


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Synthetic:
    return synthesize(tmp_path_factory.mktemp("model"), images=4, points=60)


@pytest.fixture(scope="module")
def bundle(scene) -> MapBundle:
    return scene.map()


@pytest.fixture
def model_copy(bundle, tmp_path):
    return shutil.copytree(bundle.model_folder, tmp_path / "model")


def test_the_arrays_are_what_colmap_reads(bundle):
    model, colmap = read_model(bundle.model_folder), pycolmap.Reconstruction(bundle.model_folder)
    assert list(model.images) == sorted(image.name for image in colmap.images.values())
    assert model.point_ids.tolist() == sorted(colmap.points3D)
    for row, point_id in enumerate(model.point_ids.tolist()):
        np.testing.assert_array_equal(model.xyz[row], colmap.points3D[point_id].xyz)
        assert model.track_lengths[row] == colmap.points3D[point_id].track.length()
    for image in colmap.images.values():
        ours = model.images[image.name]
        assert ours.camera_id == image.camera_id
        np.testing.assert_array_equal(ours.xy, [point.xy for point in image.points2D])
        ids = [point.point3D_id if point.has_point3D() else -1 for point in image.points2D]
        assert ours.point_ids.tolist() == ids
        np.testing.assert_allclose(ours.pose.translation, image.cam_from_world().translation)
    np.testing.assert_array_equal(model.cameras[1].params, colmap.cameras[1].params)


def test_the_reprojection_error_is_colmaps(bundle):
    colmap = pycolmap.Reconstruction(bundle.model_folder)
    ours = mean_reprojection_error_px(read_model(bundle.model_folder))
    assert ours == pytest.approx(colmap.compute_mean_reprojection_error(), rel=1e-6)
    assert 0.3 < ours < 1.0  # noise of 0.5 px per coordinate


def test_the_digest_sees_numbers_and_not_colours(bundle, model_copy):
    digest = model_digest(bundle.model_folder)
    points = len(read_model(model_copy).point_ids)
    write_colors(model_copy, np.full((points, 3), 7, np.uint8))
    assert model_digest(model_copy) == digest == bundle.stats["digest"]
    colmap = pycolmap.Reconstruction(model_copy)
    assert all(point.color.tolist() == [7, 7, 7] for point in colmap.points3D.values())
    colmap.points3D[min(colmap.points3D)].xyz += 1e-12
    colmap.write(model_copy)
    assert model_digest(model_copy) != digest


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
def test_a_damaged_model_is_an_error_with_a_next_step(model_copy, name, damage):
    path = model_copy / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else data[:-5])
    with pytest.raises(StoreError, match=r"the model .* cannot be read: .*\n  delete the map's folder"):
        read_model(model_copy)


def test_the_index_names_the_point_of_every_keypoint(bundle, tmp_path):
    model = read_model(bundle.model_folder)
    build_index(model).save(tmp_path / "index")
    index = PointIndex.load(tmp_path / "index")
    colmap = pycolmap.Reconstruction(bundle.model_folder)
    assert len(index) == colmap.num_points3D()
    for image in colmap.images.values():
        rows = index.point_rows(image.name)
        assert rows.dtype == np.int32
        assert len(rows) == len(image.points2D)
        for row, point in zip(rows, image.points2D, strict=True):
            if not point.has_point3D():
                assert row == -1
                continue
            assert index.point_ids[row] == point.point3D_id
            np.testing.assert_array_equal(index.xyz[row], colmap.points3D[point.point3D_id].xyz)
    assert isinstance(index.xyz, np.memmap)
    assert "nobody.jpg" not in index
    assert len(index.point_rows("nobody.jpg")) == 0


def test_a_damaged_index_is_an_error_with_a_next_step(bundle, tmp_path):
    folder = shutil.copytree(bundle.folder / "index", tmp_path / "index")
    np.save(folder / "rows.npy", np.zeros(3, np.int32))
    with pytest.raises(StoreError, match="its arrays do not fit together"):
        PointIndex.load(folder)
    (folder / "xyz.npy").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"2D-3D index .* is damaged: xyz\.npy.*\n  delete the folder"):
        PointIndex.load(folder)


def test_colours_come_from_the_photos_and_are_grey_without(bundle, tmp_path):
    model = read_model(bundle.model_folder)
    photo = np.zeros((768, 1024, 3), np.uint8)
    photo[:, :, 2] = 200  # red, in OpenCV's order
    paths = {name: tmp_path / name for name in model.images}
    assert (sample_colors(model, paths, workers=2) == 128).all()
    cv2.imwrite(str(next(iter(paths.values()))), photo)
    next(reversed(paths.values())).write_bytes(b"not a photo")
    colors = sample_colors(model, paths, workers=2)
    assert np.median(colors, axis=0).tolist() == [200, 0, 0]
