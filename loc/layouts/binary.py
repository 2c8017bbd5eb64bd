"""Whether the files of a binary COLMAP model are whole, before COLMAP reads them.

COLMAP believes the counts in the files: a truncated ``points3D.bin`` keeps its reader busy until the
memory is full, and a flipped bit in a count asks for terabytes. Here every record is walked over by its
own length, so that the work is bounded by the size of the file.

Layout of the files: src/colmap/scene/reconstruction_io_binary.cc (little endian, packed).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from loc.errors import DataError
from loc.types import CAMERA_PARAMS

Walk = Callable[[mmap.mmap, int], int]

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")  # id, model, width, height; then the parameters, f64
_IMAGE = struct.Struct("<I7dI")  # id, pose, camera id; then the name, a count and the 2-D points
_POINT2D_BYTES = 8 + 8 + 8
_POINT3D = struct.Struct("<Q3d3BdQ")  # id, xyz, rgb, error, length of the track; then the track
_TRACK_ELEMENT_BYTES = 4 + 4
_RIG = struct.Struct("<II")  # id, number of sensors; then the reference sensor and the others
_SENSOR = struct.Struct("<iI")  # type, id
_HAS_POSE = struct.Struct("<B")
_POSE_BYTES = 7 * 8
_FRAME = struct.Struct("<II7dI")  # id, rig id, pose, number of data; then the data
_DATUM = struct.Struct("<iIQ")  # sensor type, sensor id, data id


def check_binary_model(folder: Path) -> None:
    """Raise a :class:`DataError` where a file of the model is truncated or its counts do not fit.

    Args:
        folder: holds ``cameras.bin`` …; files that are not there are not missed.
    """
    walks = {"cameras": _camera, "images": _image, "points3D": _point, "rigs": _rig, "frames": _frame}
    for name, walk in walks.items():
        path = folder / f"{name}.bin"
        if not path.is_file():
            continue
        try:
            _check(path, walk)
        except (struct.error, ValueError, OverflowError, OSError) as error:
            raise DataError(
                f"the model {folder} is damaged: {path.name} is truncated or holds garbage ({error})",
                "export it again from COLMAP, or copy it again from its source",
            ) from error


def _check(path: Path, walk: Walk) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (count,) = _COUNT.unpack_from(data)
        at = _COUNT.size
        for _ in range(count):
            at = walk(data, at)
        if at != len(data):
            raise ValueError(f"its {count} records end at byte {at} of {len(data)}")


def _camera(data: mmap.mmap, at: int) -> int:
    from loc.colmap import pycolmap

    _, model, _, _ = _CAMERA.unpack_from(data, at)
    name = pycolmap.CameraModelId(model).name
    if name not in CAMERA_PARAMS:
        raise ValueError(f"camera model {model} is not supported")
    return at + _CAMERA.size + 8 * CAMERA_PARAMS[name]


def _image(data: mmap.mmap, at: int) -> int:
    _IMAGE.unpack_from(data, at)
    end = data.find(b"\0", at + _IMAGE.size)
    if end < 0:
        raise ValueError("an image's name does not end")
    data[at + _IMAGE.size : end].decode("utf-8")
    (points,) = _COUNT.unpack_from(data, end + 1)
    return end + 1 + _COUNT.size + int(points) * _POINT2D_BYTES


def _point(data: mmap.mmap, at: int) -> int:
    length = _POINT3D.unpack_from(data, at)[-1]
    return at + _POINT3D.size + int(length) * _TRACK_ELEMENT_BYTES


def _rig(data: mmap.mmap, at: int) -> int:
    _, sensors = _RIG.unpack_from(data, at)
    at += _RIG.size + (_SENSOR.size if sensors else 0)
    for _ in range(sensors - 1):
        _SENSOR.unpack_from(data, at)
        (has_pose,) = _HAS_POSE.unpack_from(data, at + _SENSOR.size)
        at += _SENSOR.size + _HAS_POSE.size + (_POSE_BYTES if has_pose else 0)
    return at


def _frame(data: mmap.mmap, at: int) -> int:
    count = _FRAME.unpack_from(data, at)[-1]
    return at + _FRAME.size + int(count) * _DATUM.size
