"""``loc export colmap | ply | csv``: a finished map, and the poses of the queries, for other programs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loc.conventions import wxyz_from_xyzw
from loc.errors import MapError
from loc.exchange.targets import export_file, export_folder, refuse_inside
from loc.record import FILE, open_map, read_record
from loc.sfm.bundle import MapBundle
from loc.stages.poses import Poses
from loc.stores.files import read_json, require_space
from loc.stores.products import check_product
from loc.types import Camera, Pose

if TYPE_CHECKING:
    import pycolmap

#: COLMAP's writers do not notice a full disk, so the space is asked for; a text model takes up to twice
#: the bytes of a binary one.
_TEXT_PER_BINARY = 2.5
#: COLMAP's writer of points; others put comments or another encoding there.
_PLY_BEGINS = b"ply\nformat binary_little_endian 1.0\nelement vertex "
CONVENTIONS = (
    "x y z: camera centre in the world frame of the map; metres only if the map is metric",
    "qw qx qy qz tx ty tz: cam_from_world, X_cam = R X_world + t; camera x right, y down, z forward",
    "params: COLMAP's, px of the stored image, principal point from the top left corner",
)
COLUMNS = (
    *("name", "role", "status", "x", "y", "z", "qw", "qx", "qy", "qz", "tx", "ty", "tz"),
    *("camera_model", "width", "height", "params"),
)


def export_colmap(run: Path, target: Path, *, text: bool = False, force: bool = False) -> dict[str, Any]:
    """Write the map as ``cameras``, ``images``, ``points3D``, ``rigs`` and ``frames``, .bin or .txt."""
    bundle = open_map(run)
    refuse_inside(run, target)
    model = open_model(bundle)
    counts = _counts(model)
    with export_folder(target, {"kind": "colmap", **counts}, force=force) as folder:
        require_space(folder, _TEXT_PER_BINARY * _model_bytes(bundle))
        if text:
            model.write_text(folder)
        else:
            model.write_binary(folder)
    return counts


def export_ply(run: Path, target: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the points with their colours."""
    bundle = open_map(run)
    refuse_inside(run, target)
    model = open_model(bundle)

    def write(path: Path) -> None:
        require_space(path.parent, _model_bytes(bundle))
        model.export_PLY(path)

    export_file(target, write, begins=_PLY_BEGINS, force=force)
    return {"points": model.num_points3D()}


def export_csv(run: Path, target: Path, *, force: bool = False) -> dict[str, Any]:
    """Write a row per image of the map and per localized query; comment lines tell the conventions."""
    bundle = open_map(run)
    refuse_inside(run, target)
    rows = [
        _row(name, "db", "registered", bundle.poses[name], bundle.camera(name)) for name in bundle.registered
    ]
    queries = _query_rows(run)
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in CONVENTIONS)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*rows, *queries])

    def write(path: Path) -> None:
        path.write_text(text.getvalue(), encoding="utf-8")

    export_file(target, write, begins=f"# {CONVENTIONS[0]}\n".encode(), force=force)
    return {"db": len(rows), "queries": len(queries)}


def open_model(bundle: MapBundle) -> pycolmap.Reconstruction:
    """The COLMAP model of a map."""
    from loc.colmap import pycolmap

    check_product(bundle.folder, f"{bundle.model_folder.name}/")
    try:
        return pycolmap.Reconstruction(bundle.model_folder)
    except (ValueError, RuntimeError, LookupError) as error:
        raise MapError(
            f"the model {bundle.model_folder} is damaged: {' '.join(str(error).split())[:200]}",
            f"delete the folder {bundle.folder} and run the map again",
        ) from error


def _model_bytes(bundle: MapBundle) -> int:
    return sum(path.stat().st_size for path in bundle.model_folder.iterdir())


def _counts(model: pycolmap.Reconstruction) -> dict[str, Any]:
    return {
        "images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": int(model.compute_num_observations()),
    }


def _query_rows(run: Path) -> list[list[Any]]:
    if not (run / FILE).is_file():
        return []
    record = read_record(run)
    if "poses" not in record:
        return []
    table = read_json(run / "scene" / "scene.json")
    camera_ids = {image["name"]: image["camera_id"] for image in table["images"]}
    rows = []
    for result in Poses.open(run / record["poses"]).results:
        if result.pose is not None:
            camera = result.camera or Camera.from_json(table["cameras"][camera_ids[result.name]])
            rows.append(_row(result.name, "query", result.status, result.pose, camera))
    return rows


def _row(name: str, role: str, status: str, pose: Pose, camera: Camera) -> list[Any]:
    numbers = [*pose.center_in_world, *wxyz_from_xyzw(pose.quat_xyzw), *pose.translation]
    params = " ".join(repr(float(value)) for value in camera.params)
    size = [camera.width, camera.height]
    return [name, role, status, *(repr(float(value)) for value in numbers), camera.model, *size, params]
