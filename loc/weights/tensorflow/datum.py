"""DELF's arrays on disk: ``.datum`` files, and the pairs of arrays of its aggregated descriptors.

Messages of tensorflow/models research/delf/delf/protos/datum.proto: ``DatumProto {shape = 1 {dim = 1},
float_list = 2 {value = 1}, uint32_list = 3 {value = 1}}``, ``DatumPairProto {first = 1, second = 2}``.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from loc.errors import DataError
from loc.weights.tensorflow.wire import Message, WireError, bytes_field, floats_field, ints_field

Array = np.ndarray


def decode_datum(message: Message) -> Array:
    """The array of a DatumProto: float32, or uint32; one-dimensional if no shape is given.

    Raises:
        WireError: values and shape do not fit together.
    """
    shape = tuple(message.message(1).ints(1))
    if 3 in message:
        numbers = np.asarray(message.message(3).ints(1), np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() > 0xFFFFFFFF):
            raise WireError("a number is no uint32")
        values: Array = numbers.astype(np.uint32)
    else:
        values = message.message(2).floats(1)
    if not shape:
        return values
    if any(side < 0 for side in shape) or math.prod(shape) != values.size:
        raise WireError(f"{values.size} values do not fill the shape {shape}")
    return values.reshape(shape)


def encode_datum(values: Array) -> bytes:
    """A DatumProto of floats (as float32) or of unsigned integers of up to 32 bits."""
    if values.dtype.kind == "f":
        body = bytes_field(2, floats_field(1, values.ravel()))
    elif values.dtype.kind == "u" and values.dtype.itemsize <= 4:
        body = bytes_field(3, ints_field(1, values.ravel().tolist()))
    else:
        raise DataError(f"a datum holds floats or unsigned integers, not {values.dtype}", "convert it first")
    return bytes_field(1, ints_field(1, values.shape)) + body


def read_datum(path: Path) -> Array:
    """The array of a ``.datum`` (``.vlad``, ``.delg_global``) file.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return decode_datum(Message(path.read_bytes()))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except WireError as error:
        raise damaged(path, error) from error


def write_datum(path: Path, values: Array) -> None:
    """Write one array."""
    path.write_bytes(encode_datum(values))


def read_datum_pair(path: Path) -> tuple[Array, Array]:
    """Both arrays of a ``.asmk``, ``.asmk_star``, ``.rasmk_star`` … file: descriptors and visual words.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        message = Message(path.read_bytes())
        return decode_datum(message.message(1)), decode_datum(message.message(2))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except WireError as error:
        raise damaged(path, error) from error


def write_datum_pair(path: Path, first: Array, second: Array) -> None:
    """Write two arrays."""
    path.write_bytes(bytes_field(1, encode_datum(first)) + bytes_field(2, encode_datum(second)))


def damaged(path: Path, error: WireError) -> DataError:
    """The error for a file that is no such message."""
    return DataError(f"{path} cannot be read: {error}", "it is damaged, or of another kind")
