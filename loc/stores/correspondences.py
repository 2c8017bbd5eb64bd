"""Store of correspondences: what a dense matcher found in pairs of images, before keypoints are shared.

Columnar parts, as of matches: ``pairs (p, 2)`` int32 into the part's table of images, ``offsets (p + 1,)``
int64, ``xy0`` and ``xy1 (m, 2)`` float32 px with **centre** origin (as all pixels on disk), ``scores (m,)``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import h5py
import numpy as np

from loc.conventions import center_from_corner, corner_from_center
from loc.stores.matches import PairKey
from loc.stores.parts import ItemKey, PartStore, create_dataset
from loc.types import Correspondences


class CorrespondenceStore(PartStore[PairKey, Correspondences]):
    """Correspondences per ordered pair of images, px of the stored images."""

    kind = "correspondences"

    def get(self, key: PairKey) -> Correspondences:
        """Those of one pair (corner origin)."""
        file, row = self._location(key)
        with self._reading(file):
            start, end = (int(offset) for offset in file["offsets"][row : row + 2])
            return Correspondences(
                corner_from_center(file["xy0"][start:end]),
                corner_from_center(file["xy1"][start:end]),
                file["scores"][start:end],
            )

    def count(self, key: PairKey) -> int:
        """How many a pair has, from the index alone."""
        return int(self._index[key][2]) if key in self._index else 0

    def _write_part(self, file: h5py.File, items: list[tuple[PairKey, Correspondences]]) -> None:
        images = sorted({image for key, _ in items for image in key})
        number = {image: row for row, image in enumerate(images)}
        pairs = np.array([[number[key.first], number[key.second]] for key, _ in items], np.int32)
        text = json.dumps(images, ensure_ascii=False).encode()
        create_dataset(file, "images", np.frombuffer(text, np.uint8))
        create_dataset(file, "pairs", pairs)
        lengths = [len(found) for _, found in items]
        create_dataset(file, "offsets", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        for name in ("xy0", "xy1"):
            xy = np.concatenate([getattr(found, name) for _, found in items])
            create_dataset(file, name, center_from_corner(xy))
        create_dataset(file, "scores", np.concatenate([found.scores for _, found in items]))

    def _read_index(self, file: h5py.File) -> Iterable[tuple[PairKey, int]]:
        images = [ItemKey(*image) for image in json.loads(file["images"][()].tobytes())]
        lengths = np.diff(file["offsets"][()]).tolist()
        return [
            (PairKey(images[first], images[second]), length)
            for (first, second), length in zip(file["pairs"][()].tolist(), lengths, strict=True)
        ]

    def _nbytes(self, item: Correspondences) -> int:
        return 20 * len(item) + 16
