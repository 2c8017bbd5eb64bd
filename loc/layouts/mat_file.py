"""MAT-files of MATLAB 5 to 7.2: cells, structs, text and real numbers, and nothing else.

A reader of its own, since SciPy's believes what such a file says of itself: one wrong byte can end the
process, or keep it busy for ever. Format: The MathWorks, "MAT-File Format", level 5: elements with a tag
(kind, bytes), of which matrices hold further elements.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loc.errors import DataError

Array = np.ndarray
_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
#: Kind of an element → dtype of its numbers.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
#: Kind of an element → encoding of its text; MATLAB itself writes UTF-16 as numbers of two bytes.
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX_FLAG = 0x800
_MOST_NESTED = 32
_MAX_BYTES = 2**28


def read_mat(path: Path) -> dict[str, Any]:
    """Variables of a file by name.

    A cell array is a list, in MATLAB's order; a struct a dict, an array of them a list; text a string (a list
    if it has several rows); numbers an array of the shape in the file.

    Raises:
        DataError: no such file, of another version, more than 256 MiB, damaged, or with other things in it.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _unusable(path, f"it is larger than {_MAX_BYTES >> 20} MiB")
        return _variables(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, OverflowError, zlib.error) as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is no usable ground truth: {why}",
        "copy it again from its source, or use its .pkl or .json file",
    )


def _variables(data: bytes) -> dict[str, Any]:
    mark = data[_HEADER_BYTES - 2 : _HEADER_BYTES]
    if mark not in (b"IM", b"MI"):
        raise ValueError("it lacks the header of MATLAB 5 to 7.2")
    order = "<" if mark == b"IM" else ">"
    (version,) = struct.unpack(f"{order}H", data[_HEADER_BYTES - 4 : _HEADER_BYTES - 2])
    if version != 0x0100:
        raise ValueError("it is of MATLAB 7.3 or unknown; save it with -v7")
    found, left = {}, _MAX_BYTES
    for kind, body in _elements(memoryview(data)[_HEADER_BYTES:], order):
        elements = [(kind, body)]
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            inflated = inflater.decompress(body, left)
            if not inflater.eof:
                raise ValueError(f"a variable is cut off, or all are larger than {_MAX_BYTES >> 20} MiB")
            left -= len(inflated)
            elements = list(_elements(memoryview(inflated), order))
        for each, part in elements:
            if each != _MATRIX:
                raise ValueError(f"a variable of kind {each}")
            name, value = _matrix(part, order, 0)
            found[name] = value
    return found


def _matrix(body: memoryview, order: str, depth: int) -> tuple[str, Any]:
    """Name and value of an array; what is inside of others has no name."""
    if depth > _MOST_NESTED:
        raise ValueError(f"arrays within arrays, more than {_MOST_NESTED} deep")
    if not len(body):
        return "", np.zeros((0, 0))
    elements = _elements(body, order)
    flags, shape = _integers(elements, order, "u4"), _integers(elements, order, "i4")
    if len(flags) != 2 or len(shape) < 2 or min(shape) < 0:
        raise ValueError("an array without class or shape")
    name = _text(*_next(elements), order)
    kind, count = flags[0] & 255, math.prod(shape)
    if kind == _CELL:
        return name, [_inner(elements, order, depth) for _ in range(_there(count, body))]
    if kind == _STRUCT:
        return name, _structs(elements, order, depth, count=_there(count, body))
    if kind == _CHAR:
        return name, _rows(_text(*_next(elements), order), shape)
    if kind not in _NUMERIC or flags[0] & _COMPLEX_FLAG:
        raise ValueError(f"{name or 'something'} is no cell array, struct, text or array of real numbers")
    return name, _numbers(*_next(elements), order).reshape(shape, order="F")


def _structs(elements: Iterator[tuple[int, memoryview]], order: str, depth: int, *, count: int) -> Any:
    width = _integers(elements, order, "i4")
    _, names = _next(elements)
    if len(width) != 1 or width[0] < 1 or len(names) % width[0]:
        raise ValueError("a struct without names of its fields")
    parts = [bytes(names[at : at + width[0]]) for at in range(0, len(names), width[0])]
    fields = [part.split(b"\0")[0].decode("latin-1") for part in parts]
    if not fields:
        raise ValueError("a struct without fields")
    found = [{field: _inner(elements, order, depth) for field in fields} for _ in range(count)]
    return found[0] if count == 1 else found


def _inner(elements: Iterator[tuple[int, memoryview]], order: str, depth: int) -> Any:
    kind, body = _next(elements)
    if kind != _MATRIX:
        raise ValueError(f"a member of kind {kind}")
    return _matrix(body, order, depth + 1)[1]


def _there(count: int, body: memoryview) -> int:
    """The number of members, each of which has a tag of eight bytes."""
    if count * 8 > len(body):
        raise ValueError(f"it announces {count} members, and ends before")
    return count


def _rows(text: str, shape: list[int]) -> str | list[str]:
    if shape[0] <= 1:  # their length may count bytes or halves of characters
        return text
    if math.prod(shape) != len(text) or len(shape) > 2:
        raise ValueError("text of another shape than announced")
    return [text[row :: shape[0]].rstrip() for row in range(shape[0])]


def _text(kind: int, body: memoryview, order: str) -> str:
    if kind not in _TEXT:
        raise ValueError(f"text of kind {kind}")
    encoding = _TEXT[kind]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return bytes(body).decode(encoding)


def _numbers(kind: int, body: memoryview, order: str) -> Array:
    if kind not in _NUMBERS:
        raise ValueError(f"numbers of kind {kind}")
    return np.frombuffer(body, np.dtype(order + _NUMBERS[kind]))


def _integers(elements: Iterator[tuple[int, memoryview]], order: str, dtype: str) -> list[int]:
    kind, body = _next(elements)
    if _NUMBERS.get(kind) != dtype:
        raise ValueError(f"integers of kind {kind}")
    found: list[int] = _numbers(kind, body, order).tolist()
    return found


def _next(elements: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    found = next(elements, None)
    if found is None:
        raise ValueError("an array ends before its members")
    return found


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of elements one after another."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError("an element without a tag")
        kind, size = struct.unpack(f"{order}II", data[at : at + 8])
        start = at + 8
        if kind >> 16:  # small: size, kind and up to four bytes in eight
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError("an element is longer than what holds it")
        yield kind, data[start : start + size]
        at = start + size
        at += 0 if kind == _COMPRESSED else -at % 8
