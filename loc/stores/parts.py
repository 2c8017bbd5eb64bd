"""Stores of immutable parts: what a kill cannot hurt.

A store is a folder of ``parts/<writer>-<n>.h5``. A part is written under a temporary name, closed,
and renamed, after at most 64 items, 30 s of work or 128 MiB, so a kill loses no more than that and
never damages what is there (one HDF5 file written in place does not survive kills). Any number of
writers may work on one store; the index over the parts is rebuilt on opening. Removal is a
tombstone. An item's key is its image's name and content hash, so a changed photo is a new item.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import h5py
import numpy as np

from loc.errors import ContractError, StoreError
from loc.stores.files import (
    RUN_AGAIN,
    host,
    make_folder,
    read_sealed,
    remove_orphans,
    require_space,
    sync,
    write_sealed,
    writing,
)

FORMAT = 1
MAX_ITEMS = 64
MAX_SECONDS = 30.0
MAX_BYTES = 128 << 20
#: At least what HDF5 adds to an image, and to a part: groups, headers, checksums.
_ITEM_BYTES = 8 << 10
_OPEN_FILES = 32
_CHUNK_BYTES = 1 << 20
#: What reading a part that is damaged, or was made by something else, may raise.
_DAMAGE = (
    *(KeyError, IndexError, OSError, ValueError, TypeError, AttributeError, RuntimeError),
    *(OverflowError, MemoryError, ContractError),
)
T = TypeVar("T")
K = TypeVar("K")


class ItemKey(NamedTuple):
    """Name of an image and hash of its bytes (and of its mask's)."""

    name: str
    content: str


class PartStore(ABC, Generic[K, T]):
    """Base of the stores: parts on disk, an index in memory.

    Args:
        folder: the store; created on the first write.
        fields: what its fingerprint covers, written to ``store.json``.
    """

    kind: str
    max_items = MAX_ITEMS

    def __init__(self, folder: Path, fields: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.fields = fields if fields is not None else self._read_fields()
        self._files: OrderedDict[Path, h5py.File] = OrderedDict()
        self._parts: list[Path] = []
        self._index: dict[K, tuple[int, int, Any]] = {}
        self.refresh()

    # ---- what a store of a kind defines

    @abstractmethod
    def _write_part(self, file: h5py.File, items: list[tuple[K, T]]) -> None: ...

    @abstractmethod
    def _read_index(self, file: h5py.File) -> Iterable[tuple[K, Any]]:
        """Keys of a part, in the order of its rows, each with what is known without reading it."""

    @abstractmethod
    def _nbytes(self, item: T) -> int: ...

    # ---- reading

    def refresh(self) -> None:
        """Read the index of parts that appeared since the last time."""
        parts = sorted((self.folder / "parts").glob("[!.]*.h5"))
        removed, known = self._removed(), set(self._parts)
        for path in parts:
            if path in known:
                continue
            self._parts.append(path)
            number = len(self._parts) - 1
            gone = {tuple(key) for key in removed.get(path.name, [])}
            for row, (key, meta) in enumerate(self._part_keys(path)):
                if not gone or tuple(_flat(key)) not in gone:
                    self._index.setdefault(key, (number, row, meta))

    def __contains__(self, key: K) -> bool:
        return key in self._index

    def __len__(self) -> int:
        return len(self._index)

    def keys(self) -> list[K]:
        """All keys, sorted."""
        return sorted(self._index, key=lambda key: [*_flat(key)])

    def missing(self, keys: Iterable[K]) -> list[K]:
        """Those of ``keys`` that the store does not hold, in their order."""
        return [key for key in keys if key not in self._index]

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self._parts)

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()

    # ---- writing

    @contextmanager
    def writer(self) -> Iterator[PartWriter[K, T]]:
        """A writer whose finished items survive whatever ends the block."""
        make_folder(self.folder / "parts")
        if not (self.folder / "store.json").exists():
            write_sealed(
                self.folder / "store.json", {"kind": self.kind, "format": FORMAT, "fields": self.fields}
            )
        remove_orphans(self.folder / "parts", prefix=".")
        writer = PartWriter(self)
        try:
            yield writer
        finally:
            writer.flush()
            self.refresh()

    def remove(self, keys: Iterable[K]) -> None:
        """Forget items: a tombstone per part, the parts themselves stay as they are."""
        gone: dict[str, list[list[str]]] = {}
        for key in keys:
            if key in self._index:
                number = self._index.pop(key)[0]
                gone.setdefault(self._parts[number].name, []).append([*_flat(key)])
        if gone:
            write_sealed(self.folder / "parts" / f"removed-{uuid.uuid4().hex[:12]}.json", gone)

    # ---- internals

    def _location(self, key: K) -> tuple[h5py.File, int]:
        try:
            number, row, _ = self._index[key]
        except KeyError:
            raise StoreError(
                f"{' / '.join(_flat(key))} is not in the store {self.folder}",
                "run the stage that fills it again",
            ) from None
        return self._open(self._parts[number]), row

    def _open(self, path: Path) -> h5py.File:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        while len(self._files) >= _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        try:
            self._files[path] = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise _damaged(path, error) from error
        return self._files[path]

    def _part_keys(self, path: Path) -> list[tuple[K, Any]]:
        file = self._open(path)
        try:
            if file.attrs["kind"] != self.kind or file.attrs["format"] != FORMAT:
                raise StoreError(f"{path} is not a part of a store of {self.kind}", f"delete {path}")
            return list(self._read_index(file))
        except _DAMAGE as error:
            raise _damaged(path, error) from error

    @contextmanager
    def _reading(self, file: h5py.File) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise _damaged(Path(file.filename), error) from error

    def _removed(self) -> dict[str, list[list[str]]]:
        out: dict[str, list[list[str]]] = {}
        for path in sorted((self.folder / "parts").glob("removed-*.json")):
            cure = f"delete {path}: what it had removed is in the store again"
            for part, keys in read_sealed(path, cure=cure).items():
                out.setdefault(part, []).extend(keys)
        return out

    def _read_fields(self) -> dict[str, Any]:
        path = self.folder / "store.json"
        if not path.is_file() and (self.folder / "parts").is_dir():
            return {}  # only a note of what the parts are; they say of what kind themselves
        manifest = read_sealed(path, cure=f"delete {path}: the parts beside it stay as they are")
        if manifest.get("kind") != self.kind:
            raise StoreError(
                f"{self.folder} holds {manifest.get('kind')}, expected {self.kind}",
                f"give the folder of a store of {self.kind}",
            )
        fields: dict[str, Any] = manifest.get("fields", {})
        return fields


class PartWriter(Generic[K, T]):
    """Collects items and writes a part when enough have gathered."""

    def __init__(self, store: PartStore[K, T]) -> None:
        self._store = store
        self._items: list[tuple[K, T]] = []
        self._buffered: set[str] = set()
        self._bytes = 0
        self._since = time.monotonic()
        self._number = 0
        self._name = f"{host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def put(self, key: K, item: T) -> None:
        """Add an item; it is on disk after the next flush."""
        if isinstance(key, ItemKey):
            if key.name in self._buffered:
                self.flush()  # the same photo with other bytes: names are unique within a part
            self._buffered.add(key.name)
        self._items.append((key, item))
        self._bytes += self._store._nbytes(item)
        full = len(self._items) >= self._store.max_items or self._bytes >= MAX_BYTES
        if full or time.monotonic() - self._since >= MAX_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered as one part."""
        if not self._items:
            return
        folder = self._store.folder / "parts"
        final = folder / f"{self._name}-{self._number:05d}.h5"
        temporary = folder / f".{final.name}.tmp"
        require_space(folder, self._bytes + _ITEM_BYTES * (len(self._buffered) + 1))
        with writing(folder):
            try:
                # A part is written once and closed, so the newer format is safe; it spends 2 kB on
                # an image's data sets where the default spends 18.
                with h5py.File(temporary, "w", locking=False, libver=("v110", "v110")) as file:
                    file.attrs["kind"] = self._store.kind
                    file.attrs["format"] = FORMAT
                    self._store._write_part(file, self._items)
                sync(temporary)
                temporary.rename(final)
                sync(folder)
            finally:
                temporary.unlink(missing_ok=True)
        self._number += 1
        self._items, self._bytes, self._since = [], 0, time.monotonic()
        self._buffered.clear()


def create_dataset(group: h5py.Group, name: str, data: np.ndarray) -> None:
    """A data set with a checksum, so that a flipped bit is an error and not a number."""
    if not data.size:
        group.create_dataset(name, data=data)
        return
    # By h5py's low-level calls: a tenth of the time of writing an image's features lies between
    # `create_dataset` and these. Chunks that fit the cache are summed twice as fast as large ones.
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    rows = max(1, _CHUNK_BYTES * len(data) // data.nbytes)
    layout.set_chunk((min(rows, len(data)), *data.shape[1:]))
    layout.set_fletcher32()
    layout.set_obj_track_times(False)
    space = h5py.h5s.create_simple(data.shape)
    dtype = h5py.h5t.py_create(data.dtype, logical=True)
    dataset = h5py.h5d.create(group.id, name.encode(), dtype, space, dcpl=layout)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(data))


def write_rows(file: h5py.File, rows: list[Any]) -> None:
    """Index of a part: JSON in the attributes of the root (no data set that hloc would list)."""
    text = json.dumps(rows, ensure_ascii=False).encode()
    # Attributes hold at most 64 KiB each.
    for start in range(0, max(len(text), 1), 60_000):
        chunk = np.frombuffer(text[start : start + 60_000], np.uint8)
        file.attrs[f"index{start // 60_000:04d}"] = chunk


def read_rows(file: h5py.File) -> list[Any]:
    names = sorted(name for name in file.attrs if name.startswith("index"))
    text = b"".join(np.asarray(file.attrs[name], np.uint8).tobytes() for name in names)
    rows: list[Any] = json.loads(text)
    return rows


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"the part {path} is damaged ({type(error).__name__}: {error})",
        f"delete this file and {RUN_AGAIN}: only its items are computed anew",
    )


def _flat(key: Any) -> Iterator[str]:
    for part in key:
        if isinstance(part, str):
            yield part
        else:
            yield from _flat(part)
