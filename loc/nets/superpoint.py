"""The fully convolutional network of SuperPoint, and how its maps become keypoints and descriptors.

D. DeTone, T. Malisiewicz and A. Rabinovich, SuperPoint: Self-Supervised Interest Point Detection and
Description, CVPRW 2018: a VGG-like encoder of eight convolutions and three poolings, a detector head with 65
channels per cell of 8 x 8 px (one per pixel, and one for "none"), and a descriptor head with 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Name in the authors' checkpoint → (channels in, channels out, kernel), in the order they run.
CONVOLUTIONS: dict[str, tuple[int, int, int]] = {
    "conv1a": (1, 64, 3),
    "conv1b": (64, 64, 3),
    "conv2a": (64, 64, 3),
    "conv2b": (64, 64, 3),
    "conv3a": (64, 128, 3),
    "conv3b": (128, 128, 3),
    "conv4a": (128, 128, 3),
    "conv4b": (128, 128, 3),
    "convPa": (128, 256, 3),
    "convPb": (256, 65, 1),
    "convDa": (128, 256, 3),
    "convDb": (256, 256, 1),
}
CELL_PX = 8
DESCRIPTOR_DIM = 256
_POOLED_AFTER = ("conv1b", "conv2b", "conv3b")


def parameter_shapes() -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of the authors' checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (channels_in, channels_out, kernel) in CONVOLUTIONS.items():
        shapes[f"{name}.weight"] = (channels_out, channels_in, kernel, kernel)
        shapes[f"{name}.bias"] = (channels_out,)
    return shapes


def dense_maps(
    images: torch.Tensor, parameters: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability of a keypoint at each pixel, and a descriptor per cell.

    Args:
        images: ``(b, 1, h, w)`` grey in [0, 1]; both sides at least 8.
        parameters: as :func:`parameter_shapes`.

    Returns:
        ``(b, 8 h', 8 w')`` and ``(b, 256, h', w')`` of unit norm, where h' and w' are the whole cells.
    """
    from torch.nn.functional import conv2d, max_pool2d, normalize, pixel_shuffle

    def convolved(maps: torch.Tensor, name: str) -> torch.Tensor:
        padding = CONVOLUTIONS[name][2] // 2
        return conv2d(maps, parameters[f"{name}.weight"], parameters[f"{name}.bias"], padding=padding)

    maps = images
    for name in (name for name in CONVOLUTIONS if name[4].isdigit()):
        maps = convolved(maps, name).relu_()
        if name in _POOLED_AFTER:
            maps = max_pool2d(maps, 2)
    logits = convolved(convolved(maps, "convPa").relu_(), "convPb")
    descriptors = convolved(convolved(maps, "convDa").relu_(), "convDb")
    return pixel_shuffle(logits.softmax(1)[:, :-1], CELL_PX)[:, 0], normalize(descriptors, dim=1)


def local_maxima(heat: torch.Tensor, radius: int) -> torch.Tensor:
    """Pixels of ``(b, h, w)`` that are the maximum of the square window of this radius around them.

    Twice more, those are added that only a pixel inside the window of a maximum had beaten: close to what
    choosing greedily, the best first, gives.
    """
    from torch.nn.functional import max_pool2d

    def spread(maps: torch.Tensor) -> torch.Tensor:
        return max_pool2d(maps, 2 * radius + 1, stride=1, padding=radius)

    chosen = heat == spread(heat)
    for _ in range(2):
        taken = spread(chosen.to(heat.dtype)) > 0
        left = heat.masked_fill(taken, 0)
        chosen |= (left == spread(left)) & ~taken
    return chosen


def sampled(descriptors: torch.Tensor, xy: torch.Tensor, *, release: bool) -> torch.Tensor:
    """Descriptors ``(n, 256)`` of unit norm between the cells of ``(256, h, w)``.

    Args:
        xy: ``(n, 2)`` px of the image, centre origin.
        release: as in the published code, which the matchers trained on it have seen: its grid is
            stretched, by nearly half a cell at the far borders; otherwise where the cells are.
    """
    import torch
    from torch.nn.functional import grid_sample, normalize

    size = torch.tensor(descriptors.shape[:0:-1], dtype=xy.dtype, device=xy.device) * CELL_PX
    first = (CELL_PX - 1) / 2  # centre of the first cell
    last = size - 1 - first  # … and of the last one
    reach = last if release else (last - first).clamp(min=1)
    grid = 2 * (xy - first) / reach - 1
    out = grid_sample(descriptors[None], grid[None, None], align_corners=True, padding_mode="border")
    return normalize(out[0, :, 0].T, dim=1)
