"""DELG's local features: DELF's, with an autoencoder to 128 values in place of the PCA.

B. Cao, A. Araujo and J. Sim, Unifying Deep Local and Global Features for Image Search, ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from loc.conventions import PixelOrigin
from loc.errors import ContractError, WeightsError
from loc.extractors.delf import PyramidConfig
from loc.nets.delf import DELG_RELEASES, DelfNetwork, joined
from loc.nets.pyramid import Level, select, unit_rows
from loc.nets.selected import DELG_SCALES, Offset, as_features
from loc.plugins.joint import Described
from loc.plugins.precision import torch_dtype
from loc.plugins.protocols import WeightFile
from loc.types import Array, LocalFeatures
from loc.weights.tensorflow.files import Model, card, open_model

if TYPE_CHECKING:
    import torch

#: Thresholds of the released configurations.
_THRESHOLDS = {
    "r50delg_gld_20200814": 175.0,
    "r101delg_gld_20200814": 166.1,
    "r50delg_gldv2clean_20200914": 454.6,
    "r101delg_gldv2clean_20200914": 357.48,
}


class DelgConfig(PyramidConfig):
    """Options of :class:`Delg`."""

    weights: str = Field(
        "r50delg_gldv2clean_20200914",
        description="a release, or NAME of NAME.safetensors in a weights folder",
    )
    scales: tuple[float, ...] = Field(DELG_SCALES, description="pyramid levels")
    offset: Offset = Field(
        "release",
        description="release: positions as published (2 px / scale off on even sizes); centred: unbiased",
    )
    score_threshold: float | None = Field(
        None, ge=0, description="least attention of a keypoint; null: the release's, else 100"
    )


class Delg:
    """Keypoints on a grid of 32 px per scale, with unit descriptors of 128 values, best attention first.

    As released, images are shown at most 1024 px long. The global descriptor of the same pass is the
    global extractor of the same name.
    """

    Config: ClassVar[type[DelgConfig]] = DelgConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = "B. Cao et al., Unifying Deep Local and Global Features, ECCV 2020"
    weights: ClassVar[tuple[WeightFile, ...]] = DELG_RELEASES
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 10
    ranked: ClassVar[bool] = True
    #: As of :class:`loc.extractors.delf.Delf`.
    mirror_symmetric: ClassVar[bool] = False
    noise_px: ClassVar[float] = 9.0
    stage_defaults: ClassVar[dict[str, int]] = {"resize_max": 1024}

    def __init__(
        self,
        config: DelgConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",  # noqa: ARG002
        model: Model | None = None,
    ) -> None:
        """``model``: a network instead of that of a file."""
        self.config = config
        model = model or open_model(self.weights_for(config)[0])
        if model.facts.local is None or not model.facts.has_autoencoder:
            raise WeightsError(
                f"{config.weights} holds {model.facts.kind}, without DELG's local features", "use: delf"
            )
        self.network = DelfNetwork(
            model.tensors, model.facts, device=device, dtype=torch_dtype(config.precision, device)
        )
        self._iou = model.facts.local.nms_iou
        self._threshold = config.score_threshold
        if self._threshold is None:
            self._threshold = _THRESHOLDS.get(config.weights, 100.0)

    @classmethod
    def weights_for(cls, config: DelgConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return (card(config.weights, cls.weights),)

    @classmethod
    def gives(cls, config: DelgConfig, other: Any, wanted: Any) -> bool:
        """Whether the same pass gives the descriptor of a global extractor (:mod:`loc.plugins.joint`)."""
        return (
            getattr(other, "pass_of", None) == "delg"
            and wanted.weights == config.weights
            and wanted.precision == config.precision
            and set(wanted.scales) <= set(config.scales)
        )

    @classmethod
    def joined(cls, config: DelgConfig, wanted: Any, *, device: str) -> DelgBoth:
        """Local features and the global descriptor in one pass."""
        return DelgBoth(cls(config, device=device), tuple(wanted.scales))

    def features_of(self, levels: list[Level], wh: tuple[int, int]) -> LocalFeatures:
        """The local features of an image's maps."""
        cells = select(
            levels,
            threshold=self._threshold or 0.0,
            most=self.config.max_keypoints,
            iou=self._iou,
            channels=self.network.channels,
        )
        return as_features(
            cells, unit_rows(cells.features), wh, offset=self.config.offset, noise_px=self.noise_px
        )

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]; images run one after the other."""
        return [self.features_of(levels, wh) for levels, _, wh in self.passes(images)]

    def passes(
        self, images: torch.Tensor, overall: Collection[int] = ()
    ) -> Iterator[tuple[list[Level], Array, tuple[int, int]]]:
        """Maps of each image, its raw global descriptors at some levels, and its size."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ContractError(f"delg takes RGB images (b, 3, h, w), got {tuple(images.shape)}")
        wh = (int(images.shape[3]), int(images.shape[2]))
        scales = self.config.scales
        for image in images:
            yield *self.network.describe(image, scales, local=range(len(scales)), overall=overall), wh


class DelgBoth:
    """An extractor of both kinds: what :class:`Delg` and the global extractor give, of one pass."""

    def __init__(self, local: Delg, scales: tuple[float, ...]) -> None:
        if local.network.facts.pooling is None:
            raise WeightsError(f"{local.config.weights} has no global head", "name DELG weights")
        self._local = local
        self._levels = [local.config.scales.index(scale) for scale in scales]

    def __call__(self, images: torch.Tensor) -> list[Described]:
        """Features and descriptor of ``(b, 3, h, w)`` float RGB in [0, 1]."""
        order = np.argsort(np.argsort(self._levels))  # rows come in the order of the pyramid
        return [
            Described(
                self._local.features_of(levels, wh), joined(rows[order] if len(rows) == len(order) else rows)
            )
            for levels, rows, wh in self._local.passes(images, self._levels)
        ]
