"""All paintings in one picture, with their reduced copies, so that one lookup serves a whole image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

Array = np.ndarray

LEVELS = 6
_STEP = 1 << (LEVELS - 1)  # sides are multiples of it, so that every level is exactly half of the last
_WIDTH = 8192


@dataclass(frozen=True, eq=False)
class Atlas:
    """Paintings with mip levels.

    Attributes:
        image: ``(h, w, 4)`` uint8: sRGB, and the fourth channel of :mod:`loc.town.textures`.
        corners: ``(n, LEVELS, 2)`` int32, x and y of each level's first pixel in ``image``.
        sizes: ``(n, 2)`` int32, width and height of level 0.
    """

    image: UInt8[Array, "h w 4"]
    corners: Int32[Array, "n l 2"]
    sizes: Int32[Array, "n 2"]

    def sample(
        self, texture: Int32[Array, " p"], xy: Float32[Array, "2 p"], level: Int32[Array, " p"]
    ) -> UInt8[Array, "p 4"]:
        """Bilinear values at level-0 pixels ``xy`` (corner origin), which repeat over the edges."""
        columns = 1024
        count = texture.shape[0]
        scale = np.exp2(-level).astype(np.float32)
        index = texture * LEVELS + level
        maps = []
        for axis in (0, 1):
            size = np.take(self.sizes[:, axis].astype(np.float32), texture)
            wrapped = xy[axis] - size * np.floor(xy[axis] / size)
            start = np.take(self.corners[..., axis].astype(np.float32).ravel(), index)
            values = np.zeros(-(-count // columns) * columns, np.float32)
            values[:count] = wrapped * scale + (start - np.float32(0.5))
            maps.append(values.reshape(-1, columns))
        found = cv2.remap(self.image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return found.reshape(-1, 4)[:count]


class AtlasBuilder:
    """Collects paintings; :meth:`build` packs them."""

    def __init__(self) -> None:
        self._images: list[UInt8[Array, "h w 4"]] = []

    def add(self, painting: Float32[Array, "h w 4"]) -> int:
        """Number of the texture; sides become multiples of 32 px."""
        rows, columns = (max(_STEP, round(side / _STEP) * _STEP) for side in painting.shape[:2])
        if painting.shape[:2] != (rows, columns):
            painting = cv2.resize(painting, (columns, rows), interpolation=cv2.INTER_AREA)
        self._images.append((np.clip(painting, 0, 1) * 255 + 0.5).astype(np.uint8))
        return len(self._images) - 1

    def size(self, texture: int) -> tuple[int, int]:
        """Width and height in px."""
        return self._images[texture].shape[1], self._images[texture].shape[0]

    def build(self) -> Atlas:
        """Shelves of textures, highest first; each has its levels to the right, and a border of 1 px."""
        order = sorted(range(len(self._images)), key=lambda i: -self._images[i].shape[0])
        corners = np.zeros((len(order), LEVELS, 2), np.int32)
        x = y = shelf = 0
        for texture in order:
            rows, columns = self._images[texture].shape[:2]
            wide, high = columns + columns // 2 + 4, rows + 2 * LEVELS + 2
            if x + wide > _WIDTH:
                x, y, shelf = 0, y + shelf, 0
            corners[texture] = _corners(x + 1, y + 1, columns, rows)
            x, shelf = x + wide, max(shelf, high)
        image = np.zeros((y + shelf, _WIDTH, 4), np.uint8)
        for texture, level0 in enumerate(self._images):
            reduced = level0
            for left, top in corners[texture]:
                rows, columns = reduced.shape[:2]
                image[top - 1 : top + rows + 1, left - 1 : left + columns + 1] = np.pad(
                    reduced, ((1, 1), (1, 1), (0, 0)), mode="wrap"
                )
                reduced = cv2.resize(
                    reduced, (max(1, columns // 2), max(1, rows // 2)), interpolation=cv2.INTER_AREA
                )
        sizes = np.array([each.shape[1::-1] for each in self._images], np.int32)
        return Atlas(image, corners, sizes)


def _corners(x: int, y: int, columns: int, rows: int) -> list[tuple[int, int]]:
    out, right, down = [(x, y)], x + columns + 2, y
    for level in range(1, LEVELS):
        out.append((right, down))
        down += (rows >> level) + 2
    return out
