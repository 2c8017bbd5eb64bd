"""Random weights in the exact layout of published checkpoints, for networks whose files are not here.

Those made here are symmetric: such a network sees a mirror image as the mirror image of what it sees, so that
the contract's check of the pixel origin is as sharp as for SIFT. Others come with the shared fixtures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from made_globals import GLOBAL_MAKERS

from loc.extractors.delf import Delf
from loc.extractors.delg import Delg
from loc.extractors.dog_hardnet import DogHardNet
from loc.extractors.superpoint import SuperPoint
from loc.extractors.xfeat import XFeat
from loc.matchers.loftr import LoFTR
from loc.plugins.contract_samples import as_color, textured_canvas

SHARED = Path(os.environ.get("LOC_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
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


def loftr(folder: Path) -> Path:
    """Its transformers pass features through, so that what looks the same matches wherever it is."""
    from kornia.feature import LoFTR as Network

    shapes = {key: tuple(value.shape) for key, value in Network(None).state_dict().items()}
    state = random_state(shapes)
    for key, shape in shapes.items():
        if key.startswith("backbone") and key.endswith("weight") and len(shape) == 1:
            state[key] = torch.ones(shape)
    net = Network(None).eval()
    for key, gain in (("backbone.layer3_outconv.weight", 3), ("backbone.layer1_outconv2.3.weight", 1)):
        net.load_state_dict(dict(state))
        state[key] = state[key] * 0
        middle = state[key].shape[-1] // 2
        layer = net.get_submodule(key.removesuffix(".weight"))
        state[key][:, :, middle, middle] = gain * whitening(layer, net)
    state = {f"matcher.{key}": value for key, value in state.items()}
    return saved({"state_dict": state}, folder / LoFTR.weights[0].name)


def whitening(layer: torch.nn.Module, net: torch.nn.Module) -> torch.Tensor:
    """What makes a layer's inputs on a picture uncorrelated and of one size: each place is like no other."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        net.extract_features(torch.from_numpy(as_color(textured_canvas(0), "gray"))[None])
    hook.remove()
    rows = seen[0][0].flatten(1).clone().double()
    values, vectors = torch.linalg.eigh(rows @ rows.T / rows.shape[1])
    matrix = vectors / (values + 1e-3 * values.mean()).sqrt() @ vectors.T
    return matrix[: layer.weight.shape[0]].float()


def saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def fixture(cls: type, name: str) -> Callable[[Path], Path]:
    """An archive of TensorFlow's with random weights, in the place of the released one."""
    return lambda folder: Path(shutil.copy(SHARED / "fixtures" / name, folder / cls.weights[0].name))


FROM_SHARED: dict[str, Callable[[Path], Path]] = {
    "delf": fixture(Delf, "delf/delf_gld_like.tar.gz"),
    "delg": fixture(Delg, "delg/r50delg_like.tar.gz"),
}
MAKERS: dict[str, Callable[[Path], Path]] = {
    "superpoint": superpoint,
    "xfeat": xfeat,
    "dog_hardnet": hardnet,
    "loftr": loftr,
    **FROM_SHARED,
    **GLOBAL_MAKERS,
}
