"""The real lists and format samples of Aachen Day-Night (their photos are useless, their formats are not)."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loc.config import ListedPairs, SceneConfig
from loc.errors import DataError
from loc.layouts import load_scene
from loc.layouts.lists import read_entries, read_pairs
from loc.layouts.names import group_of
from loc.layouts.nvm import parse_nvm, read_nvm
from loc.stages.pair_generators import from_list
from loc.types import Camera, ImageRecord, Scene


@pytest.fixture
def lists(shared) -> Path:
    return Path(shared / "data" / "aachen_lists")


@pytest.fixture
def root(lists, tmp_path) -> Path:
    """The sample in the folders of v1, with intrinsics of its database images (which it lacks)."""
    sample = lists / "format_sample"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "images_upright").symlink_to(sample / "images_upright")
    (tmp_path / "queries").symlink_to(sample / "queries")
    (tmp_path / "3D-models").mkdir()
    (tmp_path / "3D-models" / "aachen_cvpr2018_db.nvm").symlink_to(
        sample / "3D-models" / "aachen_cvpr2018_db.nvm"
    )
    return tmp_path


def test_query_names_and_groups(lists):
    day, night = (read_entries(lists / f"{when}_queries.txt") for when in ("day", "night"))
    assert (len(day), len(night)) == (824, 98)
    assert Counter(group_of(entry.name) for entry in day + night) == {"day": 824, "night": 98}
    # What is submitted is the file name alone: it must tell the queries apart.
    assert len({entry.name.rpartition("/")[2] for entry in day + night}) == 922


def test_pair_list(lists):
    path = lists / "pairs-query-netvlad20.txt"
    pairs = read_pairs(path)
    assert len(pairs) == 922 * 20
    queries, database = ({pair[side] for pair in pairs} for side in (0, 1))
    camera = Camera("SIMPLE_PINHOLE", 10, 10, np.array([10.0, 5, 5]))
    images = [ImageRecord(name, Path(name), "query", "c") for name in queries]
    images += [ImageRecord(name, Path(name), "db", "c") for name in database]
    scene = Scene(tuple(images), {"c": camera})
    config = ListedPairs(path=path, for_="query")
    found = from_list(config.path, scene, "query")
    assert found == pairs
    assert all(name.startswith("db/") for name in database)


def test_sample_as_version_1(root, caplog):
    with pytest.raises(DataError, match=r"database_intrinsics\.txt is missing"):
        load_scene(SceneConfig(layout="aachen", images=root))
    sizes = {"db/1045.jpg": (1600, 1067), "db/4446.jpg": (1200, 1600), "db/1135.jpg": (1600, 1067)}
    lines = [f"{name} SIMPLE_RADIAL {w} {h} 1200 {w / 2} {h / 2} -0.05" for name, (w, h) in sizes.items()]
    (root / "3D-models" / "database_intrinsics.txt").write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING, "loc"):
        scene = load_scene(SceneConfig(layout="aachen", images=root))
    assert [image.name for image in scene.db] == sorted(sizes)
    assert (len(scene.queries), scene.skipped) == (4, {})
    assert {image.group for image in scene.queries} == {"day"}
    assert any("no night query is localized" in line for line in caplog.messages)
    nexus = scene.camera_of(scene["query/day/nexus4/IMG_20140520_182846.jpg"])
    assert nexus.params.tolist() == [1469.2, 800.0, 600.0, -0.0353019]
    np.testing.assert_allclose(
        scene["db/1045.jpg"].pose.center_in_world, [738.038, -6.17486, -41.8371], atol=1e-9
    )


def test_intrinsics_of_another_size_are_refused(root):
    (root / "3D-models" / "database_intrinsics.txt").write_text(
        "\n".join(f"db/{n}.jpg SIMPLE_RADIAL 1600 1067 1200 800 533.5 0" for n in (1045, 4446, 1135))
    )
    with pytest.raises(DataError, match=r"'db/4446.jpg' .* are for 1600 x 1067 px, the photo is 1200 x 1600"):
        load_scene(SceneConfig(layout="aachen", images=root))


def test_nvm_samples(lists):
    folder = lists / "format_sample" / "3D-models"
    whole = parse_nvm(folder / "aachen_cvpr2018_db.nvm")
    listed = [entry.name for entry in read_entries(folder / "aachen_cvpr2018_db.list.txt")]
    assert list(whole.names) == listed
    assert (len(whole.xyz), len(whole.image), whole.is_centered) == (5, 27, False)
    assert whole.focal_px.tolist() == [1084.59, 1556.98, 1103.4]
    model = read_nvm(folder / "aachen_cvpr2018_db.nvm")
    assert (model.num_reg_images(), model.num_points3D(), model.compute_num_observations()) == (3, 5, 27)
    larger = parse_nvm(folder / "aachen_two_parts.nvm")
    assert (larger.names, len(larger.xyz)) == (("db/1045.jpg", "db/4446.jpg"), 3)


def test_bundler_sample_is_the_nvm_with_y_and_z_turned(lists):
    """`.out`: cameras look along -z with y up. NVM: along z with y down, as COLMAP."""
    folder = lists / "format_sample" / "3D-models"
    nvm = parse_nvm(folder / "aachen_cvpr2018_db.nvm")
    numbers = [line.split() for line in (folder / "aachen_cvpr2018_db.out").read_text().splitlines()[2:]]
    turned = np.diag([1.0, -1.0, -1.0])
    for row, pose in enumerate(nvm.poses):
        block = np.array(numbers[5 * row + 1 : 5 * row + 5], float)
        rotation, translation = turned @ block[:3], turned @ block[3]
        world = rotation.T @ pose.rotation  # between the two frames: a turn that all cameras share
        np.testing.assert_allclose(np.abs(world), np.eye(3), atol=1e-4)
        np.testing.assert_allclose(world @ pose.center_in_world, -rotation.T @ translation, atol=0.05)
