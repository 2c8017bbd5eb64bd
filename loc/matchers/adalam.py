"""AdaLAM: of the nearest neighbours, those that move with their neighbourhood; the filter is kornia's.

L. Cavalli, V. Larsson, M. R. Oswald, T. Sattler and M. Pollefeys, Handcrafted Outlier Detection Revisited,
ECCV 2020. Around each of the best matches, well apart from each other, an affine map is fitted to the matches
nearby; what agrees with it in far greater number than chance would have it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from loc.matchers.nearest import (
    Nearest,
    NearestConfig,
    PreparedDescriptors,
    check_comparable,
    nearest_two,
    squared_distance,
)
from loc.nets.kornia import import_kornia
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import LocalFeatures, Matches

if TYPE_CHECKING:
    import torch


#: Pairs of matches tried in each neighbourhood; they are the same ones every time.
_ITERATIONS = 128
#: Affine maps that stretch or shrink more than this are no maps of a photograph.
_MAX_ZOOM = 5
#: Keeps the ratio of two equal descriptors defined.
_TINY = 1e-12


class AdalamConfig(PluginConfig):
    """Options of :class:`Adalam`; the defaults are the authors'."""

    neighbourhoods: int = Field(
        100, ge=1, description="area of the image / area that a seed match keeps free of other seeds"
    )
    search_expansion: float = Field(
        4, gt=0, description="radius of a neighbourhood, in radii of the area a seed keeps free"
    )
    min_inliers: int = Field(6, ge=3, description="fewest matches that support an affine map")
    min_confidence: float = Field(
        200, gt=1, description="least ratio of the matches that agree to those that would by chance"
    )
    max_turn_deg: float | None = Field(
        30, gt=0, description="how far a match's turn may differ from its seed's; features without: not asked"
    )
    max_scale_ratio: float | None = Field(
        1.5, gt=1, description="the same for the change of scale; features without: not asked"
    )


class _Frames(NamedTuple):
    """Where the keypoints of one image are, and how they are turned and scaled."""

    keypoints: torch.Tensor  # (n, 2) px
    image_wh: tuple[int, int]
    scales: torch.Tensor | None  # (n,) px
    orientations_deg: torch.Tensor | None  # (n,)

    def at(self, rows: torch.Tensor) -> _Frames:
        scales = None if self.scales is None else self.scales[rows]
        turns = None if self.orientations_deg is None else self.orientations_deg[rows]
        return _Frames(self.keypoints[rows], self.image_wh, scales, turns)


class _Prepared(NamedTuple):
    descriptors: PreparedDescriptors
    frames: _Frames


class Adalam:
    """Mutual nearest neighbours that agree with their neighbourhood.

    Works on any feature; scales and orientations are used where both images have them. A match's score
    is that of ``nearest``. Where no neighbourhood is consistent there are no matches.
    """

    Config: ClassVar[type[AdalamConfig]] = AdalamConfig
    version: ClassVar[int] = 2
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = "L. Cavalli et al., Handcrafted Outlier Detection Revisited (AdaLAM), ECCV 2020"
    requires: ClassVar[frozenset[str]] = frozenset({"keypoints", "descriptors"})
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    commercial_ok: ClassVar[bool] = True

    def __init__(self, config: AdalamConfig, *, device: str = "cpu", dtype: str = "float32") -> None:
        self.config = config
        self._filter = import_kornia("adalam", "adalam").AdalamFilter
        self._nearest = Nearest(NearestConfig(), device=device, dtype=dtype)

    def prepare(self, features: LocalFeatures) -> _Prepared:
        """Move one image's features to the device."""
        import torch

        device = self._nearest.device
        scales, turns = features.scales, features.orientations_rad
        frames = _Frames(
            torch.tensor(features.keypoints, device=device),
            features.image_wh,
            None if scales is None else torch.tensor(scales, device=device),
            None if turns is None else torch.tensor(np.rad2deg(turns), device=device),
        )
        return _Prepared(self._nearest.prepare(features), frames)

    def __call__(self, pairs: Sequence[tuple[_Prepared, _Prepared]]) -> list[Matches]:
        """One :class:`Matches` per pair."""
        return [self._match(first, second) for first, second in pairs]

    def _match(self, first: _Prepared, second: _Prepared) -> Matches:
        import torch

        if not len(first.descriptors) or not len(second.descriptors):
            return Matches.empty()
        check_comparable(first.descriptors, second.descriptors)
        rows, columns = nearest_two(first.descriptors, second.descriptors, both=True, seconds=True)
        forth = torch.arange(len(first.descriptors), device=rows.index.device)
        first_index = torch.nonzero(columns.index[rows.index] == forth)[:, 0]
        second_index = rows.index[first_index]
        if len(first_index) < self.config.min_inliers:
            return Matches.empty()  # kornia would fall back to a ratio test, which a lone keypoint passes
        distances = squared_distance(rows.value[first_index])
        ratios = distances / squared_distance(rows.second[first_index]).clamp_min(_TINY)
        kept = self._consistent(first.frames.at(first_index), second.frames.at(second_index), ratios)
        indices = torch.stack([first_index, second_index], dim=1)[kept].to(torch.int32)
        scores = (1 - distances[kept] / 4).clamp(0, 1)
        return Matches(indices.cpu().numpy(), scores.cpu().numpy())

    def _consistent(self, first: _Frames, second: _Frames, ratios: torch.Tensor) -> torch.Tensor:
        """Rows, ascending, of the matches that agree with a neighbourhood; row i of both sides is match i."""
        import torch

        config, device = self.config, ratios.device
        turns = first.orientations_deg is not None and second.orientations_deg is not None
        scales = first.scales is not None and second.scales is not None
        adalam = self._filter(
            {
                "area_ratio": config.neighbourhoods,
                "search_expansion": config.search_expansion,
                "ransac_iters": _ITERATIONS,
                "min_inliers": config.min_inliers,
                "min_confidence": config.min_confidence,
                "orientation_difference_threshold": config.max_turn_deg if turns else None,
                "scale_rate_threshold": config.max_scale_ratio if scales else None,
                "detected_scale_rate_threshold": _MAX_ZOOM,
                "refit": True,
                "force_seed_mnn": True,
                "device": device,
            }
        )
        every = torch.arange(len(ratios), device=device)
        found, doubt = adalam.filter_matches(
            first.keypoints,
            second.keypoints,
            every,
            ratios,
            torch.ones_like(every, dtype=torch.bool),
            first.image_wh,
            second.image_wh,
            first.orientations_deg,
            second.orientations_deg,
            first.scales,
            second.scales,
            return_dist=True,
        )
        # Without any neighbourhood kornia falls back to a ratio test, whose "doubt" is not 1 / confidence.
        kept: torch.Tensor = found[doubt[:, 0] <= 1 / config.min_confidence, 0]
        return kept.sort().values
