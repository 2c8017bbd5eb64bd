"""Store of matches: columnar parts, 28 bytes of overhead per pair instead of a group each.

A part holds ``pairs (p, 2)`` int32 into its table of images, ``offsets (p + 1,)`` int64, and the
matches of all its pairs one after another: ``indices (m, 2)`` int32, ``scores (m,)`` float32.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from loc.stores.fingerprint import digest
from loc.stores.parts import ItemKey, PartStore, create_dataset
from loc.types import Matches

_LOADED_PARTS = 4


class PairKey(NamedTuple):
    """Keys of both images, in the order in which they were matched."""

    first: ItemKey
    second: ItemKey


@dataclass(frozen=True, eq=False)
class _Columns:
    """The matches of all pairs of a part, checked as a whole: that is faster than pair by pair."""

    offsets: list[int]
    indices: np.ndarray
    scores: np.ndarray

    @staticmethod
    def checked(offsets: np.ndarray, indices: np.ndarray, scores: np.ndarray) -> _Columns:
        """Raises ValueError where a pair's rows would be no :class:`Matches`."""
        total = len(indices)
        fits = indices.shape == (total, 2) and indices.dtype == np.int32 and scores.shape == (total,)
        if not fits or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
            raise ValueError("the columns of matches do not fit together")
        if total and not (scores.min() >= 0 and scores.max() <= 1):
            raise ValueError("match scores must lie in [0, 1]")
        first, second = indices[:, 0], indices[:, 1]
        same_pair = np.ones(max(0, total - 1), bool)
        starts = offsets[1:-1]
        same_pair[starts[(starts > 0) & (starts < total)] - 1] = False
        stuck = np.flatnonzero(same_pair & (first[1:] <= first[:-1]))
        if ((first[stuck + 1] < first[stuck]) | (second[stuck + 1] <= second[stuck])).any():
            raise ValueError("matches must be sorted by (index 0, index 1) without repetition")
        return _Columns(offsets.tolist(), indices, scores)

    def row(self, row: int) -> Matches:
        rows = slice(self.offsets[row], self.offsets[row + 1])
        found = object.__new__(Matches)  # without its checks: `checked` has made them
        object.__setattr__(found, "indices", self.indices[rows])
        object.__setattr__(found, "scores", self.scores[rows])
        return found


class MatchStore(PartStore[PairKey, Matches]):
    """Matches per ordered pair of images."""

    kind = "matches"
    # A pair costs milliseconds where an image costs seconds: here the 30 s and the bytes bound a part.
    max_items = 1 << 16

    def __init__(self, folder: Path, fields: dict[str, object] | None = None) -> None:
        self._loaded: OrderedDict[str, _Columns] = OrderedDict()
        super().__init__(folder, fields)

    def get(self, key: PairKey) -> Matches:
        """Matches of one pair; rows refer to ``key.first`` and ``key.second``."""
        file, row = self._location(key)
        return self._columns(file).row(row)

    def count(self, key: PairKey) -> int:
        """Number of matches of a pair, from the index alone."""
        return int(self._index[key][2]) if key in self._index else 0

    def items(self, keys: Iterable[PairKey]) -> Iterator[tuple[PairKey, Matches]]:
        """Matches of many pairs, in the order in which they lie on disk."""
        lying = sorted((self._index[key][:2], key) for key in keys)
        for _, part in groupby(lying, key=lambda item: item[0][0]):
            columns = None
            for (_, row), key in part:
                columns = columns or self._columns(self._location(key)[0])
                yield key, columns.row(row)

    def digest(self, keys: Iterable[PairKey]) -> str:
        """Hash of the pairs' matches, in the order of their sorted keys."""

        def parts() -> Iterator[object]:
            for key in sorted(keys):
                matches = self.get(key)
                yield from (*key.first, *key.second, matches.indices, matches.scores)

        return digest(parts())

    def _columns(self, file: h5py.File) -> _Columns:
        name = file.filename
        if name not in self._loaded:
            while len(self._loaded) >= _LOADED_PARTS:
                self._loaded.popitem(last=False)
            with self._reading(file):
                self._loaded[name] = _Columns.checked(
                    file["offsets"][()], file["indices"][()], file["scores"][()]
                )
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _write_part(self, file: h5py.File, items: list[tuple[PairKey, Matches]]) -> None:
        images = sorted({image for key, _ in items for image in key})
        number = {image: row for row, image in enumerate(images)}
        pairs = np.array([[number[key.first], number[key.second]] for key, _ in items], np.int32)
        lengths = [len(matches) for _, matches in items]
        text = json.dumps(images, ensure_ascii=False).encode()
        create_dataset(file, "images", np.frombuffer(text, np.uint8))
        create_dataset(file, "pairs", pairs)
        create_dataset(file, "offsets", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        create_dataset(file, "indices", np.concatenate([matches.indices for _, matches in items]))
        create_dataset(file, "scores", np.concatenate([matches.scores for _, matches in items]))

    def _read_index(self, file: h5py.File) -> Iterable[tuple[PairKey, int]]:
        images = [ItemKey(*image) for image in json.loads(file["images"][()].tobytes())]
        lengths = np.diff(file["offsets"][()]).tolist()
        return [
            (PairKey(images[first], images[second]), length)
            for (first, second), length in zip(file["pairs"][()].tolist(), lengths, strict=True)
        ]

    def _nbytes(self, item: Matches) -> int:
        return int(item.indices.nbytes + item.scores.nbytes) + 16
