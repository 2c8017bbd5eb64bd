"""VGG-16 and ResNets under the names that torchvision gives their layers.

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
#: Units of the four stages.
RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
RESNET_CHANNELS = 2048
#: Index in torchvision's Sequential → (input, output) channels.
VGG16_CONVOLUTIONS: dict[int, tuple[int, int]] = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    17: (256, 512),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
VGG16_CHANNELS = 512
_BLOCK_DEPTHS = (2, 2, 3, 3, 3)
_EPSILON = 1e-5
_NORM = ("weight", "bias", "running_mean", "running_var")


def vgg16_shapes(prefix: str = "features.") -> dict[str, Shape]:
    """Every tensor of the convolutions of VGG-16."""
    shapes: dict[str, Shape] = {}
    for index, (before, after) in VGG16_CONVOLUTIONS.items():
        shapes |= {f"{prefix}{index}.weight": (after, before, 3, 3), f"{prefix}{index}.bias": (after,)}
    return shapes


def vgg16_trunk(
    tensors: Mapping[str, torch.Tensor], *, device: str, dtype: torch.dtype, relu: bool = True
) -> Vgg16:
    """The network of ``features.<i>.{weight,bias}``; without ``relu`` conv5_3 stays as it is."""
    flat = [
        (tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"])
        for index in VGG16_CONVOLUTIONS
    ]
    blocks, first = [], 0
    for depth in _BLOCK_DEPTHS:
        blocks.append(flat[first : first + depth])
        first += depth
    return Vgg16(device=device, dtype=dtype, blocks=blocks, relu=relu)


def resnet_shapes(architecture: str) -> dict[str, Shape]:
    """Every tensor of a ResNet up to its pooling, without the counters of batches."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    before = 64
    for stage, depth in enumerate(RESNET_DEPTHS[architecture], start=1):
        inner, after = 32 * 2**stage, 128 * 2**stage
        for unit in range(depth):
            name = f"layer{stage}.{unit}"
            sizes = ((inner, before, 1), (inner, inner, 3), (after, inner, 1))
            for number, (out, into, kernel) in enumerate(sizes, start=1):
                shapes[f"{name}.conv{number}.weight"] = (out, into, kernel, kernel)
                shapes |= _norm(f"{name}.bn{number}", out)
            if unit == 0:
                shapes[f"{name}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= _norm(f"{name}.downsample.1", after)
            before = after
    return shapes


def _norm(name: str, channels: int) -> dict[str, Shape]:
    return {f"{name}.{part}": (channels,) for part in _NORM}


class TorchvisionResNet:
    """Images to the maps ``(b, 2048, h / 32, w / 32)`` of the last stage.

    The stride of a stage is that of the first unit's 3 x 3 convolution.

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
        plain = LayerFacts(stride=1, pad=(0, 0), epsilon=_EPSILON)
        for stage, depth in enumerate(RESNET_DEPTHS[architecture], start=1):
            for unit in range(depth):
                stride = 2 if stage > 1 and unit == 0 else 1
                name = f"block{stage}.{unit}"
                layers[f"{name}.conv1"] = layers[f"{name}.conv3"] = plain
                layers[f"{name}.conv2"] = LayerFacts(stride=stride, pad=(1, 1), epsilon=_EPSILON)
                if unit == 0:
                    layers[f"{name}.shortcut.conv"] = LayerFacts(stride=stride, pad=(0, 0), epsilon=_EPSILON)
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
