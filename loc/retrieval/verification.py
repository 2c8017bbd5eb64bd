"""Geometric verification of retrieved images: matches of local features, counted if an affine map fits them.

The algorithm of tensorflow/models research/delf (``image_reranking.py``, ``match_images.py``): every
descriptor of the query takes its nearest one in the image if that is near enough; samples of three matches
give affine maps from the image to the query; the score of the image is the number of matches that the best of
them brings within a few pixels. Of the published values (:data:`loc.config.ranking.RERANKINGS`) one is left
open: Detect-to-Retrieve has no seed, so its counts differ from run to run; here it has one. Values of our own
add that matches are mutual, and that few inliers, which chance has too, reorder nothing.

Descriptors may be of any length and type: they are brought to unit norm first. Residuals are px of the
query's photo shrunk to a long side of 1024 px, where it is larger: what the values were published for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from loc.config.ranking import RerankConfig
from loc.errors import DataError
from loc.types import LocalFeatures

Array = np.ndarray
T = TypeVar("T")
#: Long side, px, that photos were shrunk to where the residuals were published.
LONG_SIDE_PX = 1024
#: An affine map has three points; one match more is the least that says anything.
_SAMPLE = 3
#: Points of a sample span a triangle if its doubled area is this share of the product of two sides.
_FLAT = 1e-6
#: Descriptors compared at a time, and residuals computed at a time: blocks that stay in the cache.
_ROWS = 1024
_RESIDUALS = 1 << 15


@dataclass(frozen=True, eq=False)
class Verified:
    """What two images have in common.

    Attributes:
        inliers: matches that one affine map fits; the score of the image.
        pairs: ``(inliers, 2)`` int32, rows of keypoints in query and image, by query. Several keypoints of
            the query may have the same one in the image.
        affine: ``(2, 3)`` float64, least squares over the inliers: px of the image to px of the query (stored
            photos, corner origin); None without inliers.
        putative: matches before geometry.
    """

    inliers: int
    pairs: Int32[Array, "m 2"]
    affine: Float64[Array, "2 3"] | None
    putative: int = 0


def verify(query: LocalFeatures, image: LocalFeatures, config: RerankConfig) -> Verified:
    """Match two images and count the inliers of the best affine map.

    Fewer than four matches count as none, as published.

    Raises:
        DataError: descriptors of different lengths.
    """
    return _verified(_Side.of(query, config), _Side.of(image, config), config)


def rerank(
    query: LocalFeatures,
    candidates: Sequence[tuple[T, float]],
    features_of: Callable[[T], LocalFeatures],
    config: RerankConfig,
) -> list[tuple[T, float, Verified | None]]:
    """Candidates by (inliers, score), best first; equal ones keep their order.

    Inliers below ``config.min_inliers`` count as none.

    Args:
        candidates: images with their scores, best first. The first ``config.candidates`` are verified; the
            rest (None) have no inliers.
        features_of: local features of a candidate; called once for each that is verified.
    """
    asking = _Side.of(query, config)
    found: list[tuple[T, float, Verified | None]] = []
    for rank, (item, score) in enumerate(candidates):
        verified = None
        if rank < config.candidates:
            verified = _verified(asking, _Side.of(features_of(item), config), config)
        found.append((item, score, verified))
    return sorted(
        found, key=lambda each: (as_ranked(each[2].inliers, config) if each[2] else 0, each[1]), reverse=True
    )


def as_ranked(inliers: int, config: RerankConfig) -> int:
    """Inliers as they rank an image: none where chance has as many."""
    return inliers if inliers >= config.min_inliers else 0


@dataclass(frozen=True, eq=False)
class _Side:
    """An image's part: ``xy`` float64 px, ``descriptors`` of unit norm, ``rows`` of the image's keypoints."""

    xy: Float64[Array, "n 2"]
    descriptors: Float32[Array, "n d"]
    rows: Int64[Array, " n"]
    shrunk: float

    @staticmethod
    def of(features: LocalFeatures, config: RerankConfig) -> _Side:
        """The keypoints that take part; a descriptor of zeros is like no other and takes none."""
        descriptors = features.descriptors[: config.max_keypoints].astype(np.float32)
        norms = np.linalg.norm(descriptors, axis=1)
        rows = np.flatnonzero(norms > 0)
        return _Side(
            features.keypoints[rows].astype(np.float64),
            descriptors[rows] / norms[rows, None],
            rows,
            min(1.0, LONG_SIDE_PX / max(features.image_wh)),
        )


def _verified(query: _Side, image: _Side, config: RerankConfig) -> Verified:
    if not len(query.rows) or not len(image.rows):  # nothing may also have descriptors of no length
        return Verified(0, np.zeros((0, 2), np.int32), None)
    if query.descriptors.shape[1] != image.descriptors.shape[1]:
        raise DataError(
            f"descriptors of {query.descriptors.shape[1]} and {image.descriptors.shape[1]} numbers cannot be"
            " compared",
            "extract both images with the same features and options",
        )
    pairs = _nearest(query.descriptors, image.descriptors, config)
    residual = config.residual_px / query.shrunk
    affine, inliers = fit_affine(
        image.xy[pairs[:, 1]], query.xy[pairs[:, 0]], residual, trials=config.trials, seed=config.seed
    )
    kept = pairs[inliers]
    rows = np.column_stack([query.rows[kept[:, 0]], image.rows[kept[:, 1]]]).astype(np.int32)
    return Verified(len(rows), rows, affine, len(pairs))


def _nearest(
    query: Float32[Array, "n d"], image: Float32[Array, "m d"], config: RerankConfig
) -> Int64[Array, "p 2"]:
    """``(row of query, row of image)`` of the nearest descriptors that pass; of equal ones the first.

    A ratio with a single descriptor in the image passes: there is no second.
    """
    best, passed = np.empty(len(query), np.int64), np.ones(len(query), bool)
    found, highest = np.empty(len(query), np.float32), np.full(len(image), -np.inf, np.float32)
    for start in range(0, len(query), _ROWS):
        block = slice(start, start + _ROWS)
        similarity = query[block] @ image.T
        rows = np.arange(len(similarity))
        best[block] = nearest = similarity.argmax(axis=1)
        found[block] = similarity[rows, nearest]
        if config.mutual:
            np.maximum(highest, similarity.max(axis=0), out=highest)
        squared = np.maximum(2 - 2 * found[block], 0)
        if config.max_distance is not None:
            passed[block] &= squared < config.max_distance**2
        if config.ratio is not None:
            similarity[rows, nearest] = -np.inf
            passed[block] &= squared < config.ratio**2 * (2 - 2 * similarity.max(axis=1))
    pairs = np.column_stack([np.flatnonzero(passed), best[passed]])
    if not config.mutual:
        return pairs
    pairs = pairs[found[passed] == highest[pairs[:, 1]]]
    return pairs[np.sort(np.unique(pairs[:, 1], return_index=True)[1])]  # of equal ones the first


def fit_affine(
    source: Float64[Array, "m 2"], target: Float64[Array, "m 2"], residual: float, *, trials: int, seed: int
) -> tuple[Float64[Array, "2 3"] | None, Bool[Array, " m"]]:
    """The affine map that brings most points of ``source`` nearer than ``residual`` to those of ``target``.

    All samples are tried at once; of maps with as many inliers the first wins. Samples whose points (nearly)
    lie on a line, or are not three, give no map.

    Returns:
        The least-squares map over the inliers and which they are; None and no inliers for fewer than four
        points, or where every sample is degenerate.
    """
    none = np.zeros(len(source), bool)
    if len(source) <= _SAMPLE:
        return None, none
    # Near the origin float32 has digits to spare: 1e-4 px in a photo of 10,000.
    middle = source.mean(axis=0), target.mean(axis=0)
    points = np.column_stack([source - middle[0], np.ones(len(source))])
    moved = target - middle[1]
    maps = _maps(points[:, :2], moved, _samples(len(source), trials, seed))
    if not len(maps):
        return None, none
    best = maps[_most_inliers(maps, points, moved, residual)]
    inliers = np.square(points @ best.T - moved).sum(axis=1) < residual**2
    refined, _, rank, _ = np.linalg.lstsq(points[inliers], moved[inliers], rcond=None)
    fitted = refined.T if rank == _SAMPLE else best
    shift = fitted[:, 2] + middle[1] - fitted[:, :2] @ middle[0]
    return np.column_stack([fitted[:, :2], shift]), inliers


def _maps(
    source: Float64[Array, "m 2"], target: Float64[Array, "m 2"], samples: Int64[Array, "t 3"]
) -> Float64[Array, "s 2 3"]:
    """The affine map of every sample whose points span a triangle in ``source``."""
    corners, images = source[samples], target[samples]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    spans = np.abs(area) > _FLAT * np.hypot(*a.T) * np.hypot(*b.T)
    corners, images, a, b, area = (each[spans] for each in (corners, images, a, b, area))
    # The sides (a, b) go to (c, d): the linear part is (c, d) times the inverse of (a, b).
    c, d = images[:, 1] - images[:, 0], images[:, 2] - images[:, 0]
    over_x = (c * b[:, 1:] - d * a[:, 1:]) / area[:, None]
    over_y = (d * a[:, :1] - c * b[:, :1]) / area[:, None]
    shift = images[:, 0] - over_x * corners[:, 0, :1] - over_y * corners[:, 0, 1:]
    return np.stack([over_x, over_y, shift], axis=2)


def _most_inliers(
    maps: Float64[Array, "s 2 3"],
    points: Float64[Array, "m 3"],
    target: Float64[Array, "m 2"],
    residual: float,
) -> int:
    """Which map has most inliers; the first of equals."""
    columns, wanted = points.T.astype(np.float32), target.T.astype(np.float32)
    x, y = (np.ascontiguousarray(maps[:, axis], np.float32) for axis in range(2))
    counts = np.empty(len(maps), np.int64)
    step = max(1, _RESIDUALS // len(target))
    for start in range(0, len(maps), step):
        block = slice(start, start + step)
        squared, other = x[block] @ columns, y[block] @ columns
        squared -= wanted[0]
        other -= wanted[1]
        squared *= squared
        other *= other
        squared += other
        counts[block] = np.count_nonzero(squared < np.float32(residual**2), axis=1)
    return int(counts.argmax())


def _samples(count: int, trials: int, seed: int) -> Int64[Array, "t 3"]:
    """Three different numbers below ``count``, every set equally likely, in each of ``trials`` rows."""
    random = np.random.default_rng(seed)
    first, second, third = (random.integers(0, count - taken, trials) for taken in range(_SAMPLE))
    second += second >= first
    low, high = np.minimum(first, second), np.maximum(first, second)
    third += third >= low
    third += third >= high
    return np.column_stack([first, second, third])
