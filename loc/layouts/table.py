"""The scene as a table that people and other programs can read: what every image was taken to be."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from loc.types import ImageRecord, Scene


def scene_table(scene: Scene) -> dict[str, Any]:
    """A scene in JSON types, in a fixed order.

    ``images`` by name: ``name``, ``role``, ``camera_id``, ``intrinsics`` (given, exif or guess),
    ``group``, ``pose`` (cam_from_world or None), ``mask`` (path or None), ``gps`` (latitude,
    longitude, altitude or None; or None), ``timestamp_s`` (or None), ``pose_prior`` (as ``pose``).
    ``cameras`` by id.
    ``skipped``: name → reason; ``skipped_queries``: those of them that are queries. ``ground_truth``:
    names of the queries with a true pose.
    """
    return {
        "images": [_row(image) for image in scene.images],
        "cameras": {key: camera.to_json() for key, camera in sorted(scene.cameras.items())},
        "skipped": dict(sorted(scene.skipped.items())),
        "skipped_queries": sorted(scene.skipped_queries),
        "ground_truth": sorted(scene.ground_truth),
    }


def _row(image: ImageRecord) -> dict[str, Any]:
    return {
        "name": image.name,
        "role": image.role,
        "camera_id": image.camera_id,
        "intrinsics": image.intrinsics,
        "group": image.group,
        "pose": None if image.pose is None else image.pose.to_json(),
        "mask": None if image.mask is None else str(image.mask),
        "gps": None if image.gps is None else list(astuple(image.gps)),
        "timestamp_s": image.timestamp_s,
        "pose_prior": None if image.pose_prior is None else image.pose_prior.to_json(),
    }
