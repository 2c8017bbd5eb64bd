"""Fixtures of DELF and DELG with random weights, and comparing with what TensorFlow made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

ARCHIVES = {"delf": "delf/delf_gld_like.tar.gz", "delg": "delg/r50delg_like.tar.gz"}
#: Folder of ``saved_model.pb`` inside the archive.
MODELS = {"delf": "delf_gld_like/model", "delg": "r50delg_like"}


def fixture_image(path: Path) -> torch.Tensor:
    """``(3, h, w)`` in [0, 1]."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)


def assert_near(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Equal up to a part of the largest value."""
    assert got.shape == expected.shape
    if expected.size:
        error = np.abs(got.astype(np.float64) - expected).max() / np.abs(expected).max()
        assert error <= tolerance, error
