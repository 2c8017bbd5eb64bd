"""R-MAC: regional maximum activations of convolutions of VGG-16, summed or kept apart.

G. Tolias, R. Sicre and H. Jégou, Particular Object Retrieval with Integral Max-Pooling of CNN Activations,
ICLR 2016; the regions one by one as in A. Iscen et al., Efficient Diffusion on Region Manifolds, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from loc.globals.pooling import Mac, Pooled, PoolingConfig, unit_row
from loc.nets.pooling import mac, regional
from loc.nets.whitening import whitened
from loc.types import Array

if TYPE_CHECKING:
    import torch


class RmacConfig(PoolingConfig):
    """Options of :class:`Rmac`."""

    levels: int = Field(3, ge=1, le=8, description="sizes of regions")
    keep_regions: int | None = Field(
        None,
        ge=1,
        description="keep so many vectors of an image apart, the largest regions first, for regional "
        "diffusion (21 are all of a photo of 4:3 at three levels); null: their sum",
    )


class Rmac(Pooled):
    """Unit vectors of a pyramid of square regions and of the whole image.

    Whitening is learned on the vectors of regions. With ``keep_regions`` a row holds that many vectors one
    after another, zeros where an image has fewer.
    """

    Config: ClassVar[type[PoolingConfig]] = RmacConfig
    paper: ClassVar[str] = Mac.paper
    regional: ClassVar[bool] = True
    config: RmacConfig

    @classmethod
    def regions(cls, config: RmacConfig) -> int:
        """Vectors in a row."""
        return config.keep_regions or 1

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return regional(maps, mac, self.config.levels)

    def _finished(self, parts: Sequence[Float32[Array, "_ c"]]) -> Float32[Array, " d"]:
        if self.config.keep_regions is None:
            return super()._finished(parts)
        rows = [whitened(part, self._state) if self._state is not None else part for part in parts]
        dim = self.config.pca_dim or self.trunk.channels
        kept = np.zeros((self.config.keep_regions, dim), np.float32)
        found = np.concatenate(rows)[: len(kept)] if rows else kept[:0]
        kept[: len(found)] = found
        return unit_row(kept.ravel())
