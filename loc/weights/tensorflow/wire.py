"""The wire format of protocol buffers: messages read into numbered fields, and written.

Four wire types cover everything that TensorFlow and DELF store. Written here rather than taken from the
`protobuf` package: its versions are tied to those of generated code, and what is needed is one page.
Source: Protocol Buffers, "Encoding" (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

Array = np.ndarray
Raw: TypeAlias = "int | memoryview"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}


class WireError(ValueError):
    """Bytes that are no protocol buffer, or one with another type than expected in a field."""


def read_varint(data: memoryview, start: int) -> tuple[int, int]:
    """An unsigned varint of at most 64 bits at ``start``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if start >= len(data):
            raise WireError("it ends inside a number")
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, start
    raise WireError("a number has more than 64 bits")


class Message:
    """One message: the raw values of each field in the order of the file; unknown fields do no harm.

    Nothing is decoded before it is asked for, and nothing is copied: fields are views of ``data``.

    Raises:
        WireError: ``data`` is not a sequence of complete fields.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._fields: dict[int, list[tuple[int, Raw]]] = {}
        for number, kind, value in walk(memoryview(data)):
            self._fields.setdefault(number, []).append((kind, value))

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def blobs(self, number: int) -> list[memoryview]:
        """All values of a field of bytes, strings or messages."""
        out = []
        for kind, value in self._fields.get(number, ()):
            if kind != _BYTES or isinstance(value, int):
                raise WireError(f"field {number} is no string or message")
            out.append(value)
        return out

    def blob(self, number: int) -> memoryview:
        """The last value of a field of bytes; empty if it is absent."""
        found = self.blobs(number)
        return found[-1] if found else memoryview(b"")

    def text(self, number: int) -> str:
        """A string field; empty if it is absent."""
        return _text(self.blob(number))

    def texts(self, number: int) -> list[str]:
        """All values of a string field."""
        return [_text(each) for each in self.blobs(number)]

    def message(self, number: int) -> Message:
        """A sub-message; without fields if it is absent."""
        return Message(self.blob(number))

    def messages(self, number: int) -> Iterator[Message]:
        """All sub-messages of a repeated field."""
        return (Message(each) for each in self.blobs(number))

    def ints(self, number: int) -> list[int]:
        """All values of an integer field, packed or not, as signed 64-bit numbers."""
        out = []
        for kind, value in self._fields.get(number, ()):
            if kind == _VARINT and isinstance(value, int):
                out.append(_signed(value))
            elif kind == _BYTES and not isinstance(value, int):
                start = 0
                while start < len(value):
                    each, start = read_varint(value, start)
                    out.append(_signed(each))
            else:
                raise WireError(f"field {number} is no integer")
        return out

    def number(self, number: int, default: int = 0) -> int:
        """The last value of an integer field."""
        found = self.ints(number)
        return found[-1] if found else default

    def floats(self, number: int) -> Float32[Array, " n"]:
        """All values of a float field, packed or not."""
        parts = [self._fixed(number, kind, value, _FIXED32) for kind, value in self._fields.get(number, ())]
        return np.frombuffer(b"".join(parts), "<f4").astype(np.float32)

    def real(self, number: int, default: float = 0.0) -> float:
        """The last value of a float field."""
        found = self.floats(number)
        return float(found[-1]) if len(found) else default

    def doubles(self, number: int) -> Array:
        """All values of a double field, packed or not."""
        parts = [self._fixed(number, kind, value, _FIXED64) for kind, value in self._fields.get(number, ())]
        return np.frombuffer(b"".join(parts), "<f8").astype(np.float64)

    def fixed32(self, number: int) -> int | None:
        """The last value of a fixed32 field."""
        parts = [self._fixed(number, kind, value, _FIXED32) for kind, value in self._fields.get(number, ())]
        return int(struct.unpack("<I", parts[-1][-4:])[0]) if parts else None

    def _fixed(self, number: int, kind: int, value: Raw, wanted: int) -> memoryview:
        size = _FIXED_SIZE[wanted]
        if kind not in (wanted, _BYTES) or isinstance(value, int) or len(value) % size:
            raise WireError(f"field {number} is no number of {size} bytes")
        return value


def walk(data: memoryview) -> Iterator[tuple[int, int, Raw]]:
    """Number, wire type and raw value of each field, in order."""
    start, end = 0, len(data)
    while start < end:
        tag, start = read_varint(data, start)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireError("a field has the number 0")
        if kind == _VARINT:
            value, start = read_varint(data, start)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, start = read_varint(data, start)
        elif kind in _FIXED_SIZE:
            size = _FIXED_SIZE[kind]
        else:
            raise WireError(f"field {number} has the unknown type {kind}")
        if size > end - start:
            raise WireError(f"field {number} reaches beyond the end")
        yield number, kind, data[start : start + size]
        start += size


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(data: memoryview) -> str:
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a string is not UTF-8") from error


def varint(value: int) -> bytes:
    """An integer as a varint; negative ones take ten bytes."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def int_field(number: int, value: int) -> bytes:
    """A field with one integer."""
    return varint(number << 3 | _VARINT) + varint(value)


def float_field(number: int, value: float) -> bytes:
    """A field with one float32."""
    return varint(number << 3 | _FIXED32) + struct.pack("<f", value)


def fixed32_field(number: int, value: int) -> bytes:
    """A field with one fixed32."""
    return varint(number << 3 | _FIXED32) + struct.pack("<I", value)


def bytes_field(number: int, data: bytes) -> bytes:
    """A field with bytes, a string or a message."""
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def ints_field(number: int, values: Iterable[int]) -> bytes:
    """A packed field of integers; nothing if there are none."""
    packed = b"".join(map(varint, values))
    return bytes_field(number, packed) if packed else b""


def floats_field(number: int, values: Array) -> bytes:
    """A packed field of float32; nothing if there are none."""
    packed = np.ascontiguousarray(values, "<f4").tobytes()
    return bytes_field(number, packed) if packed else b""
