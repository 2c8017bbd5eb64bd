"""TensorFlow's tensor bundles: ``<prefix>.index``, a sorted table as LevelDB writes it, and its data shards.

Sources: tensorflow/core/util/tensor_bundle (format), tensorflow/core/protobuf/tensor_bundle.proto,
tensorflow/core/lib/io/table (LevelDB's table format). Every size is checked against the file before
anything is read, and every block and tensor against its CRC-32C.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loc.errors import WeightsError
from loc.weights.tensorflow.crc import crc32c, masked
from loc.weights.tensorflow.wire import Message, WireError, read_varint

Array = np.ndarray

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # a byte for the compression, four for the checksum
_STRING = 7
#: DataType of TensorFlow → how its tensors lie in the shards.
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
_AGAIN = "it is damaged or incomplete: unpack or fetch the archive again"


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies, and what it is."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int | None


class Bundle:
    """The tensors of a checkpoint or of the ``variables`` of a SavedModel.

    Args:
        prefix: path without ``.index``.

    Raises:
        WeightsError: the index is missing, damaged, compressed or written by a big-endian machine.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.index = prefix.with_name(prefix.name + ".index")
        try:
            data = self.index.read_bytes()
        except OSError as error:
            raise WeightsError(
                f"there is no tensor bundle {self.index}: {error.strerror}",
                "a TensorFlow checkpoint is NAME.index beside NAME.data-00000-of-00001",
            ) from error
        try:
            self._read_index(data)
        except WireError as error:
            raise self._damaged(str(error)) from error

    def _read_index(self, data: bytes) -> None:
        entries: dict[str, Entry] = {}
        self._shards = 0
        for key, value in self._table(memoryview(data)):
            if key == b"":
                header = Message(value)
                self._shards = header.number(1)
                if header.number(2) != 0:
                    raise self._damaged("it was written by a big-endian machine")
                continue
            entry = _entry(key, Message(value))
            if entry.name in entries:
                raise self._damaged(f"{entry.name} stands in it twice")
            entries[entry.name] = entry
        if self._shards < 1:
            raise self._damaged("it has no header")
        self.entries = dict(sorted(entries.items()))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by name."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self, name: str) -> Array:
        """One tensor of numbers, as a copy in memory.

        Raises:
            WeightsError: it is not there, no array of numbers, reaches beyond its shard, or its checksum
                is wrong.
        """
        entry = self._known(name)
        if entry.dtype not in _DTYPES:
            raise WeightsError(
                f"{self.prefix}: {name} has TensorFlow's data type {entry.dtype}, which no network here uses",
                "only numbers of 1 to 8 bytes are read",
            )
        kind = np.dtype(_DTYPES[entry.dtype])
        if math.prod(entry.shape) * kind.itemsize != entry.size:
            raise self._damaged(f"{name} of shape {entry.shape} cannot have {entry.size} bytes")
        raw = self._bytes(entry)
        if entry.crc is not None and masked(crc32c(raw)) != entry.crc:
            raise self._damaged(f"the checksum of {name} is wrong")
        return np.frombuffer(raw, kind).reshape(entry.shape).astype(kind.newbyteorder("="))

    def read_string(self, name: str) -> bytes:
        """A scalar string tensor (the object graph of a TF2 checkpoint): length, four bytes, bytes."""
        entry = self._known(name)
        raw = memoryview(self._bytes(entry))
        if entry.dtype != _STRING or entry.shape:
            raise WeightsError(f"{self.prefix}: {name} is no single string", _AGAIN)
        try:
            length, start = read_varint(raw, 0)
        except WireError as error:
            raise self._damaged(f"{name}: {error}") from error
        if start + 4 + length != len(raw):
            raise self._damaged(f"{name} has another length than it says")
        return bytes(raw[start + 4 :])

    def _known(self, name: str) -> Entry:
        if name not in self.entries:
            raise WeightsError(f"{self.prefix} has no tensor {name}", f"it has {len(self.entries)} others")
        return self.entries[name]

    def _bytes(self, entry: Entry) -> bytes:
        if not 0 <= entry.shard < self._shards:
            raise self._damaged(f"{entry.name} lies in shard {entry.shard} of {self._shards}")
        shard = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self._shards:05d}")
        try:
            length = shard.stat().st_size
            if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > length:
                raise WeightsError(
                    f"{shard} is truncated: {entry.name} ends at byte {entry.offset + entry.size}, the file"
                    f" at {length}",
                    _AGAIN,
                )
            with shard.open("rb") as file:
                file.seek(entry.offset)
                return file.read(entry.size)
        except OSError as error:
            raise WeightsError(f"cannot read {shard}: {error.strerror}", _AGAIN) from error

    def _table(self, data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        """Keys and values in the order of the table."""
        if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
            raise WireError("it does not end as a table does")
        footer = data[-_FOOTER:]
        _, start = _handle(footer, 0)
        index, _ = _handle(footer, start)
        for _, value in _block(self._checked(data, index)):
            handle, _ = _handle(value, 0)
            yield from _block(self._checked(data, handle))

    def _checked(self, data: memoryview, handle: tuple[int, int]) -> memoryview:
        start, size = handle
        if size > len(data) or start > len(data) or start + size + _TRAILER > len(data) - _FOOTER:
            raise WireError("a block reaches beyond the end")
        kind = data[start + size]
        if kind != 0:
            raise WireError(f"a block is compressed (type {kind}), which TensorFlow does not do")
        if masked(crc32c(data[start : start + size + 1])) != int.from_bytes(
            data[start + size + 1 : start + size + _TRAILER], "little"
        ):
            raise WireError("the checksum of a block is wrong")
        return data[start : start + size]

    def _damaged(self, what: str) -> WeightsError:
        return WeightsError(f"{self.index} cannot be read: {what}", _AGAIN)


def _handle(data: memoryview, start: int) -> tuple[tuple[int, int], int]:
    offset, start = read_varint(data, start)
    size, start = read_varint(data, start)
    return (offset, size), start


def _block(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Entries of a block: each key shares a prefix with the one before it."""
    if len(data) < 4:
        raise WireError("a block is too short")
    end = len(data) - 4 - 4 * int.from_bytes(data[-4:], "little")
    if end < 0:
        raise WireError("a block has more restarts than bytes")
    key, start = b"", 0
    while start < end:
        shared, start = read_varint(data, start)
        fresh, start = read_varint(data, start)
        length, start = read_varint(data, start)
        if shared > len(key) or start + fresh + length > end:
            raise WireError("an entry of a block reaches beyond its end")
        key = key[:shared] + bytes(data[start : start + fresh])
        start += fresh
        yield key, data[start : start + length]
        start += length


def _entry(key: bytes, message: Message) -> Entry:
    if message.blobs(7):
        raise WireError("it holds slices of tensors (a partitioned variable)")
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a name is not UTF-8") from error
    shape = tuple(each.number(1) for each in message.message(2).messages(2))
    if any(side < 0 for side in shape):
        raise WireError(f"{name} has a side of negative length")
    return Entry(
        name=name,
        dtype=message.number(1),
        shape=shape,
        shard=message.number(3),
        offset=message.number(4),
        size=message.number(5),
        crc=message.fixed32(6),
    )
