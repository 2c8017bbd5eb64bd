"""DELF: local features of a landmark network, chosen by what it attends to, over an image pyramid.

H. Noh, A. Araujo, J. Sim, T. Weyand and B. Han, Large-Scale Image Retrieval with Attentive Deep Local
Features, ICCV 2017. The weights are the authors' TensorFlow archives, converted without TensorFlow; strides,
epsilons, resize, receptive field and suppression are read from their graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from loc.conventions import PixelOrigin
from loc.errors import ConfigError, ContractError, WeightsError
from loc.nets.delf import DelfNetwork
from loc.nets.pyramid import Detections, Projection, select, unit_rows
from loc.nets.selected import DELF_SCALES, Offset, as_features
from loc.plugins.precision import Precision, torch_dtype
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Array, LocalFeatures
from loc.weights.tensorflow.files import Model, card, open_model, release

if TYPE_CHECKING:
    import torch

_PAPER = "H. Noh et al., Large-Scale Image Retrieval with Attentive Deep Local Features, ICCV 2017"


class PyramidConfig(PluginConfig):
    """Options of every extractor that selects cells of a pyramid."""

    scales: tuple[float, ...] = Field(DELF_SCALES, description="pyramid levels")
    max_keypoints: int = Field(1000, ge=1, description="the best this many by attention")
    precision: Precision = Field("fp32", description="of the network; auto: the fastest that is native")

    @field_validator("scales")
    @classmethod
    def _positive(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or any(not 0.05 <= scale <= 8 for scale in scales):
            raise ValueError("a pyramid has at least one scale, each between 0.05 and 8")
        if len(set(scales)) != len(scales):
            raise ValueError("a scale is given twice")
        return scales


class DelfConfig(PyramidConfig):
    """Options of :class:`Delf`; the defaults are those of the release it names."""

    weights: str = Field(
        "delf_gld_20190411",
        description="a release (delf_gld_20190411, delf_v1_20171026), or NAME of NAME.safetensors in a"
        " weights folder",
    )
    score_threshold: float = Field(100.0, ge=0, description="least attention of a keypoint")
    offset: Offset = Field(
        "release",
        description="release: positions as published (2 px / scale off on even sizes); centred: unbiased",
    )
    pca_dim: int | None = Field(
        128, ge=1, description="dimensions kept by the PCA (128; delf_v1: 40); null: all 1024, no PCA"
    )
    whiten: bool = Field(False, description="divide by the deviations of the PCA")


class Delf:
    """Keypoints on a grid of 32 px per scale, with unit descriptors of the PCA, best attention first.

    ``scores`` are the attention (0 and up), ``scales`` one over the scale of the pyramid. Images are taken
    as 8-bit ones. With ``offset: release`` positions are those of the released code.
    """

    Config: ClassVar[type[DelfConfig]] = DelfConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = (
        release("delf_gld_20190411", "delf"),
        release("delf_v1_20171026", "delf"),
    )
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 10
    ranked: ClassVar[bool] = True
    #: The grid starts at the first pixel: the mirror of a cell's centre is no cell's centre.
    mirror_symmetric: ClassVar[bool] = False
    #: Standard deviation of a coordinate, px: a cell of 32 px at scale 1.
    noise_px: ClassVar[float] = 9.0

    def __init__(
        self,
        config: DelfConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",  # noqa: ARG002
        model: Model | None = None,
    ) -> None:
        """``model``: a network instead of that of a file."""
        self.config = config
        model = model or open_model(self.weights_for(config)[0])
        if model.facts.kind != "delf":
            raise WeightsError(f"{config.weights} holds {model.facts.kind}, not DELF", "use: delg")
        self._net = DelfNetwork(
            model.tensors, model.facts, device=device, dtype=torch_dtype(config.precision, device)
        )
        self._iou = model.facts.local.nms_iou if model.facts.local else 1.0
        self._project = _projection(model, config.pca_dim, whiten=config.whiten, name=config.weights)

    @classmethod
    def weights_for(cls, config: DelfConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return (card(config.weights, cls.weights),)

    def detect(self, image: torch.Tensor) -> Detections:
        """Selected cells of ``(3, h, w)`` RGB in [0, 1], with raw features."""
        every = range(len(self.config.scales))
        levels, _ = self._net.describe(image, self.config.scales, local=every, overall=())
        return select(
            levels,
            threshold=self.config.score_threshold,
            most=self.config.max_keypoints,
            iou=self._iou,
            channels=self._net.channels,
        )

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]; images run one after the other."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"delf takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        wh = (int(images.shape[3]), int(images.shape[2]))
        found = []
        for image in images:
            cells = self.detect(image)
            rows = unit_rows(cells.features) if self._project is None else self._project(cells.features)
            found.append(as_features(cells, rows, wh, offset=self.config.offset, noise_px=self.noise_px))
        return found


def _projection(model: Model, dim: int | None, *, whiten: bool, name: str) -> Projection | None:
    """The PCA of the weights, cut to its first components."""
    if dim is None:
        return None
    if "pca.mean" not in model.tensors:
        raise WeightsError(
            f"{name} holds no PCA", "convert the archive with its pca folder, or set features.pca_dim=null"
        )
    there = len(model.tensors["pca.mean"])
    if dim > there:
        raise ConfigError(f"pca_dim={dim}, but the PCA of {name} has {there} components", f"at most {there}")
    deviations: Array | None = None
    if whiten:
        if "pca.variances" not in model.tensors:
            raise WeightsError(f"{name} holds no variances of its PCA", "set features.whiten=false")
        variances = model.tensors["pca.variances"].numpy()[:dim]
        if not (variances > 0).all():
            raise WeightsError(f"{name} holds variances that are not positive", "set features.whiten=false")
        deviations = np.sqrt(variances)
    return Projection(
        model.tensors["pca.mean"].numpy(), model.tensors["pca.components"].numpy()[:dim], deviations
    )
