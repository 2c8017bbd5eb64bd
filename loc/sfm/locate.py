"""One query: its matches → 2D-3D matches → pose → verdict. The batch stage and the Localizer share it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from loc.config import LocalizeConfig
from loc.sfm.gather import Gathered, gather
from loc.sfm.index import PointIndex
from loc.sfm.pnp import FocalMode, PnPResult, estimate_pose
from loc.types import Array, Camera, Intrinsics, Matches, QueryResult, Status

#: Residuals of a wrong pose fill the tolerance like chance: the median radius of a uniform disc is
#: 0.71 of it. Right poses of the real sets lie below 0.15.
MAX_MEDIAN_RESIDUAL = 0.5
#: Inliers on a line leave a rotation about it open: their spread across the main direction must be
#: this many times the RANSAC tolerance.
MIN_SPREAD = 2.0


@dataclass(frozen=True, eq=False)
class MatchedQuery:
    """What is known of a query when its pose is to be found.

    Attributes:
        name: the query image.
        camera: intrinsics, of the stored image.
        keypoints: ``(n, 2)`` float32 px, corner origin.
        matched: ``(db name, matches)``, most similar image first; column 0 are query keypoints.
        seconds: wall time of the steps before.
        intrinsics: where those of ``camera`` are from.
    """

    name: str
    camera: Camera
    keypoints: Float32[Array, "n 2"]
    matched: Sequence[tuple[str, Matches]]
    seconds: dict[str, float] = field(default_factory=dict)
    intrinsics: Intrinsics = "given"


def locate(index: PointIndex, query: MatchedQuery, config: LocalizeConfig) -> QueryResult:
    """Pose and status of one query. A query that cannot be localized is a result, not an error.

    ``no_pairs``: nothing to match with. ``no_matches``: no match leads to a point of the map.
    ``pnp_failed``: no pose with ``config.min_inliers``. Otherwise :func:`verdict` decides.
    """
    started = time.perf_counter()
    if not query.matched:
        return QueryResult(query.name, "no_pairs", "no database image was paired with it")
    found = gather(index, query.matched)
    if not len(found):
        return QueryResult(
            query.name, "no_matches", _no_matches(index, query), seconds=_timed(query, "gather", started)
        )
    xy = query.keypoints[found.keypoints].astype(np.float64)
    answer = estimate_pose(
        xy,
        index.xyz[found.points],
        query.camera,
        max_error_px=config.max_error_px,
        focal=focal_mode(query.camera, query.intrinsics, config),
    )
    seconds = _timed(query, "pnp", started)
    support = _support(found, answer)
    if answer is None or support < config.min_inliers:
        return QueryResult(
            query.name,
            "pnp_failed",
            f"{support} independent inliers of {len(found)} 2D-3D matches, {config.min_inliers} are needed",
            num_matches=len(found),
            num_inliers=support,
            references=found.references,
            seconds=seconds,
        )
    status, reason = verdict(answer, found, xy, index.xyz[found.points], config)
    return QueryResult(
        query.name,
        status,
        reason,
        pose=answer.pose,
        camera=answer.camera,
        covariance=answer.covariance,
        num_matches=len(found),
        num_inliers=answer.num_inliers,
        references=found.references,
        inlier_xy=query.keypoints[found.keypoints[answer.inliers]],
        inlier_points3d=index.point_ids[found.points[answer.inliers]].astype(np.int64),
        seconds=seconds,
    )


def verdict(
    answer: PnPResult, found: Gathered, xy: Array, xyz: Array, config: LocalizeConfig
) -> tuple[Status, str]:
    """``ok`` or ``doubtful``, with the first reason for doubt.

    ``ok`` needs the counts of the config, in distinct keypoints *and* distinct points (a keypoint
    matched to five copies of one point is one observation), and a pose that these observations fix:
    residuals well inside the tolerance, inliers that spread over more than a line, and a small formal
    uncertainty for the noise that the inliers show. On the real sets all right queries have at most
    0.09° and 0.8 % of the distance, also where the focal length is estimated; photos that see only a
    far corner of the map have 0.3° and more.
    """
    support = _support(found, answer)
    ratio = support / max(1, min(len(np.unique(found.keypoints)), len(np.unique(found.points))))
    inlier_xy = xy[answer.inliers]
    median_px = float(np.median(answer.residuals_px[answer.inliers]))
    spread_px = float(np.sqrt(max(0.0, np.linalg.eigvalsh(np.cov(inlier_xy.T))[0])))
    if support < config.min_inliers_ok:
        return "doubtful", f"{support} independent inliers, {config.min_inliers_ok} are needed for ok"
    if ratio < config.min_inlier_ratio_ok:
        return "doubtful", f"inlier ratio {ratio:.2f}, {config.min_inlier_ratio_ok:.2f} is needed for ok"
    if median_px > MAX_MEDIAN_RESIDUAL * config.max_error_px:
        return "doubtful", f"inliers fit as chance would: median residual {median_px:.1f} px"
    if spread_px < MIN_SPREAD * config.max_error_px:
        return "doubtful", f"inliers lie along a line or in a spot: spread {spread_px:.1f} px"
    if answer.covariance is None:
        return "doubtful", "the pose is not determined by its inliers (singular covariance)"
    rotation_deg, position = answer.std
    distance = float(np.median(np.linalg.norm(xyz[answer.inliers] - answer.pose.center_in_world, axis=1)))
    if rotation_deg > config.max_rotation_std_deg or position > config.max_position_std * distance:
        return "doubtful", (
            f"weak geometry: standard deviation {rotation_deg:.2f}° and "
            f"{100 * position / distance:.1f} % of the distance"
        )
    return "ok", f"{support} inliers, ratio {ratio:.2f}, median residual {median_px:.1f} px"


def focal_mode(camera: Camera, intrinsics: Intrinsics, config: LocalizeConfig) -> FocalMode:
    """Whether the focal length is taken as given, refined from a start value, or found with the pose.

    EXIF has the nominal focal length of the lens; the true one is often several per cent off.
    """
    if config.focal != "auto":
        return config.focal
    if not camera.has_prior_focal_length:
        return "estimate"
    return "refine" if intrinsics == "exif" else "fixed"


def _support(found: Gathered, answer: PnPResult | None) -> int:
    """Independent inliers: distinct keypoints, and no more than distinct points."""
    if answer is None:
        return 0
    inliers = answer.inliers
    return min(len(np.unique(found.keypoints[inliers])), len(np.unique(found.points[inliers])))


def _no_matches(index: PointIndex, query: MatchedQuery) -> str:
    mapped = sum(name in index for name, _ in query.matched)
    matches = sum(len(each) for _, each in query.matched)
    if not len(query.keypoints):
        return "the photo has no keypoints"
    if not mapped:
        return f"none of its {len(query.matched)} database images is in the map"
    return f"none of {matches} matches with {mapped} mapped images leads to a 3-D point"


def _timed(query: MatchedQuery, step: str, since: float) -> dict[str, float]:
    return {**query.seconds, step: round(time.perf_counter() - since, 6)}
