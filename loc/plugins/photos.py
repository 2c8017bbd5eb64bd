"""``features: null``: no local features, only which photos can be read and how large they are.

A matcher that finds its own points needs no more of an image, and the other stages find in the usual
place what they ask of every image: its key, and the reason where it cannot be read.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from loc.conventions import PixelOrigin
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import LocalFeatures


class PhotosConfig(PluginConfig):
    """No options."""


class Photos:
    """Decodes photos and finds nothing in them."""

    Config: ClassVar[type[PluginConfig]] = PhotosConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = "none: it finds nothing"
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    pixel_origin: ClassVar[PixelOrigin] = "corner"
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 1
    ranked: ClassVar[bool] = False
    #: Nobody looks at the pixels.
    stage_defaults: ClassVar[dict[str, int]] = {"resize_max": 16}

    def __init__(self, config: PhotosConfig, *, device: str = "cpu", dtype: str = "float32") -> None:
        pass

    def __call__(self, images: Any) -> list[LocalFeatures]:
        count, _, height, width = images.shape
        none = np.zeros((0, 2), np.float32)
        return [LocalFeatures(none, none[:, 0], none[:, :0], (width, height)) for _ in range(count)]
