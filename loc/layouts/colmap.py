"""Layout *colmap*: a reference model with known poses, its image root, and a query list.

The model's points are never used here: they may have seen the queries.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from loc.config import SceneConfig
from loc.errors import ConfigError, DataError
from loc.layouts.assemble import (
    given_intrinsics,
    image_root,
    make_scene,
    open_photos,
    read_query_list,
    refuse_unused,
    require_on_disk,
    warn_of_both,
)
from loc.layouts.binary import check_binary_model
from loc.layouts.cameras import check_size
from loc.layouts.lists import read_entries
from loc.layouts.names import check_name
from loc.types import Camera, Pose, Scene


def load(config: SceneConfig) -> Scene:
    """Read the scene.

    The model's images are database images with known poses; ``image_list`` restricts them. A query
    that is in the model is taken out of the database: its pose becomes ground truth (unless the config
    names a ground-truth file), and the model's intrinsics are its own unless a list gives others.
    Other queries without listed intrinsics get theirs from EXIF.

    Raises:
        ConfigError: ``images`` or ``model`` is not set.
        DataError: the model cannot be read, all its images are missing, an image has another size
            than its camera, or a list is wrong.
    """
    refuse_unused(config, "version")
    root = image_root(config)
    if config.model is None:
        raise ConfigError(
            "scene.model is not set", "the layout 'colmap' needs a reference model: --set scene.model=MODEL"
        )
    poses, cameras = read_model(config.model)
    entries = read_query_list(config)
    query_names = {entry.name for entry in entries}
    selected = _selected(config, set(poses))
    if config.image_list is not None:  # without a list it is the whole model, which may hold the queries
        warn_of_both(selected, query_names)
    db_names = selected - query_names
    if not db_names and not query_names:
        raise DataError(f"the model {config.model} has no registered image", "give a model with poses")
    require_on_disk(db_names, root, source=f"the model {config.model}")
    require_on_disk(query_names, root, source=f"the list {config.queries}")
    db = open_photos({name: root / name for name in sorted(db_names)})
    queries = open_photos({name: root / name for name in sorted(query_names)})
    given = given_intrinsics(config, entries)
    for name, file in sorted({**db.files, **queries.files}.items()):
        if name in cameras and given.get(name) is None:
            check_size(cameras[name][1], file, where=f"model {config.model}")
    return make_scene(
        config,
        db=db,
        queries=queries,
        given=given,
        known_cameras=cameras,
        poses=poses,
        ground_truth=poses,
    )


def read_model(folder: Path) -> tuple[dict[str, Pose], dict[str, tuple[str, Camera]]]:
    """Poses of the registered images of a COLMAP model (binary or text), and their cameras.

    Returns:
        name → cam_from_world, and name → (camera id, camera); the intrinsics count as known.

    Raises:
        DataError: no model there, a damaged one, a camera model or a name that cannot be used.
    """
    from loc.colmap import camera_from_colmap, pose_from_colmap, pycolmap

    check_model_files(folder)
    check_binary_model(folder)
    try:
        model = pycolmap.Reconstruction(folder)
    except (ValueError, RuntimeError, LookupError) as error:
        raise DataError(
            f"the model {folder} is damaged: {' '.join(str(error).split())[:200]}",
            "export it again from COLMAP",
        ) from error
    cameras = {}
    for camera_id in sorted(model.cameras):
        try:
            camera = camera_from_colmap(model.cameras[camera_id])
        except DataError as error:
            raise DataError(
                f"camera {camera_id} of the model {folder}: {error.message}",
                error.next_step or "export the model again from COLMAP",
            ) from error
        # COLMAP's files do not say where a focal length comes from; a reference model's is known.
        cameras[camera_id] = (f"model:{camera_id}", replace(camera, has_prior_focal_length=True))
    poses: dict[str, Pose] = {}
    of_image: dict[str, tuple[str, Camera]] = {}
    for image_id in sorted(model.images):
        image = model.images[image_id]
        if not image.has_pose:
            continue
        name = check_name(_name(image, folder), where=f"model {folder}")
        if name in poses:
            raise DataError(f"the model {folder} has two images called {name!r}", "rename one of them")
        try:
            poses[name] = pose_from_colmap(image.cam_from_world())
        except DataError as error:
            raise DataError(
                f"image {name!r} of the model {folder}: {error.message}", "export the model again"
            ) from error
        of_image[name] = cameras[image.camera_id]
    return poses, of_image


def _name(image: Any, folder: Path) -> str:
    try:
        name: str = image.name
    except UnicodeDecodeError as error:
        raise DataError(
            f"the model {folder} has an image whose name is not UTF-8: {error.object!r}",
            "rename the image and export the model again",
        ) from error
    return name


def check_model_files(folder: Path) -> None:
    """Raise a :class:`DataError` where a folder holds no complete COLMAP model."""
    parts = ("cameras", "images", "points3D")
    for suffix in (".bin", ".txt"):
        missing = [f"{part}{suffix}" for part in parts if not (folder / f"{part}{suffix}").is_file()]
        if not missing:
            break
        if len(missing) < len(parts):
            raise DataError(
                f"the model {folder} is not complete: {', '.join(missing)} is missing",
                "a model is cameras, images and points3D, all .bin or all .txt (points3D.txt may be empty)",
            )
    else:
        raise DataError(
            f"there is no COLMAP model in {folder}", "scene.model is the folder of cameras.bin or .txt"
        )


def _selected(config: SceneConfig, names: set[str]) -> set[str]:
    if config.image_list is None:
        return names
    listed = {entry.name for entry in read_entries(config.image_list)}
    unknown = sorted(listed - names)
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(listed)} images of {config.image_list} are not in the model "
            f"{config.model}: {', '.join(repr(name) for name in unknown[:3])}",
            "list only images that have a pose in the model",
        )
    return listed
