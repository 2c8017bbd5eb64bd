"""Photos of walls that look like nothing else: places for an index of photos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

PLACES, VIEWS = 4, 3


def wall_photo(path: Path, place: int, number: int) -> Path:
    """Every place is a texture of its own, every view a part of it, 16 x 12 px beside the one before."""
    rng = np.random.default_rng(place)
    wall = cv2.resize(rng.integers(0, 255, (36, 44, 3), np.uint8), (352, 288), interpolation=cv2.INTER_CUBIC)
    top, left = 12 * number, 16 * number
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), wall[top : top + 240, left : left + 288])
    return path
