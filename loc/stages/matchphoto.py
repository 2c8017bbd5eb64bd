"""Matching one photo in memory with images of a map, by either kind of matcher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loc.errors import DataError
from loc.runtime.extraction import PhotoFile
from loc.runtime.images import content_hash
from loc.runtime.pairing import PairMatcher
from loc.sfm.bundle import MapBundle
from loc.stages.correspond import query_keypoints
from loc.stages.match import Preparer
from loc.stages.onephoto import OnePhoto
from loc.stores.features import FeatureStore, as_stored
from loc.stores.parts import ItemKey
from loc.types import LocalFeatures, Matches

#: The photo's keypoints, and its matches with each database image.
Found = tuple[np.ndarray, list[tuple[str, Matches]]]


def photo_matching(bundle: MapBundle, *, device: str) -> FeatureMatching | ImageMatching:
    """The map's matcher, ready for one photo after another."""
    plugin = bundle.matcher
    if plugin.reads_images:
        store, items = bundle.open_keypoints()
        return ImageMatching(bundle, PairMatcher(plugin, device=device), store, items)
    return FeatureMatching(bundle, Preparer(plugin, device=device), bundle.open_features())


@dataclass(frozen=True)
class FeatureMatching:
    """By features: those of database images are read when a photo needs them, and kept."""

    bundle: MapBundle
    matcher: Preparer
    store: FeatureStore

    def match(self, photo: OnePhoto, features: LocalFeatures, references: list[str]) -> Found:  # noqa: ARG002
        if not references:
            return features.keypoints, []
        prepared = self.matcher.prepared(None, features)
        found = self.matcher.match([(prepared, self._prepared(name)) for name in references])
        return features.keypoints, list(zip(references, found, strict=True))

    def _prepared(self, name: str) -> Any:
        key = self.bundle.images[name]
        known = self.matcher.cached(key)
        return known if known is not None else self.matcher.prepared(key, self.store.get(key))


@dataclass(frozen=True)
class ImageMatching:
    """By pixels: the database photos are read again, and must be those that the map was made of."""

    bundle: MapBundle
    matcher: PairMatcher
    store: FeatureStore
    items: dict[str, ItemKey]
    checked: set[str] = field(default_factory=set)

    def match(self, photo: OnePhoto, features: LocalFeatures, references: list[str]) -> Found:
        name, plugin = photo.file.name, self.matcher.plugin
        shown = self.matcher.prepared(PhotoFile(name, photo.file.path), photo.read(plugin.cls.color))
        found = []
        for reference in references:  # one by one: hundreds of feature maps would not fit
            database = self.matcher.shown(self._file(reference), key=reference)
            (correspondences,) = self.matcher.match([(shown, database)])
            found.append((reference, self.store.keypoints(self.items[reference]), correspondences))
        keypoints, matches = query_keypoints(plugin, name, features.image_wh, found)
        return as_stored(keypoints).keypoints, [(reference, matches[reference]) for reference in references]

    def _file(self, name: str) -> PhotoFile:
        """A photo of the map, checked once to be the one that was mapped."""
        path, mask = self.bundle.photos[name], self.bundle.masks.get(name)
        if name not in self.checked:
            if content_hash(path, mask) != self.bundle.images[name].content:
                raise DataError(
                    f"{path} is not the photo {name} that the map was made of",
                    "put the photo back, or run the command that made the map again",
                )
            self.checked.add(name)
        return PhotoFile(name, path, mask)


__all__ = ["Found", "ImageMatching", "photo_matching"]
