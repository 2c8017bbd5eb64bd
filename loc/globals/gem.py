"""GeM: the generalised mean of a network's maps, off the shelf or trained for retrieval.

F. Radenović, G. Tolias and O. Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from loc.errors import ConfigError
from loc.globals.cirtorch import RELEASES, CirtorchTrunk, card
from loc.globals.pooling import Pooled, PoolingConfig, Trunk, VggTrunk
from loc.nets.pooling import gem, unit
from loc.nets.vgg16 import VGG16_FEATURES, VGG16_FILES, vgg16_files
from loc.plugins.precision import torch_dtype
from loc.plugins.protocols import WeightFile
from loc.weights.files import locate

if TYPE_CHECKING:
    import torch

_OFF_THE_SHELF = "ots"


class GemConfig(PoolingConfig):
    """Options of :class:`Gem`."""

    weights: str = Field(
        _OFF_THE_SHELF, description="ots, a release of cirtorch, or NAME of NAME.pth in a weights folder"
    )
    whitening: str | None = Field(
        None, description="learned whitening published with the weights, e.g. retrieval-SfM-120k"
    )
    p: float = Field(3.0, ge=1, le=20, description="power of ots; trained weights bring their own")


class Gem(Pooled):
    """The p-th root of the mean p-th power of each channel.

    With weights of cirtorch, the network and the pooling (regional, whitened) that they were trained with.
    """

    Config: ClassVar[type[PoolingConfig]] = GemConfig
    paper: ClassVar[str] = "F. Radenović et al., Fine-tuning CNN Image Retrieval, TPAMI 2018"
    weights: ClassVar[tuple[WeightFile, ...]] = (*VGG16_FILES, VGG16_FEATURES, *RELEASES)
    config: GemConfig

    @classmethod
    def weights_for(cls, config: GemConfig) -> tuple[WeightFile, ...]:
        """The files that a configuration needs."""
        return vgg16_files() if config.weights == _OFF_THE_SHELF else (card(config.weights),)

    def open_trunk(self) -> Trunk:
        if self.config.weights == _OFF_THE_SHELF:
            if self.config.whitening is not None:
                raise ConfigError(
                    "globals.whitening is published with trained weights, not with ots",
                    "set globals.pca_dim to learn one on the database",
                )
            return VggTrunk(self.config.precision, self.device)
        trunk = CirtorchTrunk(
            locate(card(self.config.weights)),
            device=self.device,
            dtype=torch_dtype(self.config.precision, self.device),
        )
        if self.config.whitening is not None:
            self.published = trunk.whitening(self.config.whitening, scales=len(self.config.scales))
        return trunk

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        if isinstance(self.trunk, CirtorchTrunk):
            return self.trunk.vector(maps)
        return unit(gem(maps, self.config.p)[None])

    def power(self) -> float:
        """That of the pooling, as published for a network without whitening of its own."""
        return self.trunk.power if isinstance(self.trunk, CirtorchTrunk) else self.config.p
