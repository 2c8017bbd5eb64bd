"""COLMAP's database for the mapper: cameras, images, keypoints and verified pairs.

Ids are deterministic: images sorted by name count from 1, cameras in order of their first use.
Matches before verification and descriptors are not written; the stores have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loc.colmap import camera_to_colmap, pose_to_colmap, pycolmap
from loc.errors import MapError
from loc.sfm.verify import VerifiedPair
from loc.types import Camera, Pose

Array = np.ndarray
_PAGE_BYTES = 4096


@dataclass(frozen=True, eq=False)
class DatabaseImage:
    """An image of the map; ``camera_id`` is the scene's key of ``camera``, ``pose`` the known pose."""

    name: str
    camera_id: str
    camera: Camera
    pose: Pose | None = None


def image_ids(images: Iterable[DatabaseImage]) -> dict[str, int]:
    """Name → COLMAP image id: sorted names count from 1."""
    return {name: number for number, name in enumerate(sorted(image.name for image in images), start=1)}


def camera_ids(images: Iterable[DatabaseImage]) -> dict[str, int]:
    """Scene's camera key → COLMAP camera id, in order of first use by sorted name."""
    ids: dict[str, int] = {}
    for image in sorted(images, key=lambda image: image.name):
        ids.setdefault(image.camera_id, len(ids) + 1)
    return ids


def reference_model(images: Sequence[DatabaseImage], *, poses: bool) -> pycolmap.Reconstruction:
    """A reconstruction without points: cameras, trivial rigs and frames, images, known poses."""
    model = pycolmap.Reconstruction()
    cameras, numbers = camera_ids(images), image_ids(images)
    for image in sorted(images, key=lambda image: image.name):
        camera_id = cameras[image.camera_id]
        if not model.exists_camera(camera_id):
            model.add_camera_with_trivial_rig(camera_to_colmap(image.camera, camera_id))
        added = pycolmap.Image(name=image.name, camera_id=camera_id, image_id=numbers[image.name])
        if poses and image.pose is not None:
            model.add_image_with_trivial_frame(added, pose_to_colmap(image.pose))
        else:
            model.add_image_with_trivial_frame(added)
    return model


def write_database(
    path: Path,
    images: Sequence[DatabaseImage],
    *,
    keypoints: Callable[[str], Array],
    pairs: Iterable[VerifiedPair],
) -> None:
    """Write the database at ``path``, complete and closed when this returns.

    Args:
        keypoints: name → ``(n, 2)`` float32 px, corner origin.
        pairs: verified pairs in any order, streamed; those without matches are left out.

    Raises:
        MapError: a pair refers to keypoints that its images do not have.
    """
    numbers = image_ids(images)
    counts: dict[str, int] = {}
    database = pycolmap.Database.open(path)
    try:
        with pycolmap.DatabaseTransaction(database):
            _write_images(database, images)
            for name, number in numbers.items():
                xy = np.ascontiguousarray(keypoints(name), np.float32).reshape(-1, 2)
                counts[name] = len(xy)
                database.write_keypoints(number, xy)
            for pair in pairs:
                if len(pair):
                    _check_rows(pair, counts)
                    database.write_two_view_geometry(
                        numbers[pair.first], numbers[pair.second], _geometry(pair)
                    )
    finally:
        database.close()  # folds the write-ahead log into the file


def map_bytes(keypoints: Iterable[int], matches: Iterable[int]) -> int:
    """An upper bound for the disk that a map needs: database, model and 2D-3D index.

    Args:
        keypoints: how many each image has.
        matches: how many each pair has, before verification.
    """
    per_image, per_pair = list(keypoints), list(matches)
    # In the database 8 bytes each, in rows that may end in a page of their own, beside the empty tables;
    # and all of it once more in the write-ahead log.
    rows = len(per_image) + len(per_pair) + 64
    database = 2 * (8 * (sum(per_image) + sum(per_pair)) + rows * _PAGE_BYTES)
    # A keypoint takes 24 bytes in images.bin and 4 in the index. A match makes at most one point: 75
    # bytes with two observations, 36 in the index.
    return database + 28 * sum(per_image) + 111 * sum(per_pair) + (1 << 20)


def _write_images(database: pycolmap.Database, images: Sequence[DatabaseImage]) -> None:
    model = reference_model(images, poses=False)
    for camera_id in sorted(model.cameras):
        database.write_camera(model.cameras[camera_id], use_camera_id=True)
    for rig_id in sorted(model.rigs):
        database.write_rig(model.rigs[rig_id], use_rig_id=True)
    for frame_id in sorted(model.frames):
        database.write_frame(model.frames[frame_id], use_frame_id=True)
    for image_id in sorted(model.images):
        database.write_image(model.images[image_id], use_image_id=True)


def _geometry(pair: VerifiedPair) -> pycolmap.TwoViewGeometry:
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = pycolmap.TwoViewGeometryConfiguration(pair.config)
    geometry.inlier_matches = np.ascontiguousarray(pair.indices, np.uint32)
    for name in ("E", "F", "H"):
        if getattr(pair, name) is not None:
            setattr(geometry, name, getattr(pair, name))
    if pair.cam2_from_cam1 is not None:
        geometry.cam2_from_cam1 = pose_to_colmap(pair.cam2_from_cam1)
    return geometry


def _check_rows(pair: VerifiedPair, counts: dict[str, int]) -> None:
    # COLMAP indexes without a check: a stale match would read foreign memory.
    for name, rows in ((pair.first, pair.indices[:, 0]), (pair.second, pair.indices[:, 1])):
        if rows.min() < 0 or rows.max() >= counts[name]:
            raise MapError(
                f"matches of {pair.first} and {pair.second} refer to keypoint {int(rows.max())} of {name}, "
                f"which has {counts[name]}",
                "the features changed after they were matched: delete the folder of matches and run again",
            )
