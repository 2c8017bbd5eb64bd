"""One query: its matches → 2D-3D matches → pose → verdict. The batch stage and the Localizer share it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

from loc.config import LocalizeConfig
from loc.sfm.clusters import covisibility_clusters
from loc.sfm.gather import Gathered, gather
from loc.sfm.index import PointIndex
from loc.sfm.pnp import FocalMode, PnPResult, estimate_pose
from loc.types import Array, Camera, Intrinsics, Matches, Pose, QueryResult, Status

#: Residuals of a wrong pose fill the tolerance like chance: the median radius of a uniform disc is
#: 0.71 of it. Right poses of the real sets lie below 0.15.
MAX_MEDIAN_RESIDUAL = 0.5
#: Inliers on a line leave a rotation about it open: their spread across the main direction must be
#: this many times the RANSAC tolerance.
MIN_SPREAD = 2.0
#: Poses of two clusters within this share of the distance of the inliers, and this angle, are one.
SAME_PLACE, SAME_PLACE_DEG = 0.05, 5.0


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


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A pose from the references of one cluster."""

    found: Gathered
    xy: Array
    xyz: Array
    answer: PnPResult | None

    @property
    def support(self) -> int:
        """Independent inliers: distinct keypoints, and no more than distinct points."""
        if self.answer is None:
            return 0
        inliers = self.answer.inliers
        return min(len(np.unique(self.found.keypoints[inliers])), len(np.unique(self.found.points[inliers])))


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
    attempts = _attempts(index, query, found, config)
    seconds = _timed(query, "pnp", started)
    best, others = attempts[0], attempts[1:]
    common: dict[str, Any] = {
        "num_matches": len(best.found),
        "references": best.found.references,
        "seconds": seconds,
    }
    if best.answer is None or best.support < config.min_inliers:
        return QueryResult(
            query.name,
            "pnp_failed",
            f"{best.support} independent inliers of {len(best.found)} 2D-3D matches, "
            f"{config.min_inliers} are needed",
            num_inliers=best.support,
            **common,
        )
    answer = best.answer
    status, reason = verdict(best, answer, config, others)
    return QueryResult(
        query.name,
        status,
        reason,
        pose=answer.pose,
        camera=answer.camera,
        covariance=answer.covariance,
        num_inliers=answer.num_inliers,
        second_cluster_ratio=others[0].support / best.support if others else 0.0,
        inlier_xy=query.keypoints[best.found.keypoints[answer.inliers]],
        inlier_points3d=index.point_ids[best.found.points[answer.inliers]].astype(np.int64),
        **common,
    )


def _attempts(
    index: PointIndex, query: MatchedQuery, found: Gathered, config: LocalizeConfig
) -> list[_Attempt]:
    """A pose per cluster of references, the one with most independent inliers first.

    Clusters with fewer matches than a pose needs inliers are left out. Where no cluster has enough
    inliers, all matches together are tried: a place may fall into components that share no point.
    """
    clusters = [found.references]
    if config.covisibility_clustering:
        clusters = covisibility_clusters(index, found.references)
    if len(clusters) == 1:
        return [_attempt(index, query, found, config)]
    attempts = []
    for cluster in clusters:
        members = frozenset(cluster)
        of_cluster = gather(index, [each for each in query.matched if each[0] in members])
        if len(of_cluster) >= config.min_inliers:
            attempts.append(_attempt(index, query, of_cluster, config))
    attempts.sort(key=lambda attempt: -attempt.support)  # stable: equal ones in rank order
    if not attempts or attempts[0].support < config.min_inliers:
        return [_attempt(index, query, found, config)]
    return attempts


def _attempt(index: PointIndex, query: MatchedQuery, found: Gathered, config: LocalizeConfig) -> _Attempt:
    xy, xyz = query.keypoints[found.keypoints].astype(np.float64), index.xyz[found.points]
    answer = estimate_pose(
        xy,
        xyz,
        query.camera,
        max_error_px=config.max_error_px,
        focal=focal_mode(query.camera, query.intrinsics, config),
    )
    return _Attempt(found, xy, xyz, answer)


def verdict(
    best: _Attempt, answer: PnPResult, config: LocalizeConfig, others: Sequence[_Attempt] = ()
) -> tuple[Status, str]:
    """``ok`` or ``doubtful``, with the first reason for doubt.

    ``ok`` needs the counts of the config, in distinct keypoints *and* distinct points (a keypoint
    matched to five copies of one point is one observation), and a pose that these observations fix:
    residuals well inside the tolerance, inliers that spread over more than a line, and a small formal
    uncertainty for the noise that the inliers show. On the real sets all right queries have at most
    0.09° and 0.8 % of the distance, also where the focal length is estimated; photos that see only a
    far corner of the map have 0.3° and more. Nor may another cluster of references put the
    camera at another place with more than ``max_second_ratio_ok`` as many inliers.
    """
    found, support = best.found, best.support
    ratio = support / max(1, min(len(np.unique(found.keypoints)), len(np.unique(found.points))))
    inlier_xy = best.xy[answer.inliers]
    median_px = float(np.median(answer.residuals_px[answer.inliers]))
    spread_px = float(np.sqrt(max(0.0, np.linalg.eigvalsh(np.cov(inlier_xy.T))[0])))
    if support < config.min_inliers_ok:
        return "doubtful", f"{support} independent inliers, {config.min_inliers_ok} are needed for ok"
    if ratio < config.min_inlier_ratio_ok:
        return "doubtful", (
            f"inlier ratio {ratio:.2f} of independent matches, "
            f"{config.min_inlier_ratio_ok:.2f} is needed for ok"
        )
    if median_px > MAX_MEDIAN_RESIDUAL * config.max_error_px:
        return "doubtful", f"inliers fit as chance would: median residual {median_px:.1f} px"
    if spread_px < MIN_SPREAD * config.max_error_px:
        return "doubtful", f"inliers lie along a line or in a spot: spread {spread_px:.1f} px"
    if answer.covariance is None:
        return "doubtful", "the pose is not determined by its inliers (singular covariance)"
    rotation_deg, position = answer.std
    center = answer.pose.center_in_world
    distance = float(np.median(np.linalg.norm(best.xyz[answer.inliers] - center, axis=1)))
    if rotation_deg > config.max_rotation_std_deg or position > config.max_position_std * distance:
        return "doubtful", (
            f"weak geometry: standard deviation {rotation_deg:.2f}° and "
            f"{100 * position / distance:.1f} % of the distance"
        )
    for other in others:
        if other.answer is None or other.support <= config.max_second_ratio_ok * support:
            break
        if _apart(answer.pose, other.answer.pose, distance):
            return "doubtful", (
                f"{other.support} inliers at another place, near {other.found.references[0]}, "
                f"against {support} here"
            )
    return "ok", (
        f"{support} independent inliers, ratio {ratio:.2f} of independent matches, "
        f"median residual {median_px:.1f} px"
    )


def _apart(one: Pose, other: Pose, distance: float) -> bool:
    """Whether two poses are of two places: further apart than the accuracy of either explains.

    Args:
        distance: of the points from the camera, world units.
    """
    moved = float(np.linalg.norm(one.center_in_world - other.center_in_world))
    cosine = (np.trace(one.rotation.T @ other.rotation) - 1) / 2
    turned_deg = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return moved > SAME_PLACE * distance or turned_deg > SAME_PLACE_DEG


def focal_mode(camera: Camera, intrinsics: Intrinsics, config: LocalizeConfig) -> FocalMode:
    """Whether the focal length is taken as given, refined from a start value, or found with the pose.

    EXIF has the nominal focal length of the lens; the true one is often several per cent off.
    """
    if config.focal != "auto":
        return config.focal
    if not camera.has_prior_focal_length:
        return "estimate"
    return "refine" if intrinsics == "exif" else "fixed"


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
