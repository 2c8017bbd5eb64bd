"""Colours of 3-D points, sampled from the photos wherever these lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from loc.sfm.model import Model, ModelImage

Array = np.ndarray
_GREY = 128


def sample_colors(model: Model, paths: dict[str, Path], *, workers: int) -> UInt8[Array, "p 3"]:
    """Mean RGB of each point over the photos that see it; grey where no photo can be read.

    Args:
        paths: image name → photo. Photos are decoded at a quarter of their size: enough for a colour.
    """
    total = np.zeros((len(model.point_ids), 3))
    count = np.zeros(len(model.point_ids))
    images = list(model.images.values())
    for image, rgb in _sampled(images, paths, workers):
        rows = model.rows(image.point_ids)
        seen = rows >= 0
        np.add.at(total, rows[seen], rgb[seen])
        np.add.at(count, rows[seen], 1)
    mean = np.full(total.shape, _GREY, np.uint8)
    known = count > 0
    mean[known] = np.rint(total[known] / count[known, None]).astype(np.uint8)
    return mean


def _sampled(
    images: Sequence[ModelImage], paths: dict[str, Path], workers: int
) -> Iterator[tuple[ModelImage, Float[Array, "n 3"]]]:
    chunk = 4 * max(1, workers)  # bounds what is in memory at once
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in range(0, len(images), chunk):
            some = images[start : start + chunk]
            for image, rgb in zip(some, pool.map(lambda each: _rgb(each, paths), some), strict=True):
                if rgb is not None:
                    yield image, rgb


def _rgb(image: ModelImage, paths: dict[str, Path]) -> Float[Array, "n 3"] | None:
    """``(n, 3)`` colours at the keypoints, or None if the photo cannot be read."""
    import cv2

    path = paths.get(image.name)
    if path is None or not path.is_file():
        return None
    # The pixel grid is the stored one: EXIF must not rotate it.
    flags = cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION
    encoded = np.fromfile(path, np.uint8)  # imread does not open every unicode path
    photo = cv2.imdecode(encoded, flags) if encoded.size else None
    if photo is None:
        return None
    height, width = photo.shape[:2]
    columns = (image.xy[:, 0] / 4).astype(np.int64).clip(0, width - 1)
    rows = (image.xy[:, 1] / 4).astype(np.int64).clip(0, height - 1)
    colors: Array = photo[rows, columns, ::-1].astype(np.float64)
    return colors
