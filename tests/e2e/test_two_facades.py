"""A town with the same façade twice, in photos: which of the two does a query stand before?"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_scene import make_scene

from loc.colmap import pose_from_colmap, pose_to_colmap, pycolmap
from loc.pipeline import run
from loc.plugins.blocks import load_config
from loc.runtime.runtime import Runtime
from loc.types import Pose

QUICK = {"features.resize_max": 900, "features.max_keypoints": 2000}
APART = np.array([500.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> dict:
    """The synthetic scene, and a copy of its database photos 500 units away in the model."""
    folder = tmp_path_factory.mktemp("facades")
    config = make_scene(folder, frames=8, points=400).model_dump(mode="json", by_alias=True)
    model = pycolmap.Reconstruction(folder / "model")
    both = pycolmap.Reconstruction()
    for number in model.reg_image_ids():
        image = model.images[number]
        pose = pose_from_colmap(image.cam_from_world())
        for copy, name in enumerate((image.name, f"copy_{image.name}")):
            shutil.copy(folder / "images" / image.name, folder / "images" / name) if copy else None
            moved = Pose(pose.quat_xyzw, pose.translation - pose.rotation @ (copy * APART))
            camera = model.cameras[image.camera_id]
            row = len(both.images) + 1
            camera.camera_id = row
            both.add_camera_with_trivial_rig(camera)
            added = pycolmap.Image(name=name, camera_id=row, image_id=row)
            both.add_image_with_trivial_frame(added, pose_to_colmap(moved))
    both.write(folder / "model")
    return {**config, "pairs": [{"use": "exhaustive", "for": "both"}]}


@pytest.mark.parametrize("clustering", [True, False])
def test_a_query_before_one_of_two_equal_facades(scene, clustering, tmp_path_factory):
    workdir = Path(tmp_path_factory.getbasetemp()) / "facades run"  # one for both: only the poses differ
    config = load_config(scene, {**QUICK, "localize.covisibility_clustering": clustering})
    finished = run(config, workdir, runtime=Runtime(device="cpu", workers=1))
    assert finished.bundle.stats["registered"] >= 10
    results = finished.poses.results
    assert len(results) >= 2
    for result in results:
        if not clustering:  # one of the two places, and no word of the other
            assert (result.status, result.second_cluster_ratio) == ("ok", 0)
            continue
        assert result.status == "doubtful"
        assert "at another place, near" in result.reason
        assert 0.9 < result.second_cluster_ratio <= 1
        assert len({name.startswith("copy_") for name in result.references}) == 1
