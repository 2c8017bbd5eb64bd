"""VGG, ResNet and AlexNet under the names that torchvision gives their layers.

Most published checkpoints of retrieval have them: key lists for checking one, and trunks of its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from loc.nets.resnet import ResNet
from loc.nets.vgg16 import Vgg16
from loc.weights.tensorflow.facts import LayerFacts

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
#: Units of the four stages: of two convolutions, and of three (bottlenecks).
BASIC_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_DEPTHS = BASIC_DEPTHS | RESNET_DEPTHS
RESNET_CHANNELS = 2048
#: Convolutions of the five blocks.
VGG_DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_VGG_WIDTHS = (64, 128, 256, 512, 512)
VGG_CHANNELS = 512
#: Index in torchvision's Sequential → (output, input channels, side, side), stride.
_ALEXNET: dict[int, tuple[tuple[int, int, int, int], int]] = {
    0: ((64, 3, 11, 11), 4),
    3: ((192, 64, 5, 5), 1),
    6: ((384, 192, 3, 3), 1),
    8: ((256, 384, 3, 3), 1),
    10: ((256, 256, 3, 3), 1),
}
#: Channels of the last maps, by architecture.
CHANNELS = {
    **dict.fromkeys(BASIC_DEPTHS, 512),
    **dict.fromkeys(RESNET_DEPTHS, RESNET_CHANNELS),
    **dict.fromkeys(VGG_DEPTHS, VGG_CHANNELS),
    "alexnet": 256,
}
_EPSILON = 1e-5
_NORM = ("weight", "bias", "running_mean", "running_var")


def vgg_convolutions(architecture: str) -> list[dict[int, tuple[int, int]]]:
    """For each block: index in torchvision's Sequential → (input, output) channels."""
    blocks: list[dict[int, tuple[int, int]]] = []
    index, channels = 0, 3
    for width, depth in zip(_VGG_WIDTHS, VGG_DEPTHS[architecture], strict=True):
        blocks.append({})
        for _ in range(depth):
            blocks[-1][index] = (channels, width)
            index, channels = index + 2, width
        index += 1
    return blocks


#: Index in torchvision's Sequential → (input, output) channels.
VGG16_CONVOLUTIONS = {
    index: channels for block in vgg_convolutions("vgg16") for index, channels in block.items()
}


def vgg_shapes(architecture: str) -> dict[str, Shape]:
    """Every tensor of the convolutions of a VGG without batch norm."""
    shapes: dict[str, Shape] = {}
    for block in vgg_convolutions(architecture):
        for index, (before, after) in block.items():
            shapes |= {f"features.{index}.weight": (after, before, 3, 3), f"features.{index}.bias": (after,)}
    return shapes


def vgg_trunk(
    tensors: Mapping[str, torch.Tensor],
    architecture: str = "vgg16",
    *,
    device: str,
    dtype: torch.dtype,
    relu: bool = True,
) -> Vgg16:
    """The network of ``features.<i>.{weight,bias}``; without ``relu`` its last maps stay as they are."""
    blocks = [
        [(tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"]) for index in block]
        for block in vgg_convolutions(architecture)
    ]
    return Vgg16(device=device, dtype=dtype, blocks=blocks, relu=relu)


def alexnet_shapes() -> dict[str, Shape]:
    """Every tensor of the convolutions of AlexNet."""
    shapes: dict[str, Shape] = {}
    for index, (shape, _) in _ALEXNET.items():
        shapes |= {f"features.{index}.weight": shape, f"features.{index}.bias": shape[:1]}
    return shapes


class AlexNet:
    """Images to the maps ``(b, 256, h / 16, w / 16)`` of the last convolution.

    A. Krizhevsky, One Weird Trick for Parallelizing Convolutional Neural Networks, 2014.
    """

    #: Smallest side, px, that leaves a cell.
    least_side_px = 31

    def __init__(self, tensors: Mapping[str, torch.Tensor], *, device: str, dtype: torch.dtype) -> None:
        self._layers = [
            (
                index,
                tensors[f"features.{index}.weight"].to(device, dtype),
                tensors[f"features.{index}.bias"].to(device, dtype),
            )
            for index in _ALEXNET
        ]
        self._dtype = dtype

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import conv2d, max_pool2d

        maps = pixels.to(self._dtype)
        with torch.inference_mode():
            for index, weight, bias in self._layers:
                maps = max_pool2d(maps, 3, 2) if index in (3, 6) else maps
                stride, reach = _ALEXNET[index][1], 2 if weight.shape[2] > 3 else 1
                maps = conv2d(maps, weight, bias, stride=stride, padding=reach).relu_()
        return maps


def resnet_shapes(architecture: str) -> dict[str, Shape]:
    """Every tensor of a ResNet up to its pooling, without the counters of batches."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    before = 64
    for stage, depth in enumerate(_DEPTHS[architecture], start=1):
        inner = 32 * 2**stage
        after = inner if architecture in BASIC_DEPTHS else 4 * inner
        for unit in range(depth):
            name = f"layer{stage}.{unit}"
            sizes = [(inner, before, 1), (inner, inner, 3), (after, inner, 1)]
            if architecture in BASIC_DEPTHS:
                sizes = [(inner, before, 3), (inner, inner, 3)]
            for number, (out, into, kernel) in enumerate(sizes, start=1):
                shapes[f"{name}.conv{number}.weight"] = (out, into, kernel, kernel)
                shapes |= _norm(f"{name}.bn{number}", out)
            if unit == 0 and before != after:
                shapes[f"{name}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= _norm(f"{name}.downsample.1", after)
            before = after
    return shapes


def _norm(name: str, channels: int) -> dict[str, Shape]:
    return {f"{name}.{part}": (channels,) for part in _NORM}


class TorchvisionResNet:
    """Images to the maps ``(b, c, h / 32, w / 32)`` of the last stage, c of ``CHANNELS``.

    The stride of a stage is that of the first unit's first 3 x 3 convolution.

    Args:
        tensors: as :func:`resnet_shapes` names them.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], architecture: str, *, device: str, dtype: torch.dtype
    ) -> None:
        import torch

        layers = {
            "stem.conv": LayerFacts(stride=2, pad=(3, 3), epsilon=_EPSILON),
            "pool": LayerFacts(stride=2, pad=(1, 1), epsilon=None),
        }
        strided = "conv1" if architecture in BASIC_DEPTHS else "conv2"
        for name, shape in resnet_shapes(architecture).items():
            layer = _ours(name).removesuffix(".weight")
            if len(shape) != 4 or layer == "stem.conv":
                continue
            block, unit, part = layer.split(".", 2)
            enters = block != "block1" and unit == "0" and part in (strided, "shortcut.conv")
            reach = shape[2] // 2
            layers[layer] = LayerFacts(stride=2 if enters else 1, pad=(reach, reach), epsilon=_EPSILON)
        renamed = {_ours(name): tensor for name, tensor in tensors.items()}
        self._net = ResNet(renamed, layers, torch.empty(0, device=device, dtype=dtype))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            return self._net.block4(self._net.block3(pixels))


def _ours(name: str) -> str:
    """What :class:`loc.nets.resnet.ResNet` calls a tensor.

    >>> _ours("layer3.0.downsample.1.bias"), _ours("bn1.weight")
    ('block3.0.shortcut.bn.bias', 'stem.bn.weight')
    """
    if name.startswith(("conv1.", "bn1.")):
        return f"stem.{name.replace('1.', '.', 1)}"
    name = name.replace("layer", "block", 1)
    return name.replace("downsample.0", "shortcut.conv").replace("downsample.1", "shortcut.bn")
