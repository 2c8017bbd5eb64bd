"""DoG-HardNet: the points of SIFT, each described by a small network that sees its patch.

A. Mishchuk et al., Working hard to know your neighbor's margins: Local descriptor learning loss (HardNet),
NeurIPS 2017; D. Lowe, IJCV 2004 (the detector). Detection is COLMAP's, the descriptor's network kornia's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from loc.conventions import PixelOrigin, center_from_corner
from loc.errors import ContractError
from loc.extractors.sift import Sift, SiftConfig
from loc.nets.kornia import import_kornia
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Array, LocalFeatures
from loc.weights.files import locate
from loc.weights.tensors import read_tensors

if TYPE_CHECKING:
    import torch

_PAPER = "A. Mishchuk et al., HardNet, NeurIPS 2017; D. Lowe, IJCV 2004 (detector)"
#: Half the side of a patch, in standard deviations of the detecting Gaussian.
_PATCH_REACH = 6.0
#: Patches described at once.
_BLOCK = 512
#: A count of training steps that older checkpoints lack and nothing reads.
_COUNTER = "num_batches_tracked"


class DogHardNetConfig(PluginConfig):
    """Options of :class:`DogHardNet`; those of detection are those of ``sift``."""

    max_keypoints: int | None = Field(
        4096, ge=1, description="at most this many per image, spread evenly over it; null: no limit"
    )
    first_octave: int = Field(
        0, ge=-2, le=4, description="-1 doubles the image first (finer points), 0 starts at its own size"
    )
    peak_threshold: float = Field(
        0.02 / 3, gt=0, description="least contrast (difference of Gaussians) of a point"
    )
    edge_threshold: float = Field(10.0, gt=1, description="largest ratio of curvatures: lower drops edges")
    upright: bool = Field(False, description="no orientation: for photos that are all held the same way up")
    max_orientations: int = Field(2, ge=1, le=4, description="keypoints per place, one per dominant gradient")


class DogHardNet:
    """DoG keypoints with 128-D unit descriptors of their patches, of grey images; rows as of ``sift``."""

    Config: ClassVar[type[DogHardNetConfig]] = DogHardNetConfig
    version: ClassVar[int] = 100 * Sift.version + 1  # what changes there, changes here
    licence: ClassVar[str] = "MIT (HardNet), BSD-3-Clause (COLMAP), BSD-2-Clause (VLFeat)"
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = (
        WeightFile(
            "https://github.com/DagnyT/hardnet/raw/master/pretrained/train_liberty_with_aug/"
            "checkpoint_liberty_with_aug.pth",
            None,
            "MIT",
            _PAPER,
            commercial_ok=True,
            output_checked=False,
            file="hardnet_liberty_with_aug.pth",
        ),
    )
    pixel_origin: ClassVar[PixelOrigin] = Sift.pixel_origin
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = Sift.min_side
    ranked: ClassVar[bool] = Sift.ranked
    #: Standard deviation of a coordinate, px.
    noise_px: ClassVar[float] = Sift.noise_px

    def __init__(self, config: DogHardNetConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        self._detector = Sift(SiftConfig(**config.model_dump()))
        net = import_kornia("dog_hardnet", "HardNet")(pretrained=False)
        state = net.state_dict()
        counters = {key: value for key, value in state.items() if key.endswith(_COUNTER)}
        shapes = {key: tuple(value.shape) for key, value in state.items() if key not in counters}
        tensors = read_tensors(locate(self.weights[0]), shapes, under="state_dict", ignore=tuple(counters))
        net.load_state_dict({**counters, **tensors})
        self._net = net.to(device).eval()

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 1, h, w)`` float grey in [0, 1]; images run one after the other."""
        if images.ndim != 4 or images.shape[1] != 1:
            raise ContractError(f"dog_hardnet takes grey images (b, 1, h, w), got {tuple(images.shape)}")
        return [self._describe(images[row : row + 1]) for row in range(len(images))]

    def _describe(self, image: torch.Tensor) -> LocalFeatures:
        import torch

        (found,) = self._detector(image.cpu().numpy())
        rows = [np.zeros((0, 128), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(found), _BLOCK):
                patches = self._patches(
                    image, found.select(np.arange(start, min(start + _BLOCK, len(found))))
                )
                rows.append(self._net(patches).float().cpu().numpy())
        return replace(found, descriptors=np.concatenate(rows))

    def _patches(self, image: torch.Tensor, features: LocalFeatures) -> torch.Tensor:
        """``(n, 1, 32, 32)``: turned and scaled with their keypoints, from the fitting level of a pyramid."""
        import torch

        frames = torch.from_numpy(_frames(features)).to(image.device)
        extract = import_kornia("dog_hardnet", "extract_patches_from_pyramid")
        patches: torch.Tensor = extract(image, frames[None], PS=self._net.patch_size)[0]
        return patches


def _frames(features: LocalFeatures) -> Array:
    """``(n, 2, 3)`` float32 ``[A | c]``: where the square [-1, 1]² of a patch lies, centre origin."""
    if features.scales is None or features.orientations_rad is None:
        raise ContractError("dog_hardnet needs scales and orientations of its keypoints")
    cos, sin = np.cos(features.orientations_rad), np.sin(features.orientations_rad)
    turned = np.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2)
    reach = (_PATCH_REACH * features.scales)[:, None, None]
    centres = center_from_corner(features.keypoints)[:, :, None]
    return np.concatenate([reach * turned, centres], 2).astype(np.float32)
