"""DELG's global descriptor: generalized-mean pooling and whitening of a ResNet, at several scales.

B. Cao, A. Araujo and J. Sim, Unifying Deep Local and Global Features for Image Search, ECCV 2020; the
global-only ResNet-101 is that of T. Weyand et al., Google Landmarks Dataset v2, CVPR 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from loc.errors import ContractError, WeightsError
from loc.nets.delf import DELG_RELEASES, DelfNetwork, joined
from loc.plugins.precision import Precision, torch_dtype
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Array
from loc.weights.tensorflow.files import card, open_model, release

if TYPE_CHECKING:
    import torch


class DelgGlobalConfig(PluginConfig):
    """Options of :class:`DelgGlobal`."""

    weights: str = Field(
        "r50delg_gldv2clean_20200914",
        description="a release, or NAME of NAME.safetensors in a weights folder",
    )
    scales: tuple[float, ...] = Field((0.70710677, 1.0, 1.4142135), min_length=1, description="image scales")
    precision: Precision = Field("fp32", description="of the network; auto: the fastest that is native")


class DelgGlobal:
    """One unit descriptor of 2048 values per image: unit rows of the scales, added, unit again."""

    Config: ClassVar[type[DelgGlobalConfig]] = DelgGlobalConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = "B. Cao et al., Unifying Deep Local and Global Features, ECCV 2020"
    weights: ClassVar[tuple[WeightFile, ...]] = (
        *DELG_RELEASES,
        release("rn101_af_gldv2clean_20200814", "global"),
    )
    source: ClassVar[Literal["image", "features"]] = "image"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    min_side: ClassVar[int] = 10
    needs_fit: ClassVar[bool] = False
    #: The extractor of local features whose pass gives this descriptor too.
    pass_of: ClassVar[str] = "delg"
    stage_defaults: ClassVar[dict[str, int]] = {"resize_max": 1024}

    def __init__(
        self,
        config: DelgGlobalConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",  # noqa: ARG002
    ) -> None:
        self.config = config
        file = self.weights_for(config)[0]
        model = open_model(file)
        if model.facts.pooling is None:
            raise WeightsError(
                f"{file.name} holds {model.facts.kind}, without a global head", "name DELG weights"
            )
        self._net = DelfNetwork(
            model.tensors, model.facts, device=device, dtype=torch_dtype(config.precision, device)
        )

    @classmethod
    def weights_for(cls, config: DelgGlobalConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return (card(config.weights, cls.weights),)

    def __call__(self, images: torch.Tensor) -> Float32[Array, "b 2048"]:
        """Rows of ``(b, 3, h, w)`` float RGB in [0, 1]."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"delg takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        every = range(len(self.config.scales))
        rows = [
            joined(self._net.describe(image, self.config.scales, local=(), overall=every)[1])
            for image in images
        ]
        return np.stack(rows) if rows else np.zeros((0, 2048), np.float32)
