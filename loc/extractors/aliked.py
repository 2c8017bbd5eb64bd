"""ALIKED: sub-pixel keypoints with descriptors sampled deformably; the network is kornia's.

X. Zhao et al., ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable Transformation,
IEEE TIM 2023.
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

_PAPER = "X. Zhao et al., ALIKED, IEEE TIM 2023"
_URL = "https://github.com/Shiaoming/ALIKED/raw/main/models/"
#: A buffer that kornia makes itself and the authors' files do not have.
_BUFFER = "dkd.hw_grid"


class AlikedConfig(PluginConfig):
    """Options of :class:`Aliked`."""

    model: Literal["aliked-n16rot", "aliked-n16", "aliked-n32", "aliked-t16"] = Field(
        "aliked-n16", description="n16 goes with LightGlue, n16rot is for turned photos, t16 is the smallest"
    )
    max_keypoints: int | None = Field(4096, ge=1, description="the best this many by score; null: 20,000")
    min_score: float = Field(
        0.0, ge=0, le=1, description="0: the best max_keypoints; above: only keypoints with a higher score"
    )
    nms_radius: int = Field(2, ge=1, description="a keypoint is the maximum of its window of this radius, px")


class Aliked:
    """Sub-pixel keypoints and 128-D (t16: 64-D) unit descriptors of RGB images, best score first."""

    Config: ClassVar[type[AlikedConfig]] = AlikedConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "BSD-3-Clause"
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = tuple(
        WeightFile(f"{_URL}{name}.pth", None, "BSD-3-Clause", _PAPER, commercial_ok=True)
        for name in ("aliked-n16rot", "aliked-n16", "aliked-n32", "aliked-t16")
    )
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 32
    ranked: ClassVar[bool] = True
    mirror_symmetric: ClassVar[bool] = False
    #: Standard deviation of a coordinate, px.
    noise_px: ClassVar[float] = 0.5

    def __init__(self, config: AlikedConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        net = import_kornia("aliked", "ALIKED")(
            model_name=config.model,
            max_num_keypoints=config.max_keypoints or -1,
            # Without a cap every maximum above nothing is wanted: zero would mean "above the mean".
            detection_threshold=config.min_score or (-1.0 if config.max_keypoints else 1e-6),
            nms_radius=config.nms_radius,
        )
        state = net.state_dict()
        shapes = {key: tuple(value.shape) for key, value in state.items() if key != _BUFFER}
        (file,) = self.weights_for(config)
        net.load_state_dict({_BUFFER: state[_BUFFER], **read_tensors(locate(file), shapes)})
        self._net = net.to(device).eval()

    @classmethod
    def weights_for(cls, config: AlikedConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return tuple(file for file in cls.weights if file.name == f"{config.model}.pth")

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]."""
        import torch

        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"aliked takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        wh = (images.shape[3], images.shape[2])
        with torch.inference_mode():
            found = self._net(images)
        return [
            ranked_features(each.keypoints, each.keypoint_scores, each.descriptors, wh, self.noise_px)
            for each in found
        ]
