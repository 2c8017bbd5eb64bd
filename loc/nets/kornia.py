"""What the plug-ins whose networks are kornia's share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loc.errors import PluginError
from loc.types import LocalFeatures

if TYPE_CHECKING:
    import torch


def import_kornia(plugin: str, name: str) -> Any:
    """A class of ``kornia.feature``.

    Raises:
        PluginError: kornia is not installed, or too old to have it.
    """
    try:
        import kornia.feature
    except ImportError as error:
        raise PluginError(
            f"{plugin} needs kornia, which cannot be imported: {error}", "pip install 'visloc[learned]'"
        ) from error
    found = getattr(kornia.feature, name, None)
    if found is None:
        raise PluginError(
            f"kornia {kornia.__version__} has no {name}, which {plugin} needs",
            "pip install 'kornia>=0.9' (Python 3.11 or newer)",
        )
    return found


def features_of(
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
