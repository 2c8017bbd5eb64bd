"""`loc plan`: what each stage of a run would do and why, before hours are spent.

Counts of items and pairs are those of the run. Sizes and times come from what is already in the
stores, else from a few photos tried in memory (in a temporary folder, gone afterwards).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loc.config import RunConfig, fused_blocks
from loc.errors import MapError
from loc.layouts import load_scene
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle, is_map
from loc.stages.artefacts import Features, Globals, Matched, PairList
from loc.stages.correspond import correspondence_store, features_block, plan_images
from loc.stages.extract import (
    content_keys,
    feature_fields,
    features_folder,
    folder_name,
    global_fields,
)
from loc.stages.fit import fit_folder
from loc.stages.learn import planned_extractor
from loc.stages.localize import pose_fields
from loc.stages.map import planned_map
from loc.stages.match import match_fields, match_folder
from loc.stages.pairs import (
    needs_globals,
    pair_fields,
    pairs_folder,
    predict_pairs,
    read_pair_list,
)
from loc.stages.sample import Rates, sampled_rates, shown_pixels
from loc.stores.correspondences import CorrespondenceStore
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.files import read_json
from loc.stores.fingerprint import fingerprint
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey, PartStore
from loc.stores.products import is_done
from loc.types import ImageRecord, Scene

#: Bytes of a finished map: per keypoint (database 8, images.bin 24, index 4), per match (two-view
#: geometry 8; on the real sets 0.27 points of 111 bytes), and whatever its size (SQLite, log).
_MAP_BYTES_PER_KEYPOINT, _MAP_BYTES_PER_MATCH, _MAP_BYTES = 36, 38, 120_000
#: A part of matches, a pair in it (ids, offset), a match (two int32 and a float32).
_PART_BYTES, _PAIR_BYTES, _MATCH_BYTES = 6_200, 28, 12
#: Fields that are hashes or names of folders of a stage's inputs, in words.
_INPUTS = {
    "items": "images",
    "images": "images",
    "queries": "queries",
    "inputs": "input files",
    "keypoints": "features",
    "features": "features",
    "matches": "matches",
    "globals": "global descriptors",
    "fit": "fit",
    "map": "map",
    "pairs": "pairs",
}


@dataclass(frozen=True)
class Step:
    """One stage of the plan.

    Attributes:
        stage: name of the stage.
        items: how many images or pairs it concerns; ``exact`` is False where it is an upper bound
            because the pairs depend on descriptors that do not exist yet.
        done: of these, already in the store.
        why: ``done``, ``resume``, ``not started`` or what differs from the nearest finished store.
        nbytes: predicted size of the whole artefact on disk, or None.
        seconds: predicted time for what is left, or None.
    """

    stage: str
    items: int
    done: int
    why: str
    exact: bool = True
    nbytes: float | None = None
    seconds: float | None = None

    @property
    def counts(self) -> str:
        return f"{self.done}/{'' if self.exact else '≤ '}{self.items}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(config: RunConfig, workdir: Path, *, sample: int = 5, runtime: Runtime | None = None) -> list[Step]:
    """Predict every stage of ``loc run config -o workdir``; writes nothing into ``workdir``."""
    runtime = runtime or Runtime()
    scene = load_scene(config.scene)
    extractor = resolve_block("features", features_block(config, scene)).ready(
        runtime.torch_device, fetch=False
    )
    matcher = resolve_block("matcher", config.matcher).for_features(extractor)
    matcher = matcher.ready(runtime.torch_device, fetch=False)
    if not extractor.is_here or not matcher.is_here:
        sample = 0  # a prediction downloads nothing
    unfitted = extractor
    extractor = planned_extractor(extractor, scene.db, workdir=workdir, runtime=runtime)
    shown = unfitted if extractor.state is None or not is_done(extractor.state) else extractor
    keys, unreadable = content_keys(scene.images, runtime)
    images = [image for image in scene.images if image.name in keys]
    pixels = shown_pixels(images, extractor)
    store = FeatureStore(features_folder(extractor, workdir), feature_fields(extractor))
    with sampled_rates(images, sample, shown, matcher, runtime) as rates:
        features = _features_step(store, [keys[image.name] for image in images], pixels, rates, runtime)
        artefact = Features(store, keys, unreadable, extractor)
        walked = _Walk(config, scene, artefact, matcher, workdir)
        if features.done == features.items:
            walked.walk()
        steps = [features]
        if config.globals is not None and needs_globals(config.pairs, scene):
            steps.append(walked.step("globals", len(images), nbytes=_globals_bytes(config, len(images))))
        map_pairs, query_pairs = (
            predict_pairs(role, config.pairs, scene, set(keys)) for role in ("map", "query")
        )
        done = _match_store(matcher, artefact, workdir)
        pairs = map_pairs.count + query_pairs.count
        steps += [
            walked.step("pairs map", map_pairs.count, exact=map_pairs.exact, nbytes=0.0),
            walked.step("pairs query", query_pairs.count, exact=query_pairs.exact, nbytes=0.0),
            _matches_step(done, keys, pairs, map_pairs.exact and query_pairs.exact, rates),
            walked.step(
                "map",
                len(scene.db),
                nbytes=_map_bytes(scene, pixels, map_pairs.count, rates),
                seconds=_map_seconds(workdir, map_pairs.count),
            ),
        ]
        if scene.queries:
            steps.append(walked.step("poses", len(scene.queries), nbytes=0.0))
    return steps


class _Walk:
    """Which products of exactly this config exist: the line of a run, looked up and not computed.

    It goes on as far as the inputs of a stage are known; the stages behind stay ``not started``.
    """

    def __init__(
        self, config: RunConfig, scene: Scene, features: Features, matcher: ResolvedPlugin, workdir: Path
    ) -> None:
        self.config, self.scene, self.features = config, scene, features
        self.matcher, self.workdir = matcher, workdir
        self.states: dict[str, str] = {}

    def step(self, stage: str, items: int, *, seconds: float | None = None, **rest: Any) -> Step:
        why = self.states.get(stage, "not started")
        done = why == "done"
        return Step(stage, items, items if done else 0, why, seconds=0.0 if done else seconds, **rest)

    def walk(self) -> None:
        db = replace(self.features, keys=self._keys(self.scene.db))
        pairs = self._pairs("map", db, self._globals(db))
        if pairs is None:
            return
        matched = self._matched(db, pairs)
        frozen = matched.keypoints
        scene = replace(self.scene, images=self.scene.db)
        try:
            fields = planned_map(scene, db, pairs, matched, self.config.map)
        except MapError as error:
            self.states["map"] = error.message
            return
        folder = self.workdir / "map" / fingerprint(fields)
        if not self._look("map", folder, fields) or not is_map(folder):
            return
        bundle = MapBundle.open(folder)
        globals_ = self._globals(self.features)
        pairs = self._pairs("query", self.features, globals_, among=bundle.registered)
        if pairs is not None:
            matched = self._matched(self.features, pairs, frozen)
            options = self.config.localize
            fields = pose_fields(self.scene, bundle, self.features, pairs, matched, options)
            self._look("poses", self.workdir / "poses" / fingerprint(fields), fields)

    def _keys(self, images: Sequence[ImageRecord]) -> dict[str, ItemKey]:
        keys = self.features.keys
        return {image.name: keys[image.name] for image in images if image.name in keys}

    def _look(self, stage: str, folder: Path, fields: dict[str, Any]) -> bool:
        done = is_done(folder)
        self.states[stage] = "done" if done else _nearest(folder.parent, "manifest.json", fields)
        return done

    def _globals(self, features: Features) -> Globals | None:
        """The descriptors' store; ``done`` when it holds those of ``features``."""
        if self.config.globals is None or not needs_globals(self.config.pairs, self.scene):
            return None
        found = self._described_by(resolve_block("globals", self.config.globals), features)
        # Of all images, whatever part of the line asks: the row of the plan is about all.
        items = list(self.features.keys.values())
        done = len(items) - len(found.store.missing(items))
        self.states["globals"] = _why(found.store, len(items), done)
        others = {
            key: self._described_by(resolve_block("globals", block), features)
            for key, block in fused_blocks(self.config.pairs).items()
        }
        return replace(found, others=others)

    def _described_by(self, plugin: ResolvedPlugin, features: Features) -> Globals:
        state = None
        if plugin.needs_fit:
            names = [image.name for image in self.scene.db]
            state = fit_folder(features, names, plugin=plugin, workdir=self.workdir)
        fields = global_fields(plugin, features, state)
        name = f"{folder_name(plugin.name)}-{fingerprint(fields)}"
        return Globals(GlobalStore(self.workdir / "globals" / name, fields), features.keys, plugin, state)

    def _pairs(
        self,
        role: Literal["map", "query"],
        features: Features,
        globals_: Globals | None,
        among: Sequence[str] | None = None,
    ) -> PairList | None:
        fields = pair_fields(role, self.scene, features, globals_, config=self.config.pairs, among=among)
        folder = pairs_folder(role, fields, self.workdir)
        return read_pair_list(folder) if self._look(f"pairs {role}", folder, fields) else None

    def _matched(self, features: Features, pairs: PairList, frozen: Features | None = None) -> Matched:
        if self.matcher.reads_images:
            where: dict[str, Any] = {"workdir": self.workdir, "frozen": frozen}
            return plan_images(features, pairs.pairs, plugin=self.matcher, **where).matched
        folder = match_folder(self.matcher, features, self.workdir)
        store = MatchStore(folder, match_fields(self.matcher, features))
        keys = {(a, b): PairKey(features.keys[a], features.keys[b]) for a, b in pairs.pairs}
        return Matched(store, keys, features, self.matcher)


def _match_store(
    matcher: ResolvedPlugin, features: Features, workdir: Path
) -> MatchStore | CorrespondenceStore:
    """The store that takes long to fill."""
    if matcher.reads_images:
        return correspondence_store(matcher, workdir)
    return MatchStore(match_folder(matcher, features, workdir), match_fields(matcher, features))


def explain(store: PartStore[Any, Any]) -> str:
    """Why a store is empty: what differs from the nearest store of its kind in the run folder.

    ``missing: features.max_keypoints 4096 → 8192``
    """
    return _nearest(store.folder.parent, "store.json", store.fields)


def _nearest(folder: Path, manifest: str, wanted: dict[str, Any]) -> str:
    best: list[str] | None = None
    for path in sorted(folder.glob(f"*/{manifest}")):
        fields = read_json(path).get("fields", {})
        if all(fields.get(key) == wanted.get(key) for key in ("kind", "plugin", "role")):
            changes = _changes(fields, wanted)
            if best is None or len(changes) < len(best):
                best = changes
    return f"missing: {', '.join(best)}" if best else "not started"


def _changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    out = []
    # What follows from the others, or is only noted: no difference of its own.
    for key in sorted({*old, *new} - {"task", "known_poses"} - ({*old} - {*new} if "kind" in new else set())):
        before, after = old.get(key), new.get(key)
        if key in _INPUTS and before != after:
            if isinstance(before, int) is isinstance(after, int):  # some manifests hold a count instead
                out.append(f"other {_INPUTS[key]}")
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            out += _changes(
                before, after, prefix if key in ("config", "stage_options") else f"{prefix}{key}."
            )
        elif before != after:
            out.append(f"{prefix}{key} {before} → {after}")
    return out


def _why(store: PartStore[Any, Any], items: int, done: int) -> str:
    if done == items:
        return "done"
    return f"{100 * done // items} % — resume" if done else explain(store)


def _features_step(
    store: FeatureStore, keys: list[Any], pixels: np.ndarray, rates: Rates, runtime: Runtime
) -> Step:
    there = np.array([key in store for key in keys], bool)
    done = int(there.sum())
    nbytes: float | None = None
    if done:
        # Per pixel, so that photos of other sizes are predicted in proportion.
        nbytes = store.nbytes * pixels.sum() / pixels[there].sum() * done / max(done, len(store))
    elif rates.bytes_per_px:
        nbytes = rates.bytes_per_px * pixels.sum()
    seconds = None
    if rates.seconds_per_px or done == len(keys):
        parallel = min(runtime.num_workers, max(1, len(keys) - done))
        seconds = rates.seconds_per_px * pixels[~there].sum() / parallel
    return Step("features", len(keys), done, _why(store, len(keys), done), nbytes=nbytes, seconds=seconds)


def _globals_bytes(config: RunConfig, images: int) -> float:
    plugin = resolve_block("globals", config.globals or "vlad")
    dimension = getattr(plugin.cls, "max_dimension", 8192)
    return float(images * (4.0 * dimension + 3000))


def _matches_step(
    store: MatchStore | CorrespondenceStore, keys: dict[str, Any], pairs: int, exact: bool, rates: Rates
) -> Step:
    current = set(keys.values())
    there = [key for key in store.keys() if key.first in current and key.second in current]  # noqa: SIM118
    done = min(len(there), pairs)
    nbytes: float | None = None
    if done:
        nbytes = store.nbytes / len(store) * pairs
    elif rates.matches_per_pair:
        nbytes = 2.0 * _PART_BYTES + pairs * (_PAIR_BYTES + rates.matches_per_pair * _MATCH_BYTES)
    seconds = rates.seconds_per_pair * (pairs - done) if rates.seconds_per_pair or done == pairs else None
    return Step("matches", pairs, done, _why(store, pairs, done), exact, nbytes, seconds)


def _map_seconds(workdir: Path, pairs: int) -> float | None:
    """From the maps made in this folder: the time grows with the pairs."""
    rates = []
    for path in sorted((workdir / "map").glob("*/manifest.json")):
        listed = read_json(path.parent / "stats.json").get("pairs", {}).get("listed", 0)
        if listed:
            rates.append(float(read_json(path).get("seconds", 0.0)) / listed)
    return max(rates) * pairs if rates else None


def _map_bytes(scene: Scene, pixels: np.ndarray, pairs: int, rates: Rates) -> float | None:
    share = len(scene.db) / max(1, len(scene.images))
    keypoints = rates.keypoints_per_px * pixels.sum() * share
    matches = rates.matches_per_pair * pairs
    if not keypoints:
        return None
    return float(keypoints * _MAP_BYTES_PER_KEYPOINT + matches * _MAP_BYTES_PER_MATCH + _MAP_BYTES)
