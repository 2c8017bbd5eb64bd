"""Keypoints, descriptors and matches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from loc.errors import ContractError
from loc.types.geometry import Array


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


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Points that a matcher found in two images by itself, without keypoints.

    Attributes:
        xy0, xy1: ``(m, 2)`` float32 px; row i of both shows one point. From a plug-in in the images it
            was shown with its declared origin, everywhere else in the stored images with corner origin.
        scores: ``(m,)`` float32 in [0, 1].
    """

    xy0: Float32[Array, "m 2"]
    xy1: Float32[Array, "m 2"]
    scores: Float32[Array, " m"]

    def __post_init__(self) -> None:
        m = len(self.scores) if self.scores.ndim == 1 else -1
        for name in ("xy0", "xy1"):
            values = getattr(self, name)
            _require(values.shape == (m, 2), name, f"({m}, 2)", values)
            _require(values.dtype == np.float32, name, "float32 (never half)", values)
            if not np.isfinite(values).all():
                raise ContractError(f"{name} holds NaN or infinity")
        if m and not ((self.scores >= 0).all() and (self.scores <= 1).all()):
            raise ContractError("scores of correspondences must lie in [0, 1]")

    def __len__(self) -> int:
        return int(self.scores.shape[0])

    def select(self, rows: Shaped[Array, " k"]) -> Correspondences:
        """Some of them (indices or mask), in that order."""
        return Correspondences(self.xy0[rows], self.xy1[rows], self.scores[rows])

    @staticmethod
    def empty() -> Correspondences:
        none = np.zeros((0, 2), np.float32)
        return Correspondences(none, none, np.zeros(0, np.float32))


def _require(ok: bool, name: str, expected: str, got: Any) -> None:
    if not ok:
        found = "None" if got is None else f"{got.dtype} {got.shape}"
        raise ContractError(f"{name} must be {expected}, got {found}")
