"""COLMAP's binary model read into arrays, without a Python object per keypoint.

Layout of the files: src/colmap/scene/reconstruction_io_binary.cc (little endian, packed).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from loc.colmap import camera_to_colmap, pycolmap
from loc.conventions import xyzw_from_wxyz
from loc.errors import DataError, StoreError
from loc.sfm.index import PointIndex
from loc.stores.files import write_atomically
from loc.stores.fingerprint import digest
from loc.stores.products import check_product
from loc.types import Camera, Pose

Array = np.ndarray
_POINT2D = np.dtype([("xy", "<f8", 2), ("point_id", "<i8")])
_POINT3D = np.dtype(
    [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track_length", "<u8")]
)
_RGB_OFFSET = 8 + 24


@dataclass(frozen=True, eq=False)
class ModelImage:
    """A registered image.

    Attributes:
        xy: ``(n, 2)`` float64 px, corner origin, all keypoints.
        point_ids: ``(n,)`` int64 id of the 3-D point each keypoint sees, or -1.
    """

    image_id: int
    name: str
    camera_id: int
    pose: Pose
    xy: Float64[Array, "n 2"]
    point_ids: Int64[Array, " n"]


@dataclass(frozen=True, eq=False)
class Model:
    """A COLMAP model: ``images`` sorted by name, points in ascending order of their ids.

    Attributes:
        xyz: ``(p, 3)`` float64, world units.
        track_lengths: ``(p,)`` int32, observations per point.
    """

    cameras: dict[int, Camera]
    images: dict[str, ModelImage]
    point_ids: Int64[Array, " p"]
    xyz: Float64[Array, "p 3"]
    track_lengths: Int32[Array, " p"]

    def rows(self, point_ids: Int64[Array, " n"]) -> Int32[Array, " n"]:
        """Row of each point id in ``xyz``; -1 where there is none."""
        if len(self.point_ids) == 0:
            return np.full(len(point_ids), -1, np.int32)
        rows = np.searchsorted(self.point_ids, point_ids).clip(max=len(self.point_ids) - 1)
        found = self.point_ids[rows] == point_ids
        return np.where(found, rows, -1).astype(np.int32)

    @property
    def num_observations(self) -> int:
        return int(self.track_lengths.sum(dtype=np.int64))


def read_model(folder: Path) -> Model:
    """Read ``cameras.bin``, ``images.bin`` and ``points3D.bin``.

    Raises:
        StoreError: a file is missing, truncated, not of this format, or (in a map's folder) not what
            was written.
    """
    check_product(folder.parent, f"{folder.name}/")
    try:
        cameras = _read_cameras(_bytes(folder / "cameras.bin"))
        images = _read_images(_bytes(folder / "images.bin"))
        _, points = _read_points(_bytes(folder / "points3D.bin"))
    except (OSError, ValueError, struct.error, DataError) as error:
        raise StoreError(
            f"the model {folder} cannot be read: {error}",
            "delete the map's folder and run the map again",
        ) from error
    points = points[np.argsort(points["id"], kind="stable")]
    return Model(
        cameras=cameras,
        images={image.name: image for image in sorted(images, key=lambda image: image.name)},
        point_ids=points["id"].astype(np.int64),
        xyz=np.ascontiguousarray(points["xyz"]),
        track_lengths=points["track_length"].astype(np.int32),
    )


def model_digest(folder: Path) -> str:
    """Hash of a model's numbers: equal models give equal digests, whatever their order on disk.

    Covers cameras, poses, points, and which keypoint sees which point; not colours.
    """
    model = read_model(folder)

    def parts() -> Iterable[Any]:
        for camera_id, camera in sorted(model.cameras.items()):
            yield from (camera_id, camera.model, camera.width, camera.height, camera.params)
        for name, image in model.images.items():
            yield from (name, image.camera_id, image.pose.quat_xyzw, image.pose.translation)
            yield image.point_ids
        yield from (model.point_ids, model.xyz)

    return digest(parts())


def build_index(model: Model) -> PointIndex:
    """The 2D-3D index of a model."""
    rows = [model.rows(image.point_ids) for image in model.images.values()]
    lengths = [len(each) for each in rows]
    return PointIndex(
        names=tuple(model.images),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rows=np.concatenate(rows) if rows else np.zeros(0, np.int32),
        xyz=model.xyz,
        point_ids=model.point_ids,
        track_lengths=model.track_lengths,
    )


def mean_reprojection_error_px(model: Model) -> float:
    """Mean over points of the mean error of their observations, px in the (distorted) images.

    The mean that COLMAP prints, recomputed from the final numbers. A point behind a camera that sees
    it has no projection there and is left out (the mapper filters these); NaN without points.
    """
    total = np.zeros(len(model.point_ids))
    count = np.zeros(len(model.point_ids))
    for image in model.images.values():
        rows = model.rows(image.point_ids)
        seen = rows >= 0
        if not seen.any():
            continue
        rows = rows[seen]
        in_camera = model.xyz[rows] @ image.pose.rotation.T + image.pose.translation
        camera = camera_to_colmap(model.cameras[image.camera_id])
        projected = camera.img_from_cam(np.ascontiguousarray(in_camera))
        error = np.linalg.norm(projected - image.xy[seen], axis=1)
        projects = np.isfinite(error)
        np.add.at(total, rows[projects], error[projects])
        np.add.at(count, rows[projects], 1)
    seen_points = count > 0
    return float((total[seen_points] / count[seen_points]).mean()) if seen_points.any() else float("nan")


def read_colors(folder: Path) -> UInt8[Array, "p 3"]:
    """RGB of the points of a model; rows in ascending order of point ids, as in :class:`Model`.

    Raises:
        StoreError: ``points3D.bin`` is missing, truncated, not of this format, or not what was written.
    """
    check_product(folder.parent, f"{folder.name}/points3D.bin")
    try:
        _, points = _read_points(_bytes(folder / "points3D.bin"))
    except (OSError, ValueError, struct.error) as error:
        raise StoreError(
            f"the points of the model {folder} cannot be read: {error}",
            "delete the map's folder and run the map again",
        ) from error
    return np.ascontiguousarray(points["rgb"][np.argsort(points["id"], kind="stable")])


def write_colors(folder: Path, rgb: UInt8[Array, "p 3"]) -> None:
    """Set the colours of the points in ``points3D.bin``; rows in ascending order of point ids."""
    path = folder / "points3D.bin"
    mapped = _bytes(path)
    starts, points = _read_points(mapped)
    data = np.frombuffer(mapped, np.uint8).copy()
    order = np.argsort(points["id"], kind="stable")
    for channel in range(3):
        data[starts[order] + _RGB_OFFSET + channel] = rgb[:, channel]
    write_atomically(path, lambda temporary: _write_bytes(temporary, data))


def _write_bytes(path: Path, data: Array) -> None:
    path.write_bytes(data.tobytes())


def _bytes(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_cameras(data: mmap.mmap) -> dict[int, Camera]:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset, cameras = 8, {}
    for _ in range(count):
        camera_id, model_id, width, height = struct.unpack_from("<IiQQ", data, offset)
        camera = pycolmap.Camera.create_from_model_id(
            camera_id, pycolmap.CameraModelId(model_id), 1.0, width, height
        )
        params = np.frombuffer(data, "<f8", len(camera.params), offset + 24).copy()
        cameras[int(camera_id)] = Camera(camera.model.name, int(width), int(height), params)
        offset += 24 + params.nbytes
    return cameras


def _read_images(data: mmap.mmap) -> list[ModelImage]:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset, images = 8, []
    for _ in range(count):
        fields = struct.unpack_from("<I7dI", data, offset)
        end = data.find(b"\0", offset + 64)
        name = data[offset + 64 : end].decode("utf-8")
        (n,) = struct.unpack_from("<Q", data, end + 1)
        points = np.frombuffer(data, _POINT2D, n, end + 9)
        pose = Pose(xyzw_from_wxyz(np.array(fields[1:5])), np.array(fields[5:8]))
        xy, ids = np.ascontiguousarray(points["xy"]), points["point_id"].copy()
        images.append(ModelImage(int(fields[0]), name, int(fields[8]), pose, xy, ids))
        offset = end + 9 + points.nbytes
    return images


def _read_points(data: mmap.mmap) -> tuple[Int64[Array, " p"], Array]:
    """Offset of each point's record, and its fields without the track."""
    (count,) = struct.unpack_from("<Q", data, 0)
    starts = np.empty(count, np.int64)
    offset, size, length_of = 8, _POINT3D.itemsize, struct.Struct("<Q").unpack_from
    for row in range(count):
        starts[row] = offset
        offset += size + 8 * length_of(data, offset + size - 8)[0]
    if offset > len(data):
        raise ValueError("points3D.bin is truncated")
    gathered = np.frombuffer(data, np.uint8)[starts[:, None] + np.arange(size)]
    return starts, np.ascontiguousarray(gathered).view(_POINT3D).reshape(-1)
