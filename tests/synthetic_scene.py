"""A scene of textured patches with known truth, made by COLMAP's synthesizer in a second; and its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loc.colmap import pose_from_colmap, pycolmap
from loc.config import RunConfig
from loc.layouts.lists import write_poses
from loc.plugins.blocks import load_config
from loc.stores.files import make_folder, write_text
from loc.types import Pose

_QUERIES = 3


def make_scene(
    folder: Path,
    overrides: dict[str, Any] | None = None,
    *,
    frames: int = 12,
    points: int = 400,
    seed: int = 0,
) -> RunConfig:
    """Write the scene and return the config that maps and localizes it.

    Args:
        folder: gets ``images/``, ``model/``, ``queries.txt`` and ``ground_truth.txt``; written anew
            each time, with the same bytes.
        overrides: dotted config keys, e.g. ``{"features": "sift"}``.
        frames: number of photos; every fourth is a query.
    """
    images, model = make_folder(folder / "images"), make_folder(folder / "model")
    truth = _synthesize(frames, points, seed)
    pycolmap.set_random_seed(seed)
    pycolmap.synthesize_images(pycolmap.SyntheticImageOptions(), truth, images)
    by_name = {image.name: image for image in truth.images.values()}
    queries = sorted(by_name)[1::4][:_QUERIES]
    poses: dict[str, Pose] = {
        name: pose_from_colmap(image.cam_from_world()) for name, image in by_name.items()
    }
    write_poses(folder / "ground_truth.txt", {name: poses[name] for name in queries})
    lines = []
    for name in queries:
        camera = truth.cameras[by_name[name].camera_id]
        params = " ".join(repr(float(value)) for value in camera.params)
        lines.append(f"{name} {camera.model.name} {camera.width} {camera.height} {params}\n")
    write_text(folder / "queries.txt", "".join(lines))
    for name in queries:
        truth.deregister_frame(by_name[name].frame_id)
    truth.write(model)
    scene = {
        "layout": "colmap",
        "images": str(images),
        "model": str(model),
        "queries": str(folder / "queries.txt"),
        "ground_truth": str(folder / "ground_truth.txt"),
    }
    thresholds = [[0.01, 0.1], [0.05, 0.5], [0.5, 5.0]]  # world units: the cameras span about ten
    return load_config({"scene": scene, "evaluate": {"thresholds": thresholds}}, overrides)


def _synthesize(frames: int, points: int, seed: int) -> pycolmap.Reconstruction:
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig = 1, 1
    options.num_frames_per_rig, options.num_points3D = frames, points
    options.camera_has_prior_focal_length = True
    return pycolmap.synthesize_dataset(options)
