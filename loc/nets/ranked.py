"""Keypoints of a network on a device, handed out as features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loc.types import LocalFeatures

if TYPE_CHECKING:
    import torch


def ranked_features(
    keypoints: torch.Tensor,
    scores: torch.Tensor,
    descriptors: torch.Tensor,
    image_wh: tuple[int, int],
    noise_px: float,
) -> LocalFeatures:
    """Tensors of one image as features, best score first (equal scores in the order given)."""
    values = scores.float().cpu().numpy()
    order = np.argsort(-values, kind="stable")
    return LocalFeatures(
        keypoints=np.ascontiguousarray(keypoints.float().cpu().numpy()[order]),
        scores=values[order],
        descriptors=np.ascontiguousarray(descriptors.float().cpu().numpy()[order]),
        image_wh=image_wh,
        noise_px=noise_px,
    )
