"""Photos, their cameras, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from loc.errors import DataError
from loc.types.geometry import Camera, Pose

Role = Literal["db", "query"]
#: Where intrinsics are from: a list or model, EXIF (approximate), or nowhere.
Intrinsics = Literal["given", "exif", "guess"]


@dataclass(frozen=True)
class GpsPosition:
    """Where a photo was taken, on the WGS84 ellipsoid; as good as a phone knows it.

    Attributes:
        latitude_deg, longitude_deg: north and east positive.
        altitude_m: above the ellipsoid or the sea (EXIF does not say which), or None.
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float | None = None


@dataclass(frozen=True)
class ImageRecord:
    """One photo of a scene.

    Attributes:
        name: unique, relative, with ``/`` as separator; the photo's name in every artefact.
        path: where the file is now (never part of a fingerprint).
        role: ``db`` (mapped) or ``query`` (localized).
        camera_id: key into :attr:`Scene.cameras`.
        group: condition for evaluation (day, night, …).
        pose: known pose (mapping images of a reference model), or None.
        mask: image file whose zero pixels hide keypoints, or None.
        intrinsics: where those of its camera are from.
        gps: position from EXIF, or None.
        timestamp_s: when it was taken by the camera's clock, or None.
        pose_prior: roughly where a query was taken (cam_from_world), or None; chooses pairs, never the pose.
    """

    name: str
    path: Path
    role: Role
    camera_id: str
    group: str = "all"
    pose: Pose | None = None
    mask: Path | None = None
    intrinsics: Intrinsics = "given"
    gps: GpsPosition | None = None
    timestamp_s: float | None = None
    pose_prior: Pose | None = None


@dataclass(frozen=True)
class Scene:
    """Images, cameras and what is known about them; made by :mod:`loc.layouts`.

    Attributes:
        images: sorted by name; names are unique over both roles.
        cameras: camera table; several images may share a key.
        skipped: photos that cannot be used, name → reason; reported, never silently dropped.
        ground_truth: query name → true pose, where the data set has it (never read by a stage
            before evaluation).
        skipped_queries: those names of ``skipped`` that are queries, sorted: they count in every
            denominator.
        model: folder of the reference model, or an NVM file, where there is one (for covisibility;
            never part of a fingerprint).
    """

    images: tuple[ImageRecord, ...]
    cameras: dict[str, Camera]
    skipped: dict[str, str] = field(default_factory=dict)
    ground_truth: dict[str, Pose] = field(default_factory=dict)
    skipped_queries: tuple[str, ...] = ()
    model: Path | None = None

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.images, key=lambda image: image.name))
        object.__setattr__(self, "images", ordered)
        for before, after in pairwise(ordered):
            if before.name == after.name:
                raise DataError(
                    f"two images are called {after.name!r} ({before.path} and {after.path})",
                    "rename one of them: a name identifies an image in the map and in the poses",
                )
        for image in ordered:
            if image.camera_id not in self.cameras:
                raise DataError(f"image {image.name!r} refers to unknown camera {image.camera_id!r}")

    def of_role(self, role: Role) -> tuple[ImageRecord, ...]:
        return tuple(image for image in self.images if image.role == role)

    @property
    def db(self) -> tuple[ImageRecord, ...]:
        return self.of_role("db")

    @property
    def queries(self) -> tuple[ImageRecord, ...]:
        return self.of_role("query")

    def camera_of(self, image: ImageRecord) -> Camera:
        return self.cameras[image.camera_id]

    def __getitem__(self, name: str) -> ImageRecord:
        for image in self.images:
            if image.name == name:
                return image
        raise DataError(f"no image is called {name!r} in this scene")
