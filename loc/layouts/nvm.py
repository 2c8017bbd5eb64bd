"""VisualSFM's NVM files: cameras and points of a model, as arrays or as a COLMAP model.

A camera line is ``name f qw qx qy qz cx cy cz r 0``: a rotation ``cam_from_world`` and the camera
**centre**, so ``t = -R c``; the camera frame is COLMAP's (x right, y down, z forward). A point line is
``x y z r g b n`` and ``n`` times ``image feature x y``. (ccwu.me/vsfm/doc.html#nvm.) The first number
after the header counts the cameras; more models may follow, an empty one ends them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from loc.conventions import xyzw_from_wxyz
from loc.errors import DataError
from loc.layouts.names import check_name
from loc.types import Array, Camera, Pose

if TYPE_CHECKING:
    import pycolmap

_HEADER = b"NVM_V3"
#: Lines that are parsed at once: bounds the memory of a file of gigabytes.
_BATCH = 50_000


@dataclass(frozen=True, eq=False)
class Nvm:
    """A model as columns; observations of point ``i`` are rows ``offsets[i]:offsets[i + 1]``.

    Attributes:
        path: the file.
        names: image names, in the order of the file.
        focal_px: ``(n,)`` float64.
        radial: ``(n,)`` float64, VisualSFM's r: measured ``m`` → undistorted ``m (1 + r |m|²)``, ``m``
            in units of the focal length.
        poses: cam_from_world of every image.
        xyz: ``(p, 3)`` float64, world units.
        rgb: ``(p, 3)`` uint8.
        offsets: ``(p + 1,)`` int64.
        image: ``(m,)`` int32, row into ``names``.
        feature: ``(m,)`` int32, number of the feature in its image.
        xy: ``(m, 2)`` float64 px as in the file; see :attr:`is_centered`.
    """

    path: Path
    names: tuple[str, ...]
    focal_px: Float64[Array, " n"]
    radial: Float64[Array, " n"]
    poses: tuple[Pose, ...]
    xyz: Float64[Array, "p 3"]
    rgb: UInt8[Array, "p 3"]
    offsets: Int64[Array, " p1"]
    image: Int32[Array, " m"]
    feature: Int32[Array, " m"]
    xy: Float64[Array, "m 2"]

    @property
    def is_centered(self) -> bool:
        """Whether ``xy`` counts from the middle of the image (VisualSFM) or its top left (Aachen)."""
        # Three quarters of an image have a negative coordinate from its middle; no pixel of it has one.
        return bool((self.xy < 0).any(axis=1).mean() > 0.1) if len(self.xy) else False

    def points_of_images(self) -> dict[str, Int64[Array, " k"]]:
        """Image name → rows of the points it observes, ascending."""
        points = np.repeat(np.arange(len(self.xyz)), np.diff(self.offsets))
        order = np.argsort(self.image, kind="stable")
        bounds = np.searchsorted(self.image[order], np.arange(len(self.names) + 1))
        return {
            name: points[order[start:end]]
            for name, start, end in zip(self.names, bounds[:-1], bounds[1:], strict=True)
        }


def parse_nvm(path: Path, *, points: bool = True) -> Nvm:
    """The model with most images of an NVM file.

    Args:
        points: False stops after the cameras, which takes no time; the point arrays are empty.

    Raises:
        DataError: not an NVM file, truncated, damaged or without a model; with the line.
    """
    best: Nvm | None = None
    try:
        with path.open("rb") as file:
            lines = _Lines(path, file)
            if not lines.next("the header").startswith(_HEADER):
                raise DataError(f"{path} is not an NVM file: it does not begin with NVM_V3")
            while (count := lines.count("cameras", last=best is not None)) > 0:
                model = _cameras(lines, count)
                if points:
                    model = _points(lines, model)
                if best is None or len(model.names) > len(best.names):
                    best = model
                if not points:
                    break
    except OSError as error:
        raise DataError(f"cannot read the model {path}: {error.strerror}", "check the path") from error
    if best is None:
        raise DataError(f"the model {path} has no cameras", "export it again, with a reconstruction")
    return best


def read_nvm(path: Path, cameras: Mapping[str, Camera] | None = None) -> pycolmap.Reconstruction:
    """An NVM model as a COLMAP model: poses, cameras (one per image), points and their observations.

    Image ids are 1… in the order of the file, point ids 1…. Observations are in px with the origin of
    the file, the top left corner; those that VisualSFM counts from the middle are shifted there.

    Args:
        cameras: image name → its camera. An NVM file holds neither image sizes nor principal points:
            without, the size is what the observations fill and distortion is the first order of
            VisualSFM's (``SIMPLE_RADIAL`` with k = -r), good enough to look at, not to localize with.

    Raises:
        DataError: see :func:`parse_nvm`.
    """
    return as_model(parse_nvm(path), cameras)


def as_model(nvm: Nvm, cameras: Mapping[str, Camera] | None = None) -> pycolmap.Reconstruction:
    """The columns of a model as a COLMAP model; see :func:`read_nvm`."""
    from loc.colmap import camera_to_colmap, pose_to_colmap, pycolmap

    model, centered = pycolmap.Reconstruction(), nvm.is_centered
    rows = _rows_by_image(nvm)
    slots = np.zeros(len(nvm.image), np.int64)  # number of each observation within its image
    for number, name in enumerate(nvm.names):
        own = rows[number]
        slots[own] = np.arange(len(own))
        camera = (cameras or {}).get(name) or _guessed_camera(nvm, number, nvm.xy[own], centered)
        shift = np.array(camera.image_wh) / 2 if centered else np.zeros(2)
        model.add_camera_with_trivial_rig(camera_to_colmap(camera, number + 1))
        image = pycolmap.Image(
            name=name, keypoints=nvm.xy[own] + shift, camera_id=number + 1, image_id=number + 1
        )
        model.add_image_with_trivial_frame(image, pose_to_colmap(nvm.poses[number]))
    image_ids, places, bounds = (nvm.image + 1).tolist(), slots.tolist(), nvm.offsets.tolist()
    for point, (start, end) in enumerate(pairwise(bounds)):
        track = pycolmap.Track()
        for row in range(start, end):
            track.add_element(image_ids[row], places[row])
        model.add_point3D(nvm.xyz[point], track, nvm.rgb[point])
    return model


class _Lines:
    """Lines with content, counted."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.number = path, 0
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            self.number += 1
            if line.strip():
                yield line

    def next(self, what: str, *, default: bytes | None = None) -> bytes:
        line = next(iter(self), default)
        if line is None:
            raise DataError(f"{self.path} ends where {what} should be", "it is truncated: copy it again")
        return line

    def count(self, what: str, *, last: bool = False) -> int:
        """The number of ``what``; zero at the end of the models, where ``last`` allows one."""
        line = self.next(f"the number of {what}", default=b"0" if last else None)
        try:
            return max(0, int(line))
        except ValueError as error:
            raise self.damaged(f"expected the number of {what}, got {line[:60]!r}") from error

    def damaged(self, why: str) -> DataError:
        return DataError(f"{self.path} line {self.number}: {why}", "export or copy the model again")


def _cameras(lines: _Lines, count: int) -> Nvm:
    names: list[str] = []
    poses, numbers = [], []
    for _ in range(count):
        words = lines.next(f"camera {len(names) + 1} of {count}").rsplit(None, 10)
        try:
            values = [float(word) for word in words[1:]]
            # VisualSFM writes a quotation mark for a space.
            name = words[0].decode("utf-8").strip().replace('"', " ")
        except (ValueError, UnicodeDecodeError) as error:
            raise lines.damaged(f"not a camera line: {error}") from error
        if len(values) != 10:
            raise lines.damaged("a camera is: name f qw qx qy qz cx cy cz r 0")
        names.append(check_name(name, where=f"{lines.path} line {lines.number}"))
        poses.append(_pose(lines, values))
        numbers.append((values[0], values[8]))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the model {lines.path} has two images called {twice!r}", "rename one of them")
    focal, radial = np.array(numbers, np.float64).reshape(-1, 2).T
    return Nvm(lines.path, tuple(names), focal, radial, tuple(poses), *_no_points())


def _pose(lines: _Lines, values: list[float]) -> Pose:
    try:
        turned = Pose(xyzw_from_wxyz(np.array(values[1:5])), np.zeros(3))
        return Pose(turned.quat_xyzw, -turned.rotation @ np.array(values[5:8]))
    except DataError as error:
        raise lines.damaged(error.message) from error


def _no_points() -> tuple[Array, ...]:
    return (
        np.zeros((0, 3)),
        np.zeros((0, 3), np.uint8),
        np.zeros(1, np.int64),
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros((0, 2)),
    )


def _points(lines: _Lines, model: Nvm) -> Nvm:
    count = lines.count("points")
    heads, observed, lengths, read = [], [], [], 0
    while read < count:
        head, rows, length = _point_batch(lines, min(_BATCH, count - read))
        if not len(head):
            raise DataError(
                f"{lines.path} ends after {read} of {count} points", "it is truncated: copy it again"
            )
        heads.append(head)
        observed.append(rows)
        lengths.append(length)
        read += len(head)
    if not count:
        return model
    head, rows, length = np.concatenate(heads), np.concatenate(observed), np.concatenate(lengths)
    if not (np.isfinite(head).all() and np.isfinite(rows).all()):
        raise DataError(f"the points of {lines.path} hold NaN or infinity", "export the model again")
    image = rows[:, 0].astype(np.int32)
    if len(image) and not (image.min() >= 0 and image.max() < len(model.names)):
        raise DataError(
            f"{lines.path}: a point refers to camera {image.max()} of {len(model.names)}",
            "export or copy the model again",
        )
    return replace(
        model,
        xyz=head[:, :3],
        rgb=np.clip(head[:, 3:6], 0, 255).astype(np.uint8),
        offsets=np.concatenate([[0], np.cumsum(length)]),
        image=image,
        feature=rows[:, 1].astype(np.int32),
        xy=rows[:, 2:4],
    )


def _point_batch(lines: _Lines, size: int) -> tuple[Array, Array, Array]:
    """``(b, 7)`` heads, ``(k, 4)`` observations and ``(b,)`` observations per point of the next lines."""
    words: list[bytes] = []
    rows: list[bytes] = []
    lengths: list[int] = []
    for line in islice(lines, size):
        parts = line.split()
        observations = (len(parts) - 7) // 4
        if len(parts) < 7 or parts[6] != b"%d" % observations or len(parts) != 7 + 4 * observations:
            raise lines.damaged("a point is: x y z r g b n, and n times: image feature x y")
        words += parts[:7]
        rows += parts[7:]
        lengths.append(observations)
    try:
        head, observed = np.array(words, np.float64), np.array(rows, np.float64)
    except ValueError as error:
        raise lines.damaged(f"in the {len(lengths)} lines before: {error}") from error
    return head.reshape(-1, 7), observed.reshape(-1, 4), np.array(lengths, np.int64)


def _rows_by_image(nvm: Nvm) -> list[Array]:
    """Rows of the observations of every image, ascending."""
    order = np.argsort(nvm.image, kind="stable")
    bounds = np.searchsorted(nvm.image[order], np.arange(1, len(nvm.names)))
    return np.split(order, bounds)


def _guessed_camera(nvm: Nvm, number: int, xy: Array, centered: bool) -> Camera:
    focal = float(nvm.focal_px[number])
    extent = np.abs(xy).max(axis=0, initial=1.0) * (2 if centered else 1)
    width, height = (int(np.ceil(side)) for side in extent)
    params = np.array([focal, width / 2, height / 2, -float(nvm.radial[number])])
    return Camera("SIMPLE_RADIAL", width, height, params)
