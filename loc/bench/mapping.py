"""Mapping: how much of the step is import and verification, and how much is COLMAP's mapper."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loc.bench.ratio import Ratio, Size, clocked, seconds
from loc.bench.world import CAMERA, View, World, make_world, match_views
from loc.config import MapConfig
from loc.plugins.blocks import resolve_block
from loc.runtime.runtime import Runtime
from loc.stages import map as map_stage
from loc.stages.artefacts import Features, Matched, Pair, PairList
from loc.stores.features import FeatureStore
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import ImageRecord, LocalFeatures, Scene

GOAL = 0.3
#: Pairs with fewer matches are not listed, as retrieval would not list them.
_MIN_MATCHES = 30
_NOTES = {
    True: "the rest: COLMAP's triangulation (a process of its own), then colours, index and sums",
    False: "nine tenths of it is COLMAP's two-view estimator, on all cores; the mapper runs on one",
}


def map_(size: Size) -> list[Ratio]:
    """Maps of 40 images from their stores: by known poses, and from scratch."""
    images, points = (8, 1500) if size.quick else (40, 6000)
    with tempfile.TemporaryDirectory() as folder:
        inputs = _Inputs.of(make_world(views=images, points=points, clutter=500), Path(folder))
        modes = (("triangulated from known poses", True), ("from scratch", False))
        return [
            Ratio(
                "map",
                f"map of {images} images and {len(inputs.pairs.pairs)} pairs, {how}: share of import and "
                "verification",
                inputs.shares(Path(folder) / how.split()[0], known, size.repeats),
                GOAL,
                ceiling=True,
                note=_NOTES[known],
            )
            for how, known in modes
        ]


@dataclass(frozen=True)
class _Inputs:
    """What the stage *map* takes."""

    scene: Scene
    features: Features
    pairs: PairList
    matches: Matched

    @staticmethod
    def of(world: World, folder: Path) -> _Inputs:
        store = FeatureStore(folder / "features" / "sift-000000000000", {})
        keys = {view.name: ItemKey(view.name, "0" * 16) for view in world.views}
        with store.writer() as writer:
            for view in world.views:
                writer.put(keys[view.name], _features(view))
        features = Features(store, keys, {}, resolve_block("features", "sift"))
        records = tuple(
            ImageRecord(view.name, folder / view.name, "db", "camera", pose=view.pose) for view in world.views
        )
        pairs, matches = _matched(world, features, folder)
        return _Inputs(Scene(records, {"camera": CAMERA}), features, pairs, matches)

    def shares(self, folder: Path, known_poses: bool, repeats: int) -> tuple[float, ...]:
        return tuple(self._share(folder / str(number), known_poses) for number in range(repeats))

    def _share(self, folder: Path, known_poses: bool) -> float:
        scene = self.scene
        if not known_poses:
            scene = replace(scene, images=tuple(replace(image, pose=None) for image in scene.images))

        def step() -> None:
            map_stage.make_map(
                scene,
                self.features,
                self.pairs,
                self.matches,
                globals_=None,
                config=MapConfig(),
                blocks={"features": "sift", "globals": None, "matcher": "nearest", "localize": {}},
                workdir=folder,
                runtime=Runtime(device="cpu"),
            )

        # `write_database` draws the verified pairs as it writes them: it is import and verification.
        with clocked(map_stage, "write_database") as imported:
            total = seconds(step)
        return imported.seconds / total


def _matched(world: World, features: Features, folder: Path) -> tuple[PairList, Matched]:
    store = MatchStore(folder / "matches" / "sift+nearest-000000000000", {})
    keys: dict[Pair, PairKey] = {}
    with store.writer() as writer:
        for row, first in enumerate(world.views):
            for second in world.views[row + 1 :]:
                found = match_views(first, second, kept=0.5, wrong=0.3, seed=row)
                if len(found) >= _MIN_MATCHES:
                    pair = first.name, second.name
                    keys[pair] = PairKey(features.keys[first.name], features.keys[second.name])
                    writer.put(keys[pair], found)
    pairs = PairList(folder / "pairs" / "map-000000000000", tuple(sorted(keys)))
    return pairs, Matched(store, keys, features, resolve_block("matcher", "nearest"))


def _features(view: View) -> LocalFeatures:
    count = len(view.points)
    return LocalFeatures(view.xy, np.ones(count, np.float32), np.zeros((count, 1), np.uint8), CAMERA.image_wh)
