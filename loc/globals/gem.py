"""GeM: the generalised mean of a network's maps.

F. Radenović, G. Tolias and O. Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from loc.globals.pooling import Pooled, PoolingConfig
from loc.nets.pooling import gem, unit

if TYPE_CHECKING:
    import torch


class GemConfig(PoolingConfig):
    """Options of :class:`Gem`."""

    p: float = Field(3.0, ge=1, le=20, description="power: 1 is the mean, large ones near the maximum")


class Gem(Pooled):
    """The p-th root of the mean p-th power of each channel."""

    Config: ClassVar[type[PoolingConfig]] = GemConfig
    paper: ClassVar[str] = "F. Radenović et al., Fine-tuning CNN Image Retrieval, TPAMI 2018"
    config: GemConfig

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return unit(gem(maps, self.config.p)[None])

    def power(self) -> float:
        """That of the pooling, as published for a network without whitening of its own."""
        return self.config.p
