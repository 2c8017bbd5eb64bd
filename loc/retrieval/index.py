"""An index of image descriptors on disk that grows: exact, or approximate with faiss, chosen by size.

An immutable base is memory-mapped. What is added later lies in change files and is searched exactly, what is
removed is left out; compaction makes one base of both. A folder holds (:mod:`loc.retrieval.indexing.files`)
generations, of which one counts: it is switched by replacing one small file, after everything that it names
is on the disk. So a writer may be killed at any moment, and a reader keeps what it opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from loc.config.index import IndexConfig
from loc.errors import DataError, StoreError
from loc.retrieval.indexing import kinds
from loc.retrieval.indexing.changes import unit_rows
from loc.retrieval.indexing.files import (
    POINTER,
    Pointer,
    read_pointer,
    remove_generations,
    write_pointer,
)
from loc.retrieval.indexing.snapshot import Snapshot, write_generation
from loc.stores.files import folder_bytes, make_folder, writing

Array = np.ndarray
_LOCK = ".lock"
#: Compaction pays when this share of the rows is dead, or lies in changes, which are searched exactly …
_ADVISED_SHARE = 0.2
#: … if they are this many at least, or in so many files.
_ADVISED_ROWS = 10_000
_ADVISED_CHANGES = 1_000


class VectorIndex:
    """Unit vectors of named images on disk; one or several vectors per image.

    An object shows the index as it was when it was opened, and its own changes since. Writers of several
    processes wait for each other, and begin from what the one before left.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._now = snapshot

    @staticmethod
    def create(folder: Path, *, dim: int, descriptor: str, config: IndexConfig | None = None) -> VectorIndex:
        """An empty index in a folder that has none.

        Args:
            dim: of its vectors.
            descriptor: what makes them (extractor, options, weights, fits): an index is opened with the
                same only.
            config: kept in the index; it says what :meth:`compact` builds.

        Raises:
            DataError: there is an index already, or the folder cannot be one.
        """
        config = config or IndexConfig()
        if dim < 1:
            raise DataError(f"vectors have at least one dimension, got {dim}")
        kinds.code_bytes(config, dim)
        make_folder(folder)
        with _writing(folder):
            if (folder / POINTER).exists():
                raise DataError(f"{folder} holds an index already", "open that one, or choose another folder")
            empty = Pointer(0, 0, "", dim, descriptor, config.model_copy(update={"kind": "exact"}))
            head = write_generation(folder, empty, names=(), counts=(), read=_nothing)
            write_pointer(folder, replace(empty, head=head, config=config))
        return VectorIndex.open(folder)

    @staticmethod
    def open(folder: Path, *, descriptor: str | None = None) -> VectorIndex:
        """The index as it is now.

        Args:
            descriptor: what the caller's vectors were made by; None: not compared.

        Raises:
            StoreError: there is none, it is damaged, or its vectors were made by something else.
        """
        return VectorIndex(_opened(folder, descriptor, whole=False))

    @staticmethod
    def check(folder: Path) -> None:
        """Read every byte and compare it with its hash; :meth:`open` does so for 64 MiB of each file.

        Raises:
            StoreError: something is damaged.
        """
        _opened(folder, None, whole=True)

    @property
    def folder(self) -> Path:
        return self._now.root

    @property
    def dim(self) -> int:
        return self._now.pointer.dim

    @property
    def descriptor(self) -> str:
        return self._now.pointer.descriptor

    @property
    def config(self) -> IndexConfig:
        return self._now.pointer.config

    @property
    def names(self) -> list[str]:
        """Live images, in order of first insertion; one that is replaced keeps its place."""
        return list(self._now.contents.slots)

    @property
    def vectors(self) -> int:
        """Live vectors."""
        return self._now.contents.live_rows

    def __contains__(self, name: object) -> bool:
        return name in self._now.contents.slots

    def __len__(self) -> int:
        return len(self._now.contents.slots)

    def add(self, names: Sequence[str], vectors: Any, counts: Sequence[int] | None = None) -> None:
        """Add images, or replace those whose name is there; on the disk when this returns.

        What is written is the vectors and their names, whatever the size of the index.

        Args:
            vectors: ``(n, dim)`` float32 of unit norm, or anything whose slices are such arrays
                (``numpy.memmap``, an h5py data set): it is read a block at a time. A vector of zeros says
                nothing and is not kept; its image is.
            counts: vectors of each name, in order; None: one each.

        Raises:
            DataError: a name twice or empty, other numbers of vectors than of names, another dimension, a
                vector that is not finite or not of unit norm. Nothing is added then.
        """
        sizes = _checked(names, vectors, counts)
        if not names:
            return
        with _writing(self.folder):
            self._catch_up()
            self._now.commit(names=names, counts=sizes, vectors=vectors)

    def remove(self, names: Sequence[str]) -> None:
        """Remove images; on the disk when this returns.

        Raises:
            DataError: some are not there (nothing is removed then), or one is named twice.
        """
        _refuse_twice(names)
        if not names:
            return
        with _writing(self.folder):
            self._catch_up()
            unknown = [name for name in names if name not in self]
            if unknown:
                shown = ", ".join(map(repr, unknown[:5])) + (" …" if len(unknown) > 5 else "")
                raise DataError(
                    f"{len(unknown)} of {len(names)} images are not in {self.folder}: {shown}",
                    "see what is there: loc index info",
                )
            self._now.commit(removed=names)

    def compact(self) -> None:
        """Build a new base of all live vectors, of the kind that the config or ``auto`` gives.

        The generation before stays for readers that opened it; the one before that is deleted.

        Raises:
            DataError: too few vectors to train an explicit kind; the index stays as it was.
        """
        with _writing(self.folder):
            self._catch_up()
            number = self._now.pointer.generation
            remove_generations(self.folder, keep=(number, number - 1))
            self._now = self._now.compacted()
            remove_generations(self.folder, keep=(number + 1, number))

    def search(
        self, queries: Array, k: int, *, probes: int | None = None, rescore: int | None = None
    ) -> tuple[Array, Array]:
        """The most similar live vectors of every query.

        Equal similarities are ordered by image, then by vector. With an exact base the result is that of
        comparing everything, to the bit, whatever was added, removed or compacted in between.

        Args:
            queries: ``(q, dim)`` float32 of unit norm; one of zeros finds nothing.
            k: how many; more than there are is fine.
            probes: lists of an ivf or ivfpq base to look into; None: as configured.
            rescore: candidates of an ivfpq base per neighbour that are compared exactly; None: as configured.

        Returns:
            Numbers of images (places in :attr:`names`) ``(q, k)`` int64, an image once per vector found,
            and similarities ``(q, k)`` float32, best first; -1 and -inf where there are fewer.

        Raises:
            DataError: another dimension, a query that is not finite or not of unit norm, a negative ``k``.
        """
        if k < 0 or (probes is not None and probes < 1):
            raise DataError(f"k must not be negative and probes at least 1, got {k} and {probes}")
        asked = unit_rows(queries, self.dim, "queries")
        numbers = np.full((len(asked), k), -1, np.int64)
        values = np.full((len(asked), k), -np.inf, np.float32)
        heard = asked.any(axis=1)
        if heard.any() and k:
            rows, values[heard] = self._now.nearest(asked[heard], k, probes, rescore)
            numbers[heard] = self._now.contents.image_of(rows)
        return numbers, values

    def vote(self, queries: Array, k_images: int, *, neighbours: int = 60) -> list[tuple[int, float]]:
        """Images that the local features of one query image vote for.

        Each vector votes for the images of its ``neighbours`` nearest vectors, as in Noh et al., "Large-scale
        image retrieval with attentive deep local features", ICCV 2017, section 5 (60 there).

        Returns:
            At most ``k_images`` numbers of images with their votes, most first; equal ones by the sum of
            similarities, then by number.
        """
        if k_images < 0:
            raise DataError(f"the number of images must not be negative, got {k_images}")
        numbers, values = self.search(queries, neighbours)
        found = numbers >= 0
        images, where, votes = np.unique(numbers[found], return_inverse=True, return_counts=True)
        sums = np.bincount(where.ravel(), values[found].astype(np.float64), minlength=len(images))
        order = np.lexsort((images, -sums, -votes))[:k_images]
        return [(int(images[each]), float(votes[each])) for each in order]

    def info(self) -> dict[str, Any]:
        """What the index holds, what its base is, and whether compaction is advised."""
        about, contents = self._now.base.about, self._now.contents
        delta = contents.rows - self._now.base.rows
        dead = contents.rows - contents.live_rows
        share = _ADVISED_SHARE * max(contents.rows, 1)
        changes = self._now.pointer.changes
        advised = max(delta, dead) >= max(share, _ADVISED_ROWS) or changes >= _ADVISED_CHANGES
        cells = about.get("lists")
        return {
            "kind": self._now.base.kind,
            "dim": self.dim,
            "descriptor": self.descriptor,
            "images": len(self),
            "vectors": self.vectors,
            "base_vectors": self._now.base.rows,
            "delta_vectors": delta,
            "dead_vectors": dead,
            "changes": changes,
            "generation": self._now.pointer.generation,
            "lists": cells,
            "probes": None if cells is None else kinds.probes(self.config, cells),
            "code_bytes": about.get("code_bytes"),
            "rescore": self.config.rescore if self._now.base.kind == "ivfpq" else None,
            "trained_on": about.get("trained_on"),
            "train_s": about.get("train_s"),
            "add_s": about.get("add_s"),
            "bytes": folder_bytes(self._now.folder),
            "bytes_with_earlier_generation": folder_bytes(self.folder),
            "compaction_advised": advised,
        }

    def _catch_up(self) -> None:
        """Begin from what the writer before left; called with the lock held."""
        self._now = self._now.catch_up(read_pointer(self.folder))


def _opened(folder: Path, descriptor: str | None, *, whole: bool) -> Snapshot:
    pointer = read_pointer(folder)
    if descriptor is not None and descriptor != pointer.descriptor:
        raise StoreError(
            f"{folder} holds vectors of {pointer.descriptor}, not of {descriptor}",
            "search it with what it was built with, or build another index",
        )
    while True:
        try:
            return Snapshot(folder, pointer, whole=whole)
        except (StoreError, FileNotFoundError):
            # Two compactions while the files were being opened: what was read first is gone, not damaged.
            newer = read_pointer(folder)
            if newer.generation == pointer.generation:
                raise
            pointer = newer


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """One writer at a time."""
    with writing(folder), FileLock(folder / _LOCK):
        yield


def _nothing(rows: Array) -> Array:
    raise IndexError(rows)


def _checked(names: Sequence[str], vectors: Any, counts: Sequence[int] | None) -> list[int]:
    """Vectors per name."""
    _refuse_twice(names)
    sizes = [1] * len(names) if counts is None else [int(count) for count in counts]
    if len(sizes) != len(names) or min(sizes, default=0) < 0:
        raise DataError(f"{len(names)} names need as many counts, none negative; got {len(sizes)} counts")
    if sum(sizes) != len(vectors):
        raise DataError(f"{len(names)} names with {sum(sizes)} vectors, but {len(vectors)} were given")
    return sizes


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted(str(name) for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"{len(twice)} names are given twice: {', '.join(map(repr, twice[:5]))}")
    if any(not isinstance(name, str) or not name for name in names):
        raise DataError("names of images are texts that are not empty")
