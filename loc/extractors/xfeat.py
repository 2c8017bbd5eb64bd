"""XFeat: features of a network so small that it runs in real time on a CPU; the network is kornia's.

G. Potje et al., XFeat: Accelerated Features for Lightweight Image Matching, CVPR 2024.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from loc.conventions import PixelOrigin, corner_from_center, rescale_xy, resize_wh
from loc.errors import ContractError
from loc.nets.kornia import import_kornia
from loc.nets.ranked import ranked_features
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import LocalFeatures
from loc.weights.files import locate
from loc.weights.tensors import read_tensors

if TYPE_CHECKING:
    import torch

_PAPER = "G. Potje et al., XFeat, CVPR 2024"
#: The network works on images whose sides are multiples of this, px.
CELL_PX = 32
#: kornia has no word for "all".
_ALL = 1 << 30


class XFeatConfig(PluginConfig):
    """Options of :class:`XFeat`."""

    max_keypoints: int | None = Field(4096, ge=1, description="the best this many by score; null: all")
    min_score: float = Field(0.05, ge=0, le=1, description="least probability of a keypoint")


class XFeat:
    """Keypoints at whole pixels and 64-D unit descriptors of RGB images, best score first."""

    Config: ClassVar[type[XFeatConfig]] = XFeatConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = (
        WeightFile(
            "https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt",
            None,
            "Apache-2.0",
            _PAPER,
            commercial_ok=True,
            output_checked=False,
        ),
    )
    pixel_origin: ClassVar[PixelOrigin] = "corner"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = CELL_PX
    ranked: ClassVar[bool] = True
    mirror_symmetric: ClassVar[bool] = False
    #: Standard deviation of a coordinate, px: keypoints lie at whole pixels.
    noise_px: ClassVar[float] = 0.7

    def __init__(self, config: XFeatConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        net = import_kornia("xfeat", "XFeat")(
            top_k=config.max_keypoints or _ALL, detection_threshold=config.min_score
        )
        shapes = {key: tuple(value.shape) for key, value in net.net.state_dict().items()}
        net.net.load_state_dict(read_tensors(locate(self.weights[0]), shapes))
        self._net = net.to(device).eval()

    def resized_wh(self, wh: tuple[int, int], resize_max: int | None) -> tuple[int, int]:
        """Size at which the network sees a photo: whole cells, so that it is resized only once."""
        width, height = (_whole_cells(side) for side in resize_wh(wh, resize_max))
        return width, height

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]; other sizes are resized to whole cells."""
        import torch
        from torch.nn.functional import interpolate

        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"xfeat takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        height, width = images.shape[2:]
        shown_hw = _whole_cells(height), _whole_cells(width)
        with torch.inference_mode():
            if shown_hw != (height, width):
                images = interpolate(images, shown_hw, mode="bilinear", align_corners=False)
            found = self._net.detectAndCompute(images)
        return [
            _in_image(
                ranked_features(
                    each["keypoints"],
                    each["scores"],
                    each["descriptors"],
                    (shown_hw[1], shown_hw[0]),
                    self.noise_px,
                ),
                (width, height),
            )
            for each in found
        ]


def _whole_cells(side: int) -> int:
    return side if side < CELL_PX else side // CELL_PX * CELL_PX


def _in_image(features: LocalFeatures, wh: tuple[int, int]) -> LocalFeatures:
    """Pixels of the resized image, centre origin, in those of the image, corner origin."""
    xy = corner_from_center(features.keypoints)
    return replace(features, keypoints=rescale_xy(xy, from_wh=features.image_wh, to_wh=wh), image_wh=wh)
