"""ResNet v1 whose strides, paddings and epsilons are facts of its weights.

K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016, in the variants of TF-Slim (stride on
the last unit of a block) and of Keras (stride on the first 1 x 1 convolution of a block).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loc.weights.tensorflow.facts import LayerFacts

if TYPE_CHECKING:
    import torch

Padding = Literal["same"] | tuple[int, int]


@dataclass(frozen=True)
class Step:
    """How a layer moves over its input: TensorFlow's ``same``, or so much before and after."""

    kernel: int
    stride: int
    padding: Padding

    def before_after(self, size: int) -> tuple[int, int]:
        """Padding of an axis of ``size`` cells; with ``same`` the odd one goes to the end."""
        if self.padding != "same":
            return self.padding
        total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2

    def cells(self, size: int) -> int:
        """Length of the output of an axis."""
        return (size + sum(self.before_after(size)) - self.kernel) // self.stride + 1


class Convolution:
    """A convolution with bias; batch norm is folded into both."""

    def __init__(
        self, name: str, tensors: Mapping[str, torch.Tensor], facts: LayerFacts, like: torch.Tensor
    ) -> None:
        import torch

        weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
        if facts.epsilon is not None:
            scope, _, last = name.rpartition(".")
            norm = f"{scope}.{last.replace('conv', 'bn')}"
            gain = tensors[f"{norm}.weight"] / torch.sqrt(tensors[f"{norm}.running_var"] + facts.epsilon)
            shift = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain
            weight = weight * gain.view(-1, 1, 1, 1)
            bias = shift if bias is None else bias * gain + shift
        # Channels last: what oneDNN and tensor cores like best.
        self.weight = weight.to(like).contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(like)
        self.step = step_of(facts, weight.shape[2])

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import conv2d, pad

        (top, bottom), (left, right) = (self.step.before_after(size) for size in maps.shape[2:])
        if (top, left) != (bottom, right):
            maps, top, left = pad(maps, (left, right, top, bottom)), 0, 0
        return conv2d(maps, self.weight, self.bias, stride=self.step.stride, padding=(top, left))


class ResNet:
    """The trunk: images to the maps of its last blocks.

    Args:
        tensors: ``stem.conv.weight``, ``stem.bn.*``, ``block1.0.conv1.weight`` … as
            ``loc weights convert`` writes them.
        layers: facts of each layer.
        like: a tensor of the device and dtype to compute in.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        layers: Mapping[str, LayerFacts],
        like: torch.Tensor,
    ) -> None:
        self._like = like
        self._layers = {
            name: Convolution(name, tensors, facts, like)
            for name, facts in layers.items()
            if name.startswith(("stem", "block")) and not name.endswith("pool")
        }
        self._pool = step_of(layers["pool"], 3)
        self._subsample = layers["block3.pool"].stride if "block3.pool" in layers else 1
        self._units = _units(self._layers)

    @property
    def has_block4(self) -> bool:
        """Whether it goes beyond block 3."""
        return "block4" in self._units

    def block3(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, 1024, h, w)`` of preprocessed ``(b, 3, H, W)``."""
        import torch

        maps = images.to(self._like).contiguous(memory_format=torch.channels_last)
        maps = self._layers["stem.conv"](maps).relu_()
        maps = max_pool(maps, self._pool)
        for block in ("block1", "block2", "block3"):
            maps = self._block(block, maps)
        return maps[:, :, :: self._subsample, :: self._subsample]

    def block4(self, maps: torch.Tensor) -> torch.Tensor:
        """``(b, 2048, h, w)`` of the maps of :meth:`block3`."""
        return self._block("block4", maps)

    def _block(self, block: str, maps: torch.Tensor) -> torch.Tensor:
        for unit in self._units[block]:
            shortcut = maps
            residual = maps
            for number, layer in enumerate(self._convolutions(unit)):
                residual = layer(residual.relu_() if number else residual)
            if f"{unit}.shortcut.conv" in self._layers:
                shortcut = self._layers[f"{unit}.shortcut.conv"](maps)
            else:
                stride = self._stride(unit)
                shortcut = maps[:, :, ::stride, ::stride]
            maps = residual.add_(shortcut).relu_()
        return maps

    def _convolutions(self, unit: str) -> list[Convolution]:
        """Of the residual: three of a bottleneck, two of a basic unit."""
        names = [f"{unit}.conv{number}" for number in (1, 2, 3)]
        return [self._layers[name] for name in names if name in self._layers]

    def _stride(self, unit: str) -> int:
        return self._layers[f"{unit}.conv1"].step.stride * self._layers[f"{unit}.conv2"].step.stride

    def grid(self, size: int) -> tuple[float, int]:
        """Where the cells of block 3 look, along an axis of ``size`` px: centre of the first, and the step.

        Each layer looks from the middle of its window; an uneven padding moves that.
        """
        start, step = 0.0, 1
        steps = [self._layers["stem.conv"].step, self._pool]
        for block in ("block1", "block2", "block3"):
            for unit in self._units[block]:
                steps += [layer.step for layer in self._convolutions(unit)]
        for each in steps:
            start += step * ((each.kernel - 1) / 2 - each.before_after(size)[0])
            step *= each.stride
            size = each.cells(size)
        return start, step * self._subsample


def max_pool(maps: torch.Tensor, step: Step) -> torch.Tensor:
    """Maximum over windows; what pads the border is never the maximum."""
    import torch
    from torch.nn.functional import max_pool2d, pad

    (top, bottom), (left, right) = (step.before_after(size) for size in maps.shape[2:])
    padded = pad(maps, (left, right, top, bottom), value=-torch.inf)
    return max_pool2d(padded, step.kernel, step.stride)


def step_of(facts: LayerFacts, kernel: int) -> Step:
    """A layer's step from its facts."""
    return Step(kernel, facts.stride, facts.pad)


def _units(layers: Mapping[str, Convolution]) -> dict[str, list[str]]:
    """Names of the units of each block, in order."""
    units: dict[str, dict[int, str]] = {}
    for name in layers:
        block, _, rest = name.partition(".")
        if block.startswith("block"):
            number = rest.partition(".")[0]
            units.setdefault(block, {})[int(number)] = f"{block}.{number}"
    return {block: [names[number] for number in sorted(names)] for block, names in units.items()}
