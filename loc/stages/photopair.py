"""Two photos matched by themselves, without a run: features, matches, and which agree with one geometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64

from loc.config import RerankConfig
from loc.errors import DataError
from loc.plugins.blocks import ResolvedPlugin
from loc.retrieval.verification import LONG_SIDE_PX, fit_affine, verify
from loc.runtime.extraction import PhotoFile, Skipped, extract_many
from loc.runtime.images import image_header
from loc.runtime.pairing import PairMatcher
from loc.runtime.runtime import Runtime
from loc.sfm.twoview import fundamental_matrix, homography
from loc.stages.learn import fitted_extractor
from loc.stages.match import Preparer
from loc.stores.features import as_stored
from loc.types import Array, ImageRecord, LocalFeatures

Check = Literal["fundamental", "homography", "affine", "none"]
#: Geometries that matches can be checked with, the default first.
CHECKS: tuple[str, ...] = get_args(Check)
#: Largest errors, px of photos shrunk to 1024 px; an affine map fits a scene only roughly.
_MAX_ERROR_PX = {"fundamental": 3.0, "homography": 3.0, "affine": 20.0}


@dataclass(frozen=True, eq=False)
class PhotoPair:
    """What was matched, in px of the stored photos with corner origin.

    Attributes:
        keypoints: ``(n, 2)`` of either photo; of a matcher that finds its own points, those it matched.
        matches: ``(m, 2)`` of either photo: row i of both shows one point.
        inliers: ``(m,)`` those that agree with the geometry; all, if it was not checked.
        putative: matches before the check; more than m where re-ranking keeps inliers alone.
        check: the geometry.
    """

    keypoints: tuple[Float64[Array, "n0 2"], Float64[Array, "n1 2"]]
    matches: tuple[Float64[Array, "m 2"], Float64[Array, "m 2"]]
    inliers: Bool[Array, " m"]
    putative: int
    check: str


def match_photos(
    photos: tuple[Path, Path],
    extractor: ResolvedPlugin,
    matcher: ResolvedPlugin | RerankConfig,
    *,
    check: Check = "fundamental",
    max_error_px: float | None = None,
    runtime: Runtime,
) -> PhotoPair:
    """Match two photos and check the matches.

    Args:
        extractor: of local features; one that learns something (a PCA) learns it on the two photos. Not used
            by a matcher that finds its own points.
        matcher: or the values of a re-ranking: the second photo is then the query, as in DELF's example, and
            the check is its affine map.
        max_error_px: of an inlier, px of the photos shrunk to 1024 px; default 3, of an affine map 20.

    Raises:
        DataError: a photo cannot be read, or has too little to learn from.
    """
    files = (PhotoFile(str(photos[0]), photos[0]), PhotoFile(str(photos[1]), photos[1]))
    if isinstance(matcher, ResolvedPlugin) and matcher.reads_images:
        keypoints, matches = _by_pixels(files, matcher.ready(runtime.torch_device), runtime)
        return _checked(photos, keypoints, matches, check, max_error_px)
    first, second = _features(files, extractor, runtime)
    keypoints = (_xy(first), _xy(second))
    if isinstance(matcher, RerankConfig):
        found = verify(second, first, matcher)
        matches = (keypoints[0][found.pairs[:, 1]], keypoints[1][found.pairs[:, 0]])
        return PhotoPair(keypoints, matches, np.ones(found.inliers, bool), found.putative, "affine")
    plugin = matcher.for_features(extractor).ready(runtime.torch_device)
    by = Preparer(plugin, device=runtime.torch_device())
    indices = by.match([(by.prepared(None, first), by.prepared(None, second))])[0].indices
    matches = (keypoints[0][indices[:, 0]], keypoints[1][indices[:, 1]])
    return _checked(photos, keypoints, matches, check, max_error_px)


def _features(
    files: tuple[PhotoFile, PhotoFile], extractor: ResolvedPlugin, runtime: Runtime
) -> tuple[LocalFeatures, LocalFeatures]:
    """Of both photos, as a run would store them."""
    plugin = extractor.ready(runtime.torch_device)
    distinct = {file.name: file for file in files}
    records = [ImageRecord(file.name, file.path, "db", "") for file in distinct.values()]
    found: dict[str, LocalFeatures] = {}
    with TemporaryDirectory() as folder:
        plugin = fitted_extractor(plugin, records, workdir=Path(folder), runtime=runtime)
        for file, features in extract_many(plugin, list(distinct.values()), runtime=runtime):
            if isinstance(features, Skipped):
                raise DataError(features.reason, "give two photos that can be read")
            found[file.name] = as_stored(features)
    return found[files[0].name], found[files[1].name]


def _by_pixels(
    files: tuple[PhotoFile, PhotoFile], plugin: ResolvedPlugin, runtime: Runtime
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    matcher = PairMatcher(plugin, device=runtime.torch_device())
    (found,) = matcher.match([(matcher.shown(files[0], key=0), matcher.shown(files[1], key=1))])
    points = (found.xy0.astype(np.float64), found.xy1.astype(np.float64))
    return points, points


def _checked(
    photos: tuple[Path, Path],
    keypoints: tuple[Array, Array],
    matches: tuple[Array, Array],
    check: Check,
    max_error_px: float | None,
) -> PhotoPair:
    count = len(matches[0])
    if check == "none":
        return PhotoPair(keypoints, matches, np.ones(count, bool), count, check)
    limit = _MAX_ERROR_PX[check] if max_error_px is None else max_error_px
    first, second = (
        xy * min(1.0, LONG_SIDE_PX / max(image_header(path)[0]))
        for xy, path in zip(matches, photos, strict=True)
    )
    if check == "fundamental":
        _, inliers = fundamental_matrix(first, second, max_error_px=limit)
    elif check == "homography":
        _, inliers = homography(first, second, max_error_px=limit)
    else:
        _, inliers = fit_affine(first, second, limit, trials=1000, seed=0)
    return PhotoPair(keypoints, matches, inliers, count, check)


def _xy(features: LocalFeatures) -> Float64[Array, "n 2"]:
    return features.keypoints.astype(np.float64)
