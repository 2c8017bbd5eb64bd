"""Images of a reference model: their poses and which points they see, read from the one file that says so.

pycolmap would load the 3-D points too, and hands out 2-D points one Python object at a time: gigabytes
and minutes for a model of a town.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from loc.conventions import xyzw_from_wxyz
from loc.errors import DataError
from loc.layouts.names import check_name
from loc.layouts.nvm import parse_nvm
from loc.types import Array, Pose

#: id u32, quaternion 4 f64 (wxyz), translation 3 f64, camera id u32 (COLMAP doc/format.rst).
_IMAGE_HEADER = struct.Struct("<I7dI")
_COUNT = struct.Struct("<Q")
_POINT2D = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])


@dataclass(frozen=True, eq=False)
class _Image:
    """One image of a COLMAP model: ``numbers`` is qw qx qy qz tx ty tz."""

    name: str
    numbers: tuple[float, ...]
    points: Int64[Array, " n"]


def poses_of_images(model: Path) -> dict[str, Pose]:
    """Image name → cam_from_world.

    Args:
        model: COLMAP model folder, or an NVM file.

    Raises:
        DataError: there is no model, it is damaged, or a name cannot be used or occurs twice.
    """
    path = images_file(model)
    if path.suffix == ".nvm":
        nvm = parse_nvm(path, points=False)
        return dict(zip(nvm.names, nvm.poses, strict=True))
    poses: dict[str, Pose] = {}
    for image in _images(path, points=False):
        name = check_name(image.name, where=f"model {model}")
        if name in poses:
            raise DataError(f"the model {model} has two images called {name!r}", "rename one of them")
        try:
            poses[name] = Pose(xyzw_from_wxyz(np.array(image.numbers[:4])), np.array(image.numbers[4:]))
        except DataError as error:
            raise DataError(f"image {name!r} of the model {model}: {error.message}") from error
    return poses


def points_of_images(model: Path) -> dict[str, Int64[Array, " n"]]:
    """Image name → ids of the 3-D points it observes; arguments and errors as :func:`poses_of_images`."""
    path = images_file(model)
    if path.suffix == ".nvm":
        return parse_nvm(path).points_of_images()
    return {image.name: image.points[image.points >= 0] for image in _images(path, points=True)}


def images_file(model: Path) -> Path:
    """``images.bin`` or ``images.txt`` of a model, or an NVM file itself, or a :class:`DataError`."""
    if model.suffix == ".nvm" and model.is_file():
        return model
    for path in (model / "images.bin", model / "images.txt"):
        if path.is_file():
            return path
    raise DataError(
        f"there is no COLMAP model in {model}", "pairs from covisibility need scene.model, with its points"
    )


def _images(path: Path, *, points: bool) -> Iterator[_Image]:
    """Without ``points`` those of a binary model are jumped over: they are nearly all of the file."""
    return _from_binary(path, points=points) if path.suffix == ".bin" else _from_text(path)


def _from_binary(path: Path, *, points: bool) -> Iterator[_Image]:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "export the model again from COLMAP")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            (count,) = _COUNT.unpack_from(data)
            at = _COUNT.size
            for _ in range(count):
                _, *numbers, _ = _IMAGE_HEADER.unpack_from(data, at)
                name_at = at + _IMAGE_HEADER.size
                end = data.find(b"\0", name_at)
                if end < 0:
                    raise ValueError("it is truncated")
                (num_points,) = _COUNT.unpack_from(data, end + 1)
                start = end + 1 + _COUNT.size
                at = start + num_points * _POINT2D.itemsize
                if at > len(data):
                    raise ValueError("it is truncated")
                # Bytes are a copy: an array on the map of the file would keep it from being closed.
                seen = np.frombuffer(data[start:at] if points else b"", _POINT2D)["point"]
                yield _Image(data[name_at:end].decode(), tuple(numbers), seen)
    except (struct.error, ValueError, OverflowError) as error:
        raise DataError(f"{path} is damaged: {error}", "export the model again from COLMAP") from error


def _from_text(path: Path) -> Iterator[_Image]:
    header: list[str] | None = None
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith("#"):
                continue
            try:
                if header is None:
                    if line.strip():
                        header = line.strip().split(None, 9)
                        header[9]
                    continue
                seen = np.array(line.split()[2::3], dtype=np.int64)
                yield _Image(header[9], tuple(float(word) for word in header[1:8]), seen)
            except (IndexError, ValueError) as error:
                raise DataError(
                    f"{path} line {number} is damaged: {error}", "export the model again from COLMAP"
                ) from error
            header = None
