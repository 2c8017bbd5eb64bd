"""DELF, DELG and poolings over whole pyramids: what comes beside the trunk (resizing, heads, attention,
selection, PCA) against it, and memory.

Networks without weights on this machine are random ones in the released layout: their times are the same.
Nothing of a random network is shown but its times and its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from loc.bench.ratio import Ratio, Size
from loc.bench.trunks import Part, besides_trunk, made_image, peak_memory, say_peak
from loc.extractors.delf import Delf
from loc.extractors.delf_ots import DelfOts
from loc.extractors.delg import Delg, DelgBoth
from loc.globals.gem import Gem
from loc.globals.pooling import Trunk, VggTrunk
from loc.globals.rmac import Rmac
from loc.nets.delf import DelfNetwork
from loc.nets.vgg16 import BLOCKS, CHANNELS, Blocks
from loc.plugins.precision import resolve_precision
from loc.weights.tensorflow.facts import LayerFacts, LocalFacts, NetworkFacts, PoolingFacts
from loc.weights.tensorflow.files import Model
from loc.weights.tensorflow.layout import layers, network_shapes
from loc.weights.tensorflow.slim import UNITS

if TYPE_CHECKING:
    import torch

#: From a batch of one image to whatever it gives.
Describes: TypeAlias = "Callable[[torch.Tensor], object]"
MOST_BESIDES_TRUNK, MOST_MEMORY_GB = 0.10, 3.0
_BACKBONE: Literal["resnet_v1_50"] = "resnet_v1_50"
#: Attention of a random network means nothing: all of its cells are candidates, more than of a trained one.
_EVERY_CELL = 0.0
_DELG_GLOBAL, _PUBLISHED_SCALES = (0.70710677, 1.0, 1.4142135), (1.0, 0.70710678, 0.5)


def delf(size: Size, *, device: str = "cpu") -> Iterator[Ratio]:
    """Measure them at their default scales (poolings: three); memory is always that of a CPU."""
    wh = (96, 64) if size.quick else (640, 480)
    image = made_image(wh).to(device)
    for name, (call, trunk, precision) in _subjects(device).items():
        shares = besides_trunk(partial(call, image), trunk, size.repeats, device)
        what = f"{name}, {wh[0]} x {wh[1]} px: all but the trunk / trunk"
        yield Ratio("delf", what, shares, MOST_BESIDES_TRUNK, ceiling=True, note=precision)
    wh = (96, 64) if size.quick else (1600, 1200)
    what = f"delf_ots, {wh[0]} x {wh[1]} px, fp32: peak memory of the process / {MOST_MEMORY_GB:g} GB"
    yield peak_memory("delf", what, "loc.bench.delf:print_peak", [str(side) for side in wh], MOST_MEMORY_GB)


def print_peak(width: str, height: str) -> None:
    """The work of that process."""
    extractor = DelfOts(DelfOts.Config(precision="fp32"), blocks=_made_vgg())
    image = made_image((int(width), int(height)))
    say_peak(lambda: extractor(image))


def _subjects(device: str) -> dict[str, tuple[Describes, list[Part], str]]:
    """What is measured: the call, the functions of its trunk, and its number format."""
    ots = DelfOts(DelfOts.Config(), device=device, blocks=_made_vgg())
    ots.load_state(_made_pca())
    delf = Delf(Delf.Config(score_threshold=_EVERY_CELL), device=device, model=_made_model("delf"))
    delg = Delg(Delg.Config(score_threshold=_EVERY_CELL), device=device, model=_made_model("delg"))
    trunks = [_of_resnet(each) for each in (delf._net, delg.network)]
    auto = resolve_precision("auto", device)
    subjects: dict[str, tuple[Describes, list[Part], str]] = {
        "delf_ots": (ots, [(ots, "_trunk")], auto),
        "delf": (delf, trunks[0], "fp32"),
        "delg, local and global in one pass": (DelgBoth(delg, _DELG_GLOBAL), trunks[1], "fp32"),
    }
    for kind in (_MadeGem, _MadeRmac):
        pooled = kind(kind.Config(scales=_PUBLISHED_SCALES), device=device)
        subjects[kind.__mro__[1].__name__.lower()] = (pooled, [(pooled.trunk, "_net")], auto)
    return subjects


def _of_resnet(network: DelfNetwork) -> list[Part]:
    return [(network.trunk, name) for name in ("block3", "block4")]


# ---- networks


class _MadeGem(Gem):
    def open_trunk(self) -> Trunk:
        return VggTrunk(self.config.precision, self.device, _made_vgg())


class _MadeRmac(Rmac):
    def open_trunk(self) -> Trunk:
        return VggTrunk(self.config.precision, self.device, _made_vgg())


@lru_cache(maxsize=1)
def _made_vgg() -> Blocks:
    """Random weights by He's rule."""
    import torch

    generator, inputs = torch.Generator().manual_seed(0), 3
    blocks: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    for width, depth in BLOCKS:
        blocks.append([])
        for _ in range(depth):
            blocks[-1].append((_he((width, inputs, 3, 3), generator), torch.zeros(width)))
            inputs = width
    return blocks


def _made_pca() -> dict[str, np.ndarray]:
    """As ``fit`` gives it."""
    rng = np.random.default_rng(0)
    components = rng.standard_normal((128, CHANNELS), np.float32)
    return {
        "mean": np.zeros(CHANNELS, np.float32),
        "components": components,
        "deviations": np.ones(128, np.float32),
    }


def _made_model(kind: Literal["delf", "delg"]) -> Model:
    """A network with random weights and a PCA, in the layout of the released archives."""
    import torch

    facts = _facts(kind)
    generator = torch.Generator().manual_seed(0)
    shapes = network_shapes(
        _BACKBONE, local=True, autoencoder=facts.has_autoencoder, whitening=facts.pooling is not None
    )
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) == 4:
            tensors[name] = _he((shape[3], shape[2], *shape[:2]), generator)
        elif len(shape) == 2:
            tensors[name] = torch.eye(shape[0])
        else:  # of a batch norm; small gains at the end of a unit keep sums over units finite
            gain = 0.2 if name.endswith("bn3.weight") else 1.0
            tensors[name] = torch.full(shape, gain if name.endswith(("weight", "running_var")) else 0.0)
    if kind == "delf":
        tensors |= {"pca.mean": torch.zeros(1024), "pca.components": torch.eye(1024)}
    return Model(tensors, facts)


def _he(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    import torch

    fan_in = shape[1] * shape[2] * shape[3]
    weights: torch.Tensor = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    return weights


def _facts(kind: Literal["delf", "delg"]) -> NetworkFacts:
    """TF-Slim's ResNet-50, whose last unit of a block has its stride, as the released graphs have it."""
    with_global = kind == "delg"
    facts: dict[str, LayerFacts] = {"pool": LayerFacts(stride=2, pad="same", epsilon=None)}
    last = {f"block{block}.{units - 1}.conv2" for block, units in enumerate(UNITS[_BACKBONE][:3], start=1)}
    for name, shape in layers(_BACKBONE, 4 if with_global else 3):
        strided = name == "stem.conv" or name in last
        side = (shape[0] - 1) // 2
        facts[name] = LayerFacts(
            stride=2 if strided else 1, pad=(side, side) if strided else "same", epsilon=1e-5
        )
    heads = ["attention.conv1", "attention.conv2"]
    heads += ["autoencoder.conv1", "autoencoder.conv2"] if with_global else []
    for name in heads:
        facts[name] = LayerFacts(stride=1, pad="same", epsilon=1e-5 if name == heads[0] else None)
    return NetworkFacts(
        format=1,
        release="random weights",
        sha256="",
        kind=kind,
        backbone=_BACKBONE,
        layers=facts,
        input_offset=128,
        input_scale=128,
        resize="legacy",
        local=LocalFacts(
            attention_input="autoencoder" if with_global else "trunk",
            box_offsets=(-145, 145),
            box_stride=32,
            nms_iou=1,
        ),
        pooling=PoolingFacts(power=3, least=1e-6) if with_global else None,
    )
