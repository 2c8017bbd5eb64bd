"""A camera of the nineties to the tens: distortion, bloom, shake, noise, a tone curve, eight bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from loc.town.shade import Pinhole
from loc.types import Camera, Pose

Array = np.ndarray
#: The view is rendered at twice the resolution, which then is averaged.
_FINER = 2


@dataclass(frozen=True)
class Exposure:
    """How a photo was taken.

    Attributes:
        gain: factor of the light. white: factors of red, green and blue.
        noise: standard deviation of the read noise, where a white wall in the sun is 1.
        shot: variance of the shot noise per unit of light.
        shake_px: length of the path of the camera during the exposure; shake_deg: its direction.
        blur_px: standard deviation of what is out of focus.
    """

    gain: float = 1.0
    white: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.004
    shot: float = 0.0002
    shake_px: float = 0.0
    shake_deg: float = 0.0
    blur_px: float = 0.0


def distort(xy: Float64[Array, "n 2"], k: float) -> Float64[Array, "n 2"]:
    """SIMPLE_RADIAL: normalized coordinates with distortion."""
    return xy * (1 + k * (xy**2).sum(axis=-1, keepdims=True))


def undistort(xy: Float64[Array, "n 2"], k: float) -> Float64[Array, "n 2"]:
    """Inverse of :func:`distort`, by Newton's method on the radius."""
    radius = np.sqrt((xy**2).sum(axis=-1, keepdims=True))
    r = radius.copy()
    for _ in range(8):
        r -= (r * (1 + k * r**2) - radius) / (1 + 3 * k * r**2)
    return xy * np.divide(r, radius, out=np.ones_like(r), where=radius > 0)


@dataclass(frozen=True, eq=False)
class Lens:
    """A SIMPLE_RADIAL camera as a pinhole view at twice its resolution, and where its pixels lie in that.

    Attributes:
        focal, center, wh: of the pinhole view, px.
        maps: ``(2 h, 2 w)`` float32 columns and rows, counted from the centre of the first pixel.
    """

    focal: float
    center: tuple[float, float]
    wh: tuple[int, int]
    maps: tuple[Float32[Array, "h w"], Float32[Array, "h w"]]

    def view(self, pose: Pose) -> Pinhole:
        return Pinhole(pose.rotation, pose.translation, self.focal, self.center, self.wh)

    def bend(self, radiance: Float32[Array, "h w 3"]) -> Float32[Array, "h w 3"]:
        """The photo's light: distorted exactly, then averaged to the photo's resolution."""
        fine = cv2.remap(radiance, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        rows, columns = self.maps[0].shape
        half = (columns // _FINER, rows // _FINER)
        return np.asarray(cv2.resize(fine, half, interpolation=cv2.INTER_AREA))


def lens_of(camera: Camera) -> Lens:
    """The lens of a camera; kept, because photos share cameras."""
    f, cx, cy, k = (float(value) for value in camera.params)
    return _lens(camera.width, camera.height, (f, cx, cy, k))


@lru_cache(maxsize=8)
def _lens(width: int, height: int, params: tuple[float, float, float, float]) -> Lens:
    f, cx, cy, k = params
    x, y = np.meshgrid(
        (np.arange(width * _FINER) + 0.5) / _FINER, (np.arange(height * _FINER) + 0.5) / _FINER
    )
    normalized = undistort(np.stack([(x - cx) / f, (y - cy) / f], axis=-1).reshape(-1, 2), k)
    start = np.floor(normalized.min(axis=0) * f * _FINER - 2)
    size = np.ceil(normalized.max(axis=0) * f * _FINER + 2) - start
    place = normalized * f * _FINER - start - 0.5  # cv2 counts from the centre of the first pixel
    columns, rows = place.astype(np.float32).T.reshape(2, *x.shape)
    maps = (np.ascontiguousarray(columns), np.ascontiguousarray(rows))
    return Lens(f * _FINER, (-float(start[0]), -float(start[1])), (int(size[0]), int(size[1])), maps)


def develop(
    light: Float32[Array, "h w 3"], exposure: Exposure, rng: np.random.Generator
) -> UInt8[Array, "h w 3"]:
    """From light to an eight-bit photo."""
    image = light * (np.float32(exposure.gain) * np.array(exposure.white, np.float32))
    image = _bloom(image)
    if exposure.blur_px > 0:
        image = cv2.GaussianBlur(image, (0, 0), exposure.blur_px)
    if exposure.shake_px > 1:
        image = cv2.filter2D(
            image, -1, _path(exposure.shake_px, exposure.shake_deg), borderType=cv2.BORDER_REPLICATE
        )
    rows, columns = np.meshgrid(
        np.linspace(-1, 1, image.shape[0]), np.linspace(-1, 1, image.shape[1]), indexing="ij"
    )
    image *= (1 - 0.16 * (rows**2 + columns**2) / 2).astype(np.float32)[..., None]
    deviation = np.sqrt(exposure.noise**2 + exposure.shot * np.maximum(image, 0))
    image += deviation * rng.standard_normal(image.shape, dtype=np.float32)
    image = np.clip(image, 0, None)
    # A shoulder keeps the sky and lit windows from turning flat white.
    image = image * (1 + image / 9) / (1 + 0.45 * image)
    return (np.clip(image, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def _bloom(image: Float32[Array, "h w 3"]) -> Float32[Array, "h w 3"]:
    """Light that the lens scatters around what is too bright."""
    bright = np.clip(image - 1.2, 0, 12)
    if bright.max() <= 0:
        return image
    size = max(image.shape[:2])
    small = cv2.resize(bright, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    halo = 0.16 * cv2.GaussianBlur(small, (0, 0), size / 400) + 0.07 * cv2.GaussianBlur(
        small, (0, 0), size / 90
    )
    return image + cv2.resize(halo, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _path(length: float, degrees: float) -> Float32[Array, "s s"]:
    """Kernel of a straight movement."""
    side = 2 * int(np.ceil(length / 2)) + 3
    kernel = np.zeros((side, side), np.float32)
    half = 0.5 * length * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    for share in np.linspace(-1, 1, 8 * side):
        x, y = side / 2 - 0.5 + share * half
        left, top = int(x), int(y)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            kernel[top + dy, left + dx] += (1 - abs(x - left - dx)) * (1 - abs(y - top - dy))
    return kernel / kernel.sum()
