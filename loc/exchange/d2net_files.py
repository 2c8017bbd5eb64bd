"""D2-Net's own files: ``<image>.d2-net``, an npz of keypoints, scores and descriptors.

Source of the layout: github.com/mihaidusmanu/d2-net, ``extract_features.py``. ``keypoints (n, 3)`` are x and
y in px of the photo, origin in the centre of its top-left pixel, and 1 / scale of the pyramid level;
``scores (n,)``; ``descriptors (n, 512)`` of unit norm. The local-feature benchmark of
visuallocalization.net reads the same layout, with two columns of keypoints.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from loc.conventions import center_from_corner, corner_from_center
from loc.errors import DataError
from loc.exchange.hloc_files import UINT8_SCALE
from loc.types import Array, LocalFeatures

ENDING = ".d2-net"
#: What is read; other members of a file are left alone.
_MEMBERS = ("keypoints", "scores", "descriptors")
#: Standard deviation of a coordinate, px: cells of four px, localized to less than one.
NOISE_PX = 2.0
#: Bounds on what a file may claim: bytes of an array, and how far it may inflate beyond the first MiB
#: (descriptors after a ReLU deflate to a third; a bomb inflates a thousandfold).
_MOST_BYTES, _MOST_INFLATED, _FREE_BYTES = 4 << 30, 50, 1 << 20
_MOST_HEADER = 10_000
#: A keypoint may lie so far outside its image, px: rounding of sizes in a resize.
_OUTSIDE_PX = 2.0
_AGAIN = "write it again with the program that made it"
#: What zipfile, zlib and NumPy raise on damaged or crafted files.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    RuntimeError,  # encrypted, or nested too deep
    NotImplementedError,
    MemoryError,
    OverflowError,
)


def write_d2net(path: Path, features: LocalFeatures, *, shrunk: float = 1.0) -> None:
    """Write one image's file; the same features give the same bytes.

    Args:
        features: stored px, corner origin. float16 descriptors become float32, SIFT's uint8 are divided by
            512: exact both.
        shrunk: stored px per px of what the network saw; the third column is ``scales`` without it.
    """
    n = len(features)
    scales = np.ones(n, np.float32) if features.scales is None else features.scales
    descriptors = features.descriptors.astype(np.float32)
    if features.descriptors.dtype == np.uint8:
        descriptors /= np.float32(UINT8_SCALE)
    with path.open("wb") as file:  # a name would get .npz appended
        np.savez(
            file,
            keypoints=np.column_stack(
                [center_from_corner(features.keypoints), scales / np.float32(shrunk)]
            ).astype(np.float32),
            scores=features.scores.astype(np.float32),
            descriptors=descriptors,
        )


def read_d2net(path: Path, image_wh: tuple[int, int]) -> LocalFeatures:
    """Features of one image, stored px with corner origin. No code in the file ever runs.

    Args:
        image_wh: size in px of the photo.

    Returns:
        ``descriptors (n, d)`` float32 or float16 as in the file; ``scales`` as in its third column.

    Raises:
        DataError: no npz, arrays that are missing, objects, of the wrong shape or not finite, keypoints
            outside the photo, or an archive that claims or inflates to more than features can be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _member(archive, name, path) for name in _MEMBERS}
    except _DAMAGE as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged or no {ENDING} file (npz): {said}", _AGAIN) from error
    keypoints, scores, descriptors = (arrays[name] for name in _MEMBERS)
    _check_shapes(keypoints, scores, descriptors, path)
    xy = np.ascontiguousarray(keypoints[:, :2], np.float32)
    scales = np.ascontiguousarray(keypoints[:, 2], np.float32) if keypoints.shape[1] == 3 else None
    scores = scores.astype(np.float32)
    if descriptors.dtype != np.float16:
        descriptors = descriptors.astype(np.float32)
    for name, values in (("keypoints", keypoints), ("scores", scores), ("descriptors", descriptors)):
        if not np.isfinite(values).all():
            raise DataError(f"{name} of {path} hold NaN or infinity", _AGAIN)
    _check_inside(xy, image_wh, path)
    return LocalFeatures(
        keypoints=corner_from_center(xy),
        scores=scores,
        descriptors=np.ascontiguousarray(descriptors),
        image_wh=image_wh,
        scales=scales,
        noise_px=NOISE_PX,
    )


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Array:
    """One array; its header is believed only as far as the archive's directory bears it out."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        here = ", ".join(archive.namelist()[:6])[:200]
        raise DataError(f"{path} has no {name}; it has: {here or 'nothing'}", _AGAIN) from error
    if info.file_size > _MOST_BYTES or (
        info.file_size > _FREE_BYTES and info.file_size > _MOST_INFLATED * info.compress_size
    ):
        raise DataError(
            f"{name} of {path} would inflate from {info.compress_size} to {info.file_size} bytes",
            "features do not shrink so far: it was not opened",
        )
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file)
        if dtype.hasobject or dtype.kind != "f" or dtype.itemsize > 8:
            raise DataError(
                f"{name} of {path} are {dtype}, expected floats",
                "objects could run code when they are read: the file was not opened",
            )
        nbytes = dtype.itemsize * int(np.prod(shape, dtype=object))
        data = file.read(nbytes + 1)
    if len(data) != nbytes:
        raise DataError(f"{name} of {path} are {len(data)} bytes, {shape} of {dtype} are {nbytes}", _AGAIN)
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file, max_header_size=_MOST_HEADER)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file, max_header_size=_MOST_HEADER)
    raise ValueError(f"arrays of version {version[0]}.{version[1]}")


def _check_shapes(keypoints: Array, scores: Array, descriptors: Array, path: Path) -> None:
    n = len(keypoints) if keypoints.ndim == 2 else -1
    for name, values, fits, expected in (
        ("keypoints", keypoints, n >= 0 and keypoints.shape[1] in (2, 3), "(n, 3): x, y, scale"),
        ("scores", scores, scores.shape == (n,), f"({n},): one per keypoint"),
        (
            "descriptors",
            descriptors,
            descriptors.ndim == 2 and len(descriptors) == n and (n == 0 or descriptors.shape[1] > 0),
            f"({n}, 512): a row per keypoint",
        ),
    ):
        if not fits:
            raise DataError(f"{name} of {path} are {values.shape}, expected {expected}", _AGAIN)


def _check_inside(xy: Array, image_wh: tuple[int, int], path: Path) -> None:
    outside = ((xy < -_OUTSIDE_PX) | (xy > np.add(image_wh, _OUTSIDE_PX))).any(1)
    if outside.any():
        x, y = xy[np.argmax(outside)]
        raise DataError(
            f"{path} has a keypoint at ({x:.1f}, {y:.1f}), outside the photo of "
            f"{image_wh[0]} x {image_wh[1]} px",
            "keypoints must be in px of the photos given by --images, not of a resized copy",
        )


__all__ = ["ENDING", "read_d2net", "write_d2net"]
