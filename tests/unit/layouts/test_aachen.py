"""Layout aachen on a small data set: both releases, archives unpacked wrongly, missing files."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from aachen_folders import make_folders

from loc.config import SceneConfig
from loc.errors import ConfigError, DataError
from loc.layouts import load_scene
from loc.layouts.reference import points_of_images, poses_of_images


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both releases and the true poses of all images."""
    folder = tmp_path_factory.mktemp("aachen")
    return {
        version: (folder / version, make_folders(folder / version, version=version))
        for version in ("v1", "v1.1")
    }


@pytest.fixture
def root(made, tmp_path) -> Path:
    """A copy of v1.1 that a test may break."""
    return Path(shutil.copytree(made["v1.1"][0], tmp_path / "Aachen-Day-Night"))


def load(root: Path, **options):
    return load_scene(SceneConfig(layout="aachen", images=root, **options))


def names(records):
    return [record.name for record in records]


@pytest.mark.parametrize("version", ["v1", "v1.1"])
def test_both_releases(made, version):
    root, truth = made[version]
    scene = load(root)
    queries = [name for name in truth if name.startswith("query/")]
    assert names(scene.queries) == sorted(queries)
    assert names(scene.db) == sorted(set(truth) - set(queries))
    assert {image.group for image in scene.queries} == {"day", "night"}
    assert all(image.group == image.name.split("/")[1] for image in scene.queries)
    for image in scene.db:
        np.testing.assert_allclose(image.pose.center_in_world, truth[image.name].center_in_world, atol=1e-6)
        np.testing.assert_allclose(image.pose.rotation, truth[image.name].rotation, atol=1e-6)
    # The lists' intrinsics, not the wrong ones of the NVM file.
    for image in scene.images:
        camera = scene.camera_of(image)
        assert (camera.model, camera.params.tolist()) == ("SIMPLE_RADIAL", [800.0, 320.0, 240.0, 0.02])
        assert image.intrinsics == "given"
    assert sorted(scene.ground_truth) == sorted(queries)
    assert scene.skipped == {}
    assert set(points_of_images(scene.model)) == {image.name for image in scene.db}


def test_the_two_reference_models_agree(made):
    """v1's NVM and a COLMAP model say the same of poses, and of points per image."""
    nvm, colmap = (load(made[version][0]).model for version in ("v1", "v1.1"))
    assert (nvm.suffix, colmap.name) == (".nvm", "aachen_v_1_1")
    poses, others = poses_of_images(nvm), poses_of_images(colmap)
    common = sorted(set(poses) & set(others))
    assert len(common) >= 7
    counts, other_counts = points_of_images(nvm), points_of_images(colmap)
    for name in common:
        np.testing.assert_allclose(poses[name].translation, others[name].translation, atol=1e-6)
        assert len(counts[name]) == len(other_counts[name]) > 0


def test_version_is_detected_and_can_be_chosen(made, root):
    shutil.copytree(made["v1"][0] / "3D-models", root / "3D-models", dirs_exist_ok=True)
    assert load(root).model.name == "aachen_v_1_1"
    assert load(root, version="v1").model.name == "aachen_cvpr2018_db.nvm"


def test_text_model_and_other_query_list(root):
    from loc.colmap import pycolmap

    folder = root / "3D-models" / "aachen_v_1_1"
    model = pycolmap.Reconstruction(folder)
    for path in folder.glob("*.bin"):
        path.unlink()
    model.write_text(folder)
    night = root / "queries" / "night_time_queries_with_intrinsics.txt"
    assert {image.group for image in load(root, queries=night).queries} == {"night"}


def test_some_images_missing_are_skipped_and_counted(root, caplog):
    (root / "images/images_upright/db/1000.jpg").unlink()
    shutil.rmtree(root / "images/images_upright/sequences")
    shutil.rmtree(root / "images/images_upright/query/night/nexus5x_additional_night")
    with caplog.at_level(logging.WARNING, "loc"):
        scene = load(root)
    assert len(scene.skipped) == 3
    assert "no photo at" in scene.skipped["db/1000.jpg"]
    assert [name.rpartition("/")[0] for name in scene.skipped_queries] == [
        "query/night/nexus5x_additional_night"
    ]
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("1 of 8 images of db are missing in") for line in said)
    assert any(line.startswith("1 of 1 images of sequences/gopro3_undistorted are missing") for line in said)


@pytest.mark.parametrize(
    ("folder", "what"), [("db", "8 database images|9 database images"), ("query", "3 queries")]
)
def test_all_images_of_a_role_missing(root, folder, what):
    shutil.rmtree(root / "images/images_upright" / folder)
    if folder == "db":
        shutil.rmtree(root / "images/images_upright/sequences")
    with pytest.raises(DataError, match=f"none of the ({what})") as caught:
        load(root)
    assert "database_and_query_images.zip" in caught.value.next_step


def test_no_images_at_all(root):
    shutil.rmtree(root / "images")
    with pytest.raises(DataError, match=r"images_upright has no folder db") as caught:
        load(root)
    assert "unpack images/database_and_query_images.zip" in caught.value.next_step


@pytest.mark.parametrize(
    ("where", "said"), [("images_upright", "images_upright;"), ("images", "images; the data set")]
)
def test_archive_of_images_unpacked_one_level_off(root, caplog, where, said):
    moved = root / "moved"
    (root / "images/images_upright").rename(moved)
    if where == "images":
        (root / "images").rmdir()
    moved.rename(root / where)
    with caplog.at_level(logging.WARNING, "loc"):
        scene = load(root)
    assert scene.skipped == {}
    assert any("images are in" in line and said in line for line in caplog.messages)


def test_two_archives_in_two_places(root):
    """v1 unpacked in images/, v1.1's sequences beside it: images are found in both."""
    (root / "images_upright").mkdir()
    (root / "images/images_upright/sequences").rename(root / "images_upright/sequences")
    assert load(root).skipped == {}


@pytest.mark.parametrize("given", ["..", "images", "images/images_upright", "3D-models"])
def test_a_folder_too_high_or_too_deep(root, given):
    with pytest.raises(DataError, match=r"has no 3D-models/aachen_v_1_1 nor .* but .* exists") as caught:
        load((root / given).resolve())
    assert f"scene.images={root.resolve()}" in caught.value.next_step


def test_model_in_another_place(root):
    (root / "3D-models/aachen_v_1_1").rename(root / "aachen_v_1_1")
    with pytest.raises(DataError, match="was unpacked to another place") as caught:
        load(root)
    assert caught.value.next_step == f"move it to {root / '3D-models/aachen_v_1_1'}"


def test_missing_model_lists_and_intrinsics(root, caplog):
    listed = root / "3D-models/aachen_v_1_1/database_intrinsics_v1_1.txt"
    text = listed.read_text()
    listed.write_text(text.split("\n", 1)[1])
    with pytest.raises(
        DataError, match=r"no intrinsics of 1 of 9 images of the reference model: 'db/1000.jpg'"
    ):
        load(root)
    listed.rename(root / "3D-models" / listed.name)
    with pytest.raises(DataError, match="is missing: the intrinsics of the database images") as caught:
        load(root)
    assert caught.value.next_step.startswith("move ")
    (root / "3D-models" / listed.name).rename(listed)
    listed.write_text(text)
    (root / "queries/day_time_queries_with_intrinsics.txt").unlink()
    with caplog.at_level(logging.WARNING, "loc"):
        assert {image.group for image in load(root).queries} == {"night"}
    assert any("no day query is localized; v1.1 takes the list of v1" in line for line in caplog.messages)
    shutil.rmtree(root / "queries")
    with pytest.raises(DataError, match="there is no query list"):
        load(root)
    shutil.rmtree(root / "3D-models")
    with pytest.raises(DataError, match="the reference model of Aachen Day-Night is missing") as caught:
        load(root)
    assert "2020VisualLocalization" in caught.value.next_step


def test_lists_without_intrinsics_are_refused(root):
    path = root / "queries/night_time_queries_with_intrinsics.txt"
    path.write_text("query/night/nexus5x/IMG_20161227_1004.jpg\n")
    with pytest.raises(DataError, match="has no intrinsics") as caught:
        load(root)
    assert "_with_intrinsics.txt" in caught.value.next_step


def test_options_of_other_layouts(root):
    with pytest.raises(ConfigError, match=r"scene.model is not used by the layout 'aachen'"):
        load(root, model=root)
    with pytest.raises(ConfigError, match=r"scene.version is not used by the layout 'folder'"):
        load_scene(SceneConfig(images=root, version="v1"))
    with pytest.raises(ConfigError, match=r"scene.images is not set"):
        load_scene(SceneConfig(layout="aachen"))


@pytest.mark.parametrize("size", [0, 7, 40, 200, 5000])
def test_truncated_model(root, size):
    path = root / "3D-models/aachen_v_1_1/images.bin"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"images\.bin is (damaged|empty)"):
        load(root)
    with pytest.raises(DataError, match=r"images\.bin is (damaged|empty)"):
        points_of_images(path.parent)
