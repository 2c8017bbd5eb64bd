"""Stores of local features and of global descriptors, parts in hloc's own layout.

A group per image (`/` nests) with ``keypoints (n, 2)`` float32 in px of the stored image with
**centre** origin, ``descriptors (d, n)`` float16 or uint8, ``scores``, optional ``scales`` and
``oris`` (degrees), ``image_size``; or ``global_descriptor (d,)``. hloc and its descendants read a
part as it is. In memory everything has the corner origin (:mod:`loc.conventions`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from loc.conventions import center_from_corner, corner_from_center
from loc.stores.fingerprint import digest
from loc.stores.parts import ItemKey, PartStore, create_dataset, read_rows, write_rows
from loc.types import LocalFeatures


def as_stored(features: LocalFeatures) -> LocalFeatures:
    """The features as they come back from a store: descriptors float16 or uint8.

    Everything downstream works on this form, so that one image localized in memory and the same
    image read from a store give the same pose.
    """
    descriptors = features.descriptors
    if descriptors.dtype == np.float32:
        descriptors = descriptors.astype(np.float16)
    keypoints = corner_from_center(center_from_corner(features.keypoints))
    oris = features.orientations_rad
    if oris is not None:
        oris = np.radians(np.degrees(oris)).astype(np.float32)
    return replace(features, descriptors=descriptors, keypoints=keypoints, orientations_rad=oris)


class FeatureStore(PartStore[ItemKey, LocalFeatures]):
    """Local features per image."""

    kind = "features"

    def get(self, key: ItemKey) -> LocalFeatures:
        """All of an image's features (stored px, corner origin)."""
        file, _ = self._location(key)
        with self._reading(file):
            return _decode(file[key.name])

    def keypoints(self, key: ItemKey) -> np.ndarray:
        """``(n, 2)`` float32 px, corner origin, without reading the descriptors."""
        file, _ = self._location(key)
        with self._reading(file):
            keypoints: np.ndarray = file[key.name]["keypoints"][()]
        corner: np.ndarray = corner_from_center(keypoints)
        return corner

    def image_wh(self, key: ItemKey) -> tuple[int, int]:
        """Size of the stored image, px."""
        file, _ = self._location(key)
        with self._reading(file):
            width, height = file[key.name]["image_size"][()]
        return int(width), int(height)

    def count(self, key: ItemKey) -> int:
        """Number of keypoints, from the index alone."""
        return int(self._index[key][2]) if key in self._index else 0

    def digest(self, keys: Iterable[ItemKey]) -> str:
        """Hash of the items' bytes, in the order of their sorted keys."""

        def parts() -> Iterable[Any]:
            for key in sorted(keys):
                yield from key
                features = self.get(key)
                yield from (features.keypoints, features.scores, features.descriptors)

        return digest(parts())

    def _write_part(self, file: h5py.File, items: list[tuple[ItemKey, LocalFeatures]]) -> None:
        for key, features in items:
            _encode(file.create_group(key.name), features)
        write_rows(file, [[key.name, key.content, len(features)] for key, features in items])

    def _read_index(self, file: h5py.File) -> Iterable[tuple[ItemKey, int]]:
        return [(ItemKey(row[0], row[1]), row[2]) for row in read_rows(file)]

    def _nbytes(self, item: LocalFeatures) -> int:
        return int(item.keypoints.nbytes + item.descriptors.nbytes + 4 * item.scores.nbytes)


class GlobalStore(PartStore[ItemKey, np.ndarray]):
    """One global descriptor per image."""

    kind = "globals"

    def get(self, key: ItemKey) -> np.ndarray:
        """``(d,)`` float32, or the ``(n,)`` uint8 of a plug-in with a ranking of its own."""
        file, _ = self._location(key)
        with self._reading(file):
            vector: np.ndarray = file[key.name]["global_descriptor"][()]
            return vector

    def matrix(self, keys: Iterable[ItemKey]) -> np.ndarray:
        """``(n, d)`` float32, one row per key, in their order; of uint8 rows ``(n,)`` objects."""
        wanted = list(keys)
        out: np.ndarray = np.zeros((0, 0), np.float32)
        for row, key in enumerate(wanted):
            vector = self.get(key)
            if not row and vector.dtype == np.uint8:  # each of a length of its own
                out = np.empty(len(wanted), object)
            elif not row:  # filled as it is read: 100,000 vectors of 4096 are 1.6 GB, once
                out = np.empty((len(wanted), len(vector)), np.float32)
            out[row] = vector
        return out

    def digest(self, keys: Iterable[ItemKey]) -> str:
        """Hash of the items' bytes, in the order of their sorted keys."""
        return digest(part for key in sorted(keys) for part in (*key, self.get(key)))

    def _write_part(self, file: h5py.File, items: list[tuple[ItemKey, np.ndarray]]) -> None:
        for key, vector in items:
            values = vector if vector.dtype == np.uint8 else vector.astype(np.float32)
            create_dataset(file.create_group(key.name), "global_descriptor", values)
        write_rows(file, [[*key] for key, _ in items])

    def _read_index(self, file: h5py.File) -> Iterable[tuple[ItemKey, None]]:
        return [(ItemKey(row[0], row[1]), None) for row in read_rows(file)]

    def _nbytes(self, item: np.ndarray) -> int:
        return int(item.nbytes)


def _encode(group: h5py.Group, features: LocalFeatures) -> None:
    stored = as_stored(features)
    create_dataset(group, "keypoints", center_from_corner(stored.keypoints))
    group["keypoints"].attrs["uncertainty"] = stored.noise_px
    create_dataset(group, "descriptors", _transposed(stored.descriptors, slab=64))
    create_dataset(group, "scores", stored.scores)
    if stored.scales is not None:
        create_dataset(group, "scales", stored.scales)
    if features.orientations_rad is not None:
        create_dataset(group, "oris", np.degrees(features.orientations_rad))
    create_dataset(group, "image_size", np.array(stored.image_wh, np.int64))


def _decode(group: h5py.Group) -> LocalFeatures:
    width, height = group["image_size"][()]
    keypoints, fields = group["keypoints"], set(group)
    scales = group["scales"][()] if "scales" in fields else None
    oris = np.radians(group["oris"][()]).astype(np.float32) if "oris" in fields else None
    return LocalFeatures(
        keypoints=corner_from_center(keypoints[()]),
        scores=group["scores"][()],
        descriptors=_transposed(group["descriptors"][()], slab=16),
        image_wh=(int(width), int(height)),
        scales=scales,
        orientations_rad=oris,
        noise_px=float(keypoints.attrs["uncertainty"]),
    )


def _transposed(matrix: np.ndarray, *, slab: int) -> np.ndarray:
    """A contiguous copy of ``matrix.T``, in slabs of rows that stay in the cache (2 to 4 times as fast)."""
    out = np.empty(matrix.shape[::-1], matrix.dtype)
    for top in range(0, len(matrix), slab):
        out[:, top : top + slab] = matrix[top : top + slab].T
    return out
