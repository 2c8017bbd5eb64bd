"""A scene with known truth, as the stages hand it on: no photos, keypoints projected from points."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.colmap import camera_from_colmap, pose_from_colmap, pycolmap
from loc.config import MapConfig
from loc.plugins.blocks import resolve_block
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.stages.artefacts import Features, Matched, PairList
from loc.stages.map import make_map
from loc.stores.features import FeatureStore
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import ImageRecord, LocalFeatures, Matches, Scene

BLOCKS: dict[str, Any] = {"features": "sift", "globals": None, "matcher": "nearest", "localize": {}}


@dataclass(frozen=True)
class Synthetic:
    """Artefacts up to the map, and the reconstruction they were made from."""

    truth: pycolmap.Reconstruction
    scene: Scene
    features: Features
    pairs: PairList
    matches: Matched
    workdir: Path

    def map(self, workdir: Path | None = None, *, workers: int = 1, **config: Any) -> MapBundle:
        return make_map(
            self.scene,
            self.features,
            self.pairs,
            self.matches,
            globals_=None,
            config=MapConfig(**config),
            blocks=BLOCKS,
            workdir=workdir or self.workdir,
            runtime=Runtime(device="cpu", workers=workers),
        )

    def without_poses(self) -> Synthetic:
        images = tuple(replace(image, pose=None) for image in self.scene.images)
        return replace(self, scene=replace(self.scene, images=images))


def synthesize(
    workdir: Path,
    *,
    images: int = 6,
    points: int = 200,
    noise_px: float = 0.5,
    wrong_matches: int = 20,
    with_poses: bool = True,
    has_prior_focal_length: bool = True,
    seed: int = 0,
) -> Synthetic:
    """A scene of one SIMPLE_RADIAL camera whose images all see all points."""
    truth = _truth(images, points, noise_px, seed)
    camera = replace(camera_from_colmap(truth.cameras[1]), has_prior_focal_length=has_prior_focal_length)
    generator = np.random.default_rng(seed)
    folder = workdir / "images"
    folder.mkdir(parents=True, exist_ok=True)
    records, items, ids = [], [], {}
    for image in sorted((truth.images[i] for i in truth.reg_image_ids()), key=lambda image: image.name):
        pose = pose_from_colmap(image.cam_from_world()) if with_poses else None
        records.append(ImageRecord(image.name, folder / image.name, "db", "camera", pose=pose))
        xy = np.array([point.xy for point in image.points2D], np.float32)
        ids[image.name] = np.array(
            [point.point3D_id if point.has_point3D() else -1 for point in image.points2D], np.int64
        )
        items.append((ItemKey(image.name, "0" * 16), _features(xy, (camera.width, camera.height))))
    store = FeatureStore(workdir / "features" / "sift-000000000000", {"synthetic": seed})
    with store.writer() as writer:
        for key, item in items:
            writer.put(key, item)
    features = Features(store, {key.name: key for key, _ in items}, {}, resolve_block("features", "sift"))
    pairs, matches = _matched(workdir, features, ids, wrong_matches, generator)
    return Synthetic(truth, Scene(tuple(records), {"camera": camera}), features, pairs, matches, workdir)


def _matched(
    workdir: Path, features: Features, ids: dict[str, np.ndarray], wrong: int, generator: np.random.Generator
) -> tuple[PairList, Matched]:
    names = sorted(ids)
    pairs = tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    store = MatchStore(workdir / "matches" / "sift+nearest-000000000000", {"synthetic": True})
    keys = {pair: PairKey(features.keys[pair[0]], features.keys[pair[1]]) for pair in pairs}
    with store.writer() as writer:
        for first, second in pairs:
            writer.put(keys[first, second], _matches(ids[first], ids[second], wrong, generator))
    plugin = resolve_block("matcher", "nearest")
    return PairList(workdir / "pairs" / "map-000000000000", pairs), Matched(store, keys, features, plugin)


def _matches(ids0: np.ndarray, ids1: np.ndarray, wrong: int, generator: np.random.Generator) -> Matches:
    _, rows0, rows1 = np.intersect1d(
        np.where(ids0 >= 0, ids0, -1 - np.arange(len(ids0))),
        np.where(ids1 >= 0, ids1, -1 - len(ids0) - np.arange(len(ids1))),
        return_indices=True,
    )
    swapped = generator.permutation(len(rows1))[: min(wrong, len(rows1))]
    rows1 = rows1.copy()
    rows1[np.sort(swapped)] = rows1[np.roll(np.sort(swapped), 1)]
    indices = np.column_stack([rows0, rows1]).astype(np.int32)
    indices = indices[np.lexsort((indices[:, 1], indices[:, 0]))]
    return Matches(indices, np.ones(len(indices), np.float32))


def _truth(images: int, points: int, noise_px: float, seed: int) -> pycolmap.Reconstruction:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs = 1
    options.num_cameras_per_rig = 1
    options.num_frames_per_rig = images
    options.num_points3D = points
    pycolmap.set_random_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        database = pycolmap.Database.open(Path(folder) / "database.db")
        truth = pycolmap.synthesize_dataset(options, database)
        if noise_px:
            noise = pycolmap.SyntheticNoiseOptions()
            noise.point2D_stddev = noise_px
            pycolmap.synthesize_noise(noise, truth, database)
        database.close()
    return truth


def _features(xy: np.ndarray, image_wh: tuple[int, int]) -> LocalFeatures:
    descriptors = np.zeros((len(xy), 4), np.uint8)
    return LocalFeatures(xy, np.ones(len(xy), np.float32), descriptors, image_wh)
