"""SuperPoint: keypoints and descriptors of one network, trained on corners that it found itself.

D. DeTone, T. Malisiewicz and A. Rabinovich, SuperPoint: Self-Supervised Interest Point Detection and
Description, CVPRW 2018. The selection of keypoints (window, threshold, border) is that of SuperGlue and hloc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from loc.conventions import PixelOrigin
from loc.errors import ContractError
from loc.nets.ranked import ranked_features
from loc.nets.superpoint import dense_maps, local_maxima, parameter_shapes, sampled
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import LocalFeatures
from loc.weights.files import locate
from loc.weights.licence import require_licence
from loc.weights.tensors import read_tensors

if TYPE_CHECKING:
    import torch

_LICENCE = "Magic Leap: academic or non-profit, non-commercial research only"
_PAPER = "D. DeTone, T. Malisiewicz and A. Rabinovich, SuperPoint, CVPRW 2018"


class SuperPointConfig(PluginConfig):
    """Options of :class:`SuperPoint`."""

    max_keypoints: int | None = Field(4096, ge=1, description="the best this many by score; null: all")
    min_score: float = Field(0.005, ge=0, le=1, description="least probability of a keypoint")
    nms_radius: int = Field(4, ge=1, description="a keypoint is the maximum of its window of this radius, px")
    border_px: int = Field(4, ge=0, description="no keypoints this near to the border of the whole cells")
    sampling: Literal["release", "centred"] = Field(
        "release",
        description="of descriptors; release: as published, up to half a cell off; centred: unbiased",
    )
    accept_license: bool = Field(
        False, exclude=True, description="the weights are for non-commercial use only: say that yours is"
    )


class SuperPoint:
    """Keypoints at whole pixels and 256-D unit descriptors of grey images, best score first."""

    Config: ClassVar[type[SuperPointConfig]] = SuperPointConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = _LICENCE
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = (
        WeightFile(
            "https://github.com/magicleap/SuperPointPretrainedNetwork/raw/master/superpoint_v1.pth",
            None,
            _LICENCE,
            _PAPER,
            mirrors=("https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_v1.pth",),
            commercial_ok=False,
            output_checked=False,
        ),
    )
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 16
    ranked: ClassVar[bool] = True
    mirror_symmetric: ClassVar[bool] = False
    #: Standard deviation of a coordinate, px: keypoints lie at whole pixels.
    noise_px: ClassVar[float] = 0.7

    def __init__(self, config: SuperPointConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        (file,) = self.weights
        require_licence("superpoint", file, accepted=config.accept_license)
        self.config = config
        tensors = read_tensors(locate(file), parameter_shapes())
        self._parameters = {name: tensor.to(device) for name, tensor in tensors.items()}

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 1, h, w)`` float grey in [0, 1]."""
        import torch

        if images.ndim != 4 or images.shape[1] != 1:
            raise ContractError(f"superpoint takes grey images (b, 1, h, w), got {tuple(images.shape)}")
        with torch.inference_mode():
            heat, descriptors = dense_maps(images, self._parameters)
            (height, width), near = heat.shape[1:], self.config.border_px
            inside = torch.zeros_like(heat, dtype=torch.bool)
            inside[:, near : height - near, near : width - near] = True
            chosen = local_maxima(heat, self.config.nms_radius) & (heat > self.config.min_score) & inside
            return [
                self._features(each, heat[row], descriptors[row], images.shape[2:])
                for row, each in enumerate(chosen)
            ]

    def _features(
        self, chosen: torch.Tensor, heat: torch.Tensor, descriptors: torch.Tensor, image_hw: torch.Size
    ) -> LocalFeatures:
        import torch

        at = torch.nonzero(chosen)
        scores = heat[at[:, 0], at[:, 1]]
        best = torch.argsort(scores, descending=True, stable=True)[: self.config.max_keypoints]
        xy = at[best].flip(1).to(heat.dtype)
        rows = sampled(descriptors, xy, release=self.config.sampling == "release")
        return ranked_features(xy, scores[best], rows, (image_hw[1], image_hw[0]), self.noise_px)
