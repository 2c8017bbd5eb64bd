"""Which landmark is this? Photos looked up in an index of photos, verified, and believed or not."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from loc.config.ranking import RerankConfig
from loc.errors import ConfigError, DataError
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.plugins.joint import Described, joint
from loc.retrieval.asmk.boxes import with_boxes
from loc.retrieval.rejection import (
    Evidence,
    Rejection,
    generic,
    keypoints_used,
    method_name,
    rerank_name,
    shipped_for,
)
from loc.retrieval.verification import Verified, rerank
from loc.runtime.extraction import PhotoExtractor
from loc.runtime.runtime import Runtime
from loc.stages.extract import extract_features, feature_fields, features_folder, global_fields
from loc.stages.fit import load_fitted
from loc.stages.onephoto import OnePhoto
from loc.stages.places import Places, taking_turns
from loc.stages.places_describe import fit_of, global_vector, local_vectors, plugin_of, require_same
from loc.stages.places_vectors import read_vectors
from loc.stores.features import FeatureStore, as_stored
from loc.stores.fingerprint import fingerprint
from loc.types import Array, ImageRecord, LocalFeatures

log = logging.getLogger(__name__)

#: ``ranked``: a search that verifies nothing; ``nothing_found``: the photo has nothing to search with.
Status = Literal["match", "no_match", "ranked", "nothing_found", "unreadable"]
#: Nearest local descriptors that vote for each one of the query (DELF paper).
NEIGHBOURS = 60
#: Features of database images that are kept between queries.
_CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Found:
    """An image of the index, as an answer to a query.

    Attributes:
        score: similarity of global descriptors, or votes of local ones.
        verified: what both photos have in common; None where that was not looked at.
        image_xy: ``(inliers, 2)`` float32 px of this image, a row for each of ``verified.pairs``.
    """

    name: str
    score: float
    path: Path | None
    verified: Verified | None = None
    image_xy: Float32[Array, "m 2"] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What the index says of one query.

    Attributes:
        images: best first: by inliers, then by score; or by score alone.
        probability: that the best image shows the query's place, in [0, 1]; None without verification.
        note: where the threshold of the verdict comes from.
        keypoints: ``(n, 2)`` float32 px of the query, to which ``verified.pairs`` refer.
        seconds: per step.
    """

    query: str
    status: Status
    reason: str = ""
    images: tuple[Found, ...] = ()
    probability: float | None = None
    note: str = ""
    path: Path | None = None
    keypoints: Float32[Array, "n 2"] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class Retriever:
    """Looks photos up, one after another; everything is loaded once.

    Args:
        places: the index.
        verification: how candidates are verified; None: they are ranked by score alone.
        features: local features to verify by where the index was made without; default sift.
        rejection: when the best image is believed; default: the calibration that comes with `loc` for what
            the index was made with, else a plain number of inliers.

    Raises:
        StoreError: plug-ins, weights or fits are not those of the index.
        ConfigError: verification of given vectors, or by other features than the index has.
    """

    def __init__(
        self,
        places: Places,
        *,
        verification: RerankConfig | None = None,
        features: str | None = None,
        rejection: Rejection | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        card = places.card
        if card.of == "vectors":
            raise ConfigError(
                f"{places.folder} holds vectors that were given to it: it cannot describe a photo",
                "search it with vectors: loc index search DIR QUERIES.h5, or build an index of photos",
            )
        self.places, self.verification = places, verification
        self._runtime = runtime or Runtime()
        device = self._runtime.torch_device()
        self._features = self._feature_plugin(features)
        self._globals = plugin_of(places.folder, card, "globals")
        self._describer = None if self._globals is None else _Describer(places, self._globals, device)
        both = None
        if self._features is not None and self._globals is not None:
            both = joint(self._features, self._globals)
        wanted = both or self._features
        self._extractor = None if wanted is None else PhotoExtractor(wanted, device=device)
        self._database = None
        if verification is not None and self._features is not None:
            self._database = _Database(places, self._features, self._runtime, verification.max_keypoints)
        self.rejection = self._calibration(rejection)

    def search(self, photo: Path | str | Array, k: int = 20, *, name: str | None = None) -> Answer:
        """The ``k`` best images by score, unverified. Arguments as of :meth:`retrieve`."""
        return self._answer(photo, k, name, verify=False)

    def retrieve(self, photo: Path | str | Array, k: int = 10, *, name: str | None = None) -> Answer:
        """The ``k`` best images after verification, and whether the best one is to be believed.

        Args:
            photo: a file, or pixels as stored: ``(h, w, 3)`` RGB or ``(h, w)`` grey, uint8.
            name: what the answer is called; default the path as given.

        Raises:
            DataError: the array is no image.
        """
        return self._answer(photo, k, name, verify=self.verification is not None)

    # ---- internals

    def _feature_plugin(self, asked: str | None) -> ResolvedPlugin | None:
        """What describes local features here: those of the index, else those asked for to verify."""
        folder, card = self.places.folder, self.places.card
        own = plugin_of(folder, card, "features")
        if own is not None:
            require_same(folder, card.features_store, features_folder(own, folder).name)
            if asked is not None and resolve_block("features", asked).name != own.name:
                raise ConfigError(
                    f"{folder} has features {own.name}, and {asked} was asked for",
                    "leave --features out, or build an index with them",
                )
            return own
        if self.verification is None:
            return None
        return resolve_block("features", asked or "sift").ready(self._runtime.torch_device)

    def _calibration(self, given: Rejection | None) -> Rejection | None:
        """The one given, if it is for what makes the evidence here; else the one that comes with `loc`."""
        if self.verification is None or self._features is None:
            return None
        overall = "votes" if self._globals is None else method_name(self._globals)
        local, verified = method_name(self._features), rerank_name(self.verification)
        if given is not None:
            given.require(globals_name=overall, features_name=local, rerank=verified)
        return given or shipped_for(overall, self._features, self.verification) or generic()

    def _answer(self, photo: Path | str | Array, k: int, name: str | None, *, verify: bool) -> Answer:
        label = name or ("image" if isinstance(photo, np.ndarray) else str(photo))
        clock = _Clock()
        try:
            opened = OnePhoto.open(photo, label)
            features, vectors = self._described(opened, clock)
        except DataError as error:
            if isinstance(photo, np.ndarray):
                raise
            return Answer(label, "unreadable", error.message, path=Path(photo))
        path = None if opened.pixels is not None else opened.file.path
        if not len(vectors):
            return Answer(label, "nothing_found", "nothing was found on it to search with", path=path)
        depth = max(k, self.verification.candidates) if verify and self.verification else k
        candidates = self._candidates(vectors, depth)
        clock.lap("search")
        if not verify or features is None or self.verification is None:
            images = tuple(Found(each, score, self.places.path(each)) for each, score in candidates[:k])
            return Answer(label, "ranked", "", images, path=path, seconds=clock.seconds)
        return replace(self._verified(label, features, candidates, k, clock), path=path)

    def _described(
        self, photo: OnePhoto, clock: _Clock
    ) -> tuple[LocalFeatures | None, Float32[Array, "m d"]]:
        """Local features, where any are made, and what to search with."""
        features, row = None, None
        if self._extractor is not None:
            pixels = photo.read(self._extractor.plugin.cls.color)
            clock.lap("read")
            made: Any = self._extractor.extract(pixels, name=photo.file.name)
            if isinstance(made, Described):
                row = made.vector
            features = as_stored(made.features if isinstance(made, Described) else made)
            clock.lap("features")
        if self._describer is None or self._globals is None:
            return features, np.zeros((0, 0), np.float32) if features is None else local_vectors(features)
        vectors = global_vector(self._globals, self._describer(photo, features) if row is None else row)
        clock.lap("globals")
        return features, vectors

    def _candidates(self, vectors: Float32[Array, "m d"], depth: int) -> list[tuple[str, float]]:
        index = self.places.vectors
        if self.places.card.of == "local":
            found = index.vote(vectors, depth, neighbours=NEIGHBOURS)
        else:
            rows, similarities = index.search(vectors, min(depth, index.vectors))
            found = list(zip(rows[0].tolist(), similarities[0].tolist(), strict=True))
        names, known = index.names, self.places.table.images  # another process may be removing some
        return [(names[row], float(score)) for row, score in found if row >= 0 and names[row] in known]

    def _verified(
        self,
        label: str,
        features: LocalFeatures,
        candidates: list[tuple[str, float]],
        k: int,
        clock: _Clock,
    ) -> Answer:
        database, config = self._database, self.verification
        if database is None or config is None or self.rejection is None:
            raise ConfigError("this retriever verifies nothing", "give it a verification")
        database.prepare([name for name, _ in candidates[: config.candidates]])
        clock.lap("read candidates")
        ranked = rerank(features, candidates, database.get, config)
        clock.lap("verify")
        counts = [(score, verified.inliers) for _, score, verified in ranked if verified is not None]
        evidence = Evidence.of(counts, keypoints_used(len(features), config))
        accepted = self.rejection.accepts(evidence)
        reason = f"the best image has {counts[0][1]} inliers: not enough to believe it" if counts else ""
        return Answer(
            label,
            "match" if accepted else "no_match",
            "" if accepted else reason or "the index holds no image that could be verified",
            tuple(self._found(name, score, each, database) for name, score, each in ranked[:k]),
            self.rejection.score(evidence),
            self.rejection.note,
            keypoints=features.keypoints,
            seconds=clock.seconds,
        )

    def _found(self, name: str, score: float, verified: Verified | None, database: _Database) -> Found:
        xy = None if verified is None else database.get(name).keypoints[verified.pairs[:, 1]]
        return Found(name, score, self.places.path(name), verified, xy)


def search_vectors(places: Places, file: Path, k: int, *, names_file: Path | None = None) -> list[Answer]:
    """The best images for each vector of a file (:func:`loc.stages.places_vectors.read_vectors`).

    Raises:
        DataError: the vectors have another length than those of the index.
    """
    answers = []
    index = places.vectors
    names, dim = index.names, index.dim
    for name, row in read_vectors(file, names_file):
        if len(row) != dim:
            raise DataError(
                f"the vector of {name!r} in {file} has {len(row)} values, {places.folder} holds {dim}",
                "search with vectors of the descriptor that the index was made of",
            )
        rows, similarities = index.search(row[None], min(k, index.vectors))
        images = tuple(
            Found(names[each], float(score), places.path(names[each]))
            for each, score in zip(rows[0].tolist(), similarities[0].tolist(), strict=True)
            if each >= 0 and names[each] in places.table.images
        )
        answers.append(Answer(name, "ranked", images=images))
    return answers


class _Describer:
    """The global extractor for one photo after another, with what it learned at the first build."""

    def __init__(self, places: Places, plugin: ResolvedPlugin, device: str) -> None:
        state = fit_of(places.folder, places.card, "globals")
        features = None
        if plugin.cls.source == "features":
            local = plugin_of(places.folder, places.card, "features")
            features = None if local is None else features_folder(local, places.folder).name
        fields = global_fields(plugin, None, state) | ({} if features is None else {"features": features})
        made_with = places.card.globals_store or ""
        require_same(places.folder, made_with, f"{made_with.rpartition('-')[0]}-{fingerprint(fields)}")
        self._from_pixels = plugin.cls.source == "image"
        self._call: Any = (
            PhotoExtractor(replace(plugin, state=state), device=device)
            if self._from_pixels
            else load_fitted(plugin, state, device=device)
        )
        has_boxes = not self._from_pixels and hasattr(plugin.cls, "boxes")
        self._boxes = plugin.cls.boxes(plugin.config) if has_boxes else None

    def __call__(self, photo: OnePhoto, features: LocalFeatures | None) -> Array:
        if self._from_pixels:
            row: Array = self._call.extract(photo.read(self._call.plugin.cls.color), name=photo.file.name)
            return row
        if self._boxes is not None and features is not None:
            features = with_boxes(features, self._boxes(photo.file.name, photo.file.path))
        described: Array = self._call([features])[0]
        return described


class _Database:
    """Local features of the index's images: read when a query needs them, kept, made where there are none."""

    def __init__(self, places: Places, plugin: ResolvedPlugin, runtime: Runtime, most: int | None) -> None:
        self._places, self._plugin, self._runtime, self._most = places, plugin, runtime, most
        self._store = FeatureStore(features_folder(plugin, places.folder), feature_fields(plugin))
        self._kept: OrderedDict[str, LocalFeatures] = OrderedDict()
        self._bytes = 0
        self._warned: set[str] = set()

    def prepare(self, names: Sequence[str]) -> None:
        """Make what the store lacks: of an index without local features, once for each image."""
        missing = {name for name in names if self._places.key(name) not in self._store} - self._warned
        if not missing:
            return
        records = []
        for name in sorted(missing):
            path = self._places.path(name)
            if path is not None:
                records.append(ImageRecord(name, path, "db", "-"))
        with taking_turns(self._places.folder):
            extract_features(records, plugin=self._plugin, workdir=self._places.folder, runtime=self._runtime)
        self._store.refresh()
        for name in sorted(missing):
            if self._places.key(name) not in self._store:
                self._warned.add(name)
                log.warning(
                    "%s cannot be verified: its photo is not there any more, or another one "
                    "(put it back, or: loc index add DIR PHOTOS)",
                    self._places.path(name),
                )

    def get(self, name: str) -> LocalFeatures:
        """The first keypoints of an image, as many as verification looks at; none where it has none."""
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        key = self._places.key(name)
        if key not in self._store:
            none = np.zeros((0, 2), np.float32)
            return LocalFeatures(none, none[:, 0], none[:, :0], (1, 1))
        features = self._store.get(key)
        if self._most is not None and len(features) > self._most:
            features = features.select(np.arange(self._most))
        self._kept[name] = features
        self._bytes += _nbytes(features)
        while self._bytes > _CACHE_BYTES:
            self._bytes -= _nbytes(self._kept.popitem(last=False)[1])
        return features


def _nbytes(features: LocalFeatures) -> int:
    return int(features.descriptors.nbytes + features.keypoints.nbytes)


class _Clock:
    """Seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._since
        self._since = now
