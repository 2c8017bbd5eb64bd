"""LightGlue: an attention network that matches two sets of local features; the network is kornia's.

P. Lindenberger, P.-E. Sarlin and M. Pollefeys, LightGlue: Local Feature Matching at Light Speed, ICCV 2023.

Pairs run one at a time and stop early each by itself, so the result of a pair does not depend on its
neighbours; on a CPU that is also faster than padded batches, which all pay for the hardest pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from loc.conventions import center_from_corner
from loc.errors import PluginError
from loc.nets.kornia import import_kornia
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import LocalFeatures, Matches
from loc.weights.files import locate
from loc.weights.tensors import fitted, read_file

if TYPE_CHECKING:
    import torch

_PAPER = "P. Lindenberger, P.-E. Sarlin and M. Pollefeys, LightGlue, ICCV 2023"
_URL = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
#: Extractors there are weights for, and the length of their descriptors.
_TRAINED_FOR = {"disk": 128, "aliked": 128}
_LAYERS = 9


class LightGlueConfig(PluginConfig):
    """Options of :class:`LightGlue`."""

    features: Literal["auto", "disk", "aliked"] = Field(
        "auto", description="what the weights were trained for; auto: the run's extractor"
    )
    min_score: float = Field(0.1, ge=0, le=1, description="least confidence of a match")
    depth_confidence: float = Field(0.95, le=1, description="stop when this sure; -1: run all layers")
    width_confidence: float = Field(0.99, le=1, description="drop points this surely unmatchable; -1: none")
    max_keypoints: int = Field(
        2048, ge=1, description="match only the first this many of an image: time grows with their square"
    )


class _Prepared(NamedTuple):
    keypoints: torch.Tensor  # (1, n, 2) px
    descriptors: torch.Tensor  # (1, n, d)
    image_wh: torch.Tensor  # (1, 2)


class LightGlue:
    """Matches with confidences; needs features that it was trained for."""

    Config: ClassVar[type[LightGlueConfig]] = LightGlueConfig
    version: ClassVar[int] = 1
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
        self._net = _network(config, locate(self.weights_for(config)[0])).to(device).eval()

    @classmethod
    def weights_for(cls, config: LightGlueConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs; none as long as the features are not known."""
        return tuple(file for file in cls.weights if file.name == f"{config.features}_lightglue.pth")

    @classmethod
    def for_features(cls, config: LightGlueConfig, extractor: str) -> LightGlueConfig:
        """The configuration for the features of an extractor.

        Raises:
            PluginError: there are no weights for them.
        """
        if config.features != "auto":
            return config
        if extractor not in _TRAINED_FOR:
            raise PluginError(
                f"lightglue has no weights for the features of {extractor}",
                f"it has them for {', '.join(_TRAINED_FOR)}; use matcher: nearest, or set matcher.features"
                " if these features are one of those under another name",
            )
        return config.model_copy(update={"features": extractor})

    def prepare(self, features: LocalFeatures) -> _Prepared:
        """Move one image's features to the device."""
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
        xy = np.clip(xy, 0, np.asarray(features.image_wh) - 1)
        rows = features.descriptors[kept].reshape(len(xy), expected).astype(np.float32)
        return _Prepared(
            torch.from_numpy(xy.astype(np.float32))[None].to(self._device),
            torch.from_numpy(rows)[None].to(self._device),
            torch.tensor([features.image_wh], dtype=torch.float32, device=self._device),
        )

    def __call__(self, pairs: Sequence[tuple[_Prepared, _Prepared]]) -> list[Matches]:
        """One :class:`Matches` per pair."""
        return [self._match(first, second) for first, second in pairs]

    def _match(self, first: _Prepared, second: _Prepared) -> Matches:
        import torch

        if not first.keypoints.shape[1] or not second.keypoints.shape[1]:
            return Matches.empty()
        data = {
            f"image{side}": {
                "keypoints": each.keypoints,
                "descriptors": each.descriptors,
                "image_size": each.image_wh,
            }
            for side, each in enumerate((first, second))
        }
        with torch.inference_mode():
            found = self._net(data)
        rows = found["matches"][0].cpu().numpy().astype(np.int32)
        scores = found["scores"][0].float().cpu().numpy().clip(0, 1)
        order = np.lexsort((rows[:, 1], rows[:, 0]))
        return Matches(np.ascontiguousarray(rows[order]), np.ascontiguousarray(scores[order]))


def _network(config: LightGlueConfig, path: Any) -> Any:
    """kornia's network with the authors' weights, older names of the layers translated."""
    net = import_kornia("lightglue", "LightGlue")(
        None,
        weights=None,
        input_dim=_TRAINED_FOR[config.features],
        depth_confidence=config.depth_confidence,
        width_confidence=config.width_confidence,
        filter_threshold=config.min_score,
    )
    renamed = {}
    for key, value in read_file(path).items():
        for part in ("self_attn", "cross_attn"):
            if key.startswith(f"{part}."):
                number, _, rest = key[len(part) + 1 :].partition(".")
                key = f"transformers.{number}.{part}.{rest}"
        renamed[key] = value
    state = net.state_dict()
    own = {"confidence_thresholds": state.pop("confidence_thresholds")}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    # A training-time ratio that inference does not read.
    extra = tuple(f"log_assignment.{number}.r" for number in range(_LAYERS)) + tuple(own)
    net.load_state_dict({**own, **fitted(renamed, shapes, path, ignore=extra)})
    return net
