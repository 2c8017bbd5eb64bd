"""What one photo needs that a run prepares for all: its camera, its pixels, its references."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from loc.config import AutoPairs, ExhaustivePairs, PairsConfig, RetrievalPairs, reranks
from loc.errors import DataError
from loc.layouts.cameras import PhotoFile, described_sensor, exif_focal_px, initial_camera
from loc.plugins.blocks import ResolvedPlugin
from loc.plugins.joint import joint
from loc.retrieval.ranking import Ranks, ranking_of
from loc.runtime.decoding import Color, as_uint8
from loc.runtime.extraction import PhotoExtractor
from loc.runtime.images import Photo, read_photo
from loc.sfm.bundle import MapBundle
from loc.stages.fit import load_fitted
from loc.stages.querycamera import query_camera
from loc.stages.reranking import remembered, reranked
from loc.types import Array, Camera, Intrinsics, LocalFeatures

log = logging.getLogger(__name__)

#: Camera model where no intrinsics are given; its distortion starts, and stays, at zero.
_CAMERA_MODEL = "SIMPLE_RADIAL"
#: Without global descriptors a photo is matched with every image of the map; slow above this many.
_MANY = 200


@dataclass(frozen=True, eq=False)
class OnePhoto:
    """A photo on disk or in memory; ``pixels`` is ``(h, w, 3)`` or ``(h, w)`` uint8, or None for a file."""

    file: PhotoFile
    pixels: Array | None = None

    @staticmethod
    def open(image: Path | str | Array, name: str) -> OnePhoto:
        """Look at the header of a file, or at the shape of an array.

        Raises:
            DataError: it is not a photo.
        """
        if not isinstance(image, np.ndarray):
            return OnePhoto(PhotoFile.open(name, Path(image)))
        colors = image.shape[2:]
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or colors not in ((), (3,)) or not image.size:
            raise DataError(
                f"{name}: an image in memory is (h, w, 3) RGB or (h, w) grey, uint8; "
                f"got {image.shape} {image.dtype}",
                "OpenCV's images are BGR: image[:, :, ::-1]; floats in [0, 1]: (255 * image).astype('uint8')",
            )
        return OnePhoto(PhotoFile(name, Path(name), (image.shape[1], image.shape[0]), {}), image)

    def read(self, color: Color) -> Photo:
        """Upright pixels in the colours a plug-in asks for."""
        if self.pixels is None:
            return read_photo(self.file.path, color=color)
        return Photo(as_uint8(Image.fromarray(self.pixels), color), self.file.stored_wh)

    def camera(self, bundle: MapBundle) -> tuple[Camera, Intrinsics]:
        """That of the map for the same camera by EXIF, else from EXIF, else a guess; and which of them."""
        focal_px = exif_focal_px(self.file) if self.pixels is None else None
        camera = initial_camera(self.file, focal_px, _CAMERA_MODEL)
        if focal_px is None:
            return camera, "guess"
        return query_camera(bundle, camera, f"{self.file.name} [{described_sensor(self.file)}]", "exif")


@dataclass(frozen=True, eq=False)
class Retrieval:
    """The database images to match a photo with, as the run's pair generators would choose them.

    Attributes:
        names: images of the map, sorted.
        matrix: ``(len(names), d)`` float32 global descriptors, or None: match with all.
        generators: those of the run that pair queries.
        plugin: the global extractor; ``describe`` is its instance, or the runtime's for one that
            looks at pixels.
        regions: vectors in each row of ``matrix``.
        own: what ranks its rows, where they are no vectors.
        local: local features of the map's images by name, for generators that re-rank.
    """

    names: tuple[str, ...]
    generators: tuple[Any, ...] = ()
    matrix: Array | None = None
    describe: Any = None
    from_pixels: bool = False
    regions: int = 1
    own: Callable[[Array], Ranks] | None = None
    local: Callable[[str], LocalFeatures] | None = None

    @staticmethod
    def open(bundle: MapBundle, *, device: str) -> Retrieval:
        names = bundle.registered
        generators = _query_generators(bundle)
        store, plugin = bundle.open_globals(), bundle.global_extractor
        wants_all = any(_wants_all(each, len(bundle.images)) for each in generators)
        if store is None or plugin is None or wants_all:
            if not wants_all and len(names) > _MANY:
                log.warning(
                    "the map has no global descriptors: each photo is matched with all %d images", len(names)
                )
            return Retrieval(names)
        if any(getattr(each, "fusion", None) is not None for each in generators):
            log.warning("a single photo is ranked by `globals` alone, without the fusion of the run's pairs")
        matrix = store.matrix(bundle.images[name] for name in names)
        store.close()
        from_pixels = plugin.cls.source == "image"
        describe = (
            PhotoExtractor(replace(plugin, state=bundle.fit_folder), device=device)
            if from_pixels
            else load_fitted(plugin, bundle.fit_folder, device=device)
        )
        local = _local_features(bundle) if reranks(generators, ("query",)) else None
        return Retrieval(
            names, generators, matrix, describe, from_pixels, plugin.regions, plugin.own_ranking, local
        )

    def with_extractor(self, extractor: ResolvedPlugin) -> ResolvedPlugin:
        """The extractor, or what gives its features and the global descriptor in one pass."""
        return (joint(extractor, self.describe.plugin) if self.from_pixels else None) or extractor

    def references(self, photo: OnePhoto, features: LocalFeatures, vector: Array | None = None) -> list[str]:
        """Names of database images, most similar first; ``vector``: its descriptor, where it is known."""
        if self.matrix is None:
            return list(self.names)
        asked = _as_rows(self._vector(photo, features) if vector is None else vector)
        found: dict[str, None] = {}
        for position in range(len(self.generators)):
            found |= dict.fromkeys(self._found(position, asked, features))
        return list(found)

    def _vector(self, photo: OnePhoto, features: LocalFeatures) -> Array:
        """The photo's global descriptor, by a pass of its own."""
        if not self.from_pixels:
            row: Array = self.describe([features])[0]
            return row
        pixels = photo.read(self.describe.plugin.cls.color)
        out: Array = self.describe.extract(pixels, name=photo.file.name)
        return out

    def _found(self, position: int, asked: Array, features: LocalFeatures) -> list[str]:
        """What one of the generators finds, most similar first."""
        generator = self.generators[position]
        verified = getattr(generator, "rerank", None)
        depth = generator.k if verified is None else max(generator.k, verified.candidates)
        ranked, similarity = self._rankings[position](asked, depth)
        least = getattr(generator, "min_similarity", None)
        wanted = (ranked[0] >= 0) & (similarity[0] >= (-np.inf if least is None else least))
        names = [self.names[row] for row in ranked[0, wanted].tolist()]
        if verified is None:
            return names
        return list(reranked(features, names, self._remembered[position], verified, generator.k))

    @cached_property
    def _remembered(self) -> dict[int, Callable[[str], LocalFeatures]]:
        """Features of the map's images, by the generators that re-rank."""
        if self.local is None:
            return {}
        rerankers = {row: getattr(each, "rerank", None) for row, each in enumerate(self.generators)}
        return {row: remembered(self.local, each) for row, each in rerankers.items() if each is not None}

    @cached_property
    def _rankings(self) -> tuple[Ranks, ...]:
        """One per generator; only retrieval has other orders than that of similarity."""
        options = [
            {name: getattr(each, name, None) for name in ("expansion", "diffusion")}
            for each in self.generators
        ]
        if self.matrix is None:
            return ()
        return tuple(ranking_of(self.matrix, regions=self.regions, own=self.own, **each) for each in options)


def _as_rows(vector: Array) -> Array:
    """One row of global descriptors; uint8 ones are objects of a length of their own."""
    if vector.dtype != np.uint8:
        return np.asarray(vector, np.float32)[None]
    rows = np.empty(1, object)
    rows[0] = vector
    return rows


def _local_features(bundle: MapBundle) -> Callable[[str], LocalFeatures]:
    store = bundle.open_features()
    return lambda name: store.get(bundle.images[name])


def _query_generators(bundle: MapBundle) -> tuple[Any, ...]:
    """Those of the run's pair generators that a photo of no list can use; by default ``auto``."""
    adapter: TypeAdapter[tuple[PairsConfig, ...]] = TypeAdapter(tuple[PairsConfig, ...])
    given = adapter.validate_python(tuple(bundle.blocks.get("pairs") or ()))
    usable = (ExhaustivePairs, RetrievalPairs, AutoPairs)
    return tuple(each for each in given if isinstance(each, usable) and each.for_ != "map") or (AutoPairs(),)


def _wants_all(generator: Any, db_images: int) -> bool:
    if isinstance(generator, AutoPairs):
        return db_images < generator.exhaustive_below
    return isinstance(generator, ExhaustivePairs)
