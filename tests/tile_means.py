"""A global descriptor that learns nothing and needs no weights: means of the tiles of a photo."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from loc.plugins.protocols import PluginConfig


class TileMeans:
    """Mean grey of 8 x 8 tiles, less their mean, of unit length."""

    class Config(PluginConfig):
        """No options."""

    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = "none"
    weights: ClassVar[tuple[Any, ...]] = ()
    source, color, min_side, needs_fit, parallel = "image", "gray", 8, False, "process"

    def __init__(self, config: Any, *, device: str, dtype: str) -> None:
        pass

    def __call__(self, images: np.ndarray) -> np.ndarray:
        rows = []
        for image in images[:, 0]:
            tiles = [np.array_split(band, 8, axis=1) for band in np.array_split(image, 8)]
            row = np.array([tile.mean() for band in tiles for tile in band], np.float64)
            row -= row.mean()
            norm = np.linalg.norm(row)
            rows.append(row / norm if norm > 1e-6 else 0 * row)
        return np.array(rows, np.float32)
