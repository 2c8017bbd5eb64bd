"""Poolings of the maps of an off-the-shelf network: `mac`, `spoc`, `crow` and `rmac` on VGG-16 of ImageNet.

The papers are those of :mod:`loc.nets.pooling`; the sum over scales and the whitening follow F. Radenović,
G. Tolias and O. Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field, field_validator

from loc.errors import ContractError, DataError
from loc.nets.pooling import crow, mac, spoc, unit
from loc.nets.vgg16 import (
    LEAST_SIDE_PX,
    VGG16_FEATURES,
    VGG16_FILES,
    Blocks,
    Vgg16,
    preprocessed,
    vgg16_files,
)
from loc.nets.whitening import Moments, check_whitening, whitened
from loc.plugins.precision import Precision, torch_dtype
from loc.plugins.protocols import Arrays, PluginConfig, WeightFile
from loc.types import Array

if TYPE_CHECKING:
    import torch

_TOLIAS = "G. Tolias et al., Particular Object Retrieval with Integral Max-Pooling, ICLR 2016"


class PoolingConfig(PluginConfig):
    """Options of every pooling."""

    scales: tuple[float, ...] = Field(
        (1.0,), min_length=1, description="of the image; the published set is 1, 0.7071, 0.5"
    )
    pca_dim: int | None = Field(
        None, ge=1, description="PCA-whiten to this many values, learned on the database; null: never"
    )
    whiten_power: float = Field(0.5, gt=0, le=0.5, description="of the variances; 0.5 whitens fully")
    precision: Precision = Field("auto", description="of the network; auto: the fastest that is native")

    @field_validator("scales")
    @classmethod
    def _sensible(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < scale <= 4 for scale in scales):
            raise ValueError("scales are more than 0 and at most 4")
        return scales


class Pooled:
    """One unit vector of an image's maps; scales are averaged, whitening comes last.

    A subclass pools the maps of one scale in :meth:`vectors`. Without the option ``pca_dim`` nothing is
    learned and :meth:`fit` returns no array.
    """

    Config: ClassVar[type[PoolingConfig]] = PoolingConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str]
    weights: ClassVar[tuple[WeightFile, ...]] = (*VGG16_FILES, VGG16_FEATURES)
    source: ClassVar[Literal["image", "features"]] = "image"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    min_side: ClassVar[int] = LEAST_SIDE_PX
    needs_fit: ClassVar[bool] = True
    stage_defaults: ClassVar[dict[str, int]] = {"resize_max": 1024}
    #: Whitening is of the vectors of regions, before they are summed.
    regional: ClassVar[bool] = False

    def __init__(self, config: PoolingConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        self.device = device
        #: Mean and projection of a whitening that comes with the weights.
        self.published: tuple[Array, Array] | None = None
        self.trunk = self.open_trunk()
        self._state: Arrays | None = None

    @classmethod
    def weights_for(cls, config: Any) -> tuple[WeightFile, ...]:  # noqa: ARG003
        """The files that a configuration needs."""
        return vgg16_files()

    @classmethod
    def learns(cls, config: PoolingConfig) -> bool:
        """Whether a configuration learns anything from the database."""
        return config.pca_dim is not None

    def open_trunk(self) -> Trunk:
        """The network."""
        return VggTrunk(self.config.precision, self.device)

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        """Unit vectors ``(r, c)`` of the maps ``(c, h, w)`` of one scale."""
        raise NotImplementedError

    def power(self) -> float:
        """Of the mean over scales."""
        return 1.0

    def fit(self, inputs: Iterable[Float32[Array, "3 h w"]]) -> Arrays:
        """Learn the whitening from images (RGB in [0, 1]) of the database, each read once.

        Raises:
            DataError: they give fewer than ten vectors per output dimension.
        """
        if self.config.pca_dim is None:
            return {}
        import torch

        moments: Moments | None = None
        for image in inputs:
            parts = self._parts(torch.from_numpy(np.ascontiguousarray(image)).to(self.device)[None])
            rows = np.concatenate(parts) if self.regional else self._combined(parts)[None]
            moments = moments or Moments(rows.shape[1])
            moments.add(rows)
        if moments is None:
            raise DataError("there are no images to learn a whitening from", "check that photos can be read")
        what = "regions of the database images" if self.regional else "database images"
        return moments.whitening(self.config.pca_dim, power=self.config.whiten_power, what=what)

    def load_state(self, state: Arrays) -> None:
        """Take what :meth:`fit` returned.

        Raises:
            StoreError: the arrays are those of another configuration.
        """
        dim = self.config.pca_dim
        values = self.trunk.channels if self.published is None else len(self.published[1])
        self._state = None if dim is None else check_whitening(state, (dim, values))

    def __call__(self, images: torch.Tensor) -> Float32[Array, "b d"]:
        """Rows of ``(b, 3, h, w)`` float RGB in [0, 1]."""
        name = type(self).__name__.lower()
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"{name} takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        if self.config.pca_dim is not None and self._state is None:
            raise ContractError(f"{name} has no whitening yet", "call fit, then load_state with its result")
        rows = [self._finished(self._parts(image[None])) for image in images]
        return np.stack(rows) if rows else np.zeros((0, self.trunk.channels), np.float32)

    def _parts(self, image: torch.Tensor) -> list[Float32[Array, "_ c"]]:
        """Unit vectors of each scale of ``(1, 3, h, w)``."""
        import torch
        from torch.nn.functional import interpolate

        pixels = self.trunk.preprocessed(image)
        least = min(image.shape[2:])
        parts = []
        with torch.inference_mode():
            for scale in self.config.scales:
                if int(least * scale) < max(self.min_side, self.trunk.least_side_px):
                    continue
                level = pixels
                if scale != 1:
                    level = interpolate(pixels, scale_factor=scale, mode="bilinear", align_corners=False)
                parts.append(self.vectors(self.trunk(level)[0].float()).cpu().numpy())
        return parts

    def _combined(self, parts: Sequence[Float32[Array, "_ c"]]) -> Float32[Array, " d"]:
        """One unit vector; regions that whiten are whitened first."""
        power = self.power() if len(self.config.scales) > 1 else 1.0
        total = np.zeros(self.trunk.channels, np.float32)
        for part in parts:
            rows = whitened(part, self._state) if self.regional and self._state is not None else part
            total = total[: rows.shape[1]] + _signed_power(unit_row(rows.sum(axis=0)), power)
        row = unit_row(_signed_power(total / max(len(parts), 1), 1 / power))
        if self.published is None or not row.any():
            return row
        mean, projection = self.published
        return unit_row(np.asarray(projection @ (row - mean), np.float32))

    def _finished(self, parts: Sequence[Float32[Array, "_ c"]]) -> Float32[Array, " d"]:
        row = self._combined(parts)
        return row if self.regional or self._state is None else whitened(row[None], self._state)[0]


class Trunk:
    """A network and its preprocessing, as :class:`Pooled` uses one."""

    channels: int
    #: Smallest side, px, that leaves a cell.
    least_side_px: int = LEAST_SIDE_PX

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        """What the network takes, of ``(b, 3, h, w)`` RGB in [0, 1]."""
        raise NotImplementedError

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps ``(b, c, h, w)``."""
        raise NotImplementedError


class VggTrunk(Trunk):
    """VGG-16 of ImageNet up to conv5_3 after its ReLU, as Caffe's authors left it."""

    channels = 512

    def __init__(self, precision: Precision, device: str, blocks: Blocks | None = None) -> None:
        self._net = Vgg16(device=device, dtype=torch_dtype(precision, device), blocks=blocks)

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        return preprocessed(images)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._net(pixels)


def _signed_power(row: Float32[Array, " d"], power: float) -> Float32[Array, " d"]:
    return row if power == 1 else (np.sign(row) * np.abs(row) ** power).astype(np.float32)


def unit_row(row: Float32[Array, " d"]) -> Float32[Array, " d"]:
    """A vector over its norm; zeros stay zeros."""
    norm = float(np.linalg.norm(row))
    return (row / norm if norm > 0 else row).astype(np.float32)


class Mac(Pooled):
    """Maximum activations of convolutions."""

    paper: ClassVar[str] = _TOLIAS

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return unit(mac(maps)[None])


class Spoc(Pooled):
    """Mean activations."""

    paper: ClassVar[str] = "A. Babenko and V. Lempitsky, Aggregating Deep Convolutional Features, ICCV 2015"

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return unit(spoc(maps)[None])


class Crow(Pooled):
    """Sums weighted by cell and by channel."""

    paper: ClassVar[str] = "Y. Kalantidis et al., Cross-dimensional Weighting, ECCV Workshops 2016"

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return unit(crow(maps)[None])
