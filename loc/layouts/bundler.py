"""Bundler's ``bundle.out``: cameras and points of a model, in COLMAP's frame.

A camera is ``f k1 k2``, a rotation and a translation, cam_from_world, looking along **-z** with y up;
pixels count from the middle of the image, x right and y **up**; distortion is COLMAP's ``RADIAL``.
(Snavely, Seitz and Szeliski, SIGGRAPH 2006; cs.cornell.edu/~snavely/bundler/bundler-v0.4-manual.html.)

VisualSFM turns the world too: y and z of points and centres are those of the NVM file negated, and so
does the Aachen data set. This is what is undone here unless the world is to be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from loc.errors import DataError
from loc.layouts.names import check_name
from loc.layouts.nvm import Nvm
from loc.types import Array, Pose

#: Negates y and z: half a turn around x, from a camera that looks along -z to one along +z.
_FLIP = np.array([1.0, -1.0, -1.0])
_HEADER = "# Bundle file"


@dataclass(frozen=True, eq=False)
class BundlerModel:
    """A model in COLMAP's frame.

    Attributes:
        columns: names, poses, points and observations; pixels with y down, from the middle of the
            image (or, in the Aachen data set's files, from its top left: ``columns.is_centered``).
        distortion: ``(n, 2)`` float64, ``k1`` and ``k2`` of COLMAP's ``RADIAL``, a row per image.
    """

    columns: Nvm
    distortion: Float64[Array, "n 2"]


def read_bundler(path: Path, list_path: Path, *, keep_world: bool = False) -> BundlerModel:
    """Read ``bundle.out`` and its image list; cameras with focal length 0 are not registered: left out.

    Args:
        list_path: a name per line in the order of the cameras; what follows a name is ignored.
        keep_world: keep the world's axes as in the file.

    Raises:
        DataError: not a Bundler file, damaged, truncated, or of another number of images; with the line.
    """
    lines = _Lines(path)
    header = lines.first
    if not header.startswith(_HEADER):
        raise DataError(
            f"{path} is not a Bundler file: it begins with {header[:40]!r}, not {_HEADER + ' v0.3'!r}",
            "give bundle.out; for .nvm files: loc import nvm",
        )
    cameras, points = lines.integers(2, "the numbers of cameras and points")
    names = _names(list_path)
    if len(names) != cameras:
        raise DataError(
            f"{path} has {cameras} cameras, {list_path} names {len(names)} images",
            "give the list that belongs to this file: a name per camera, in the same order",
        )
    world = np.ones(3) if keep_world else _FLIP
    numbers = [_camera(lines, world) for _ in range(cameras)]
    registered = [row for row, (intrinsics, _) in enumerate(numbers) if intrinsics[0] > 0]
    if not registered:
        raise DataError(f"{path} has no registered camera: all focal lengths are 0", "give another model")
    new_row = np.full(cameras, -1)
    new_row[registered] = np.arange(len(registered))
    xyz, rgb, offsets, observed = _points(lines, points, new_row)
    intrinsics = np.array([numbers[row][0] for row in registered])
    columns = Nvm(
        path=path,
        names=tuple(names[row] for row in registered),
        focal_px=intrinsics[:, 0],
        radial=np.zeros(len(registered)),
        poses=tuple(numbers[row][1] for row in registered),
        xyz=xyz * world,
        rgb=rgb,
        offsets=offsets,
        image=observed[:, 0].astype(np.int32),
        feature=observed[:, 1].astype(np.int32),
        xy=observed[:, 2:] * _FLIP[:2],
    )
    return BundlerModel(columns, intrinsics[:, 1:])


class _Lines:
    """Lines with content as numbers, counted."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 1
        try:
            self._lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not a text file (byte {error.start})", "give bundle.out") from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
        self.first = self._lines[0] if self._lines else ""

    def floats(self, count: int | None, what: str) -> list[float]:
        """The numbers of the next line: ``count`` of them, all finite."""
        while self.number < len(self._lines) and not self._lines[self.number].strip():
            self.number += 1
        if self.number >= len(self._lines):
            raise DataError(f"{self.path} ends where {what} should be", "it is truncated: copy it again")
        text = self._lines[self.number]
        self.number += 1
        try:
            values = [float(word) for word in text.split()]
        except ValueError as error:
            raise self.damaged(f"expected {what}, got {text[:60]!r}") from error
        if count is not None and len(values) != count:
            raise self.damaged(f"expected {what} ({count} numbers), got {len(values)}")
        if not np.isfinite(values).all():
            raise self.damaged(f"{what} hold NaN or infinity")
        return values

    def integers(self, count: int, what: str) -> list[int]:
        values = self.floats(count, what)
        if any(value < 0 or value != int(value) for value in values):
            raise self.damaged(f"{what} must be whole and not negative, got {values}")
        return [int(value) for value in values]

    def damaged(self, why: str) -> DataError:
        return DataError(f"{self.path} line {self.number}: {why}", "export or copy the model again")


def _names(path: Path) -> list[str]:
    """First column of the list; a focal length after a name (``name 0 f``) is Bundler's first guess."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file (byte {error.start})", "give Bundler's list.txt"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the list {path}: {error.strerror}", "check the path") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path} line {number}"
        name = check_name(words[0].removeprefix("./"), where=where)
        if name in names:
            raise DataError(f"{where}: {name!r} is on line {names[name]} already", "keep one of them")
        names[name] = number
    return list(names)


def _camera(lines: _Lines, world: Array) -> tuple[list[float], Pose]:
    intrinsics = lines.floats(3, "a camera's f k1 k2")
    rotation = np.array([lines.floats(3, "a row of a camera's rotation") for _ in range(3)])
    translation = np.array(lines.floats(3, "a camera's translation"))
    if intrinsics[0] <= 0:
        return intrinsics, Pose(np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise lines.damaged("the camera that ends here has no rotation matrix")
    turned = _FLIP[:, None] * rotation * world
    return intrinsics, Pose(_quat_xyzw(turned), _FLIP * translation)


def _quat_xyzw(rotation: Array) -> Array:
    from loc.colmap import pycolmap

    quaternion: Array = pycolmap.Rotation3d(np.ascontiguousarray(rotation)).quat
    return quaternion


def _points(lines: _Lines, count: int, new_row: Array) -> tuple[Array, Array, Array, Array]:
    """``(p, 3)`` points, ``(p, 3)`` colours, ``(p + 1,)`` offsets, ``(m, 4)`` observations."""
    xyz, rgb, lengths = np.zeros((count, 3)), np.zeros((count, 3), np.uint8), np.zeros(count, np.int64)
    observed = [np.zeros((0, 4))]
    for row in range(count):
        xyz[row] = lines.floats(3, f"point {row + 1} of {count}")
        rgb[row] = np.clip(lines.floats(3, "a point's colour"), 0, 255)
        views = lines.floats(None, "a point's views")
        if not views or len(views) != 1 + 4 * int(views[0]):
            raise lines.damaged("a point's views are: n, and n times: camera key x y")
        rows = np.array(views[1:]).reshape(-1, 4)
        cameras = rows[:, 0].astype(np.int64)
        if len(rows) and not (cameras.min() >= 0 and cameras.max() < len(new_row)):
            raise lines.damaged(f"a view refers to camera {cameras.max()} of {len(new_row)}")
        rows[:, 0] = new_row[cameras]
        rows = rows[rows[:, 0] >= 0]
        observed.append(rows)
        lengths[row] = len(rows)
    return xyz, rgb, np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(observed)
