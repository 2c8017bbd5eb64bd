"""LightGlue: an attention network that matches two sets of local features.

P. Lindenberger, P.-E. Sarlin and M. Pollefeys, LightGlue: Local Feature Matching at Light Speed, ICCV 2023.

Every pair stops early and drops points by its own numbers, alone or in a batch, and its matches do not depend
on its neighbours. Alone it is computed on what is left of it; a batch runs padded, as deep as its hardest
pair. On a CPU, which a lone pair keeps busy, alone is faster (`loc bench match`); a GPU needs batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from loc.conventions import center_from_corner
from loc.errors import PluginError
from loc.nets.lightglue import LAYERS, Encoded, LightGlueNet, Shape, Thresholds, shapes
from loc.plugins.precision import Precision, torch_dtype
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.runtime.buckets import buckets, padded
from loc.types import LocalFeatures, Matches
from loc.weights.files import locate
from loc.weights.tensors import fitted, read_state

if TYPE_CHECKING:
    import torch

_PAPER = "P. Lindenberger, P.-E. Sarlin and M. Pollefeys, LightGlue, ICCV 2023"
_URL = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
#: Extractors there are weights for, and the length of their descriptors.
_TRAINED_FOR = {"disk": 128, "aliked": 128}
#: Pairs in a batch on a GPU, and batches asked for in one call, so that buckets fill up.
_GPU_BATCH, _BATCHES_AT_ONCE = 8, 8


class LightGlueConfig(PluginConfig):
    """Options of :class:`LightGlue`."""

    features: Literal["auto", "disk", "aliked"] = Field(
        "auto", description="what the weights were trained for; auto: the run's extractor"
    )
    min_score: float = Field(0.1, ge=0, le=1, description="least confidence of a match")
    depth_confidence: float = Field(0.95, le=1, description="stop when this sure; -1: run all layers")
    width_confidence: float = Field(0.99, le=1, description="drop points this surely unmatchable; -1: none")
    # Five pairs of sacre_coeur, four of fountain, ALIKED and DISK, caps of 512, 1024, 2048, 4096: 2621, 5686,
    # 12031 and 25174 inliers, each cap in 3.0, 2.1 and 2.5 times the time of the one before.
    max_keypoints: int = Field(
        2048,
        ge=1,
        description="match only the first this many of an image; twice as many: twice the inliers, 2 to 3"
        " times the time. 2048 is a second or two per pair on a CPU core",
    )
    precision: Precision = Field("auto", description="of the network; auto: the fastest that is native")
    # Part of the fingerprint: without padding sums round otherwise, which in bf16 is a match more or less.
    batch: Literal["auto", "never"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="pairs of similar size per pass; auto: 8 on a GPU, never on a CPU, where that is slower",
    )


class LightGlue:
    """Matches with confidences; needs features that it was trained for."""

    Config: ClassVar[type[LightGlueConfig]] = LightGlueConfig
    version: ClassVar[int] = 2
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = tuple(
        WeightFile(f"{_URL}{name}_lightglue.pth", None, "Apache-2.0", _PAPER, commercial_ok=True)
        for name in _TRAINED_FOR
    )
    requires: ClassVar[frozenset[str]] = frozenset({"keypoints", "descriptors"})

    def __init__(self, config: LightGlueConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        if config.features == "auto":
            raise PluginError(
                "lightglue does not know which features it is to match",
                f"set matcher.features to one of {', '.join(_TRAINED_FOR)}",
            )
        self.config = config
        self._device = device
        self._net = LightGlueNet(
            read_weights(self.weights_for(config)[0], _TRAINED_FOR[config.features]),
            device=device,
            dtype=torch_dtype(config.precision, device),
        )
        self._thresholds = Thresholds(config.depth_confidence, config.width_confidence, config.min_score)
        choice = config.batch
        if choice == "auto":
            choice = _GPU_BATCH if device.startswith("cuda") else "never"
        self._batch = None if choice == "never" else choice

    @property
    def pairs_at_once(self) -> int:
        """How many pairs a call should have."""
        return _BATCHES_AT_ONCE * self._batch if self._batch else 1

    @classmethod
    def weights_for(cls, config: LightGlueConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs; none as long as the features are not known."""
        return tuple(file for file in cls.weights if file.name == f"{config.features}_lightglue.pth")

    @classmethod
    def for_features(cls, config: LightGlueConfig, extractor: str) -> LightGlueConfig:
        """The configuration for the features of an extractor.

        Raises:
            PluginError: there are no weights for them, or the configuration names those of another extractor.
        """
        if extractor in _TRAINED_FOR and config.features not in ("auto", extractor):
            raise PluginError(
                f"lightglue's weights for {config.features} do not fit the features of {extractor}",
                f"set matcher.features to {extractor}, or leave it out",
            )
        if config.features != "auto":
            return config
        if extractor not in _TRAINED_FOR:
            raise PluginError(
                f"lightglue has no weights for the features of {extractor}",
                f"it has them for {', '.join(_TRAINED_FOR)}; use matcher: nearest, or set matcher.features"
                " if these features are one of those under another name",
            )
        return config.model_copy(update={"features": extractor})

    def prepare(self, features: LocalFeatures) -> Encoded:
        """Move one image's features to the device, and compute there what does not depend on a partner."""
        import torch

        expected = _TRAINED_FOR[self.config.features]
        if len(features) and features.descriptors.shape[1] != expected:
            raise PluginError(
                f"lightglue for {self.config.features} takes {expected}-D descriptors, these have"
                f" {features.descriptors.shape[1]}",
                "use the extractor it was trained for, or matcher: nearest",
            )
        kept = slice(self.config.max_keypoints)
        xy = center_from_corner(features.keypoints[kept])
        # Points in the outer half pixel would leave the range the network's encoding is made for.
        xy = np.clip(xy, 0, np.asarray(features.image_wh) - 1).astype(np.float32)
        rows = features.descriptors[kept].reshape(len(xy), expected).astype(np.float32)
        with torch.inference_mode():
            return self._net.encode(
                torch.from_numpy(xy).to(self._device),
                torch.from_numpy(rows).to(self._device),
                features.image_wh,
            )

    def __call__(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Matches]:
        """One :class:`Matches` per pair."""
        out = [Matches.empty()] * len(pairs)
        sizes = [(len(first.x), len(second.x)) for first, second in pairs]
        for bucket in buckets(sizes, self._batch or 1):
            first, second = sizes[bucket[0]]
            shape = Shape(self._batch, padded(first), padded(second)) if self._batch else None
            for number, found in zip(bucket, self._forward([pairs[n] for n in bucket], shape), strict=True):
                out[number] = found
        return out

    def _forward(self, pairs: list[tuple[Encoded, Encoded]], shape: Shape | None) -> list[Matches]:
        """Pairs in one pass through the network."""
        import torch

        with torch.inference_mode():
            found = self._net.match(pairs, self._thresholds, shape)
        return [
            Matches(rows.cpu().numpy().astype(np.int32), scores.cpu().numpy().clip(0, 1))
            for rows, scores in found
        ]


def read_weights(file: WeightFile, input_dim: int) -> dict[str, torch.Tensor]:
    """The tensors of one of the authors' files, older names of the layers translated.

    Args:
        input_dim: length of the descriptors.

    Raises:
        WeightsError: it is missing and cannot be fetched, or does not hold this network.
    """
    path = locate(file)
    renamed: dict[str, Any] = {}
    for key, value in read_state(path).items():
        for part in ("self_attn", "cross_attn"):
            if key.startswith(f"{part}."):
                number, _, rest = key[len(part) + 1 :].partition(".")
                key = f"transformers.{number}.{part}.{rest}"
        renamed[key] = value
    # What inference does not read, and the schedule of confidences, which is computed.
    ignored = (*(f"log_assignment.{number}.r" for number in range(LAYERS)), "confidence_thresholds")
    return fitted(renamed, shapes(input_dim), path, ignore=ignored)
