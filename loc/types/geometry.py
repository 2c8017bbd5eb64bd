"""Cameras and poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from loc.conventions import rotation_from_quat
from loc.errors import DataError

Array = np.ndarray

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
