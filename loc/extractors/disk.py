"""DISK: dense keypoints and descriptors learned by policy gradient; the network is kornia's.

M. Tyszkiewicz, P. Fua and E. Trulls, DISK: Learning local features with policy gradient, NeurIPS 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from loc.conventions import PixelOrigin
from loc.errors import ContractError
from loc.nets.kornia import import_kornia
from loc.nets.ranked import ranked_features
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import LocalFeatures
from loc.weights.files import locate
from loc.weights.tensors import read_tensors

if TYPE_CHECKING:
    import torch

_PAPER = "M. Tyszkiewicz, P. Fua and E. Trulls, DISK, NeurIPS 2020"


class DiskConfig(PluginConfig):
    """Options of :class:`Disk`."""

    max_keypoints: int | None = Field(4096, ge=1, description="the best this many by score; null: all")
    nms_window: int = Field(5, ge=3, description="side of the window a keypoint is the maximum of, px")
    min_score: float = Field(0.0, description="least response of a keypoint")


class Disk:
    """Keypoints at whole pixels and 128-D unit descriptors of RGB images, best score first."""

    Config: ClassVar[type[DiskConfig]] = DiskConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = (
        WeightFile(
            "https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
            None,
            "Apache-2.0",
            _PAPER,
            commercial_ok=True,
            file="disk-depth-save.pth",
        ),
    )
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 32
    ranked: ClassVar[bool] = True
    mirror_symmetric: ClassVar[bool] = False
    #: Standard deviation of a coordinate, px: keypoints lie at whole pixels.
    noise_px: ClassVar[float] = 0.7

    def __init__(self, config: DiskConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        net = import_kornia("disk", "DISK")()
        shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
        net.load_state_dict(read_tensors(locate(self.weights[0]), shapes, under="extractor"))
        self._net = net.to(device).eval()

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]."""
        import torch

        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"disk takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        with torch.inference_mode():
            found = self._net(
                images,
                n=self.config.max_keypoints,
                window_size=self.config.nms_window | 1,
                score_threshold=self.config.min_score,
                pad_if_not_divisible=True,
            )
        wh = (images.shape[3], images.shape[2])
        return [
            ranked_features(each.keypoints, each.detection_scores, each.descriptors, wh, self.noise_px)
            for each in found
        ]
