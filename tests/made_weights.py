"""Random weights in the exact layout of published checkpoints, for networks whose files are not here.

They are symmetric: such a network sees a mirror image as the mirror image of what it sees, so that the
contract's check of the pixel origin is as sharp as for SIFT.
"""

from __future__ import annotations

from pathlib import Path

import torch

from loc.extractors.dog_hardnet import DogHardNet
from loc.extractors.superpoint import SuperPoint
from loc.extractors.xfeat import XFeat

CELL = 8


def symmetric(kernels: torch.Tensor) -> torch.Tensor:
    """The same for left and right, above and below (last two dimensions)."""
    both = (kernels + kernels.flip(-1)) / 2
    return (both + both.flip(-2)) / 2


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights by He's rule, kernels symmetric; means and biases 0, variances 1, counters 0."""
    out = {}
    generator = torch.Generator().manual_seed(0)
    for key, shape in shapes.items():
        if len(shape) >= 2:
            fan_in = torch.Size(shape[1:]).numel()
            weight = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
            out[key] = symmetric(weight) if weight.ndim == 4 else weight
        elif key.endswith("num_batches_tracked"):
            out[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            out[key] = torch.ones(shape) if key.endswith("running_var") else torch.zeros(shape)
    return out


def symmetric_pixels(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Weights of the 64 pixels of a cell, at the front of an axis; a 65th, "none", stays."""
    pixels, rest = weight.split([CELL * CELL, weight.shape[axis] - CELL * CELL], axis)
    cells = symmetric(pixels.movedim(axis, -1).unflatten(-1, (CELL, CELL)))
    return torch.cat([cells.flatten(-2).movedim(-1, axis), rest], axis)


def superpoint(folder: Path) -> Path:
    from loc.nets.superpoint import parameter_shapes

    state = random_state(parameter_shapes())
    state["convPb.weight"] = 8 * symmetric_pixels(state["convPb.weight"], 0)
    state["convPb.bias"][-1] = 6  # where nothing is seen, "none" is the most likely
    return saved(state, folder / SuperPoint.weights[0].name)


def xfeat(folder: Path) -> Path:
    from kornia.feature import XFeat as Network

    state = random_state({key: tuple(value.shape) for key, value in Network().net.state_dict().items()})
    first, last = "keypoint_head.0.layer.0.weight", "keypoint_head.3.weight"
    state[first] = symmetric_pixels(state[first], 1)
    state[last] = 8 * symmetric_pixels(state[last], 0)
    return saved(state, folder / XFeat.weights[0].name)


def hardnet(folder: Path) -> Path:
    """As the authors saved it: an old release of torch, without the counters of batches."""
    from kornia.feature import HardNet

    shapes = {key: tuple(value.shape) for key, value in HardNet(pretrained=False).state_dict().items()}
    shapes = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    state = {"epoch": 9, "state_dict": random_state(shapes)}
    path = folder / DogHardNet.weights[0].name
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


MAKERS = {"superpoint": superpoint, "xfeat": xfeat, "dog_hardnet": hardnet}
