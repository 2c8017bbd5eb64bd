"""The camera of a query: its own, or the one that the map has refined for photos of the same camera."""

from __future__ import annotations

from loc.layouts.cameras import sensor_of
from loc.sfm.bundle import MapBundle
from loc.types import Camera, Intrinsics


def query_camera(
    bundle: MapBundle, camera: Camera, camera_id: str, intrinsics: Intrinsics
) -> tuple[Camera, Intrinsics]:
    """What to localize a query with.

    Given intrinsics stay. A camera that is shared with images of the map, by its id or by make, model,
    lens and size from EXIF, is known better by the map; it then counts as given. Where the map has
    several cameras of that description, or has not refined it, the query keeps its own.
    """
    if intrinsics == "given":
        return camera, intrinsics
    refined = _refined(bundle, camera, camera_id, by_sensor=intrinsics == "exif")
    return (camera, intrinsics) if refined is None else (refined, "given")


def _refined(bundle: MapBundle, camera: Camera, camera_id: str, *, by_sensor: bool) -> Camera | None:
    # Cameras of images outside the map are in the table too, as they were before.
    used = {bundle.camera_ids[name] for name in bundle.registered}
    same = {camera_id} & used
    if by_sensor and not same:
        same = {other for other in used if sensor_of(other) == sensor_of(camera_id)}
    if len(same) != 1:
        return None
    found = bundle.cameras[same.pop()]
    fits = found.image_wh == camera.image_wh and found.has_prior_focal_length
    changed = found.model != camera.model or bool((found.params != camera.params).any())
    return found if fits and changed else None
