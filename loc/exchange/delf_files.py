"""DELF's own files: ``.delf`` (``.delg_local``) with the features of an image.

Messages of tensorflow/models research/delf/delf/protos: ``DelfFeatures {feature = 1}``, ``DelfFeature
{descriptor = 1 (DatumProto), x = 2, y = 3, scale = 4, orientation = 5, strength = 6}``. Positions are px of
the photo with the centre of its top-left pixel at 0. ``.boxes`` files are
:mod:`loc.weights.tensorflow.boxes`'s, ``.datum`` files :mod:`loc.weights.tensorflow.datum`'s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loc.conventions import center_from_corner, corner_from_center
from loc.errors import DataError
from loc.exchange.hloc_files import UINT8_SCALE
from loc.types import LocalFeatures
from loc.weights.tensorflow.boxes import Boxes, read_boxes, write_boxes
from loc.weights.tensorflow.datum import damaged, decode_datum, encode_datum
from loc.weights.tensorflow.wire import Message, WireError, bytes_field, float_field

ENDING = ".delf"
#: Standard deviation of a coordinate, px: a cell of 32 px at scale 1.
NOISE_PX = 9.0
#: A keypoint may lie so far outside its image, px: the last cell of an enlarged level.
_OUTSIDE_PX = 2.0
_AGAIN = "write it again with the program that made it"


def write_delf(path: Path, features: LocalFeatures, *, shrunk: float = 1.0) -> None:
    """Write one image's file; the same features give the same bytes.

    Args:
        features: stored px, corner origin. Descriptors become float32, SIFT's uint8 are divided by 512.
        shrunk: stored px per px of what the network saw; the file holds ``scales`` without it.
    """
    n = len(features)
    scales = np.ones(n, np.float32) if features.scales is None else features.scales / np.float32(shrunk)
    turns = np.zeros(n, np.float32) if features.orientations_rad is None else features.orientations_rad
    descriptors = features.descriptors.astype(np.float32)
    if features.descriptors.dtype == np.uint8:
        descriptors /= np.float32(UINT8_SCALE)
    xy = center_from_corner(features.keypoints)
    numbers = np.column_stack([xy, scales, turns, features.scores]).astype(np.float32)
    with path.open("wb") as file:
        for row, values in zip(descriptors, numbers.tolist(), strict=True):
            body = bytes_field(1, encode_datum(row))
            body += b"".join(float_field(number, value) for number, value in enumerate(values, start=2))
            file.write(bytes_field(1, body))


def read_delf(path: Path, image_wh: tuple[int, int]) -> LocalFeatures:
    """Features of one image, stored px with corner origin.

    Args:
        image_wh: size in px of the photo.

    Raises:
        DataError: the file is missing or damaged, or holds features of several dimensions, NaN, or
            keypoints outside the photo.
    """
    rows, numbers = [], []
    try:
        for feature in _message(path).messages(1):
            rows.append(decode_datum(feature.message(1)).ravel())
            numbers.append([feature.real(number) for number in range(2, 7)])
    except WireError as error:
        raise damaged(path, error) from error
    widths = sorted({row.size for row in rows})
    if len(widths) > 1:
        raise DataError(f"{path} holds descriptors of {' and '.join(map(str, widths))} numbers", _AGAIN)
    table = np.asarray(numbers, np.float32).reshape(len(rows), 5)
    descriptors = np.asarray(rows, np.float32).reshape(len(rows), widths[0] if widths else 0)
    if not np.isfinite(table).all() or not np.isfinite(descriptors).all():
        raise DataError(f"{path} holds NaN or infinity", _AGAIN)
    outside = ((table[:, :2] < -_OUTSIDE_PX) | (table[:, :2] > np.add(image_wh, _OUTSIDE_PX))).any(axis=1)
    if outside.any():
        x, y = table[np.argmax(outside), :2]
        raise DataError(
            f"{path} has a keypoint at ({x:.1f}, {y:.1f}), outside the photo of"
            f" {image_wh[0]} x {image_wh[1]} px",
            "keypoints must be in px of the photo, not of a resized copy (use_resized_coordinates)",
        )
    return LocalFeatures(
        keypoints=corner_from_center(np.ascontiguousarray(table[:, :2])),
        scores=np.ascontiguousarray(table[:, 4]),
        descriptors=descriptors,
        image_wh=image_wh,
        scales=np.ascontiguousarray(table[:, 2]),
        orientations_rad=np.ascontiguousarray(table[:, 3]),
        noise_px=NOISE_PX,
    )


def _message(path: Path) -> Message:
    try:
        return Message(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


__all__ = ["ENDING", "Boxes", "read_boxes", "read_delf", "write_boxes", "write_delf"]
