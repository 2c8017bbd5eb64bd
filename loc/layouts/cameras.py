"""Intrinsics: given in a list, else from EXIF with COLMAP's sensor data base, else a default to refine.

Photos share a camera per folder, or all, or none, by choice; but photos of different stored size,
or of another lens by their EXIF data, never share one, and neither do portrait and landscape photos
of one phone.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loc.config import suggest
from loc.errors import ConfigError, DataError
from loc.layouts.lists import Entry, read_entries
from loc.runtime.images import image_header
from loc.types import CAMERA_PARAMS, Camera

Sharing = Literal["per_folder", "per_image", "single"]

#: Focal length over long side where nothing is known (COLMAP's default_focal_length_factor).
DEFAULT_FOCAL_FACTOR = 1.2
#: Outside of these multiples of the long side an EXIF focal length is taken for garbage.
_SANE_FOCAL = (0.1, 50.0)
_DIAGONAL_35MM = float(np.hypot(36.0, 24.0))


@dataclass(frozen=True)
class PhotoFile:
    """A photo whose header could be read.

    Attributes:
        stored_wh: px of the stored grid.
        exif: as :func:`loc.runtime.images.image_header` returns it.
    """

    name: str
    path: Path
    stored_wh: tuple[int, int]
    exif: dict[str, Any]

    @staticmethod
    def open(name: str, path: Path) -> PhotoFile:
        """Read the header, or raise the :class:`DataError` that says why not."""
        return PhotoFile(name, path, *image_header(path))

    @property
    def sensor(self) -> tuple[Any, ...]:
        """What two photos must have in common to be of one camera in one position and one lens."""
        exif = self.exif
        lens = (exif["make"], exif["model"], exif["focal_mm"], exif["focal_35mm"], exif["focal_plane"])
        return (*self.stored_wh, exif["orientation"] >= 5, *lens)


@dataclass(frozen=True)
class GivenIntrinsics:
    """Intrinsics from lists; a name in the list may be a glob (``db/cam0/*``)."""

    exact: dict[str, Entry] = field(default_factory=dict)
    patterns: tuple[Entry, ...] = ()

    @staticmethod
    def of(entries: Iterable[Entry]) -> GivenIntrinsics:
        known = [entry for entry in entries if entry.camera is not None]
        return GivenIntrinsics(
            {entry.name: entry for entry in known},
            tuple(entry for entry in known if glob.has_magic(entry.name)),
        )

    def get(self, name: str) -> Entry | None:
        """The line for ``name``: its own, else the first glob that matches it."""
        if name in self.exact:
            return self.exact[name]
        return next((entry for entry in self.patterns if fnmatchcase(name, entry.name)), None)


def read_intrinsics(path: Path) -> GivenIntrinsics:
    """A list ``name MODEL WIDTH HEIGHT PARAMS…`` (the path may be a glob, names too).

    Raises:
        DataError: see :func:`loc.layouts.lists.read_entries`; also a line without intrinsics.
    """
    entries = read_entries(path)
    for entry in entries:
        if entry.camera is None:
            raise DataError(
                f"{entry.where}: {entry.name!r} has no intrinsics",
                "each line is: name MODEL WIDTH HEIGHT PARAMS",
            )
    return GivenIntrinsics.of(entries)


def assign_cameras(
    photos: Sequence[PhotoFile], *, given: GivenIntrinsics, sharing: Sharing, camera_model: str
) -> tuple[dict[str, str], dict[str, Camera]]:
    """A camera for every photo.

    Returns:
        name → camera id, and camera id → camera. Ids are readable and depend only on the photos that
        share the camera, not on what else is in the scene.

    Raises:
        DataError: given intrinsics are for another size than the photo has.
        ConfigError: ``camera_model`` is none of COLMAP's.
    """
    if camera_model not in CAMERA_PARAMS:
        raise ConfigError(
            f"scene.camera_model: {camera_model!r} is not a camera model of COLMAP",
            suggest(camera_model.upper(), list(CAMERA_PARAMS)),
        )
    ids: dict[str, str] = {}
    cameras: dict[str, Camera] = {}
    focals: dict[tuple[Any, ...], float | None] = {}
    for photo in sorted(photos, key=lambda photo: photo.name):
        entry = given.get(photo.name)
        if entry is not None and entry.camera is not None:
            check_size(entry.camera, photo, where=entry.where)
            camera, described = entry.camera, _described_given(entry.camera)
        else:
            if photo.sensor not in focals:
                focals[photo.sensor] = exif_focal_px(photo)
            camera = initial_camera(photo, focals[photo.sensor], camera_model)
            described = described_sensor(photo)
        key = f"{_scope(photo.name, sharing)} [{described}]"
        ids[photo.name] = key
        cameras.setdefault(key, camera)
    return ids, cameras


def check_size(camera: Camera, photo: PhotoFile, *, where: str) -> None:
    """Raise a :class:`DataError` where given intrinsics are for another size than the stored photo's."""
    if camera.image_wh == photo.stored_wh:
        return
    width, height = photo.stored_wh
    message = (
        f"intrinsics of {photo.name!r} ({where}) are for {camera.width} x {camera.height} px, "
        f"the photo is {width} x {height}"
    )
    if camera.image_wh == (height, width):
        raise DataError(
            f"{message}: they fit only the rotated size",
            "intrinsics refer to the pixels as stored, before EXIF rotation: swap the axes in the list",
        )
    raise DataError(message, "scale the intrinsics to the photo's size, or use the photos they were made for")


def initial_camera(photo: PhotoFile, focal_px: float | None, camera_model: str) -> Camera:
    """Principal point in the middle, no distortion; focal length 1.2 × long side where none is known."""
    from loc.colmap import camera_from_colmap, pycolmap

    width, height = photo.stored_wh
    focal = DEFAULT_FOCAL_FACTOR * max(width, height) if focal_px is None else focal_px
    made = pycolmap.Camera.create_from_model_name(0, camera_model, focal, width, height)
    return replace(camera_from_colmap(made), has_prior_focal_length=focal_px is not None)


def exif_focal_px(photo: PhotoFile) -> float | None:
    """Focal length in px by COLMAP from EXIF (35 mm equivalent, focal plane, or sensor data base), or None.

    COLMAP decodes the photo for it, so it is asked only where EXIF has a focal length at all.
    """
    exif, long_side = photo.exif, max(photo.stored_wh)
    if exif["focal_35mm"] is None and exif["focal_mm"] is None:
        return None
    focal = _colmap_focal_px(photo.path)
    if focal is None and exif["focal_35mm"] is not None:  # a format COLMAP cannot read
        focal = exif["focal_35mm"] / _DIAGONAL_35MM * float(np.hypot(*photo.stored_wh))
    sane = focal is not None and _SANE_FOCAL[0] <= focal / long_side <= _SANE_FOCAL[1]
    return focal if sane else None


def _colmap_focal_px(path: Path) -> float | None:
    from loc.colmap import pycolmap

    try:
        bitmap = pycolmap.Bitmap.read(path, True)
    except (RuntimeError, ValueError):
        return None
    focal = None if bitmap is None else bitmap.exif_focal_length()
    return None if focal is None else float(focal)


def _scope(name: str, sharing: Sharing) -> str:
    if sharing == "single":
        return "all"
    if sharing == "per_image":
        return name
    return name.rpartition("/")[0] or "."


def _described_given(camera: Camera) -> str:
    parameters = ",".join(repr(value) for value in camera.params.tolist())
    return f"given {camera.model} {camera.width}x{camera.height} {parameters}"


def sensor_of(camera_id: str) -> str:
    """What :func:`described_sensor` said of the photos with this camera, without their folder or name."""
    return camera_id.rpartition(" [")[2].removesuffix("]")


def described_sensor(photo: PhotoFile) -> str:
    """Size, orientation, make, model and focal length: equal for photos of one camera and one lens."""
    width, height, portrait, make, model, focal_mm, focal_35mm, plane = photo.sensor
    parts = [f"{width}x{height}", "rotated" if portrait else "", make, model]
    parts += [f"{focal_mm!r}mm" if focal_mm else "", f"{focal_35mm!r}mm-equivalent" if focal_35mm else ""]
    parts += [f"plane {plane}" if plane else ""]
    return " ".join(part for part in parts if part)
