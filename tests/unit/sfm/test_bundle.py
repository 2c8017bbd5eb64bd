import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_map import BLOCKS, Synthetic, synthesize

from loc.errors import StoreError
from loc.sfm.bundle import MapBundle


@pytest.fixture
def scene(tmp_path) -> Synthetic:
    return synthesize(tmp_path / "run", images=3, points=60)


@pytest.fixture
def bundle(scene) -> MapBundle:
    return scene.map()


def test_an_opened_bundle_is_the_one_that_was_made(scene, bundle):
    opened = MapBundle.open(bundle.folder)
    assert opened.images == bundle.images == scene.features.keys
    assert opened.registered == tuple(sorted(scene.features.keys))
    assert opened.stats == bundle.stats
    for name, pose in bundle.poses.items():
        np.testing.assert_allclose(opened.poses[name].translation, pose.translation, rtol=0, atol=0)
    np.testing.assert_array_equal(
        opened.camera(opened.registered[0]).params, scene.scene.cameras["camera"].params
    )
    assert opened.extractor.name == "sift"
    assert opened.matcher.name == "nearest"
    assert opened.global_extractor is None
    assert opened.open_globals() is None
    name = opened.registered[0]
    assert len(opened.open_features().keypoints(opened.images[name])) == len(opened.index.point_rows(name))


def test_a_run_folder_can_be_moved(scene, bundle, tmp_path):
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    scene.features.store.close()
    scene.workdir.rename(moved)
    opened = MapBundle.open(moved / bundle.folder.relative_to(scene.workdir))
    assert opened.features_folder.is_relative_to(moved)
    assert opened.open_features().missing(opened.images.values()) == []
    assert str(tmp_path) not in (opened.folder / "bundle.json").read_text()


def test_a_relative_folder_opens(bundle, monkeypatch):
    monkeypatch.chdir(bundle.folder)
    assert MapBundle.open(Path()).open_features().missing(bundle.images.values()) == []


def test_other_localization_options_rewrite_the_bundle_and_not_the_map(scene, bundle, monkeypatch):
    model = bundle.model_folder / "points3D.bin"
    before = model.stat().st_mtime_ns, (bundle.folder / "bundle.json").stat().st_mtime_ns
    again = scene.map()
    assert again.folder == bundle.folder
    assert (bundle.folder / "bundle.json").stat().st_mtime_ns == before[1]
    monkeypatch.setitem(BLOCKS, "localize", {"min_inliers": 20})
    assert scene.map().localize == {"min_inliers": 20}
    assert MapBundle.open(bundle.folder).localize == {"min_inliers": 20}
    assert model.stat().st_mtime_ns == before[0]


def test_a_kill_between_map_and_bundle_is_repaired(scene, bundle):
    (bundle.folder / "bundle.json").unlink()
    model = (bundle.model_folder / "points3D.bin").stat().st_mtime_ns
    assert scene.map().poses.keys() == bundle.poses.keys()
    assert (bundle.folder / "bundle.json").is_file()
    assert (bundle.model_folder / "points3D.bin").stat().st_mtime_ns == model


def test_not_a_map(tmp_path):
    with pytest.raises(StoreError) as error:
        MapBundle.open(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is not a map: it has no bundle.json\n"
        "  give the folder of a finished map (RUN/map/<fingerprint>), or run the map again"
    )


def test_another_format(bundle):
    path = bundle.folder / "bundle.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    path.write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(StoreError, match="has format 99, this version reads 1\n  run the map again"):
        MapBundle.open(bundle.folder)


def test_a_missing_model_file(bundle):
    (bundle.model_folder / "points3D.bin").unlink()
    with pytest.raises(StoreError, match=r"the map's model file is missing: .*points3D\.bin\n  move or copy"):
        MapBundle.open(bundle.folder)


def test_a_missing_store(scene, bundle):
    scene.features.store.close()
    shutil.rmtree(bundle.features_folder)
    with pytest.raises(StoreError, match=r"store of features is missing: .*\n  move or copy a run folder"):
        MapBundle.open(bundle.folder).open_features()


def test_a_store_that_lost_an_image(scene, bundle):
    name = bundle.registered[1]
    scene.features.store.remove([bundle.images[name]])
    with pytest.raises(StoreError) as error:
        MapBundle.open(bundle.folder).open_features()
    assert f"lacks the features of 1 of 3 images of the map {bundle.folder}, e.g. {name}\n" in str(
        error.value
    )


def test_opening_writes_nothing(bundle):
    before = {path: path.stat().st_mtime_ns for path in sorted(bundle.folder.parent.parent.rglob("*"))}
    opened = MapBundle.open(bundle.folder)
    opened.index.point_rows(opened.registered[0])
    opened.open_features().keypoints(opened.images[opened.registered[0]])
    assert {
        path: path.stat().st_mtime_ns for path in sorted(bundle.folder.parent.parent.rglob("*"))
    } == before
