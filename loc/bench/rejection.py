"""Calibrating the rejection of queries without a match, and what its decisions are worth on places left out.

Every photo of a known place is asked twice: of the database with the other photos of its place, and of the
database without them, where nothing can be right. Photos of no known place are asked of a database without
their like. Database photos are queries too; a photo is never in the database that it is asked of.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loc.config import Block, validate
from loc.config.ranking import RerankConfig
from loc.errors import ConfigError, DataError, StoreError
from loc.layouts.placed import DISTRACTORS, UNLABELLED, PlacedPhotos, places_of_list, places_of_set
from loc.layouts.revisited import open_sets
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.retrieval.ranking import ranking_of
from loc.retrieval.rejection import Evidence, keypoints_used, method_name
from loc.retrieval.verification import as_ranked, verify
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features
from loc.stages.extract import extract_features, extract_globals
from loc.stages.learn import fitted_extractor
from loc.stores.files import make_folder, read_sealed, write_sealed
from loc.stores.fingerprint import fingerprint
from loc.types import Array, ImageRecord

log = logging.getLogger(__name__)
#: Images whose features are kept in memory during verification.
_KEPT = 256
#: Raised when verification gives other counts for the same options.
_VERSION = 1


@dataclass(frozen=True)
class Asked:
    """A query of a database, and what became of it.

    Attributes:
        photo: the query.
        place: that it shows; ``answer`` that of the best image after verification, "" without any image.
        present: whether the database has other photos of the place.
    """

    photo: int
    place: str
    answer: str
    present: bool
    evidence: Evidence

    @property
    def right(self) -> bool:
        return self.present and self.answer == self.place


def photos_of(
    root: Path, places: Path | None, distractors: Path | None, same: Sequence[str] = ()
) -> PlacedPhotos:
    """Photos with their places: by a list, or by the ground truth of a retrieval set.

    Args:
        same: places that are one, each with commas between their names.

    Raises:
        DataError: neither is there, or several sets; or as the readers of both.
    """
    if places is not None:
        photos = places_of_list(root, places)
    else:
        sets = open_sets(root)
        if len(sets) > 1:
            raise DataError(
                f"{root} holds several sets: {', '.join(each.name for each in sets)}", "name one of them"
            )
        photos = places_of_set(sets[0])
    for names in same:
        photos = photos.united(names.split(","))
    return photos if distractors is None else photos.with_distractors(distractors)


def rerank_options(text: str) -> RerankConfig | None:
    """Verification by the name of its preset or options in YAML; None for ``auto``: what suits the features.

    >>> rerank_options("delg").residual_px, rerank_options("{use: d2r, ratio: 0.9}").ratio
    (20.0, 0.9)
    """
    import yaml

    if text == "auto":
        return None
    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError:
        options = None
    if not isinstance(options, str | dict):
        raise ConfigError(
            f"--rerank {text!r} is no verification",
            "e.g. --rerank delg, or --rerank '{use: d2r, ratio: 0.9}'",
        )
    options = {"use": options} if isinstance(options, str) else options
    return validate(RerankConfig, options, where="rerank")


class Verifier:
    """Inliers of pairs of photos, each verified once; kept in a file, so that a second run has them."""

    def __init__(self, features: Features, names: Sequence[str], config: RerankConfig, folder: Path) -> None:
        fields = {
            "version": _VERSION,
            "features": features.store.folder.name,
            "rerank": config.model_dump(mode="json", exclude={"candidates", "min_inliers"}),
            "items": [[name, features.keys[name].content] for name in names],
        }
        self._path = folder / f"{fingerprint(fields)}.json"
        self._names, self._config = names, config
        self._features = functools.lru_cache(_KEPT)(features.get)
        self._known: dict[str, int] = {}
        if self._path.is_file():
            self._known = _counts(self._path)

    def verify(self, wanted: set[tuple[int, int]], runtime: Runtime) -> None:
        """Verify pairs ``(query, image)`` that are not known yet."""
        by_query: dict[int, list[int]] = {}
        for query, image in sorted(wanted):
            if f"{query} {image}" not in self._known:
                by_query.setdefault(query, []).append(image)
        if not by_query:
            return
        make_folder(self._path.parent)

        def one(query: int) -> dict[str, int]:
            asked = self._features(self._names[query])
            return {
                f"{query} {image}": verify(asked, self._features(self._names[image]), self._config).inliers
                for image in by_query[query]
            }

        with ThreadPoolExecutor(runtime.num_workers) as threads:
            found = threads.map(one, by_query)
            for row, counts in enumerate(runtime.track(found, "verify", len(by_query)), start=1):
                self._known |= counts
                if row % 16 == 0 or row == len(by_query):
                    write_sealed(self._path, dict(self._known))

    def inliers(self, query: int, image: int) -> int:
        return self._known[f"{query} {image}"]


def _counts(path: Path) -> dict[str, int]:
    found = read_sealed(path)
    if not all(isinstance(count, int) for count in found.values()):
        raise StoreError(f"{path} holds no counts of inliers", "delete it and run again")
    return found


def databases(photos: PlacedPhotos, per_place: int) -> Iterator[tuple[int, bool, list[int]]]:
    """What is asked of what: query, whether its place is present, and the photos of the database.

    Args:
        per_place: most photos of a place that are asked: queries of the set first, then some of the others.
    """
    everything = [row for row, asked_only in enumerate(photos.asked_only) if not asked_only]
    for place in sorted(set(photos.places)):
        members = [row for row, each in enumerate(photos.places) if each == place]
        others = [row for row in everything if photos.places[row] != place]
        for query in _some(members, photos.asked_only, per_place):
            counted = [row for row in everything if row != query and (query, row) not in photos.ignored]
            present = place not in (UNLABELLED, DISTRACTORS) and len(counted) > len(others)
            if present and any(photos.places[row] == place for row in counted):
                yield query, True, counted
            if others:
                yield query, False, others


def _some(members: list[int], asked_only: Sequence[bool], most: int) -> list[int]:
    own = [row for row in members if asked_only[row]][:most]
    more = [row for row in members if not asked_only[row]]
    wanted = min(most - len(own), len(more))
    return own + [more[at * len(more) // wanted] for at in range(wanted)]


def ask(
    photos: PlacedPhotos,
    similarity: Array,
    keypoints: Sequence[int],
    verify_pairs: Callable[[set[tuple[int, int]]], Callable[[int, int], int]],
    *,
    per_place: int,
    config: RerankConfig,
) -> list[Asked]:
    """Ask every query of its databases: candidates by similarity, ranked by inliers.

    Args:
        similarity: ``(n, n)`` of query (row) and image (column); -inf where an image is not found.
        keypoints: of each photo, that take part in verification.
        verify_pairs: given the pairs that matter, returns what gives their inliers.
        config: how many images are verified, and how many inliers reorder them.
    """
    tasks = []
    for query, present, database in databases(photos, per_place):
        rows = np.array(database)
        order = rows[np.argsort(-similarity[query, rows], kind="stable")]
        tasks.append((query, present, order[np.isfinite(similarity[query, order])][: config.candidates]))
    inliers = verify_pairs({(query, int(image)) for query, _, order in tasks for image in order})
    asked = []
    for query, present, order in tasks:
        counts = np.array([inliers(query, int(image)) for image in order], np.int64)
        best_first = np.argsort([-as_ranked(count, config) for count in counts.tolist()], kind="stable")
        ranked = [(float(similarity[query, order[at]]), int(counts[at])) for at in best_first]
        answer = photos.places[order[best_first[0]]] if len(order) else ""
        evidence = Evidence.of(ranked, keypoints[query])
        asked.append(Asked(query, photos.places[query], answer, present, evidence))
    return asked


def described(
    photos: PlacedPhotos, features: ResolvedPlugin, workdir: Path, runtime: Runtime
) -> tuple[PlacedPhotos, list[ImageRecord], Features]:
    """Local features of all photos, and the photos without those that cannot be read.

    An extractor that learns something learns it where a global one does: :func:`learned_on`.

    Raises:
        DataError: none can be.
    """
    width = len(str(len(photos.photos)))
    records = [
        ImageRecord(f"{row:0{width}}_{path.name}", path, "db", "") for row, path in enumerate(photos.photos)
    ]
    features = fitted_extractor(features, learned_on(photos, records), workdir=workdir, runtime=runtime)
    found = extract_features(records, plugin=features, workdir=workdir, runtime=runtime)
    for name, reason in found.skipped.items():
        log.warning("%s is left out: %s", name, reason)
    kept = [row for row, record in enumerate(records) if record.name in found.keys]
    if not kept:
        raise DataError(f"no photo of {photos.name} can be read", "loc doctor FOLDER says why")
    return photos.select(kept), [records[row] for row in kept], found


def learned_on(photos: PlacedPhotos, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The photos that are in databases, without distractors."""
    return [
        record
        for record, asked_only, place in zip(records, photos.asked_only, photos.places, strict=True)
        if not asked_only and place != DISTRACTORS
    ]


def similarities(
    plugin: ResolvedPlugin,
    photos: PlacedPhotos,
    records: list[ImageRecord],
    features: Features,
    *,
    workdir: Path,
    runtime: Runtime,
) -> Array:
    """``(n, n)`` similarity of global descriptors, query by row; -inf where an image is not found.

    What is learned is learned on :func:`learned_on`.
    """
    fit_names = [record.name for record in learned_on(photos, records)]
    globals_ = extract_globals(
        records, features, plugin=plugin, fit_names=fit_names, workdir=workdir, runtime=runtime
    )
    if missing := [record.name for record in records if record.name not in globals_.keys]:
        raise DataError(f"{plugin.name} describes no {missing[0]}", "take the photo out of the set")
    rows = globals_.matrix([record.name for record in records])
    order, scores = ranking_of(rows, regions=plugin.regions, own=plugin.own_ranking)(rows, len(rows))
    out = np.full((len(rows), len(rows)), -np.inf, np.float32)
    query, at = np.nonzero(order >= 0)
    out[query, order[query, at]] = scores[query, at]
    return out


def ready(section: str, block: Block | str, runtime: Runtime) -> ResolvedPlugin:
    return resolve_block(section, block).ready(runtime.torch_device)


def asked_of(
    photos: PlacedPhotos,
    globals_blocks: Sequence[Block | str],
    features_block: Block | str,
    config: RerankConfig,
    *,
    per_place: int,
    workdir: Path,
    runtime: Runtime,
) -> Iterator[tuple[str, str, list[Asked]]]:
    """For each global extractor: its name and that of the features, and what became of every query."""
    local = ready("features", features_block, runtime)
    photos, records, features = described(photos, local, workdir, runtime)
    names = [record.name for record in records]
    verifier = Verifier(features, names, config, workdir / "verified")
    keypoints = [keypoints_used(features.count(name), config) for name in names]

    def verify_pairs(wanted: set[tuple[int, int]]) -> Callable[[int, int], int]:
        verifier.verify(wanted, runtime)
        return verifier.inliers

    for block in globals_blocks:
        plugin = ready("globals", block, runtime)
        similarity = similarities(plugin, photos, records, features, workdir=workdir, runtime=runtime)
        asked = ask(photos, similarity, keypoints, verify_pairs, per_place=per_place, config=config)
        yield method_name(plugin), method_name(local), asked
