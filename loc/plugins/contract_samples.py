"""Inputs of the contract checks: synthetic pictures and features, the same on every machine."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32

from loc.types import LocalFeatures

Array = np.ndarray

WIDTH, HEIGHT = 320, 240
#: Multiples of 32: a crop by whole cells looks the same to networks with strides up to 32.
SHIFT_XY = (64, 32)


def textured_canvas(seed: int, *, scale: int = 1) -> Float32[Array, "3 h w"]:
    """A picture of random rectangles and discs in [0, 1], ``SHIFT_XY`` larger than the test images.

    It has corners and blobs of many sizes; it is drawn at twice its size and averaged, so that
    edges fall between pixels as in a photograph.
    """
    rng = np.random.default_rng(seed)
    width, height = (WIDTH + SHIFT_XY[0]) * scale, (HEIGHT + SHIFT_XY[1]) * scale
    big = np.full((3, 2 * height, 2 * width), 0.5, np.float32)
    y, x = np.mgrid[: 2 * height, : 2 * width].astype(np.float32)
    for _ in range(260):
        cx, cy = rng.uniform(0, 2 * width), rng.uniform(0, 2 * height)
        radius = 10 * 5 ** rng.uniform(0, 1)
        color = (rng.uniform(0.05, 0.95) + rng.uniform(-0.05, 0.05, (3, 1))).astype(np.float32)
        reach = int(1.5 * radius) + 1
        rows = slice(max(0, int(cy) - reach), int(cy) + reach)
        columns = slice(max(0, int(cx) - reach), int(cx) + reach)
        dx, dy = x[rows, columns] - cx, y[rows, columns] - cy
        if rng.random() < 0.5:
            inside = dx * dx + dy * dy < radius * radius
        else:
            turn = rng.uniform(0, np.pi)
            u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
            inside = np.maximum(np.abs(u), np.abs(v) * rng.uniform(1, 2)) < radius
        big[:, rows, columns][:, inside] = color
    picture = big.reshape(3, height, 2, width, 2).mean(axis=(2, 4))
    return np.clip(picture, 0, 1).astype(np.float32)


def as_color(picture: Float32[Array, "3 h w"], color: Literal["rgb", "gray"]) -> Float32[Array, "c h w"]:
    if color == "rgb":
        return np.ascontiguousarray(picture)
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as OpenCV and Pillow
    return np.tensordot(weights, picture, axes=1)[None].astype(np.float32)


def sample_features(seed: int, n: int, *, dim: int, dtype: str) -> LocalFeatures:
    """Random keypoints with descriptors of unit norm (uint8: 512 times that, clipped at 255)."""
    rng = np.random.default_rng(seed)
    rows = np.abs(rng.normal(size=(n, dim))) if dtype == "uint8" else rng.normal(size=(n, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) if n else 1
    descriptors = (
        np.clip(512 * rows, 0, 255).round().astype(np.uint8) if dtype == "uint8" else rows.astype(dtype)
    )
    return LocalFeatures(
        keypoints=(rng.random((n, 2)) * [WIDTH, HEIGHT]).astype(np.float32),
        scores=rng.random(n).astype(np.float32),
        descriptors=descriptors,
        image_wh=(WIDTH, HEIGHT),
        scales=np.full(n, 2, np.float32),
        orientations_rad=np.zeros(n, np.float32),
    )


def other_view(features: LocalFeatures, seed: int, *, noise: float = 0.3) -> LocalFeatures:
    """The same features moved by a few pixels, their descriptors noisy, in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(features))
    rows = features.descriptors.astype(np.float32)
    size = np.linalg.norm(rows, axis=1, keepdims=True) / np.sqrt(rows.shape[1])
    noisy = rows + noise * size * rng.normal(size=rows.shape)
    if features.descriptors.dtype == np.uint8:
        noisy = np.clip(noisy, 0, 255).round()
    moved = features.keypoints + rng.normal(0, 1, features.keypoints.shape)
    return LocalFeatures(
        keypoints=np.clip(moved, 0, features.image_wh).astype(np.float32)[order],
        scores=features.scores[order],
        descriptors=noisy.astype(features.descriptors.dtype)[order],
        image_wh=features.image_wh,
        scales=None if features.scales is None else features.scales[order],
        orientations_rad=None if features.orientations_rad is None else features.orientations_rad[order],
    )
