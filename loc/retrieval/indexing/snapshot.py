"""One state of an index, as files on disk describe it: a base and the changes since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.retrieval.indexing import base as bases
from loc.retrieval.indexing import exact, kinds
from loc.retrieval.indexing.changes import read_change, write_change
from loc.retrieval.indexing.contents import Contents
from loc.retrieval.indexing.files import (
    BASE,
    Pointer,
    change_path,
    damaged,
    generation_folder,
    hash_of,
    write_pointer,
)
from loc.stores.files import make_folder, remove_orphans, remove_tree, sync

Array = np.ndarray


class Snapshot:
    """Everything that ``pointer`` names, open: files are mapped now, so that later deletion does not matter.

    Args:
        whole: compare the hash of every byte instead of each file's first 64 MiB.

    Raises:
        StoreError: a file is missing or not what was written.
    """

    def __init__(self, root: Path, pointer: Pointer, *, whole: bool = False) -> None:
        self.root, self.pointer = root, pointer
        self.folder = generation_folder(root, pointer.generation)
        self.base = bases.Base(root, self.folder, pointer.dim, whole=whole)
        self.contents, self.blocks = Contents(), list(self.base.blocks)
        self.contents.put(self.base.names, self.base.counts)
        self._head = _hash_of_base(self.folder)
        for number in range(1, pointer.changes + 1):
            self._replay(number, whole=whole)
        self._compare_head()

    def catch_up(self, pointer: Pointer) -> Snapshot:
        """The state that ``pointer`` names: this one with what others added meanwhile, or another one."""
        if pointer.generation != self.pointer.generation or pointer.changes < self.pointer.changes:
            return Snapshot(self.root, pointer)
        for number in range(self.pointer.changes + 1, pointer.changes + 1):
            self._replay(number)
        self.pointer = pointer
        self._compare_head()
        return self

    def commit(
        self,
        *,
        names: Sequence[str] = (),
        counts: Sequence[int] = (),
        vectors: Any = (),
        removed: Sequence[str] = (),
    ) -> None:
        """Write a change, then make it count, then show it here."""
        number = self.pointer.changes + 1
        path = change_path(self.root, self.pointer.generation, number)
        make_folder(path.parent)
        remove_orphans(path.parent, prefix=f".{path.name}.")
        head = write_change(
            path, self.pointer.dim, self._head, names=names, counts=counts, vectors=vectors, removed=removed
        )
        pointer = replace(self.pointer, changes=number, head=head)
        write_pointer(self.root, pointer)
        self._replay(number)
        self.pointer = pointer

    def compacted(self) -> Snapshot:
        """Write a new generation of what is live, and make it count."""
        number = self.pointer.generation + 1
        rows, counts = self.contents.in_order()
        head = write_generation(
            self.root,
            replace(self.pointer, generation=number),
            names=list(self.contents.slots),
            counts=counts.tolist(),
            read=lambda places: self.read(rows[places]),
        )
        pointer = replace(self.pointer, generation=number, changes=0, head=head)
        write_pointer(self.root, pointer)
        return Snapshot(self.root, pointer)

    def nearest(self, queries: Array, k: int, probes: int | None, rescore: int | None) -> tuple[Array, Array]:
        """Best live rows ``(q, k)`` of unit queries, and similarities; -1 and -inf where there are fewer."""
        alive, slots = self.contents.alive, self.contents.slot_of_row
        rows, values = exact.nearest(queries, self.blocks, k, alive=alive, slots=slots)
        if self.base.blocks or not self.base.rows:
            return rows, values
        config = self.pointer.config
        listed, similar = self.base.search(
            queries,
            k,
            probes=probes or kinds.probes(config, self.base.about["lists"]),
            rescore=config.rescore if rescore is None else rescore,
            alive=alive,
            slots=slots,
        )
        rows, values = np.concatenate([rows, listed], axis=1), np.concatenate([values, similar], axis=1)
        return exact.best(rows, values, k, slots)

    def read(self, rows: Array) -> Array:
        """Vectors ``(n, d)`` of rows, wherever they lie."""
        out = np.empty((len(rows), self.pointer.dim), np.float32)
        if not self.base.blocks:
            inside = rows < self.base.rows
            out[inside] = self.base.read(rows[inside])
        for block in self.blocks:
            inside = (rows >= block.first) & (rows < block.first + len(block))
            out[inside] = block.vectors[rows[inside] - block.first]
        return out

    def _replay(self, number: int, *, whole: bool = False) -> None:
        path = change_path(self.root, self.pointer.generation, number)
        change = read_change(self.root, path, self.pointer.dim, self._head, whole=whole)
        unknown = [name for name in change.removed if name not in self.contents.slots]
        if unknown:
            raise damaged(self.root, path, f"it removes {unknown[0]!r}, which is not there")
        self.contents.drop(change.removed)
        exact.append(self.blocks, change.vectors, self.contents.rows, keep=len(self.base.blocks))
        self.contents.put(change.names, change.counts)
        self._head = change.sha256

    def _compare_head(self) -> None:
        if self._head != self.pointer.head:
            raise damaged(self.root, self.folder, "it is not the generation that index.json names")


def write_generation(
    root: Path, pointer: Pointer, *, names: Sequence[str], counts: Sequence[int], read: bases.Rows
) -> str:
    """Write the folder of a generation, whole or not at all; the hash of its base."""
    folder = generation_folder(root, pointer.generation)
    partial = folder.with_name(f"{folder.name}.partial")
    remove_tree(partial)
    remove_tree(folder)  # of a compaction that was killed before it counted
    bases.build(make_folder(partial), pointer.config, pointer.dim, read, names=names, counts=counts)
    partial.rename(folder)
    sync(root)
    return _hash_of_base(folder)


def _hash_of_base(folder: Path) -> str:
    return str(hash_of(folder / BASE)["sha256"])
