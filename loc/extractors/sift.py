"""SIFT by COLMAP: needs no weights and no GPU; the method that every other one is measured against.

Defaults are measured: see ``docs/sift_defaults.md``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8
from pydantic import Field

from loc.colmap import pycolmap
from loc.conventions import PixelOrigin, center_from_corner
from loc.errors import ContractError
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.runtime.select import spatially_even
from loc.types import LocalFeatures

Array = np.ndarray

#: COLMAP's own limits are switched off: the runtime resizes, and the cap needs all points to choose from.
_NO_LIMIT = 2**30
#: COLMAP's covariant detector (affine shape, domain-size pooling) crashes if the image is smaller
#: than this in the first octave: 12 px do, 16 px do not (measured over octaves -2 to 4).
_COVARIANT_MIN_SIDE = 16
#: Blur that a photo is taken to have, as in Lowe's paper and VLFeat.
_NOMINAL_BLUR_PX = 0.5
#: Two thirds of an octave below 1 px: finer points are measured at this scale.
_SMALLEST_SCALE_PX = 2 ** (-2 / 3)
#: cv2.remap takes fewer than 2^15 samples along a side.
_REMAP_LIMIT = 2**15 - 1


class SiftConfig(PluginConfig):
    """Options of :class:`Sift`; thresholds are those of VLFeat, for grey values in [0, 1]."""

    max_keypoints: int | None = Field(
        8192, ge=1, description="at most this many per image, spread evenly over it; null: no limit"
    )
    first_octave: int = Field(
        -1, ge=-2, le=4, description="-1 doubles the image first (finer points), 0 starts at its own size"
    )
    num_octaves: int = Field(4, ge=1, le=12, description="octaves of the scale space (plain detector only)")
    octave_resolution: int = Field(3, ge=1, le=10, description="scales per octave")
    peak_threshold: float = Field(
        0.02 / 3, gt=0, description="least contrast (difference of Gaussians) of a point"
    )
    edge_threshold: float = Field(10.0, gt=1, description="largest ratio of curvatures: lower drops edges")
    domain_size_pooling: bool = Field(
        False, description="DSP-SIFT: average descriptors over window sizes; twice the time"
    )
    affine_shape: bool = Field(False, description="adapt the window's shape to the surface (oblique views)")
    upright: bool = Field(False, description="no orientation: for photos that are all held the same way up")
    max_orientations: int = Field(2, ge=1, le=4, description="keypoints per place, one per dominant gradient")
    normalization: Literal["root_l1", "l2"] = Field("root_l1", description="root_l1 is RootSIFT")


class Sift:
    """DoG keypoints and RootSIFT descriptors of one grey image, on one CPU core.

    * Descriptors are ``(n, 128)`` uint8: values are 512 times the unit vector's, clipped at 255.
    * ``scales`` is the standard deviation, px, of the detecting Gaussian; with affine shape, the mean
      of the lengths of the shape's two axes, and the orientation that of its first axis, as in COLMAP.
    * A place with several dominant gradients is several keypoints at the same pixel.
    * COLMAP hands out no detection score, so ``scores`` are measured again: the absolute difference
      of Gaussians at the keypoint's place and scale, for grey values in [0, 1] (what ``peak_threshold``
      is compared with).
    * Rows are ordered so that the first k are good and spread over the image, for every k
      (:func:`loc.runtime.select.spatially_even`); the k of highest score are good but crowd together,
      hence ``ranked = False``.
    """

    Config: ClassVar[type[SiftConfig]] = SiftConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "BSD-3-Clause (COLMAP), BSD-2-Clause (VLFeat); the patent expired in 2020"
    commercial_ok: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "D. Lowe, Distinctive image features from scale-invariant keypoints, IJCV 2004; "
        "R. Arandjelovic and A. Zisserman, Three things everyone should know to improve object retrieval, "
        "CVPR 2012 (RootSIFT); J. Dong and S. Soatto, Domain-size pooling in local descriptors, CVPR 2015"
    )
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    pixel_origin: ClassVar[PixelOrigin] = "corner"
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    parallel: ClassVar[Literal["batch", "process"]] = "process"
    min_side: ClassVar[int] = 16
    ranked: ClassVar[bool] = False
    #: Standard deviation of a coordinate, px.
    noise_px: ClassVar[float] = 0.5

    def __init__(self, config: SiftConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        self._extractor = pycolmap.FeatureExtractor.create(_options(config), pycolmap.Device.cpu)

    def __call__(self, images: Float[Array, "1 1 h w"]) -> list[LocalFeatures]:
        """Features of one image, ``(1, 1, h, w)`` float in [0, 1].

        Raises:
            ContractError: the array has another shape.
        """
        if images.ndim != 4 or images.shape[:2] != (1, 1):
            raise ContractError(
                f"sift takes one grey image at a time, (1, 1, h, w), got {tuple(images.shape)}",
                "run it through loc.runtime, which hands out images the way a plug-in declares",
            )
        gray = np.rint(images[0, 0].clip(0.0, 1.0) * 255.0).astype(np.uint8)
        image_wh = (gray.shape[1], gray.shape[0])
        frames, descriptors = self._detect(gray)
        usable = np.flatnonzero(_usable(frames, image_wh))
        scores = _contrast(gray, frames[usable])
        # Of two places with the same contrast the larger one is found again more often.
        priority = scores * np.sqrt(frames[usable, 2])
        chosen = spatially_even(frames[usable, :2], priority, image_wh, self.config.max_keypoints)
        frames = frames[usable[chosen]]
        features = LocalFeatures(
            keypoints=np.ascontiguousarray(frames[:, :2]),
            scores=scores[chosen],
            descriptors=descriptors[usable[chosen]],
            image_wh=image_wh,
            scales=np.ascontiguousarray(frames[:, 2]),
            orientations_rad=np.ascontiguousarray(frames[:, 3]),
            noise_px=self.noise_px,
        )
        return [features]

    def _detect(self, gray: UInt8[Array, "h w"]) -> tuple[Float[Array, "n 4"], UInt8[Array, "n 128"]]:
        """All of COLMAP's keypoints as (x, y, scale, orientation), and their descriptors."""
        covariant = self.config.affine_shape or self.config.domain_size_pooling
        least = _COVARIANT_MIN_SIDE * 2 ** max(0, self.config.first_octave) if covariant else self.min_side
        if min(gray.shape) < least:
            return np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8)
        bitmap = pycolmap.Bitmap.from_array(np.ascontiguousarray(gray))
        keypoints, descriptors = self._extractor.extract(bitmap)
        frames = np.asarray(pycolmap.keypoints_to_matrix(keypoints), np.float32)
        return frames, np.array(descriptors.data, np.uint8)  # a copy: COLMAP owns the buffer


def _options(config: SiftConfig) -> Any:
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1
    options.max_image_size = _NO_LIMIT
    sift = options.sift
    sift.max_num_features = _NO_LIMIT
    sift.first_octave = config.first_octave
    sift.num_octaves = config.num_octaves
    sift.octave_resolution = config.octave_resolution
    sift.peak_threshold = config.peak_threshold
    sift.edge_threshold = config.edge_threshold
    sift.domain_size_pooling = config.domain_size_pooling
    sift.estimate_affine_shape = config.affine_shape
    sift.upright = config.upright
    sift.max_num_orientations = config.max_orientations
    normalizations = {"root_l1": pycolmap.Normalization.L1_ROOT, "l2": pycolmap.Normalization.L2}
    sift.normalization = normalizations[config.normalization]
    return options


def _usable(frames: Float[Array, "n 4"], image_wh: tuple[int, int]) -> Shaped[Array, " n"]:
    """Finite keypoints inside the image: COLMAP interpolates some across the border."""
    inside = (frames[:, :2] >= 0).all(axis=1) & (frames[:, :2] <= np.asarray(image_wh)).all(axis=1)
    out: Shaped[Array, " n"] = inside & np.isfinite(frames).all(axis=1)
    return out


def _contrast(gray: UInt8[Array, "h w"], frames: Float[Array, "n 4"]) -> Float32[Array, " n"]:
    """Absolute difference of Gaussians where each keypoint is, at its scale, in a pyramid of octaves."""
    image, blur_px = gray.astype(np.float32) / 255.0, _NOMINAL_BLUR_PX
    xy, scales = center_from_corner(frames[:, :2]), np.maximum(frames[:, 2], _SMALLEST_SCALE_PX)
    coarsest = max(0, int(np.log2(min(gray.shape) / _COVARIANT_MIN_SIDE)))
    octaves = np.floor(np.log2(scales)).astype(np.int64).clip(0, coarsest)
    out = np.zeros(len(frames), np.float32)
    for octave in range(int(octaves.max(initial=0)) + 1):
        rows, pixel = np.flatnonzero(octaves == octave), 2.0**octave
        out[rows] = _difference_of_gaussians(image, xy[rows] / pixel, scales[rows] / pixel, blur_px)
        # pyrDown blurs by 1 px and keeps every second pixel, so centres stay where they are.
        image, blur_px = cv2.pyrDown(image), float(np.hypot(blur_px, 1.0) / 2)
    return out


def _difference_of_gaussians(
    image: Float32[Array, "h w"], xy: Float[Array, "n 2"], scales: Float[Array, " n"], blur_px: float
) -> Float32[Array, " n"]:
    """Sampled at the nearest of three scales per octave; ``xy`` has its origin at a pixel's centre."""
    out = np.zeros(len(xy), np.float32)
    steps = np.rint(np.log2(scales) * 3).astype(np.int64)
    for step in np.unique(steps):
        inner, outer = (
            cv2.GaussianBlur(image, (0, 0), float(np.sqrt(sigma**2 - blur_px**2)))
            for sigma in (2 ** (step / 3), 2 ** ((step + 1) / 3))
        )
        rows = np.flatnonzero(steps == step)
        # Two whole (n, 1) arrays: cv2.remap misreads strided 1-D maps.
        x, y = (np.ascontiguousarray(xy[rows, axis : axis + 1], np.float32) for axis in (0, 1))
        for part in range(0, len(rows), _REMAP_LIMIT):
            block = slice(part, part + _REMAP_LIMIT)
            sampled = cv2.remap(
                outer - inner, x[block], y[block], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            out[rows[block]] = np.abs(sampled[:, 0])
    return out
