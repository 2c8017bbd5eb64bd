"""A small scene in the folders of Aachen Day-Night v1 or v1.1, made by COLMAP's synthesizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from loc.colmap import pose_from_colmap, pycolmap
from loc.conventions import wxyz_from_xyzw
from loc.layouts.lists import write_poses
from loc.stores.files import make_folder
from loc.types import Pose

DB, SEQUENCE, DAY, NIGHT, NIGHT_NEW = (
    "db",
    "sequences/gopro3_undistorted",
    "query/day/nexus4",
    "query/night/nexus5x",
    "query/night/nexus5x_additional_night",
)


def make_folders(root: Path, *, version: str = "v1.1", frames: int = 12) -> dict[str, Pose]:
    """Write the data set under ``root``, with ``ground_truth.txt``; returns the true pose of every image.

    v1 has a day and a night query; v1.1 one more night query, and an image of a sequence.
    """
    truth = _synthesized(frames)
    names = _names(sorted(truth.images), version)
    for number, name in names.items():
        truth.images[number].name = name
    images = make_folder(root / "images" / "images_upright")
    for name in names.values():
        make_folder((images / name).parent)
    pycolmap.synthesize_images(pycolmap.SyntheticImageOptions(), truth, images)
    poses = {image.name: pose_from_colmap(image.cam_from_world()) for image in truth.images.values()}
    lines = {name: _line(name, truth, number) for number, name in names.items()}
    db = [name for name in lines if not name.startswith("query/")]
    queries = make_folder(root / "queries")
    for when in ("day", "night"):
        listed = [line for name, line in lines.items() if name.startswith(f"query/{when}")]
        # As the benchmark's: no line break at the end.
        (queries / f"{when}_time_queries_with_intrinsics.txt").write_text("\n".join(listed))
    truths = {Path(name).name: pose for name, pose in poses.items() if name.startswith("query/")}
    write_poses(root / "ground_truth.txt", truths)
    for number, name in names.items():
        if name.startswith("query/"):
            truth.deregister_frame(truth.images[number].frame_id)
    _write_model(root / "3D-models", truth, version, [lines[name] for name in db])
    return poses


def _synthesized(frames: int) -> pycolmap.Reconstruction:
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig = 1, 1
    options.num_frames_per_rig, options.num_points3D = frames, 300
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    options.camera_params = [800.0, 320.0, 240.0, 0.02]
    options.camera_width, options.camera_height = 640, 480
    options.camera_has_prior_focal_length = True
    return pycolmap.synthesize_dataset(options)


def _names(numbers: Iterable[int], version: str) -> dict[int, str]:
    special = {1: DAY, 4: NIGHT} if version == "v1" else {1: DAY, 4: NIGHT, 7: NIGHT_NEW, 8: SEQUENCE}
    return {
        number: f"{special.get(row, DB)}/{'IMG_20161227_' if row in special else ''}{1000 + row}.jpg"
        for row, number in enumerate(numbers)
    }


def _line(name: str, truth: pycolmap.Reconstruction, number: int) -> str:
    camera = truth.cameras[truth.images[number].camera_id]
    params = " ".join(repr(float(value)) for value in camera.params)
    return f"{name} {camera.model.name} {camera.width} {camera.height} {params}"


def _write_model(folder: Path, model: pycolmap.Reconstruction, version: str, intrinsics: list[str]) -> None:
    make_folder(folder)
    if version == "v1.1":
        model.write(make_folder(folder / "aachen_v_1_1"))
        (folder / "aachen_v_1_1" / "database_intrinsics_v1_1.txt").write_text("\n".join(intrinsics))
        return
    (folder / "database_intrinsics.txt").write_text("\n".join(intrinsics))
    rows = {number: row for row, number in enumerate(model.reg_image_ids())}
    lines = ["NVM_V3", "", str(len(rows))]
    for number in rows:
        image = model.images[number]
        pose = pose_from_colmap(image.cam_from_world())
        # A wrong focal length and distortion: those of the real file must not be used either.
        numbers = [999.0, *wxyz_from_xyzw(pose.quat_xyzw), *pose.center_in_world, 0.5]
        lines.append(" ".join([image.name, *(f"{value:.12f}" for value in numbers), "0"]))
    lines += ["", str(len(model.points3D))]
    for point in model.points3D.values():
        seen = [element for element in point.track.elements if element.image_id in rows]
        words = [f"{value:.12f}" for value in point.xyz] + ["0", "0", "0", str(len(seen))]
        for element in seen:
            x, y = model.images[element.image_id].points2D[element.point2D_idx].xy
            words += [str(rows[element.image_id]), str(element.point2D_idx), f"{x:.12f}", f"{y:.12f}"]
        lines.append(" ".join(words))
    (folder / "aachen_cvpr2018_db.nvm").write_text("\n".join([*lines, "", "0", ""]))
