"""MAT-files of MATLAB 5 to 7.2: cells, structs, text and real numbers, and nothing else.

A reader of its own, since SciPy's believes what such a file says of itself: one wrong byte can end the
process, or keep it busy for ever. Format: The MathWorks, "MAT-File Format", level 5: elements with a tag
(kind, bytes), of which matrices hold further elements.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from loc.errors import DataError

Array = np.ndarray
#: Kind and content of an element.
Element = tuple[int, memoryview]
_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
#: Kind of an element → dtype of its numbers.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
#: Kind of an element → encoding of its text; MATLAB itself writes UTF-16 as numbers of two bytes.
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX_FLAG = 0x800
_MOST_NESTED, _MOST_AXES, _MOST_FIELDS = 32, 32, 4096
#: Arrays and lines of text together: the smallest takes eight bytes in a file, and hundreds in memory.
_MOST_VALUES = 2**21
_MAX_BYTES = 2**28
_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Unread:
    """Stands for an array of a class that is not read: complex, sparse, an object, a function."""

    number: int


def read_mat(path: Path, *, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """Variables of a file by name.

    A cell array is a list, in MATLAB's order; a struct a dict, an array of them a list; text a string (a list
    if it has several rows); numbers an array of the shape in the file; anything else is :class:`Unread`.

    Memory is that of the content, uncompressed, whatever the file says. Arrays of numbers are views of it:
    they cannot be written to, and the smallest of them keeps all of it.

    Args:
        max_bytes: of the file, and of its content.

    Raises:
        DataError: no such file, of another version, more than ``max_bytes``, or damaged.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size > max_bytes:
                raise ValueError(f"it is larger than {max_bytes >> 20} MiB")
            return _variables(file, size, max_bytes)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, OverflowError, zlib.error) as error:
        raise DataError(f"{path} is no usable MAT-file: {error}", "copy it again from its source") from error


def _variables(file: BinaryIO, size: int, max_bytes: int) -> dict[str, Any]:
    header = file.read(_HEADER_BYTES)
    mark = header[_HEADER_BYTES - 2 :]
    if mark not in (b"IM", b"MI"):
        raise ValueError("it lacks the header of MATLAB 5 to 7.2")
    order = "<" if mark == b"IM" else ">"
    (version,) = struct.unpack(f"{order}H", header[_HEADER_BYTES - 4 : _HEADER_BYTES - 2])
    if version != 0x0100:
        raise ValueError("it is of MATLAB 7.3 or unknown; save it with -v7")
    found, matrices = {}, _Matrices(order)
    while (at := file.tell()) < size:
        tag = file.read(8)
        if len(tag) < 8:
            raise ValueError("a variable without a tag")
        kind, length = struct.unpack(f"{order}II", tag)
        if length > size - at - 8:
            raise ValueError("a variable is longer than the file")
        if kind == _COMPRESSED:
            content = _inflated(file, length, max_bytes)
            max_bytes -= len(content)
            elements = _elements(memoryview(content).toreadonly(), order)
        else:
            elements = iter([(kind, memoryview(file.read(length)))])
        for each, body in elements:
            if each != _MATRIX:
                raise ValueError(f"a variable of kind {each}")
            name, value = matrices.read(body)
            found[name] = value
    return found


def _inflated(file: BinaryIO, length: int, most: int) -> bytearray:
    """The content of ``length`` bytes of a file, in pieces: it is never there twice."""
    inflater, out = zlib.decompressobj(), bytearray()
    while length and not inflater.eof:
        piece = file.read(min(length, _PIECE_BYTES))
        length -= len(piece)
        while piece and not inflater.eof:
            out += inflater.decompress(piece, _PIECE_BYTES)
            piece = inflater.unconsumed_tail
            if len(out) > most:
                raise ValueError(f"its content is larger than {most >> 20} MiB")
    if not inflater.eof:
        raise ValueError("a variable is cut off")
    file.seek(length, os.SEEK_CUR)
    return out


class _Matrices:
    """Reads arrays, and no more of them than memory is there for."""

    def __init__(self, order: str) -> None:
        self._order = order
        self._left = _MOST_VALUES

    def read(self, body: memoryview, depth: int = 0) -> tuple[str, Any]:
        """Name and value of an array; what is inside of others has no name."""
        if depth > _MOST_NESTED:
            raise ValueError(f"arrays within arrays, more than {_MOST_NESTED} deep")
        self._spend(1)
        if not len(body):
            return "", np.zeros((0, 0))
        elements = _elements(body, self._order)
        flags = self._integers(elements, "u4", most=2)
        if len(flags) != 2:
            raise ValueError("an array without class")
        kind = flags[0] & 255
        if kind not in (_CELL, _STRUCT, _CHAR, *_NUMERIC) or flags[0] & _COMPLEX_FLAG:
            return self._name_of_unread(elements), Unread(kind)
        shape = self._integers(elements, "i4", most=_MOST_AXES)
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError("an array without shape")
        name = self._text(elements)
        count = math.prod(shape)
        if kind == _CELL:
            return name, [self._inner(elements, depth) for _ in range(_there(count, body))]
        if kind == _STRUCT:
            return name, self._structs(elements, depth, count=_there(count, body))
        if kind == _CHAR:
            return name, self._rows(self._text(elements), shape)
        return name, _numbers(*_next(elements), self._order).reshape(shape, order="F")

    def _spend(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise ValueError(f"it holds more than {_MOST_VALUES} arrays and lines of text")

    def _name_of_unread(self, elements: Iterator[Element]) -> str:
        """The element after the shape, which some classes do not have."""
        kind, body = _next(elements)
        if _NUMBERS.get(kind) == "i4":
            _, body = _next(elements)
        return bytes(body).decode("latin-1")

    def _structs(self, elements: Iterator[Element], depth: int, *, count: int) -> Any:
        width = self._integers(elements, "i4", most=1)
        _, names = _next(elements)
        if len(width) != 1 or width[0] < 1 or len(names) % width[0] or len(names) // width[0] > _MOST_FIELDS:
            raise ValueError("a struct without names of its fields")
        parts = [bytes(names[at : at + width[0]]) for at in range(0, len(names), width[0])]
        fields = [part.split(b"\0")[0].decode("latin-1") for part in parts]
        if not fields:
            self._spend(count)
        found = [{field: self._inner(elements, depth) for field in fields} for _ in range(count)]
        return found[0] if count == 1 else found

    def _inner(self, elements: Iterator[Element], depth: int) -> Any:
        kind, body = _next(elements)
        if kind != _MATRIX:
            raise ValueError(f"a member of kind {kind}")
        return self.read(body, depth + 1)[1]

    def _rows(self, text: str, shape: list[int]) -> str | list[str]:
        if shape[0] <= 1:  # their length may count bytes or halves of characters
            return text
        if math.prod(shape) != len(text) or len(shape) > 2:
            raise ValueError("text of another shape than announced")
        self._spend(shape[0])
        return [text[row :: shape[0]].rstrip() for row in range(shape[0])]

    def _text(self, elements: Iterator[Element]) -> str:
        kind, body = _next(elements)
        if kind not in _TEXT:
            raise ValueError(f"text of kind {kind}")
        encoding = _TEXT[kind]
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._order == "<" else "-be"
        return bytes(body).decode(encoding)

    def _integers(self, elements: Iterator[Element], dtype: str, *, most: int) -> list[int]:
        kind, body = _next(elements)
        if _NUMBERS.get(kind) != dtype or len(body) > most * 4:
            raise ValueError(f"{len(body)} bytes of kind {kind} in place of at most {most} integers")
        found: list[int] = _numbers(kind, body, self._order).tolist()
        return found


def _there(count: int, body: memoryview) -> int:
    """The number of members, each of which has a tag of eight bytes."""
    if count * 8 > len(body):
        raise ValueError(f"it announces {count} members, and ends before")
    return count


def _numbers(kind: int, body: memoryview, order: str) -> Array:
    if kind not in _NUMBERS:
        raise ValueError(f"numbers of kind {kind}")
    return np.frombuffer(body, np.dtype(order + _NUMBERS[kind]))


def _next(elements: Iterator[Element]) -> Element:
    found = next(elements, None)
    if found is None:
        raise ValueError("an array ends before its members")
    return found


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Elements one after another."""
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
        at += -at % 8
