"""Core types: what stages and plug-ins hand to one another.

All are frozen and validated on construction; a violation is a :class:`loc.errors.ContractError`
where a plug-in made the value and a :class:`loc.errors.DataError` where a file did.
Arrays are NumPy, on the host; pixels follow :mod:`loc.conventions` (corner origin, stored grid).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Shaped

from loc.conventions import rotation_from_quat
from loc.errors import ContractError, DataError

Array = np.ndarray
Role = Literal["db", "query"]
#: Where intrinsics are from: a list or model, EXIF (approximate), or nowhere.
Intrinsics = Literal["given", "exif", "guess"]

#: Number of parameters of each COLMAP camera model, in COLMAP's order (src/colmap/sensor/models.h).
CAMERA_PARAMS: dict[str, int] = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
}


@dataclass(frozen=True, eq=False)
class Camera:
    """Intrinsics in one of COLMAP's camera models.

    Attributes:
        model: COLMAP model name, e.g. ``SIMPLE_RADIAL``.
        width, height: image size in px, of the stored pixel grid.
        params: ``(p,)`` float64 in COLMAP's order, px where lengths.
        has_prior_focal_length: the focal length is known (file or EXIF), not a guess to refine.
    """

    model: str
    width: int
    height: int
    params: Float64[Array, " p"]
    has_prior_focal_length: bool = True

    def __post_init__(self) -> None:
        params = np.asarray(self.params, dtype=np.float64)
        object.__setattr__(self, "params", params)
        if self.model not in CAMERA_PARAMS:
            raise DataError(
                f"unknown camera model {self.model!r}", f"use one of COLMAP's: {', '.join(CAMERA_PARAMS)}"
            )
        expected = CAMERA_PARAMS[self.model]
        if params.shape != (expected,):
            raise DataError(
                f"camera model {self.model} takes {expected} parameters, got {params.size}",
                "the order is that of COLMAP: focal length(s), principal point, distortion",
            )
        if self.width < 1 or self.height < 1:
            raise DataError(f"camera size must be positive, got {self.width} x {self.height} px")
        focal = params[: self._focal_count]
        if not np.isfinite(params).all() or (focal <= 0).any():
            raise DataError(
                f"camera parameters must be finite with positive focal lengths, got {params.tolist()}",
                "check the intrinsics file: the order is name MODEL WIDTH HEIGHT PARAMS",
            )

    @property
    def _focal_count(self) -> int:
        single = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
        return 1 if self.model in single else 2

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def focal_px(self) -> float:
        """Mean focal length in px."""
        return float(self.params[: self._focal_count].mean())

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "width": self.width,
            "height": self.height,
            "params": self.params.tolist(),
            "has_prior_focal_length": self.has_prior_focal_length,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Camera:
        return Camera(**{**data, "params": np.asarray(data["params"], dtype=np.float64)})


@dataclass(frozen=True, eq=False)
class Pose:
    """Rigid transform ``cam_from_world``: ``X_cam = R X_world + t``.

    Attributes:
        quat_xyzw: ``(4,)`` float64 unit quaternion.
        translation: ``(3,)`` float64, world units (metres only if the map is metric).
    """

    quat_xyzw: Float64[Array, "4"]
    translation: Float64[Array, "3"]

    def __post_init__(self) -> None:
        quat = np.asarray(self.quat_xyzw, dtype=np.float64)
        translation = np.asarray(self.translation, dtype=np.float64)
        norm = float(np.linalg.norm(quat))
        finite = np.isfinite(quat).all() and np.isfinite(translation).all()
        if quat.shape != (4,) or translation.shape != (3,) or not finite or norm < 1e-6:
            raise DataError(
                f"not a pose: quaternion {quat.tolist()}, translation {translation.tolist()}",
                "a pose is a non-zero quaternion and a translation, all finite",
            )
        object.__setattr__(self, "quat_xyzw", quat / norm)
        object.__setattr__(self, "translation", translation)

    @property
    def rotation(self) -> Float64[Array, "3 3"]:
        """``R`` of ``cam_from_world``."""
        return rotation_from_quat(self.quat_xyzw)

    @property
    def center_in_world(self) -> Float64[Array, "3"]:
        """Camera centre ``-R^T t``."""
        return -self.rotation.T @ self.translation

    def inverse(self) -> Pose:
        """``world_from_cam``."""
        x, y, z, w = self.quat_xyzw
        return Pose(np.array([-x, -y, -z, w]), self.center_in_world)

    def to_json(self) -> dict[str, list[float]]:
        return {"quat_xyzw": self.quat_xyzw.tolist(), "translation": self.translation.tolist()}

    @staticmethod
    def from_json(data: dict[str, list[float]]) -> Pose:
        return Pose(np.asarray(data["quat_xyzw"]), np.asarray(data["translation"]))


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
    """

    name: str
    path: Path
    role: Role
    camera_id: str
    group: str = "all"
    pose: Pose | None = None
    mask: Path | None = None
    intrinsics: Intrinsics = "given"


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
        model: folder of the reference model, where there is one (for covisibility; never part of a
            fingerprint).
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


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Keypoints and descriptors of one image.

    Attributes:
        keypoints: ``(n, 2)`` float32 xy in px; inside a plug-in in the resized image with the
            plug-in's declared origin, everywhere else in the stored image with corner origin.
        scores: ``(n,)`` float32; comparable only within the method.
        descriptors: ``(n, d)`` float32, float16 or uint8, one row per keypoint.
        image_wh: size in px of the image the keypoints refer to.
        scales: ``(n,)`` float32 px, or None.
        orientations_rad: ``(n,)`` float32 from +x towards +y, or None.
        noise_px: standard deviation of a keypoint coordinate, px.
    """

    keypoints: Float32[Array, "n 2"]
    scores: Float32[Array, " n"]
    descriptors: Shaped[Array, "n d"]
    image_wh: tuple[int, int]
    scales: Float32[Array, " n"] | None = None
    orientations_rad: Float32[Array, " n"] | None = None
    noise_px: float = 1.0

    def __post_init__(self) -> None:
        n = self.keypoints.shape[0] if self.keypoints.ndim == 2 else -1
        _require(n >= 0 and self.keypoints.shape == (n, 2), "keypoints", "(n, 2)", self.keypoints)
        _require(self.keypoints.dtype == np.float32, "keypoints", "float32 (never half)", self.keypoints)
        _require(self.scores.shape == (n,), "scores", f"({n},)", self.scores)
        _require(
            self.descriptors.ndim == 2 and self.descriptors.shape[0] == n,
            "descriptors",
            f"({n}, d): one row per keypoint",
            self.descriptors,
        )
        _require(
            self.descriptors.dtype in (np.float32, np.float16, np.uint8),
            "descriptors",
            "float32, float16 or uint8",
            self.descriptors,
        )
        for name in ("scales", "orientations_rad"):
            values = getattr(self, name)
            _require(values is None or values.shape == (n,), name, f"({n},) or None", values)
        for name in ("keypoints", "scores", "descriptors", "scales", "orientations_rad"):
            values = getattr(self, name)
            if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ContractError(f"{name} holds NaN or infinity")

    def __len__(self) -> int:
        return int(self.keypoints.shape[0])

    def select(self, rows: Shaped[Array, " m"]) -> LocalFeatures:
        """The features of some rows (indices or mask), in that order."""
        return replace(
            self,
            keypoints=self.keypoints[rows],
            scores=self.scores[rows],
            descriptors=self.descriptors[rows],
            scales=None if self.scales is None else self.scales[rows],
            orientations_rad=None if self.orientations_rad is None else self.orientations_rad[rows],
        )


@dataclass(frozen=True, eq=False)
class Matches:
    """Putative correspondences between two images.

    Attributes:
        indices: ``(m, 2)`` int32 rows into the keypoints of image 0 and image 1, sorted by
            (column 0, column 1), no row twice.
        scores: ``(m,)`` float32 in [0, 1].
    """

    indices: Int32[Array, "m 2"]
    scores: Float32[Array, " m"]

    def __post_init__(self) -> None:
        m = self.indices.shape[0] if self.indices.ndim == 2 else -1
        _require(m >= 0 and self.indices.shape == (m, 2), "matches", "(m, 2)", self.indices)
        _require(self.indices.dtype == np.int32, "matches", "int32", self.indices)
        _require(self.scores.shape == (m,), "match scores", f"({m},)", self.scores)
        if m and not ((self.scores >= 0).all() and (self.scores <= 1).all()):
            raise ContractError("match scores must lie in [0, 1]")
        if m > 1:
            key = self.indices[:, 0].astype(np.int64) << 32 | self.indices[:, 1].astype(np.int64)
            if not (np.diff(key) > 0).all():
                raise ContractError("matches must be sorted by (index 0, index 1) without repetition")

    def __len__(self) -> int:
        return int(self.indices.shape[0])

    @staticmethod
    def empty() -> Matches:
        return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))


def _require(ok: bool, name: str, expected: str, got: Any) -> None:
    if not ok:
        found = "None" if got is None else f"{got.dtype} {got.shape}"
        raise ContractError(f"{name} must be {expected}, got {found}")


Status = Literal["ok", "doubtful", "unreadable", "no_pairs", "no_matches", "pnp_failed"]


@dataclass(frozen=True, eq=False)
class QueryResult:
    """What became of one query. Never an exception, never a substituted database pose.

    Attributes:
        name: the query image.
        status: ``ok`` and ``doubtful`` have a pose; the others say where the query fell.
        reason: one sentence for people.
        pose: estimated cam_from_world, or None.
        camera: the camera after refinement (focal length estimated where it was unknown), or None.
        covariance: ``(6, 6)`` float64 for 1 px of noise: rotation vector (rad, camera frame), then
            translation; or None.
        num_matches: 2D-3D matches after duplicates were merged.
        num_inliers: of these, consistent with the pose.
        references: database images that gave 2D-3D matches, best first.
        inlier_xy: ``(i, 2)`` float32 px, corner origin, query keypoints of the inliers.
        inlier_points3d: ``(i,)`` int64 ids of their 3-D points in the map.
        seconds: wall time per step.
    """

    name: str
    status: Status
    reason: str = ""
    pose: Pose | None = None
    camera: Camera | None = None
    covariance: Float64[Array, "6 6"] | None = None
    num_matches: int = 0
    num_inliers: int = 0
    references: tuple[str, ...] = ()
    inlier_xy: Float[Array, "i 2"] | None = None
    inlier_points3d: Shaped[Array, " i"] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def inlier_ratio(self) -> float:
        return self.num_inliers / self.num_matches if self.num_matches else 0.0
