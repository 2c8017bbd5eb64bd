"""An index of photos on disk: made once, grown and shrunk, searched with photos.

A folder with everything that a search needs: ``index.json`` (what it was made with), ``images/`` (the table
of its photos), ``features/``, ``globals/`` and ``fits/`` (the stores of any run) and ``vectors/``
(:class:`loc.retrieval.index.VectorIndex`). Only photos that are new or changed are described, and what is
written is proportional to them. What plug-ins learn (codebook, PCA) is learned on the photos of the first
build and frozen: queries and later photos are described by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import filter as fitting
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from loc.config.index import IndexConfig
from loc.config.ranking import Reranking, suited_reranking
from loc.errors import DataError, StoreError
from loc.plugins.blocks import resolve_block
from loc.retrieval.index import VectorIndex
from loc.retrieval.indexing.files import POINTER
from loc.retrieval.rejection import method_name
from loc.runtime.runtime import Runtime
from loc.stages.places_describe import describe, forget, unit_rows
from loc.stages.places_files import (
    Card,
    Image,
    ImageTable,
    nearest_names,
    path_of,
    read_card,
    write_card,
)
from loc.stages.places_photos import given_photos
from loc.stages.places_vectors import content_of, read_vectors
from loc.stores.files import folder_bytes, make_folder, writing
from loc.stores.parts import ItemKey
from loc.types import Array

#: Vectors go into the index in portions: what a kill may cost, and what memory holds.
_PORTION_BYTES, _PORTION_IMAGES = 64 << 20, 4096
#: The folders in an index.
PARTS = ("features", "fits", "globals", "images", "vectors")


@dataclass
class Added:
    """What an addition did, by names.

    Attributes:
        new, changed: described and indexed; of a changed photo the old vectors are gone.
        blank: added, but nothing was found on them: no search finds them.
        skipped: photos that cannot be used → why.
        unchanged: how many were in the index already, as they are.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unchanged: int = 0


class Places:
    """An open index folder. Changes by several processes take turns."""

    def __init__(self, folder: Path) -> None:
        """Read an index, finished or not; :meth:`open` is for those that are finished."""
        self.folder = folder
        self.refresh()

    @staticmethod
    def open(folder: Path) -> Places:
        """An index that :func:`build_places` has finished.

        Raises:
            DataError: the folder is not an index.
            StoreError: it is damaged, or its build was not finished.
        """
        places = Places(folder)
        if not places.card.complete:
            raise StoreError(
                f"{folder} is half built: its build was stopped",
                f"run the command again, it goes on where it was: loc index build PHOTOS -o {folder}",
            )
        return places

    def refresh(self) -> None:
        """Read what another process may have changed."""
        self.card = read_card(self.folder)
        self.table = ImageTable(self.folder, len(self.card.roots))
        if self.card.complete and not self.table.files:
            raise StoreError(
                f"{self.folder / 'images'} is missing", f"delete the folder {self.folder} and build it again"
            )
        self._vectors: VectorIndex | None = None
        if (self.folder / "vectors" / POINTER).is_file():
            self._vectors = VectorIndex.open(self.folder / "vectors", descriptor=self.card.descriptor)

    @property
    def has_vectors(self) -> bool:
        return self._vectors is not None

    @property
    def vectors(self) -> VectorIndex:
        if self._vectors is None:
            raise StoreError(
                f"{self.folder / 'vectors'} is missing",
                f"run the command again that built it: loc index build PHOTOS -o {self.folder}",
            )
        return self._vectors

    def path(self, name: str) -> Path | None:
        """Where the photo was when it was added; None for a given vector."""
        return path_of(self.card, name, self.table.images[name])

    def key(self, name: str) -> ItemKey:
        """The photo's item in the stores."""
        return ItemKey(name, self.table.images[name].content)

    def add(
        self,
        items: Sequence[Path],
        *,
        runtime: Runtime | None = None,
        prefix: str = "",
        names_file: Path | None = None,
    ) -> Added:
        """Add photos in folders, or single ones; those that are there unchanged cost a look at their bytes.

        Args:
            items: folders or photos; of an index of given vectors, files of vectors.
            prefix: comes before the names from a new folder.
            names_file: names of the rows of a ``.npy``.

        Raises:
            DataError: see :func:`loc.stages.places_photos.given_photos`.
            StoreError: plug-ins, weights or fits are not those of the index.
        """
        with taking_turns(self.folder):
            self.refresh()
            if self.card.of == "vectors":
                return self._add_vectors(items, names_file)
            given = given_photos(items, self.card, self.table.images, prefix=prefix)
            if len(given.folders) > len(self.card.roots):
                self.write(self.card.model_copy(update={"roots": tuple(given.folders)}))
            described = describe(self.folder, self.card, given.records, runtime or Runtime())
            self.write(described.card)
            added = Added(skipped=dict(sorted({**described.skipped, **given.skipped}.items())))
            contents = {
                name: (given.roots[name], key.content) for name, key in sorted(described.keys.items())
            }
            self._put(contents, described.rows, added)
            return added

    def remove(self, patterns: Sequence[str]) -> list[str]:
        """Take images out, by their names or glob patterns; returns the names.

        Raises:
            DataError: a pattern that fits no image; nothing is removed then.
        """
        with taking_turns(self.folder):
            self.refresh()
            names = list(self.table.images)
            chosen: set[str] = set()
            for pattern in patterns:
                found = [pattern] if pattern in self.table.images else fitting(names, pattern)
                if not found:
                    raise DataError(
                        f"no image of {self.folder} is called {pattern!r}", nearest_names(pattern, names)
                    )
                chosen.update(found)
            gone = sorted(chosen)
            forget(self.folder, [self.key(name) for name in gone])
            # The vectors before the table: what has a vector is in the table, whenever the process ends.
            self.vectors.remove([name for name in gone if name in self.vectors])
            self.table.remove(gone)
            return gone

    def compact(self) -> None:
        """Make the index of the vectors anew from what is left: smaller and faster, with the same images."""
        with taking_turns(self.folder):
            self.refresh()
            self.vectors.compact()
            self.table.compact()

    def suited_reranking(self, features: str | None = None) -> Reranking:
        """What suits its local features; of an index without any, those asked for or sift."""
        own = self.card.features or {"use": resolve_block("features", features or "sift").name}
        return suited_reranking(str(own["use"]))

    def info(self) -> dict[str, Any]:
        """What it holds and was made with, for people and scripts."""
        card, images = self.card, self.table.images
        used = {each.root for each in images.values()}
        missing = [name for name in images if not _is_there(self.path(name))]
        plugins = {
            section: resolve_block(section, block)
            for section, block in (("features", card.features), ("globals", card.globals))
            if block is not None
        }
        return {
            "folder": str(self.folder),
            "of": card.of,
            "images": len(images),
            "blank": sum(not each.vectors for each in images.values()),
            "photos_missing": len(missing),
            "features": card.features,
            "globals": card.globals,
            "methods": {section: method_name(plugin) for section, plugin in plugins.items()},
            "weights": {
                section: [file.name for file in plugin.weights] for section, plugin in plugins.items()
            },
            "rerank": None if card.of == "vectors" else self.suited_reranking(),
            "fits": dict(sorted(card.fits.items())),
            "folders": [root.model_dump() for row, root in enumerate(card.roots) if row in used],
            "bytes": {part: folder_bytes(self.folder / part) for part in PARTS},
            "vectors": self.vectors.info(),
        }

    def write(self, card: Card) -> None:
        """Replace ``index.json``, where it differs."""
        if card != self.card:
            write_card(self.folder, card)
            self.card = card

    def _add_vectors(self, files: Sequence[Path], names_file: Path | None) -> Added:
        added = Added()
        for file in files:
            for rows in _batches(read_vectors(file, names_file), _PORTION_IMAGES):
                contents = {name: (-1, content_of(row)) for name, row in rows.items()}
                self._put(contents, partial(_given_row, rows), added)
        return added

    def _put(
        self, contents: Mapping[str, tuple[int, str]], rows: Callable[[str], Array], added: Added
    ) -> None:
        """Index what is new or changed, and note in the table what all of it is."""
        todo = []
        moved: dict[str, Image] = {}
        for name, (root, content) in contents.items():
            known = self.table.images.get(name)
            if known is None or known.content != content:
                (added.new if known is None else added.changed).append(name)
                todo.append(name)
            elif known.vectors and (self._vectors is None or name not in self._vectors):
                added.new.append(name)  # a process ended between the table and the vectors
                todo.append(name)
            else:
                added.unchanged += 1
                if known.root != root:
                    moved[name] = Image(root, content, known.vectors)
        if moved:
            self.table.add(moved)
        for portion in _portions(todo, rows):
            self._put_portion(portion, contents)
            added.blank += [name for name, vectors in portion if not len(vectors)]

    def _put_portion(self, portion: list[tuple[str, Array]], contents: Mapping[str, tuple[int, str]]) -> None:
        """In this order a kill leaves no vector that is of another content than the table says."""
        if self._vectors is not None:
            self._vectors.remove([name for name, _ in portion if name in self._vectors])
        old = [self.key(name) for name, _ in portion if name in self.table.images]
        forget(self.folder, [key for key in old if key.content != contents[key.name][1]])
        self.table.add({name: Image(*contents[name], len(vectors)) for name, vectors in portion})
        found = [(name, vectors) for name, vectors in portion if len(vectors)]
        if not found:
            return
        matrix = np.concatenate([vectors for _, vectors in found])
        if self._vectors is None:
            self._vectors = VectorIndex.create(
                self.folder / "vectors",
                dim=matrix.shape[1],
                descriptor=self.card.descriptor,
                config=IndexConfig.model_validate(self.card.index),
            )
        self._vectors.add([name for name, _ in found], matrix, [len(vectors) for _, vectors in found])


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Hold the lock of an index: its changes are several files."""
    make_folder(folder)
    with writing(folder):
        lock = FileLock(folder / ".lock", is_singleton=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _portions(names: Iterable[str], rows: Callable[[str], Array]) -> Iterator[list[tuple[str, Array]]]:
    portion: list[tuple[str, Array]] = []
    nbytes = 0
    for name in names:
        vectors = rows(name)
        portion.append((name, vectors))
        nbytes += vectors.nbytes
        if nbytes >= _PORTION_BYTES or len(portion) >= _PORTION_IMAGES:
            yield portion
            portion, nbytes = [], 0
    if portion:
        yield portion


def _batches(items: Iterator[tuple[str, Array]], size: int) -> Iterator[dict[str, Array]]:
    while batch := dict(islice(items, size)):
        yield batch


def _given_row(rows: Mapping[str, Array], name: str) -> Array:
    row: Array = unit_rows(rows[name][None])
    return row


def _is_there(path: Path | None) -> bool:
    return path is None or path.is_file()
