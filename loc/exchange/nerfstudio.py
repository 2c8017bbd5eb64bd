"""``loc export nerfstudio``: ``transforms.json`` and ``sparse_pc.ply`` of a map.

The frame is that of nerfstudio's own COLMAP converter (``ns-process-data``, ``process_data/
colmap_utils.py`` in github.com/nerfstudio-project/nerfstudio): cameras in OpenGL's convention (x right,
y up, looking along -z) and a world turned so that COLMAP's -y is up, ``(x, y, z) → (x, z, -y)``.
``applied_transform`` holds that turn; the points of the PLY have it too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from loc.errors import DataError, LocError
from loc.exchange.models import open_model
from loc.exchange.targets import export_folder, refuse_inside
from loc.layouts import load_scene
from loc.plugins.blocks import load_config
from loc.record import FILE, open_map, read_record
from loc.stores.files import write_json
from loc.types import Array, Camera, Pose

#: nerfstudio's world from COLMAP's.
APPLIED_TRANSFORM = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])
#: From OpenGL's camera (y up, looking along -z) to COLMAP's (y down, looking along +z).
_COLMAP_FROM_OPENGL = np.diag([1.0, -1, -1])
PLY = "sparse_pc.ply"

_F, _C = ("fl_x", "fl_y"), ("cx", "cy")
#: What each parameter of a COLMAP camera is called; a single focal length is both.
_PERSPECTIVE = {
    "SIMPLE_PINHOLE": (_F, *_C),
    "PINHOLE": (*_F, *_C),
    "SIMPLE_RADIAL": (_F, *_C, "k1"),
    "RADIAL": (_F, *_C, "k1", "k2"),
    "OPENCV": (*_F, *_C, "k1", "k2", "p1", "p2"),
}
_FISHEYE = {
    "OPENCV_FISHEYE": (*_F, *_C, "k1", "k2", "k3", "k4"),
    "SIMPLE_RADIAL_FISHEYE": (_F, *_C, "k1"),
    "RADIAL_FISHEYE": (_F, *_C, "k1", "k2"),
}


def export_nerfstudio(
    run: Path, target: Path, *, images: Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Write the map's images for nerfstudio; ``file_path`` is relative to ``target``, no photo is copied.

    Args:
        images: image root; default: that of the run's config.

    Raises:
        DataError: photos are not under the image root, or a camera model nerfstudio does not have.
    """
    bundle = open_map(run)
    refuse_inside(run, target)
    names = bundle.registered
    paths = _photos(run) if images is None else {name: images / name for name in names}
    missing = [name for name in names if name not in paths or not paths[name].is_file()]
    if missing:
        where = "where the run had them" if images is None else f"under {images}"
        raise DataError(
            f"{len(missing)} of {len(names)} images of the map are not {where}: {missing[0]}",
            "give the folder that names are relative to: --images ROOT",
        )
    cameras = {key: intrinsics(camera) for key, camera in sorted(bundle.cameras.items())}
    used = {bundle.camera_ids[name] for name in names}
    shared = cameras[next(iter(used))] if len(used) == 1 else {}
    base = target.absolute().parent.resolve() / target.name
    frames = [
        {
            "file_path": Path(os.path.relpath(paths[name].resolve(), base)).as_posix(),
            "transform_matrix": camera_to_world(bundle.poses[name]).tolist(),
            **({} if shared else cameras[bundle.camera_ids[name]]),
        }
        for name in names
    ]
    model = open_model(bundle)
    from loc.colmap import pycolmap

    turn = pycolmap.Rotation3d(np.ascontiguousarray(APPLIED_TRANSFORM[:, :3]))
    model.transform(pycolmap.Sim3d(1.0, turn, np.zeros(3)))
    transforms = {
        **shared,
        "frames": frames,
        "applied_transform": APPLIED_TRANSFORM.tolist(),
        "ply_file_path": PLY,
    }
    counts = {"frames": len(frames), "points": model.num_points3D()}
    with export_folder(target, {"kind": "nerfstudio", **counts}, force=force) as folder:
        write_json(folder / "transforms.json", transforms)
        model.export_PLY(folder / PLY)
    return counts


def camera_to_world(pose: Pose) -> Float64[Array, "4 4"]:
    """nerfstudio's ``transform_matrix`` of a camera: world from OpenGL's camera, in the turned world."""
    out = np.eye(4)
    out[:3, :3] = APPLIED_TRANSFORM[:, :3] @ pose.rotation.T @ _COLMAP_FROM_OPENGL
    out[:3, 3] = APPLIED_TRANSFORM[:, :3] @ pose.center_in_world
    return out


def intrinsics(camera: Camera) -> dict[str, Any]:
    """A camera in nerfstudio's terms; COLMAP's and OpenCV's distortion are the same.

    Raises:
        DataError: nerfstudio has no such camera model.
    """
    perspective, fisheye = _PERSPECTIVE.get(camera.model), _FISHEYE.get(camera.model)
    named = perspective or fisheye
    if named is None:
        raise DataError(
            f"nerfstudio has no camera model for COLMAP's {camera.model}",
            f"undistort the photos first, or map with one of: {', '.join([*_PERSPECTIVE, *_FISHEYE])}",
        )
    zeros = ("k1", "k2", "p1", "p2") if perspective else ("k1", "k2", "k3", "k4")
    out: dict[str, Any] = {
        "camera_model": "OPENCV" if perspective else "OPENCV_FISHEYE",
        "w": camera.width,
        "h": camera.height,
        **dict.fromkeys(zeros, 0.0),
    }
    for names, value in zip(named, camera.params.tolist(), strict=True):
        out.update(dict.fromkeys((names,) if isinstance(names, str) else names, value))
    return out


def _photos(run: Path) -> dict[str, Path]:
    """Name → path of the photos, as the run's config finds them now."""
    if not (run / FILE).is_file():
        raise DataError(f"{run} does not say where its photos are", "give the image root: --images ROOT")
    scene = read_record(run)["config"]["scene"]
    try:
        return {image.name: image.path for image in load_scene(load_config({"scene": scene}).scene).images}
    except LocError as error:  # a run folder that was copied elsewhere, or data that moved
        raise DataError(
            f"the photos are not where the run had them: {error.message}",
            "give the folder that names are relative to: --images ROOT",
        ) from error
