"""DELF's pipeline on an off-the-shelf network: VGG-16 of ImageNet, attention by the norm of the feature.

The pyramid, the selection and the file formats are those of H. Noh et al., Large-Scale Image Retrieval with
Attentive Deep Local Features, ICCV 2017; the norm as attention is that of G. Tolias et al., Learning and
Aggregating Deep Local Descriptors for Instance-Level Recognition, ECCV 2020. PCA and whitening are learned on
the database images, as both do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from loc.conventions import PixelOrigin
from loc.errors import ContractError, DataError, StoreError
from loc.extractors.delf import PyramidConfig
from loc.nets.pyramid import Level, Projection, level_hw, resize_bilinear, select, unit_rows
from loc.nets.selected import as_features
from loc.nets.vgg16 import (
    CHANNELS,
    FIELD_PX,
    FIRST_CENTER_PX,
    LEAST_SIDE_PX,
    STRIDE,
    VGG16_FEATURES,
    VGG16_FILES,
    Blocks,
    Vgg16,
    preprocessed,
    vgg16_files,
)
from loc.plugins.precision import Precision, torch_dtype
from loc.plugins.protocols import Arrays, WeightFile
from loc.types import LocalFeatures

if TYPE_CHECKING:
    import torch

#: PCA needs this many vectors per output dimension; with fewer it learns noise.
_ROWS_PER_DIMENSION = 10
_STATE = ("mean", "components", "deviations")


class DelfOtsConfig(PyramidConfig):
    """Options of :class:`DelfOts`."""

    score_threshold: float = Field(0.0, ge=0, description="least norm of a feature")
    pca_dim: int = Field(128, ge=1, le=CHANNELS, description="dimensions kept by the PCA")
    whiten: bool = Field(True, description="divide by the deviations of the PCA")
    precision: Precision = Field("auto", description="of the network; auto: the fastest that is native")


class DelfOts:
    """Keypoints on a grid of 16 px per scale, with unit descriptors of conv5_3, largest norm first.

    ``fit`` learns the PCA of the descriptors on database images; without its state descriptors are the 512
    raw values, normalized.
    """

    Config: ClassVar[type[DelfOtsConfig]] = DelfOtsConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = "H. Noh et al., DELF, ICCV 2017; K. Simonyan and A. Zisserman, VGG, ICLR 2015"
    weights: ClassVar[tuple[WeightFile, ...]] = (*VGG16_FILES, VGG16_FEATURES)
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = LEAST_SIDE_PX
    ranked: ClassVar[bool] = True
    needs_fit: ClassVar[bool] = True
    #: The grid starts at the first pixel: the mirror of a cell's centre is no cell's centre.
    mirror_symmetric: ClassVar[bool] = False
    #: Standard deviation of a coordinate, px: a cell of 16 px at scale 1.
    noise_px: ClassVar[float] = 4.6
    #: Seven levels of a 1600 px photo take a minute on two cores.
    stage_defaults: ClassVar[dict[str, int]] = {"resize_max": 640}

    def __init__(
        self,
        config: DelfOtsConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",  # noqa: ARG002
        blocks: Blocks | None = None,
    ) -> None:
        """``blocks``: weights and biases of VGG-16 instead of the files'."""
        self.config = config
        self._trunk = Vgg16(device=device, dtype=torch_dtype(config.precision, device), blocks=blocks)
        self._project: Projection | None = None

    @classmethod
    def weights_for(cls, config: DelfOtsConfig) -> tuple[WeightFile, ...]:  # noqa: ARG003
        """The files that a configuration needs."""
        return vgg16_files()

    def fit(self, inputs: Iterable[LocalFeatures]) -> Arrays:
        """Learn the PCA from the raw descriptors of database images.

        Raises:
            DataError: there are fewer than ten descriptors per dimension.
        """
        # A photo without a keypoint has no descriptors, of no length.
        parts = [features.descriptors.astype(np.float32) for features in inputs if len(features)]
        rows = np.concatenate(parts) if parts else np.zeros((0, CHANNELS), np.float32)
        wanted = _ROWS_PER_DIMENSION * self.config.pca_dim
        if len(rows) < wanted:
            raise DataError(
                f"delf_ots cannot learn a PCA to {self.config.pca_dim} dimensions from {len(rows)}"
                f" descriptors of {len(parts)} images: it needs {wanted}",
                f"add images, or set features.pca_dim={max(1, len(rows) // _ROWS_PER_DIMENSION)}",
            )
        if rows.shape[1] != CHANNELS:
            raise ContractError(f"descriptors to learn from have {CHANNELS} values, got {rows.shape[1]}")
        mean = rows.mean(axis=0, dtype=np.float64)
        spread = (rows - mean).T @ (rows - mean) / len(rows)
        variances, vectors = np.linalg.eigh(spread)
        components = vectors[:, ::-1].T[: self.config.pca_dim]
        # An eigenvector's sign is arbitrary: the largest value is made positive.
        largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
        variances = np.maximum(variances[::-1][: self.config.pca_dim], np.finfo(np.float32).tiny)
        return {
            "mean": mean.astype(np.float32),
            "components": (components * np.sign(largest)).astype(np.float32),
            "deviations": np.sqrt(variances).astype(np.float32),
        }

    def load_state(self, state: Arrays) -> None:
        """Take what :meth:`fit` returned.

        Raises:
            StoreError: an array is missing, or the shapes are those of another configuration.
        """
        dim = self.config.pca_dim
        shapes = {"mean": (CHANNELS,), "components": (dim, CHANNELS), "deviations": (dim,)}
        wrong = [name for name in _STATE if name not in state or state[name].shape != shapes[name]]
        if wrong:
            raise StoreError(
                f"the PCA of delf_ots does not fit its configuration: {', '.join(wrong)}",
                "delete the folder of the fit and run again",
            )
        mean, components, deviations = (state[name].astype(np.float32) for name in _STATE)
        self._project = Projection(mean, components, deviations if self.config.whiten else None)

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]; images run one after the other."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"delf_ots takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        wh = (int(images.shape[3]), int(images.shape[2]))
        found = []
        for image in images:
            cells = select(
                self._levels(image[None]),
                threshold=self.config.score_threshold,
                most=self.config.max_keypoints,
                iou=1.0,
                channels=CHANNELS,
            )
            rows = unit_rows(cells.features) if self._project is None else self._project(cells.features)
            found.append(as_features(cells, rows, wh, offset="release", noise_px=self.noise_px))
        return found

    def _levels(self, image: torch.Tensor) -> list[Level]:
        pixels = preprocessed(image)
        half = (FIELD_PX - 1) / 2
        levels = []
        for scale in self.config.scales:
            hw = level_hw((int(image.shape[2]), int(image.shape[3])), scale)
            if min(hw) < LEAST_SIDE_PX:
                continue
            maps = self._trunk(resize_bilinear(pixels, hw, "legacy"))[0].permute(1, 2, 0)
            levels.append(
                Level(
                    scale=scale,
                    features=maps,
                    attention=maps.float().norm(dim=2),
                    stride=STRIDE,
                    offsets=(FIRST_CENTER_PX - half, FIRST_CENTER_PX + half),
                    center=(FIRST_CENTER_PX, FIRST_CENTER_PX),
                    step=STRIDE,
                )
            )
        return levels
