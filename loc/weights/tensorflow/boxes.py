"""DELF's ``.boxes`` files: regions of an image that a detector found.

Messages of tensorflow/models research/delf/delf/protos/box.proto: ``Boxes {box = 1}``, ``Box {ymin = 1,
xmin = 2, ymax = 3, xmax = 4, score = 5, class_index = 6}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from loc.errors import DataError
from loc.weights.tensorflow.datum import damaged
from loc.weights.tensorflow.wire import Message, WireError, bytes_field, float_field, int_field

Array = np.ndarray
ENDING = ".boxes"
_AGAIN = "write it again with the program that made it"


@dataclass(frozen=True, eq=False)
class Boxes:
    """Regions of an image, as a detector found them.

    Attributes:
        boxes: ``(n, 4)`` ymin, xmin, ymax, xmax, in [0, 1] of the image's sides.
        scores: ``(n,)``; classes: ``(n,)``.
    """

    boxes: Float32[Array, "n 4"]
    scores: Float32[Array, " n"]
    classes: Int32[Array, " n"]


def write_boxes(path: Path, boxes: Boxes) -> None:
    """Write one image's regions."""
    table = np.column_stack([boxes.boxes, boxes.scores]).astype(np.float32)
    with path.open("wb") as file:
        for values, kind in zip(table.tolist(), boxes.classes.tolist(), strict=True):
            body = b"".join(float_field(number, value) for number, value in enumerate(values, start=1))
            file.write(bytes_field(1, body + int_field(6, kind)))


def read_boxes(path: Path) -> Boxes:
    """Regions of one image.

    Raises:
        DataError: the file is missing or damaged, or holds NaN.
    """
    numbers, kinds = [], []
    try:
        for box in Message(path.read_bytes()).messages(1):
            numbers.append([box.real(number) for number in range(1, 6)])
            kinds.append(box.number(6))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except WireError as error:
        raise damaged(path, error) from error
    table = np.asarray(numbers, np.float32).reshape(len(numbers), 5)
    if not np.isfinite(table).all() or any(not -(2**31) <= kind < 2**31 for kind in kinds):
        raise DataError(f"{path} holds NaN, infinity or a class that is no number of 32 bits", _AGAIN)
    return Boxes(
        np.ascontiguousarray(table[:, :4]), np.ascontiguousarray(table[:, 4]), np.asarray(kinds, np.int32)
    )
