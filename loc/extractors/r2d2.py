"""R2D2: repeatable and reliable keypoints; trained for changes of day, season and style.

J. Revaud et al., R2D2: Repeatable and Reliable Detector and Descriptor, NeurIPS 2019. The numbers are those
of the authors' code; the maps of a level never exist as a whole, since each strip of rows is reduced to
its keypoints before the next one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from loc.conventions import PixelOrigin
from loc.errors import ContractError
from loc.plugins.precision import Precision, torch_dtype
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import LocalFeatures
from loc.weights.files import locate
from loc.weights.licence import require_licence
from loc.weights.tensors import read_tensors

if TYPE_CHECKING:
    import torch

_LICENCE = "CC-BY-NC-SA-3.0 (non-commercial)"
_PAPER = "J. Revaud et al., R2D2, NeurIPS 2019"
_URL = "https://github.com/naver/r2d2/raw/master/models/"
#: (index in ``module.ops``, channels in, out, kernel, dilation, padding); all but the last with
#: BatchNorm at the next index, all but the last three with ReLU.
_CONVOLUTIONS = (
    (0, 3, 32, 3, 1, 1),
    (3, 32, 32, 3, 1, 1),
    (6, 32, 64, 3, 1, 1),
    (9, 64, 64, 3, 2, 2),
    (12, 64, 128, 3, 2, 2),
    (15, 128, 128, 3, 4, 4),
    (18, 128, 128, 2, 4, 2),
    (20, 128, 128, 2, 8, 4),
    (22, 128, 128, 2, 16, 8),
)
_RELU_UP_TO = 15
_LAST = 22
#: Rows beyond a cut that the network sees: the sum of its paddings.
_HALO_PX = sum(padding for *_, padding in _CONVOLUTIONS)
_BATCH_NORM_EPSILON = 1e-5
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEVEL_STEP = 2**0.25
#: Diameter, px, of the patch that a descriptor was trained on.
_PATCH_PX = 32.0


class R2D2Config(PluginConfig):
    """Options of :class:`R2D2`; sizes and thresholds are the authors' defaults."""

    weights: Literal["r2d2_WASF_N16", "r2d2_WAF_N16"] = "r2d2_WASF_N16"
    max_keypoints: int | None = Field(5000, ge=1, description="the best this many by score; null: all")
    min_scale: float = Field(0.0, ge=0, description="pyramid levels smaller than this are left out")
    max_scale: float = Field(1.0, gt=0)
    min_size: int = Field(256, ge=0, description="… and those whose long side is below this, px")
    max_size: int = Field(1024, ge=16, description="… or above this")
    repeatability: float = Field(0.7, ge=0, le=1, description="least repeatability of a keypoint")
    reliability: float = Field(0.7, ge=0, le=1, description="least reliability of a keypoint")
    offset: Literal["release", "centred"] = Field(
        "release", description="release: as published, coarse levels half a cell off; centred: unbiased"
    )
    precision: Precision = Field("fp32", description="of the network")
    memory_budget_mib: int = Field(
        512,
        ge=64,
        exclude=True,  # strips change no bit of the output
        description="for the activations of a strip of rows",
    )
    accept_license: bool = Field(
        False, exclude=True, description="the weights are for non-commercial use only: say that yours is"
    )


class R2D2:
    """Keypoints and 128-D descriptors of RGB images, best score first.

    * ``descriptors`` are ``(n, 128)`` float32 of unit norm; ``scores`` = repeatability x reliability.
    * ``scales`` are the diameters of the described patches, px.
    * The photo's own size matters: levels above ``max_size`` are left out, so the runtime does not shrink
      it first.
    """

    Config: ClassVar[type[R2D2Config]] = R2D2Config
    version: ClassVar[int] = 1
    licence: ClassVar[str] = _LICENCE
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = tuple(
        WeightFile(f"{_URL}{name}.pt", None, _LICENCE, _PAPER, commercial_ok=False, output_checked=checked)
        for name, checked in (("r2d2_WASF_N16", True), ("r2d2_WAF_N16", False))
    )
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 16
    ranked: ClassVar[bool] = True
    mirror_symmetric: ClassVar[bool] = False
    stage_defaults: ClassVar[dict[str, Any]] = {"resize_max": None}
    #: Standard deviation of a coordinate, px.
    noise_px: ClassVar[float] = 1.0

    def __init__(self, config: R2D2Config, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        import torch

        (file,) = self.weights_for(config)
        require_licence("r2d2", file, accepted=config.accept_license)
        self.config = config
        self._dtype = torch_dtype(config.precision, device)
        tensors = read_tensors(locate(file), _shapes(), under="state_dict", ignore=_ignored())
        self._trunk = _trunk(tensors).to(device=device, dtype=self._dtype, memory_format=torch.channels_last)
        self._reliability = _head(tensors, "clf", 2).to(device)
        self._repeatability = _head(tensors, "sal", 1).to(device)

    @classmethod
    def weights_for(cls, config: R2D2Config) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return tuple(file for file in cls.weights if file.name == f"{config.weights}.pt")

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]; images run one after the other."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"r2d2 takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        return [self._describe(images[row : row + 1]) for row in range(len(images))]

    def _describe(self, image: torch.Tensor) -> LocalFeatures:
        import torch

        height, width = image.shape[2:]
        mean, std = (image.new_tensor(each).view(3, 1, 1) for each in (_IMAGENET_MEAN, _IMAGENET_STD))
        found: list[list[torch.Tensor]] = [[image.new_zeros(0, size) for size in (2, 1, 128, 1)]]
        with torch.inference_mode():
            for scale, level in self._levels((image - mean) / std):
                factor = image.new_tensor([width / level.shape[3], height / level.shape[2]])
                for xy, score, descriptors in self._keypoints(level):
                    at = (xy + 0.5) * factor - 0.5 if self.config.offset == "centred" else xy * factor
                    found.append([at, score, descriptors, torch.full_like(score, _PATCH_PX / scale)])
            xy, scores, descriptors, sizes = (torch.cat(column) for column in zip(*found, strict=True))
            best = torch.argsort(scores[:, 0], descending=True, stable=True)[: self.config.max_keypoints]
        return LocalFeatures(
            keypoints=xy[best].cpu().numpy(),
            scores=scores[best, 0].cpu().numpy(),
            descriptors=descriptors[best].cpu().numpy(),
            image_wh=(width, height),
            scales=sizes[best, 0].cpu().numpy(),
            noise_px=self.noise_px,
        )

    def _levels(self, image: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
        """Levels of the pyramid that are used, each resized from the one before, with their scale."""
        from torch.nn.functional import interpolate

        config, (height, width) = self.config, image.shape[2:]
        scale, longest = 1.0, max(height, width)
        while scale + 0.001 >= max(config.min_scale, config.min_size / longest):
            if min(image.shape[2:]) < self.min_side:
                return
            if scale - 0.001 <= min(config.max_scale, config.max_size / longest):
                yield scale, image
            scale /= _LEVEL_STEP
            size = round(height * scale), round(width * scale)
            if min(size) < 1:
                return
            image = interpolate(image, size, mode="bilinear", align_corners=False)

    def _keypoints(self, level: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """By strips of rows: xy ``(n, 2)`` in px of the level, scores ``(n, 1)``, descriptors."""
        import torch
        from torch.nn.functional import max_pool2d, normalize

        height, width = level.shape[2:]
        step = max(32, (self.config.memory_budget_mib << 20) // (3 * 128 * 4 * width) - 2 * _HALO_PX)
        for start in range(0, height, step):
            stop = min(start + step, height)
            above, below = max(0, start - 1), min(height, stop + 1)  # a maximum needs its neighbours
            top, bottom = max(0, above - _HALO_PX), min(height, below + _HALO_PX)
            strip = level[:, :, top:bottom].to(self._dtype).contiguous(memory_format=torch.channels_last)
            maps = self._trunk(strip)[:, :, above - top : below - top].float()
            reliable, repeatable = self._scores(maps)
            peak = repeatable == max_pool2d(repeatable, 3, stride=1, padding=1)
            peak &= (repeatable >= self.config.repeatability) & (reliable >= self.config.reliability)
            peak = peak[0, 0]
            peak[: start - above] = False
            peak[stop - above :] = False
            row, column = torch.nonzero(peak, as_tuple=True)
            xy = torch.stack([column, row + above], 1).to(maps.dtype)
            score = (reliable * repeatable)[0, 0, row, column][:, None]
            yield xy, score, normalize(maps[0, :, row, column].T, dim=1)

    def _scores(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reliability and repeatability ``(1, 1, h, w)`` in [0, 1]."""
        from torch.nn.functional import softplus

        squared = maps * maps
        reliable = self._reliability(squared).softmax(1)[:, 1:2]
        raw = softplus(self._repeatability(squared))
        return reliable, raw / (1 + raw)


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, channels_in, channels_out, kernel, *_ in _CONVOLUTIONS:
        shapes[f"module.ops.{index}.weight"] = (channels_out, channels_in, kernel, kernel)
        shapes[f"module.ops.{index}.bias"] = (channels_out,)
        if index != _LAST:
            for name in ("running_mean", "running_var"):
                shapes[f"module.ops.{index + 1}.{name}"] = (channels_out,)
    for name, channels in (("clf", 2), ("sal", 1)):
        shapes[f"module.{name}.weight"] = (channels, 128, 1, 1)
        shapes[f"module.{name}.bias"] = (channels,)
    return shapes


def _ignored() -> tuple[str, ...]:
    """Counters of the BatchNorm layers: training's business."""
    return tuple(f"module.ops.{index + 1}.num_batches_tracked" for index, *_ in _CONVOLUTIONS)


def _trunk(tensors: dict[str, torch.Tensor]) -> Any:
    """The convolutions with their BatchNorm (no affine part) folded in."""
    from torch import nn

    layers: list[nn.Module] = []
    for index, channels_in, channels_out, kernel, dilation, padding in _CONVOLUTIONS:
        weight = tensors[f"module.ops.{index}.weight"].double()
        bias = tensors[f"module.ops.{index}.bias"].double()
        if index != _LAST:
            mean = tensors[f"module.ops.{index + 1}.running_mean"].double()
            deviation = (tensors[f"module.ops.{index + 1}.running_var"].double() + _BATCH_NORM_EPSILON).sqrt()
            weight, bias = weight / deviation[:, None, None, None], (bias - mean) / deviation
        layer = nn.Conv2d(channels_in, channels_out, kernel, dilation=dilation, padding=padding)
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
        layers.append(layer)
        if index <= _RELU_UP_TO:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers).requires_grad_(False).eval()


def _head(tensors: dict[str, torch.Tensor], name: str, channels: int) -> Any:
    from torch import nn

    layer = nn.Conv2d(128, channels, 1)
    layer.load_state_dict({part: tensors[f"module.{name}.{part}"] for part in ("weight", "bias")})
    return layer.requires_grad_(False)
