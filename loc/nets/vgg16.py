"""The convolutions of the ordinary VGG-16, conv1_1 to conv5_3, as ImageNet left them.

K. Simonyan and A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015.
The weights come in two files: D2-Net's off-the-shelf checkpoint ends at conv4_3, another holds the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from loc.weights.card import WeightFile
from loc.weights.files import locate
from loc.weights.tensors import read_tensors

if TYPE_CHECKING:
    import torch

#: Weight and bias of each convolution of each block.
Blocks: TypeAlias = "Sequence[Sequence[tuple[torch.Tensor, torch.Tensor]]]"
_LICENCE = "CC BY 4.0"
_PAPER = "K. Simonyan and A. Zisserman, Very Deep Convolutional Networks, ICLR 2015"
_KEY = "dense_feature_extraction.model.{}"
#: Channels of the five blocks, and how many convolutions each has.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)

#: The two files, in the order of the network.
VGG16_FILES = (
    WeightFile("https://dusmanu.com/files/d2-net/d2_ots.pth", None, _LICENCE, _PAPER, commercial_ok=True),
    WeightFile(
        "https://www.robots.ox.ac.uk/~vgg/research/very_deep/",
        "9920c68e649b18baab25aea8bbb863d86839575b5017fa52e79508acd91608ea",
        _LICENCE,
        _PAPER,
        commercial_ok=True,
        note="conv5_1 to conv5_3 of the authors' Caffe model in half precision; not offered there as a file",
        file="vgg16_conv5_fp16.safetensors",
    ),
)
STRIDE = 16
CHANNELS = 512
#: Side of the receptive field of a cell of conv5_3, px, and the centre of the first cell, centre origin.
FIELD_PX, FIRST_CENTER_PX = 196, 7.5
#: Smallest side, px, that leaves a cell.
LEAST_SIDE_PX = 16


class Vgg16:
    """Images to the maps of conv5_3, stride 16.

    Args:
        blocks: weights and biases of each block; None: those of the two files.
        relu: whether conv5_3 ends with its ReLU.

    Raises:
        WeightsError: one of the files is missing or not the expected one.
    """

    def __init__(
        self, *, device: str, dtype: torch.dtype, blocks: Blocks | None = None, relu: bool = True
    ) -> None:
        import torch

        self._blocks = [
            [
                (weight.to(device, dtype, memory_format=torch.channels_last), bias.to(device, dtype))
                for weight, bias in block
            ]
            for block in (_parameters() if blocks is None else blocks)
        ]
        self._relu = relu
        self._dtype = dtype

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(b, 512, h // 16, w // 16)`` of what :func:`preprocessed` returns."""
        import torch
        from torch.nn.functional import conv2d, max_pool2d

        maps = pixels.to(self._dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            for number, block in enumerate(self._blocks):
                maps = max_pool2d(maps, 2) if number else maps
                for layer, (weight, bias) in enumerate(block, start=1):
                    maps = conv2d(maps, weight, bias, padding=1)
                    if self._relu or number < len(self._blocks) - 1 or layer < len(block):
                        maps = maps.relu_()
        return maps


def preprocessed(images: torch.Tensor) -> torch.Tensor:
    """What Caffe's VGG takes, BGR less its mean, of ``(b, 3, h, w)`` RGB in [0, 1]."""
    return images.flip(1) * 255 - images.new_tensor(_CAFFE_MEAN_BGR).view(3, 1, 1)


def _parameters() -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Weights and biases of each block."""
    names: list[list[str]] = []
    shapes: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for block, (width, depth) in enumerate(BLOCKS, start=1):
        names.append([])
        for layer in range(1, depth + 1):
            # The index in the Sequential of D2-Net's checkpoints: ReLU and pooling count.
            name = _KEY.format(index) if block < 5 else f"conv5_{layer}"
            names[-1].append(name)
            shapes |= {f"{name}.weight": (width, channels, 3, 3), f"{name}.bias": (width,)}
            index, channels = index + 2, width
        index += 1
    last = {name for name in shapes if name.startswith("conv5")}
    tensors = read_tensors(
        locate(VGG16_FILES[0]), {name: shapes[name] for name in shapes if name not in last}, under="model"
    )
    tensors |= read_tensors(locate(VGG16_FILES[1]), {name: shapes[name] for name in last})
    return [[(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in block] for block in names]
