"""The convolutions of the ordinary VGG-16, conv1_1 to conv5_3, as ImageNet left them.

K. Simonyan and A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015.
The weights come in two files (D2-Net's off-the-shelf checkpoint ends at conv4_3, another holds the rest), or,
where the second is not at hand, as torchvision offers them in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from loc.weights.card import WeightFile
from loc.weights.files import locate, needed
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
        note="conv5_1 to conv5_3 of the authors' Caffe model in half precision",
        file="vgg16_conv5_fp16.safetensors",
        offered=False,
    ),
)
#: All of them, of the same Caffe model, in one file that is offered for download.
VGG16_FEATURES = WeightFile(
    "https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth",
    None,
    "CC BY 4.0 (the authors' model); BSD-3-Clause (torchvision)",
    _PAPER,
    commercial_ok=True,
    note="528 MB; taken where vgg16_conv5_fp16.safetensors is not at hand, in place of both other files",
    output_checked=False,
    stands_for=tuple(file.name for file in VGG16_FILES),
)
STRIDE = 16
CHANNELS = 512
#: Side of the receptive field of a cell of conv5_3, px, and the centre of the first cell, centre origin.
FIELD_PX, FIRST_CENTER_PX = 196, 7.5
#: Smallest side, px, that leaves a cell.
LEAST_SIDE_PX = 16
_LEAST_STRIP_CELLS = 16
_BUDGET_BYTES = 768 << 20


def vgg16_files() -> tuple[WeightFile, ...]:
    """What is needed on this machine: both files where the second is here, else the one of torchvision."""
    return needed((*VGG16_FILES, VGG16_FEATURES))


class Vgg16:
    """Images to the maps of conv5_3, stride 16.

    Args:
        blocks: weights and biases of each block (of a VGG of any depth); None: :func:`vgg16_files`.
        relu: whether conv5_3 ends with its ReLU.
        budget_bytes: for the largest activations; larger images run in strips. No output depends on it.

    Raises:
        WeightsError: one of the files is missing or not the expected one.
    """

    def __init__(
        self,
        *,
        device: str,
        dtype: torch.dtype,
        blocks: Blocks | None = None,
        relu: bool = True,
        budget_bytes: int = _BUDGET_BYTES,
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
        self._budget = budget_bytes
        # Cells above and below a cut whose receptive field reaches over it.
        reach_px = sum(len(block) << number for number, block in enumerate(self._blocks))
        self._halo = -(-reach_px // STRIDE)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(b, 512, h // 16, w // 16)`` of what :func:`preprocessed` returns."""
        import torch

        images, _, height, width = pixels.shape
        rows = height // STRIDE
        step = self._strip_cells(images * width)
        if rows <= step:
            return self._maps(pixels)
        strips = []
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            first = max(0, start - self._halo)
            last_px = height if stop + self._halo >= rows else (stop + self._halo) * STRIDE
            maps = self._maps(pixels[:, :, first * STRIDE : last_px])
            strips.append(maps[:, :, start - first : stop - first])
        return torch.cat(strips, dim=2)

    def _strip_cells(self, width: int) -> int:
        """Rows of cells per strip: its largest activations are conv1_2's input and output."""
        per_row = 2 * BLOCKS[0][0] * width * self._dtype.itemsize * STRIDE
        return max(_LEAST_STRIP_CELLS, self._budget // per_row - 2 * self._halo)

    def _maps(self, pixels: torch.Tensor) -> torch.Tensor:
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
    in_one = vgg16_files() == (VGG16_FEATURES,)
    names: list[list[str]] = []
    shapes: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for block, (width, depth) in enumerate(BLOCKS, start=1):
        names.append([])
        for layer in range(1, depth + 1):
            # The index in the Sequential of torchvision and of D2-Net's checkpoints: ReLU and pooling count.
            name = f"features.{index}" if in_one else _KEY.format(index) if block < 5 else f"conv5_{layer}"
            names[-1].append(name)
            shapes |= {f"{name}.weight": (width, channels, 3, 3), f"{name}.bias": (width,)}
            index, channels = index + 2, width
        index += 1
    tensors = _of_one_file(shapes) if in_one else _of_two_files(shapes)
    return [[(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in block] for block in names]


def _of_two_files(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    last = {name: shape for name, shape in shapes.items() if name.startswith("conv5")}
    first = {name: shape for name, shape in shapes.items() if name not in last}
    return read_tensors(locate(VGG16_FILES[0]), first, under="model") | read_tensors(
        locate(VGG16_FILES[1]), last
    )


def _of_one_file(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    # The classifier is there without values.
    tensors = read_tensors(locate(VGG16_FEATURES), shapes, ignore=("classifier.",))
    # Its first layer takes RGB, Caffe's BGR.
    tensors["features.0.weight"] = tensors["features.0.weight"].flip(1)
    return tensors
