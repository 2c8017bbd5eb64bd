"""Selected cells of a pyramid, handed out as features."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32

from loc.nets.pyramid import Detections
from loc.types import LocalFeatures

Array = np.ndarray

#: The seven scales of the released DELF configurations, and of the DELG ones (other decimals).
DELF_SCALES = (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0)
DELG_SCALES = (0.25, 0.35355338, 0.5, 0.70710677, 1.0, 1.4142135, 2.0)
Offset = Literal["release", "centred"]


def as_features(
    detections: Detections,
    descriptors: Float32[Array, "n d"],
    image_wh: tuple[int, int],
    *,
    offset: Offset,
    noise_px: float,
) -> LocalFeatures:
    """Features with centre origin; ``scales`` are one over the pyramid's.

    Cells of enlarged levels may look past the last pixel by a fraction of one: those are moved to the
    border.
    """
    yx = detections.locations if offset == "release" else detections.centers
    limit = np.asarray(image_wh, np.float32) - np.float32(0.5)
    return LocalFeatures(
        keypoints=np.clip(yx[:, ::-1], np.float32(-0.5), limit),
        scores=detections.scores,
        descriptors=descriptors,
        image_wh=image_wh,
        scales=detections.scales,
        noise_px=noise_px,
    )
