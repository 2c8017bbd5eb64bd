"""Guided matching: nearest neighbours, the geometry they agree on, and a second look along it.

A keypoint whose neighbours look alike fails the ratio test against the whole image; among the few that lie
where the geometry puts its partner it may pass. The geometry is a fundamental matrix by MAGSAC++ (D. Barath
et al., CVPR 2020; OpenCV's USAC), or, where a homography explains nearly as many matches, that homography: a
plane or a camera that only turned leaves the fundamental matrix undetermined.

Both images are measured in standard deviations of their keypoints (``LocalFeatures.noise_px``, which grows
with the factor an image was reduced by), so one setting serves all sizes and all features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import cv2
import numpy as np
from pydantic import Field

from loc.matchers.nearest import (
    Nearest,
    NearestConfig,
    PreparedDescriptors,
    nearest_two,
    squared_distance,
)
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Array, LocalFeatures, Matches

if TYPE_CHECKING:
    import torch

#: MAGSAC's threshold (in standard deviations of a keypoint), confidence and iterations; its random
#: numbers start at the same state in every call.
_MAX_ERROR, _CONFIDENCE, _ITERATIONS = 3.0, 0.9999, 10000
#: A homography that explains this share of what a fundamental matrix explains leaves that one open.
_DEGENERATE = 0.8
#: Matches of the second look are no farther than this share of the supporting matches.
_DISTANCE_QUANTILE = 0.95
_TINY = 1e-12
_EXACT = "donot_use_mm_for_euclid_dist"


class GuidedConfig(PluginConfig):
    """Options of :class:`Guided`."""

    ratio: float = Field(0.9, gt=0, le=1, description="ratio test of the first look, from both sides")
    guided_ratio: float = Field(0.9, gt=0, le=1, description="ratio test among the keypoints in the band")
    band: float = Field(
        4.0,
        gt=0,
        description="half width of the band, in standard deviations of a keypoint (SIFT: 0.5 px unreduced)",
    )
    min_support: int = Field(
        20, ge=8, description="with fewer matches that agree on a geometry there is no second look"
    )


class _Prepared(NamedTuple):
    descriptors: PreparedDescriptors
    xy: Array  # (n, 2) float64, in standard deviations of a keypoint


class Guided:
    """Nearest neighbours, and those that are nearest along the geometry that these agree on.

    Matches of the first look that contradict a fundamental matrix are dropped; where the matches lie on
    a plane, or the camera only turned, none are. A match's score is that of ``nearest``.
    """

    Config: ClassVar[type[GuidedConfig]] = GuidedConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    commercial_ok: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "R. Hartley and A. Zisserman, Multiple View Geometry, 2003, section 11.6;"
        " geometry by D. Barath et al., MAGSAC++, CVPR 2020"
    )
    requires: ClassVar[frozenset[str]] = frozenset({"keypoints", "descriptors"})
    weights: ClassVar[tuple[WeightFile, ...]] = ()

    def __init__(self, config: GuidedConfig, *, device: str = "cpu", dtype: str = "float32") -> None:
        self.config = config
        self._nearest = Nearest(NearestConfig(ratio=config.ratio), device=device, dtype=dtype)

    def prepare(self, features: LocalFeatures) -> _Prepared:
        """Move one image's descriptors to the device."""
        xy = features.keypoints.astype(np.float64) / features.noise_px
        return _Prepared(self._nearest.prepare(features), xy)

    def __call__(self, pairs: Sequence[tuple[_Prepared, _Prepared]]) -> list[Matches]:
        """One :class:`Matches` per pair."""
        plain = self._nearest([(first.descriptors, second.descriptors) for first, second in pairs])
        return [self._look_again(*pair, found) for pair, found in zip(pairs, plain, strict=True)]

    def _look_again(self, first: _Prepared, second: _Prepared, plain: Matches) -> Matches:
        geometry = self._geometry(first, second, plain)
        if geometry is None:
            return plain
        supports = geometry.errors(first.xy, second.xy, plain.indices) <= self.config.band
        farthest = float(np.quantile(_squared_of(plain.scores[supports]), _DISTANCE_QUANTILE))
        found = self._along(geometry, first, second, farthest=farthest)
        kept = np.ones(len(plain), bool) if geometry.is_homography else supports
        indices, scores = plain.indices[kept], plain.scores[kept]
        free = ~np.isin(found.indices[:, 0], indices[:, 0]) & ~np.isin(found.indices[:, 1], indices[:, 1])
        indices = np.concatenate([indices, found.indices[free]])
        scores = np.concatenate([scores, found.scores[free]])
        order = np.lexsort((indices[:, 1], indices[:, 0]))
        return Matches(np.ascontiguousarray(indices[order]), np.ascontiguousarray(scores[order]))

    def _geometry(self, first: _Prepared, second: _Prepared, plain: Matches) -> _Geometry | None:
        """What the matches agree on, or None where too few do."""
        if len(plain) < self.config.min_support:
            return None
        # An order of their own: the result must not depend on how the keypoints are numbered.
        xy = np.hstack([first.xy[plain.indices[:, 0]], second.xy[plain.indices[:, 1]]])
        order = np.lexsort((*xy.T, -plain.scores))
        candidates = [_fundamental(xy[order]), _homography(xy[order])]
        general, planar = (
            0
            if each is None
            else int((each.errors(first.xy, second.xy, plain.indices) <= self.config.band).sum())
            for each in candidates
        )
        if max(general, planar) < self.config.min_support:
            return None
        return candidates[1] if planar >= _DEGENERATE * general else candidates[0]

    def _along(self, geometry: _Geometry, first: _Prepared, second: _Prepared, *, farthest: float) -> Matches:
        """Mutual nearest neighbours among the pairs of keypoints within the band."""
        import torch

        outside = geometry.outside(first.xy, second.xy, self.config.band, self._nearest.device)
        rows, columns = nearest_two(
            first.descriptors, second.descriptors, both=True, seconds=True, outside=outside
        )
        keep = columns.index[rows.index] == torch.arange(len(rows.index), device=rows.index.device)
        for side, partner in ((rows, None), (columns, rows.index)):
            distance, other = squared_distance(side.value), squared_distance(side.second)
            passes = (distance < self.config.guided_ratio**2 * other) & (distance <= farthest)
            keep &= passes if partner is None else passes[partner]
        kept = torch.nonzero(keep)[:, 0]
        indices = torch.stack([kept, rows.index[kept]], dim=1).to(torch.int32)
        scores = (1 - squared_distance(rows.value[kept]) / 4).clamp(0, 1)
        return Matches(indices.cpu().numpy(), scores.cpu().numpy())


class _Geometry(NamedTuple):
    """A fundamental matrix or a homography ``second_from_first``, in standard deviations of a keypoint."""

    matrix: Array  # (3, 3) float64
    is_homography: bool

    def errors(self, first: Array, second: Array, indices: Array) -> Array:
        """``(m,)`` distances from epipolar lines or transferred points, the larger of both images."""
        x, y = first[indices[:, 0]], second[indices[:, 1]]
        forth, back = self._transferred(x, y)
        if self.is_homography:
            there, here = np.linalg.norm(forth - y, axis=1), np.linalg.norm(back - x, axis=1)
        else:
            there, here = (forth * _homogeneous(y)).sum(1), (back * _homogeneous(x)).sum(1)
        larger: Array = np.maximum(np.abs(there), np.abs(here))
        return larger

    def outside(
        self, first: Array, second: Array, band: float, device: str
    ) -> Callable[[slice, slice], torch.Tensor]:
        """Which pairs of keypoints of a tile are farther than the band from each other, in either image.

        The mask's memory is reused: it is valid until the next one is asked for.
        """
        import torch

        forth, back = self._transferred(first, second)
        if not self.is_homography:
            first, second = _homogeneous(first), _homogeneous(second)
        x, y, x_there, y_here = (
            torch.from_numpy(each.astype(np.float32)).to(device) for each in (first, second, forth, back)
        )
        buffers: dict[torch.Size, tuple[torch.Tensor, torch.Tensor]] = {}

        def masked(i: slice, j: slice) -> torch.Tensor:
            size = torch.Size((i.stop - i.start, j.stop - j.start))
            if size not in buffers:
                buffers[size] = torch.empty(size, device=device), torch.empty(size, device=device)
            error, other = buffers[size]
            if self.is_homography:  # products of coordinates would cancel
                error.copy_(torch.cdist(x_there[i], y[j], compute_mode=_EXACT))
                other.copy_(torch.cdist(x[i], y_here[j], compute_mode=_EXACT))
            else:
                torch.mm(x_there[i], y[j].T, out=error).abs_()
                torch.mm(x[i], y_here[j].T, out=other).abs_()
            return torch.maximum(error, other, out=error) > band

        return masked

    def _transferred(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Points or unit lines of ``x`` in the second image, and of ``y`` in the first."""
        if self.is_homography:
            return _points(x, self.matrix), _points(y, np.linalg.inv(self.matrix))
        return _lines(x, self.matrix), _lines(y, self.matrix.T)


def _fundamental(xy: Array) -> _Geometry | None:
    matrix, _ = cv2.findFundamentalMat(
        xy[:, :2], xy[:, 2:], cv2.USAC_MAGSAC, _MAX_ERROR, _CONFIDENCE, _ITERATIONS
    )
    return None if matrix is None or matrix.shape != (3, 3) else _Geometry(matrix, False)


def _homography(xy: Array) -> _Geometry | None:
    matrix, _ = cv2.findHomography(
        xy[:, :2], xy[:, 2:], cv2.USAC_MAGSAC, _MAX_ERROR, maxIters=_ITERATIONS, confidence=_CONFIDENCE
    )
    singular = matrix is None or abs(np.linalg.det(matrix)) < _TINY
    return None if singular else _Geometry(matrix, True)


def _homogeneous(xy: Array) -> Array:
    return np.column_stack([xy, np.ones(len(xy))])


def _lines(xy: Array, matrix: Array) -> Array:
    """``(n, 3)`` lines with unit normals; the epipole's own is nowhere near anything."""
    lines = _homogeneous(xy) @ matrix.T
    norms = np.hypot(lines[:, 0], lines[:, 1])
    unit: Array = lines / np.where(norms > 0, norms, _TINY)[:, None]
    return unit


def _points(xy: Array, matrix: Array) -> Array:
    """``(n, 2)``; infinite where the homography takes a point behind the image."""
    moved = _homogeneous(xy) @ matrix.T
    ahead = moved[:, 2] * np.sign(np.linalg.det(matrix)) > 0
    return np.where(ahead[:, None], moved[:, :2] / np.where(ahead, moved[:, 2], 1)[:, None], np.inf)


def _squared_of(scores: Array) -> Array:
    """Squared distances of unit descriptors from the scores of ``nearest``."""
    return 4 * (1 - scores)
