"""Stage *map*: from verified matches to a model, its 2D-3D index, and the bundle localization takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from loc.config import MapConfig
from loc.errors import MapError, StoreError
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle, is_map
from loc.sfm.colors import sample_colors
from loc.sfm.database import DatabaseImage, camera_ids, map_bytes, reference_model, write_database
from loc.sfm.funnel import FunnelCounter, write_funnel
from loc.sfm.mapper import FoundModel, Task, mapper_options, refines_any, run_mapper, triangulation_options
from loc.sfm.model import (
    Model,
    build_index,
    mean_reprojection_error_px,
    model_digest,
    read_model,
    write_colors,
)
from loc.sfm.verify import PairJob, VerifiedPair, View, verify_pairs
from loc.stages.artefacts import Features, Globals, Matched, Pair, PairList
from loc.stores.files import make_folder, read_json, remove_tree, require_space, write_json, writing
from loc.stores.fingerprint import digest, fingerprint
from loc.stores.products import check_product, make_product
from loc.types import Camera, ImageRecord, Scene

#: Raised when this stage changes the numbers.
STAGE_VERSION = 1
#: Images whose keypoints are kept in memory while pairs are verified.
_CACHED_IMAGES = 2048


def make_map(
    scene: Scene,
    features: Features,
    pairs: PairList,
    matches: Matched,
    *,
    globals_: Globals | None,
    config: MapConfig,
    blocks: dict[str, Any],
    workdir: Path,
    runtime: Runtime,
) -> MapBundle:
    """Map the database images of ``scene``: from scratch, or by triangulation from known poses.

    Args:
        pairs: map pairs, smaller name first; those whose images have no features are left out.
        matches: matches of these pairs, and the keypoints they refer to.
        globals_: global descriptors of the database images, for the bundle.
        blocks: plain JSON of the config's ``features``, ``globals``, ``matcher``, ``localize`` …

    Raises:
        MapError: fewer than two images, no pairs, poses missing, no 3-D points, or the mapper died.
    """
    job = _MapJob.of(scene, features, pairs, matches, config)
    fields = map_fields(job)
    folder = workdir / "map" / fingerprint(fields)
    make_product(folder, fields, lambda partial: job.build(partial, runtime))
    check_product(folder, "model/")  # opening a map (localize-photo) compares these sizes alone
    own = matches.keypoints if matches.keypoints.store.folder != features.store.folder else None
    bundle = replace(
        MapBundle.open(folder) if is_map(folder) else _bundle(job, folder, features),
        features_folder=features.store.folder,
        keypoints_folder=None if own is None else own.store.folder,
        keypoints={} if own is None else {image.name: own.keys[image.name] for image in job.images},
        photos={} if own is None else {name: record.path for name, record in job.records.items()},
        masks={} if own is None else {name: each.mask for name, each in job.records.items() if each.mask},
        globals_folder=None if globals_ is None else globals_.store.folder,
        fit_folder=None if globals_ is None else globals_.fit,
        extractor_fit=features.plugin.state,
        blocks=blocks,
    )
    # Not part of the product: a run that reuses the map with other options of localization, or with
    # other global descriptors, only writes this small file anew.
    bundle.save(run_folder=workdir)
    return bundle


def planned_map(
    scene: Scene, features: Features, pairs: PairList, matches: Matched, config: MapConfig
) -> dict[str, Any]:
    """The fields of the map that :func:`make_map` would make of the same arguments."""
    return map_fields(_MapJob.of(scene, features, pairs, matches, config))


def map_fields(job: _MapJob) -> dict[str, Any]:
    """What the fingerprint of a map covers."""
    images = [
        [
            *job.matches.keypoints.keys[image.name],
            image.camera_id,
            image.camera.to_json(),
            image.pose.to_json() if image.pose is not None and job.uses_poses else None,
        ]
        for image in job.images
    ]
    return {
        "kind": "map",
        "stage": STAGE_VERSION,
        "task": job.task,
        "known_poses": job.known_poses,
        "config": job.config.model_dump(mode="json", exclude={"timeout_s"}),
        "keypoints": job.matches.keypoints.store.folder.name,
        "matches": job.matches.store.folder.name,
        "images": fingerprint({"images": images}),
        "unreadable": sorted(job.unreadable),
        "pairs": digest(name for pair in job.pairs for name in pair),
    }


@dataclass(frozen=True)
class _MapJob:
    """One map to make: checked inputs, and what ``auto`` came to."""

    images: tuple[DatabaseImage, ...]
    records: dict[str, ImageRecord]
    unreadable: dict[str, str]
    pairs: tuple[Pair, ...]
    matches: Matched
    config: MapConfig
    task: Task
    known_poses: bool

    @staticmethod
    def of(scene: Scene, features: Features, pairs: PairList, matches: Matched, config: MapConfig) -> _MapJob:
        keypoints = matches.keypoints
        records = {record.name: record for record in scene.db}
        images = tuple(
            DatabaseImage(name, record.camera_id, scene.camera_of(record), record.pose)
            for name, record in records.items()
            if name in keypoints.keys
        )
        unreadable = {
            name: reason for name, reason in scene.skipped.items() if name not in scene.skipped_queries
        }
        for name in records:
            if name not in keypoints.keys:
                unreadable[name] = features.skipped.get(name, "it has no features")
        if len(images) < 2:
            total = len({*records, *unreadable})
            raise MapError(
                f"a map needs at least 2 database images with features, got {len(images)} of {total}",
                _first_reason(unreadable) or "add photos that overlap",
            )
        known = {image.name for image in images}
        usable = tuple(sorted({pair for pair in pairs.pairs if known.issuperset(pair)} & set(matches.keys)))
        if not usable:
            raise MapError(
                f"there are no pairs among the {len(images)} database images ({pairs.folder})",
                "check the `pairs` section of the config: one generator must be for: map or both",
            )
        task = _task(config, images)
        verification = config.verification
        known_poses = verification == "known_poses" or (verification == "auto" and task == "triangulate")
        _require_poses(images, "map.verification is known_poses", needed=known_poses)
        return _MapJob(images, records, unreadable, usable, matches, config, task, known_poses)

    @property
    def uses_poses(self) -> bool:
        return self.known_poses or self.task == "triangulate"

    @property
    def refines(self) -> bool:
        """Whether the map changes intrinsics."""
        if self.task == "triangulate":  # these belong to the reference model
            return self.config.refine_intrinsics == "always"
        return refines_any(self.config, (image.camera for image in self.images))

    def build(self, partial: Path, runtime: Runtime) -> None:
        """Fill the product's folder."""
        counter = self._write_database(partial, runtime)
        try:
            if not counter.pairs_verified:
                raise self._nothing(counter, partial)
            (models,) = runtime.track((self._map(each) for each in (partial,)), f"map {self.task}", 1)
            if not models or models[0].points == 0:
                raise self._nothing(counter, partial)
            model = self._finish(partial, models, runtime)
        except MapError:
            self._write_funnel(partial, counter, None, [])
            raise
        build_index(model).save(partial / "index")
        self._write_funnel(partial, counter, model, models)
        write_json(partial / "stats.json", self._stats(partial, counter, model, models))

    def _write_database(self, folder: Path, runtime: Runtime) -> FunnelCounter:
        keypoints = self.matches.keypoints
        counts = {image.name: keypoints.count(image.name) for image in self.images}
        # Native code does not survive a full disk (SQLite aborts the process), so we ask first.
        require_space(folder, map_bytes(counts.values(), map(self.matches.count, self.pairs)))
        counter = FunnelCounter(counts, self.unreadable, min_num_inliers=self.config.min_num_inliers)
        verified = verify_pairs(
            self._jobs(counter),
            known_poses=self.known_poses,
            max_error_px=self.config.max_error_px,
            min_num_inliers=self.config.min_num_inliers,
            workers=runtime.num_workers,
        )

        def counted() -> Iterator[VerifiedPair]:
            for pair in runtime.track(verified, "verified pairs", len(self.pairs)):
                counter.verified(pair.first, pair.second, len(pair))
                yield pair

        write_database(folder / "database.db", self.images, keypoints=keypoints.keypoints, pairs=counted())
        return counter

    def _jobs(self, counter: FunnelCounter) -> Iterator[PairJob]:
        """Pairs with their matches, in the order in which these lie on disk."""
        images = {image.name: image for image in self.images}

        @lru_cache(maxsize=_CACHED_IMAGES)
        def view(name: str) -> View:
            image = images[name]
            return View(name, self.matches.keypoints.keypoints(name), image.camera, image.pose)

        keys = [self.matches.keys[pair] for pair in self.pairs]
        for key, matches in self.matches.store.items(keys):
            first, second = key.first.name, key.second.name
            counter.matched(first, second, len(matches))
            yield PairJob(view(first), view(second), matches.indices)

    def _map(self, folder: Path) -> list[FoundModel]:
        reference = None
        if self.task == "triangulate":
            reference = make_folder(folder / "reference")
            with writing(reference):
                reference_model(self.images, poses=True).write(reference)
        numbers = camera_ids(self.images)
        cameras = {numbers[image.camera_id]: image.camera for image in self.images}
        return run_mapper(
            self.task,
            database=folder / "database.db",
            output=folder / "models",
            options=mapper_options(self.task, self.config, cameras),
            triangulation=triangulation_options(self.config),
            log=folder / "colmap.log",
            reference=reference,
            refine_intrinsics=self.task == "triangulate" and self.refines,
            deterministic=self.config.deterministic,
            timeout_s=self.config.timeout_s,
        )

    def _finish(self, folder: Path, models: list[FoundModel], runtime: Runtime) -> Model:
        """Keep the largest model, checked and coloured, and remove what the mapper left."""
        with writing(folder):
            models[0].folder.rename(folder / "model")
        remove_tree(folder / "models")
        remove_tree(folder / "reference")
        log = folder / "colmap.log"
        try:
            model = read_model(folder / "model")
        except StoreError as error:
            raise MapError(
                f"the mapper wrote an unusable model: {error.message}", f"details: {log}"
            ) from error
        if not np.isfinite(model.xyz).all():
            bad = int((~np.isfinite(model.xyz).all(axis=1)).sum())
            raise MapError(
                f"{bad} of {len(model.xyz)} 3-D points of the map are not finite",
                f"check the poses and intrinsics of the images; details: {log}",
            )
        least = 1 if self.task == "triangulate" else self.config.min_model_size
        if len(model.images) < least:
            raise MapError(
                f"the largest model has {len(model.images)} of {len(self.images)} images, fewer than "
                f"map.min_model_size = {least}",
                f"add photos with more overlap, or lower map.min_model_size; details: {log}",
            )
        paths = {name: record.path for name, record in self.records.items()}
        write_colors(folder / "model", sample_colors(model, paths, workers=runtime.num_workers))
        return model

    def _stats(
        self, folder: Path, counter: FunnelCounter, model: Model, models: list[FoundModel]
    ) -> dict[str, Any]:
        points, observations = len(model.point_ids), model.num_observations
        return {
            "task": self.task,
            "verification": "known_poses" if self.known_poses else "two_view",
            "images": len(self.images) + len(self.unreadable),
            "registered": len(model.images),
            "points": points,
            "observations": observations,
            "mean_track_length": round(observations / points, 4),
            "mean_reprojection_error_px": round(mean_reprojection_error_px(model), 4),
            "pairs": self._pair_counts(counter),
            "other_models": [{"registered": len(each.images), "points": each.points} for each in models[1:]],
            "refined_intrinsics": self.refines,
            "deterministic": self.config.deterministic,
            "digest": model_digest(folder / "model"),
        }

    def _pair_counts(self, counter: FunnelCounter) -> dict[str, int]:
        return {
            "listed": len(self.pairs),
            "matched": counter.pairs_with_matches,
            "verified": counter.pairs_verified,
        }

    def _write_funnel(
        self, folder: Path, counter: FunnelCounter, model: Model | None, models: list[FoundModel]
    ) -> None:
        seen = {} if model is None else model.images
        points = {name: int((image.point_ids >= 0).sum()) for name, image in seen.items()}
        elsewhere = {name: len(each.images) for each in reversed(models[1:]) for name in each.images}
        rows = counter.finish(points, elsewhere=elsewhere)
        write_funnel(folder / "funnel.json", rows, pairs=self._pair_counts(counter))

    def _nothing(self, counter: FunnelCounter, folder: Path) -> MapError:
        """Why there are no points, with the counts and the step to look at."""
        total, log = len(self.images), folder / "funnel.json"
        start = f"0 of {total} images produced 3-D points; "
        if not counter.pairs_with_matches:
            return MapError(
                f"{start}0 of {len(self.pairs)} pairs had matches",
                f"check that the photos overlap, or loosen the matcher's thresholds; details: {log}",
            )
        if not counter.pairs_verified:
            check = (
                "the photos overlap"
                if not self.known_poses
                else ("the reference poses and the features use the same images")
            )
            return MapError(
                f"{start}{counter.pairs_with_matches} pairs had matches, 0 passed verification",
                f"check that {check}; details: {log}",
            )
        advice = {
            "incremental": "add photos with more overlap and some baseline, or try map.mapper=global",
            "global": "add photos with more overlap and some baseline, or try map.mapper=incremental",
            "triangulate": "check that the reference poses are cam_from_world and belong to these images",
        }[self.task]
        return MapError(
            f"{start}{counter.pairs_verified} pairs passed verification, but "
            + (
                "no point could be triangulated"
                if self.task == "triangulate"
                else "no model could be started"
            ),
            f"{advice}; details: {folder / 'colmap.log'}",
        )


def _bundle(job: _MapJob, folder: Path, features: Features) -> MapBundle:
    """The bundle of a map that was just made."""
    model = read_model(folder / "model")
    numbers = camera_ids(job.images)
    given = {image.camera_id: image.camera for image in job.images}
    return MapBundle(
        folder=folder,
        images={image.name: features.keys[image.name] for image in job.images},
        cameras={key: _refined(given[key], model, number) for key, number in numbers.items()},
        camera_ids={image.name: image.camera_id for image in job.images},
        poses={name: image.pose for name, image in model.images.items()},
        features_folder=features.store.folder,
        stats=read_json(folder / "stats.json"),
    )


def _refined(given: Camera, model: Model, number: int) -> Camera:
    """A camera as the model has it; one that the map has estimated counts as known from now on."""
    if number not in model.cameras:
        return given
    used = any(image.camera_id == number for image in model.images.values())
    changed = used and not np.array_equal(model.cameras[number].params, given.params)
    return replace(
        model.cameras[number], has_prior_focal_length=given.has_prior_focal_length or bool(changed)
    )


def _task(config: MapConfig, images: tuple[DatabaseImage, ...]) -> Task:
    if config.mode == "reconstruct" or (config.mode == "auto" and any(each.pose is None for each in images)):
        return config.mapper
    _require_poses(images, "map.mode is triangulate", needed=True)
    return "triangulate"


def _require_poses(images: tuple[DatabaseImage, ...], why: str, *, needed: bool) -> None:
    without = [image.name for image in images if image.pose is None]
    if needed and without:
        shown = ", ".join(without[:3]) + (", …" if len(without) > 3 else "")
        raise MapError(
            f"{why}, but {len(without)} of {len(images)} database images have no known pose: {shown}",
            "set map.mode=reconstruct and map.verification=two_view, or give a model with these images",
        )


def _first_reason(unreadable: dict[str, str]) -> str:
    return next((f"{name}: {reason}" for name, reason in sorted(unreadable.items())), "")
