"""Stage *poses*: where every query was taken, and how far to believe it; and one photo at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from loc.config import LocalizeConfig, validate
from loc.errors import DataError
from loc.layouts.cameras import check_size
from loc.plugins.joint import Described
from loc.runtime.extraction import PhotoExtractor
from loc.runtime.images import Photo
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.sfm.locate import MatchedQuery, locate
from loc.stages.artefacts import Features, Matched, PairList
from loc.stages.matchphoto import photo_matching
from loc.stages.onephoto import OnePhoto, Retrieval
from loc.stages.poses import Poses, write_results
from loc.stages.querycamera import query_camera
from loc.stores.features import as_stored
from loc.stores.fingerprint import fingerprint
from loc.stores.products import is_done, make_product
from loc.types import Camera, ImageRecord, Intrinsics, QueryResult, Scene

__all__ = ["Localizer", "Poses", "localize"]

#: Raised when this stage changes the numbers.
STAGE_VERSION = 3


def localize(
    scene: Scene,
    bundle: MapBundle,
    features: Features,
    pairs: PairList,
    matches: Matched,
    *,
    config: LocalizeConfig,
    workdir: Path,
    runtime: Runtime,
) -> Poses:
    """Poses of the scene's queries; every query gets a status, none a pose that is not its own.

    The result is independent of the number of workers: queries do not see each other.

    Args:
        features: of all images; says which photos could not be read.
        pairs: ``(query, db)`` pairs; ``ranked`` is the order of a query's references.
        matches: of these pairs, and the keypoints they refer to.
    """
    fields = pose_fields(scene, bundle, features, pairs, matches, config)
    folder = workdir / "poses" / fingerprint(fields)
    total = len(scene.queries) + len(scene.skipped_queries)
    if is_done(folder):
        return Poses.open(folder)

    def build(partial: Path) -> None:
        waiting = _queries(scene, bundle, features, pairs, matches)
        results = _located(waiting, bundle, config, runtime)
        tracked = runtime.track(results, "poses", total)
        write_results(partial, list(tracked))

    make_product(folder, {**fields, "queries": total}, build)
    return Poses.open(folder)


def pose_fields(
    scene: Scene,
    bundle: MapBundle,
    features: Features,
    pairs: PairList,
    matches: Matched,
    config: LocalizeConfig,
) -> dict[str, Any]:
    """What the fingerprint covers: options, map, and the queries with their cameras and pairs."""
    queries = [
        [
            image.name,
            image.camera_id,
            scene.camera_of(image).to_json(),
            image.intrinsics,
            list(features.keys.get(image.name, ())),
        ]
        for image in scene.queries
    ]
    return {
        "kind": "poses",
        "stage": STAGE_VERSION,
        "localize": config.model_dump(mode="json"),
        "map": bundle.folder.name,
        "matches": matches.store.folder.name,
        "keypoints": matches.keypoints.store.folder.name,
        "pairs": pairs.folder.name,
        "queries": fingerprint({"queries": queries, "skipped": list(scene.skipped_queries)}),
    }


def _queries(
    scene: Scene, bundle: MapBundle, features: Features, pairs: PairList, matches: Matched
) -> Iterator[QueryResult | MatchedQuery]:
    """What each query has, read in the order of the names; results for those that cannot go on."""
    for name in scene.skipped_queries:
        yield QueryResult(name, "unreadable", scene.skipped[name])
    references: dict[str, list[str]] = {}
    for query, name in pairs.pairs:
        references.setdefault(query, []).append(name)
    for image in scene.queries:
        if image.name not in features.keys:
            reason = features.skipped.get(image.name, "it has no features")
            yield QueryResult(image.name, "unreadable", reason)
        elif pairs.empty_because:
            yield QueryResult(image.name, "no_pairs", pairs.empty_because)
        else:
            ranked = _in_rank_order(references.get(image.name, []), pairs.ranked.get(image.name, ()))
            camera = query_camera(bundle, scene.camera_of(image), image.camera_id, image.intrinsics)
            yield _matched_query(image, camera, ranked, matches)


def _matched_query(
    image: ImageRecord, known: tuple[Camera, Intrinsics], ranked: list[str], matches: Matched
) -> MatchedQuery:
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    matched = [(name, matches.get((image.name, name))) for name in ranked]
    keypoints = matches.keypoints.keypoints(image.name)
    _lap(seconds, "read", started)
    camera, intrinsics = known
    return MatchedQuery(image.name, camera, keypoints, matched, seconds, intrinsics)


def _in_rank_order(names: list[str], ranked: Sequence[str]) -> list[str]:
    rank = {name: number for number, name in enumerate(ranked)}
    return sorted(names, key=lambda name: (rank.get(name, len(rank)), name))


def _located(
    waiting: Iterator[QueryResult | MatchedQuery],
    bundle: MapBundle,
    config: LocalizeConfig,
    runtime: Runtime,
) -> Iterator[QueryResult]:
    """Results in the order of the queries. Threads are enough: PnP releases the GIL.

    Only this thread reads stores; a few queries per worker are in flight.
    """

    def work(query: QueryResult | MatchedQuery) -> QueryResult:
        return query if isinstance(query, QueryResult) else locate(bundle.index, query, config)

    bundle.index  # noqa: B018  (opened once, before threads ask for it)
    in_flight: deque[Future[QueryResult]] = deque()
    with ThreadPoolExecutor(runtime.num_workers) as threads:
        for query in waiting:
            in_flight.append(threads.submit(work, query))
            if len(in_flight) > 2 * runtime.num_workers:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()


class Localizer:
    """Localizes one photo at a time, in memory: nothing is written, the map is only read.

    Everything is loaded once; database features are read when a photo needs them and kept (1 GiB).
    Calls from several threads take turns.

    Args:
        bundle: the map, or its folder.
        runtime: where to compute.
        config: thresholds; default: those the map was made with.
    """

    def __init__(
        self,
        bundle: MapBundle | Path,
        *,
        runtime: Runtime | None = None,
        config: LocalizeConfig | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, MapBundle) else MapBundle.open(bundle)
        device = (runtime or Runtime()).torch_device()
        self.config = config or validate(LocalizeConfig, self.bundle.localize, where="localize")
        self._matching = photo_matching(self.bundle, device=device)
        self._retrieval = Retrieval.open(self.bundle, device=device)
        plugin = self._retrieval.with_extractor(self.bundle.extractor)
        self._extractor = PhotoExtractor(plugin, device=device)
        self._index = self.bundle.index
        self._turn = threading.Lock()

    def localize(
        self, image: Path | str | np.ndarray, *, camera: Camera | None = None, name: str | None = None
    ) -> QueryResult:
        """Where a photo was taken, with a status; a file that is no photo has status ``unreadable``.

        Args:
            image: a file, or pixels as stored: ``(h, w, 3)`` RGB or ``(h, w)`` grey, uint8.
            camera: intrinsics of the stored pixel grid. Without: that of the map for photos of the
                same camera by EXIF; else the focal length is found with the pose, starting from EXIF's.
            name: what the result is called; default the file's name.

        Raises:
            DataError: ``camera`` is for another size than the photo's, or the array is no image.
        """
        label = name or ("image" if isinstance(image, np.ndarray) else Path(image).name)
        with self._turn:
            started = time.perf_counter()
            try:
                photo = OnePhoto.open(image, label)
                pixels = photo.read(self._extractor.plugin.cls.color)
            except DataError as error:
                if isinstance(image, np.ndarray):
                    raise
                return QueryResult(label, "unreadable", error.message)
            if camera is not None:
                check_size(camera, photo.file, where="the camera given")
            seconds: dict[str, float] = {}
            _lap(seconds, "read", started)
            if camera is not None:
                return self._localized(photo, pixels, (camera, "given"), seconds)
            return self._localized(photo, pixels, photo.camera(self.bundle), seconds)

    def _localized(
        self, photo: OnePhoto, pixels: Photo, known: tuple[Camera, Intrinsics], seconds: dict[str, float]
    ) -> QueryResult:
        started = time.perf_counter()
        made = self._extractor.extract(pixels, name=photo.file.name)
        features = as_stored(made.features if isinstance(made, Described) else made)
        started = _lap(seconds, "extract", started)
        vector = made.vector if isinstance(made, Described) else None
        references = self._retrieval.references(photo, features, vector)
        started = _lap(seconds, "retrieve", started)
        keypoints, matched = self._matching.match(photo, features, references)
        _lap(seconds, "match", started)
        camera, intrinsics = known
        query = MatchedQuery(photo.file.name, camera, keypoints, matched, seconds, intrinsics)
        return locate(self._index, query, self.config)


def _lap(seconds: dict[str, float], step: str, since: float) -> float:
    """Note how long a step took; returns the time now."""
    now = time.perf_counter()
    seconds[step] = round(now - since, 6)
    return now
