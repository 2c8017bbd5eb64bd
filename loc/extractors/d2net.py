"""D2-Net: one VGG-16 trunk whose channels both describe and detect, single-scale and multi-scale.

M. Dusmanu et al., D2-Net: A Trainable CNN for Joint Description and Detection of Local Features,
CVPR 2019. The numbers are those of the authors' released test code; the work is not: per cell of the
feature map only the channel with the largest response can be a keypoint, so detection and sub-cell
localization read nine values per cell instead of filtering 512 channels, and the trunk runs over exact
horizontal strips, so that memory is bounded by the feature map itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from loc.conventions import PixelOrigin
from loc.errors import ContractError
from loc.nets.peaks import Peaks, detect
from loc.nets.vgg import CONVOLUTIONS, LEAST_SIDE_PX, STRIDE, DenseVgg, Parameters
from loc.plugins.precision import Precision, torch_dtype
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.runtime.select import spatially_even
from loc.types import Array, LocalFeatures
from loc.weights.files import locate
from loc.weights.tensors import read_tensors

if TYPE_CHECKING:
    import torch

_URL = "https://dusmanu.com/files/d2-net/"
_PAPER = "M. Dusmanu et al., D2-Net, CVPR 2019"
_LICENCE = "BSD-3-Clause-Clear (code; the authors state no other for the weights)"
_KEY = "dense_feature_extraction.model.{}.{}"
#: Offset of a cell's centre, network px: what the release adds, and where it is (the un-padded
#: average-pool moves every cell by half a cell of the stride-4 grid).
_OFFSET_PX = {"release": 1.5, "centred": 3.5}
#: Rows of cells to which a coarser map is added at once: on a CPU they stay in its cache (twice as fast as
#: eight), on a GPU few kernels are started.
_FUSED_ROWS = {"cpu": 2, "gpu": 32}
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class D2NetConfig(PluginConfig):
    """Options of :class:`D2Net`; the defaults are the authors' single-scale ones."""

    weights: Literal["tf", "tf_no_phototourism", "ots"] = Field(
        "tf", description="MegaDepth; the same without the Photo-Tourism test scenes; ImageNet alone"
    )
    scales: tuple[float, ...] = Field((1.0,), description="pyramid levels, e.g. [0.5, 1, 2]")
    use_relu: bool = Field(True, description="final ReLU of the trunk, as in the released default")
    preprocessing: Literal["caffe", "torch"] = "caffe"
    offset: Literal["release", "centred"] = Field(
        "release", description="release: positions as published (2 px off at scale 1); centred: unbiased"
    )
    max_sum_edges: int = Field(2800, ge=32, description="largest sum of both sides, px")
    max_keypoints: int | None = Field(None, ge=1, description="at most this many per image; null: all")
    select: Literal["even", "score"] = Field(
        "even", description="which are kept under a cap: spread over the image, or the highest scores"
    )
    precision: Precision = Field("auto", description="of the trunk; auto: the fastest that is native")
    memory_budget_mib: int = Field(
        768,
        ge=64,
        exclude=True,  # strips change no bit of the output
        description="for activations of the trunk, beside the feature map (strips of the image)",
    )

    @field_validator("scales")
    @classmethod
    def _ascending(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or any(not 0.05 <= scale <= 8 for scale in scales):
            raise ValueError("a pyramid has at least one scale, each between 0.05 and 8")
        if len(set(scales)) != len(scales):
            raise ValueError("a scale is given twice")
        return tuple(sorted(scales))  # coarse levels go first: they veto finer ones


class D2Net:
    """Keypoints and 512-D descriptors of RGB images.

    * ``descriptors`` are ``(n, 512)`` float32 of unit norm.
    * ``scores`` are VGG activations divided by the level's number: unbounded, and good for nothing but
      local comparison (the authors: top-N by score is not meaningful), hence ``ranked = False`` and a
      spatially even choice when a cap is asked for.
    * ``scales`` are ``1 / pyramid scale`` in network px.
    * Without a cap rows have the order of the release: by level, channel, row, column.
    """

    Config: ClassVar[type[D2NetConfig]] = D2NetConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = _LICENCE
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = (
        WeightFile(f"{_URL}d2_tf.pth", None, _LICENCE, _PAPER, output_checked=False),
        WeightFile(f"{_URL}d2_tf_no_phototourism.pth", None, _LICENCE, _PAPER, output_checked=False),
        # VGG-16 of ImageNet as its authors in Oxford released it.
        WeightFile(f"{_URL}d2_ots.pth", None, "CC BY 4.0 (VGG)", _PAPER, commercial_ok=True),
    )
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 16
    ranked: ClassVar[bool] = False
    #: Standard deviation of a coordinate, network px.
    noise_px: ClassVar[float] = 2.0

    def __init__(
        self,
        config: D2NetConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",  # noqa: ARG002
        parameters: Parameters | None = None,
    ) -> None:
        """``parameters``: weights and biases by the index of their convolution, instead of a file's."""
        self.config = config
        self.device = device
        self._trunk = DenseVgg(
            parameters or _parameters(locate(self.weights_for(config)[0])),
            device=device,
            dtype=torch_dtype(config.precision, device),
            relu=config.use_relu,
            budget_bytes=config.memory_budget_mib << 20,
        )

    @property
    def known_bias_px(self) -> float:
        """How far the published positions lie from where the network looks, at scale 1."""
        return _OFFSET_PX[self.config.offset] - _OFFSET_PX["centred"]

    @classmethod
    def weights_for(cls, config: D2NetConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return tuple(file for file in cls.weights if file.name == f"d2_{config.weights}.pth")

    @staticmethod
    def network_wh(config: D2NetConfig, wh: tuple[int, int], resize_max: int | None) -> tuple[int, int]:
        """Size at which the network sees a photo of size ``wh``: both limits in one resize, floored."""
        factor = min(1.0, (resize_max or max(wh)) / max(wh), config.max_sum_edges / sum(wh))
        return max(1, int(wh[0] * factor)), max(1, int(wh[1] * factor))

    def resized_wh(self, wh: tuple[int, int], resize_max: int | None) -> tuple[int, int]:
        """:meth:`network_wh` of this configuration."""
        return self.network_wh(self.config, wh, resize_max)

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]; images run one after the other."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"d2net takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        return [self._describe(images[row : row + 1]) for row in range(len(images))]

    def _describe(self, image: torch.Tensor) -> LocalFeatures:
        import torch

        height, width = image.shape[2:]
        found: list[list[Array]] = []
        with torch.inference_mode():
            for number, scale, level_hw, points in self._levels(_preprocess(image, self.config)):
                xy = self._to_network(points.cells, level_hw, (height, width))
                scores = points.scores / number
                size = torch.full_like(scores, 1 / scale)
                found.append([part.cpu().numpy() for part in (xy, scores, points.descriptors, size)])
        columns = [np.concatenate(column) for column in zip(*found, strict=True)] if found else _nothing()
        features = LocalFeatures(
            keypoints=columns[0],
            scores=columns[1],
            descriptors=columns[2],
            image_wh=(width, height),
            scales=columns[3],
            noise_px=self.noise_px,
        )
        return capped(features, self.config)

    def _levels(self, image: torch.Tensor) -> Iterator[tuple[int, float, tuple[int, int], Peaks]]:
        """Walk the pyramid from coarse to fine: fused maps, and finer points vetoed by coarser ones.

        Yields:
            The level's number from 1, its scale, its size ``(h, w)`` in px, its points.
        """
        import torch
        from torch.nn.functional import interpolate

        coarser: torch.Tensor | None = None
        banned: torch.Tensor | None = None
        height, width = image.shape[2:]
        for number, scale in enumerate(self.config.scales, start=1):
            level_hw = int(height * scale), int(width * scale)
            if min(level_hw) < LEAST_SIDE_PX:
                continue  # too small for the network: the released code raises here
            level = (
                image
                if level_hw == (height, width)
                else interpolate(image, level_hw, mode="bilinear", align_corners=True)
            )
            features = self._trunk(level)
            del level
            if coarser is not None and banned is not None:
                _add_upsampled(features, coarser)
                banned = _nearest(banned, features.shape[:2])
            points = detect(features, banned)
            yield number, scale, level_hw, points
            seen = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
            seen[points.detected[:, 0], points.detected[:, 1]] = True
            banned = seen if banned is None else banned | seen
            coarser = features

    def _to_network(
        self, cells: torch.Tensor, level_hw: tuple[int, int], image_hw: tuple[int, int]
    ) -> torch.Tensor:
        """``(n, 2)`` xy in px of the network's image, centre origin, from rows and columns of a level."""
        centred = self.config.offset == "centred"
        # Pyramid levels are resized with align_corners: pixel centres 0 and W - 1 map onto each other.
        one = 1 if centred else 0
        factor = cells.new_tensor([(image_hw[axis] - one) / (level_hw[axis] - one) for axis in (0, 1)])
        return ((cells * STRIDE + _OFFSET_PX[self.config.offset]) * factor).flip(1)


def capped(features: LocalFeatures, config: D2NetConfig) -> LocalFeatures:
    """At most ``max_keypoints`` of the features, best first; which ones, ``select`` says."""
    limit = config.max_keypoints
    if limit is None:
        return features
    if config.select == "score":
        return features.select(np.argsort(-features.scores, kind="stable")[:limit])
    priority = features.scores - min(0.0, float(features.scores.min(initial=0)))  # no ReLU: negative ones
    return features.select(spatially_even(features.keypoints, priority, features.image_wh, limit))


def _preprocess(image: torch.Tensor, config: D2NetConfig) -> torch.Tensor:
    if config.preprocessing == "torch":
        mean, std = (image.new_tensor(each).view(3, 1, 1) for each in (_IMAGENET_MEAN, _IMAGENET_STD))
        return (image - mean) / std
    return image.flip(1) * 255 - image.new_tensor(_CAFFE_MEAN_BGR).view(3, 1, 1)


def _add_upsampled(features: torch.Tensor, coarser: torch.Tensor) -> None:
    """``features += upsampled(coarser)``, bilinear with aligned corners, in place and a few rows at a time.

    torch's own interpolation makes a second map, and on a CPU takes several times as long.
    """
    import torch

    (top, bottom, below), (left, right, beside) = (
        _between(features, features.shape[axis], coarser.shape[axis]) for axis in (0, 1)
    )
    step = _FUSED_ROWS["cpu" if features.device.type == "cpu" else "gpu"]
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        upper, lower = coarser.index_select(0, top[rows]), coarser.index_select(0, bottom[rows])
        strip = torch.lerp(upper, lower, below[rows, None, None])
        fused = torch.lerp(strip.index_select(1, left), strip.index_select(1, right), beside[:, None])
        features[rows] += fused


def _between(like: torch.Tensor, size: int, source: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of ``size`` aligned positions: the two source cells it lies between, and how far."""
    import torch

    position = torch.arange(size, device=like.device, dtype=like.dtype) * ((source - 1) / max(1, size - 1))
    low = position.long().clamp_(max=source - 1)
    return low, (low + 1).clamp_(max=source - 1), position - low


def _nearest(mask: torch.Tensor, hw: torch.Size) -> torch.Tensor:
    from torch.nn.functional import interpolate

    return interpolate(mask[None, None].float(), tuple(hw))[0, 0].bool()


def _parameters(path: Path) -> Parameters:
    """Weights and biases of a checkpoint of the authors, by the index of their convolution."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (channels_in, channels_out) in CONVOLUTIONS.items():
        shapes[_KEY.format(index, "weight")] = (channels_out, channels_in, 3, 3)
        shapes[_KEY.format(index, "bias")] = (channels_out,)
    tensors = read_tensors(path, shapes, under="model")
    return {
        index: (tensors[_KEY.format(index, "weight")], tensors[_KEY.format(index, "bias")])
        for index in CONVOLUTIONS
    }


def _nothing() -> list[Array]:
    none = np.zeros(0, np.float32)
    return [np.zeros((0, 2), np.float32), none, np.zeros((0, 512), np.float32), none]
