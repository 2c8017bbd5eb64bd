"""Fractal noise: what makes a painted surface look like a material."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

Array = np.ndarray


def fractal(
    shape: tuple[int, int],
    cell: tuple[float, float] | float,
    rng: np.random.Generator,
    *,
    octaves: int = 4,
    gain: float = 0.5,
) -> Float32[Array, "h w"]:
    """Fractal value noise that continues over the edges, mean 0 and standard deviation 1.

    Args:
        shape: rows and columns.
        cell: size in px of the coarsest grain, (rows, columns) or one number for both.
        octaves: layers, each of half the grain and ``gain`` times the strength.
    """
    rows, columns = (cell, cell) if isinstance(cell, int | float) else cell
    total = np.zeros(shape, np.float32)
    strength = 1.0
    for _ in range(octaves):
        grid = (max(2, round(shape[0] / rows)), max(2, round(shape[1] / columns)))
        total += strength * _smooth(rng.standard_normal(grid).astype(np.float32), shape)
        strength, rows, columns = strength * gain, rows / 2, columns / 2
        if max(rows, columns) < 1:
            break
    total -= total.mean()
    return total / np.float32(total.std() + 1e-6)


def _smooth(grid: Float32[Array, "r c"], shape: tuple[int, int]) -> Float32[Array, "h w"]:
    """Enlarge a grid to ``shape``, as if it were repeated in both directions."""
    if grid.shape[0] >= shape[0] and grid.shape[1] >= shape[1]:
        return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_AREA)
    margin = 2
    around = np.pad(grid, margin, mode="wrap")
    scale = shape[0] / grid.shape[0], shape[1] / grid.shape[1]
    full = (round(around.shape[1] * scale[1]), round(around.shape[0] * scale[0]))
    enlarged = cv2.resize(around, full, interpolation=cv2.INTER_CUBIC)
    top, left = round(margin * scale[0]), round(margin * scale[1])
    return np.ascontiguousarray(enlarged[top : top + shape[0], left : left + shape[1]])
