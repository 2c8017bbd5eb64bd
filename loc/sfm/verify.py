"""Geometric verification of matches: by known poses, or by robust two-view geometry.

Both give :class:`VerifiedPair` with an explicit COLMAP configuration: a pair written with
UNDEFINED gives no model, silently.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32

from loc.colmap import camera_to_colmap, pose_to_colmap, pycolmap
from loc.types import Camera, Pose

Array = np.ndarray
#: Pairs in flight per worker: enough to keep the cores busy, few enough to bound memory.
_AHEAD = 8
#: A baseline this small against the distances of the centres from the origin is rounding.
_ZERO_BASELINE = 1e-10
_CONFIG = pycolmap.TwoViewGeometryConfiguration
_USELESS = (int(_CONFIG.UNDEFINED), int(_CONFIG.DEGENERATE), int(_CONFIG.WATERMARK))


@dataclass(frozen=True, eq=False)
class View:
    """One image of a pair: ``xy (n, 2)`` px (corner origin) of its keypoints, camera, known pose or None."""

    name: str
    xy: Float[Array, "n 2"]
    camera: Camera
    pose: Pose | None = None


@dataclass(frozen=True, eq=False)
class PairJob:
    """A pair to verify; ``indices (m, 2)`` int32 rows into the keypoints of both views."""

    first: View
    second: View
    indices: Int32[Array, "m 2"]


@dataclass(frozen=True, eq=False)
class VerifiedPair:
    """What is left of a pair.

    Attributes:
        indices: ``(m, 2)`` int32, the matches that agree with the geometry, in their order.
        config: COLMAP's ``TwoViewGeometryConfiguration`` as an int, never UNDEFINED.
        E, F, H: ``(3, 3)`` float64 of ``second`` from ``first``, or None.
        cam2_from_cam1: relative pose (translation up to scale unless from known poses), or None.
    """

    first: str
    second: str
    indices: Int32[Array, "m 2"]
    config: int
    E: Float64[Array, "3 3"] | None = None
    F: Float64[Array, "3 3"] | None = None
    H: Float64[Array, "3 3"] | None = None
    cam2_from_cam1: Pose | None = None

    def __len__(self) -> int:
        return int(self.indices.shape[0])


def verify_known_poses(
    xy0: Float[Array, "n0 2"],
    xy1: Float[Array, "n1 2"],
    indices: Int32[Array, "m 2"],
    camera0: Camera,
    camera1: Camera,
    pose0: Pose,
    pose1: Pose,
    *,
    max_error_px: float,
) -> Bool[Array, " m"]:
    """Which matches lie within ``max_error_px`` of their epipolar line, in both images.

    Keypoints are undistorted first, so the lines are straight; distances are taken in each image's
    normalised plane and multiplied by that camera's (mean) focal length, which gives pixels of an
    undistorted image of the same focal length. Cameras that share a centre have no epipolar line:
    there a match counts if rotating one ray hits the other pixel. What cannot be undistorted, or
    lies on an epipole, is rejected.
    """
    if len(indices) == 0:
        return np.zeros(0, bool)
    x0 = _normalised(xy0[indices[:, 0]], camera0)
    x1 = _normalised(xy1[indices[:, 1]], camera1)
    rotation, translation, parallax = _relative(pose0, pose1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if parallax:
            essential = _cross(translation) @ rotation
            error0 = _line_distance(x0, x1 @ essential)
            error1 = _line_distance(x1, x0 @ essential.T)
        else:
            error0 = _transfer_distance(x0, x1 @ rotation)
            error1 = _transfer_distance(x1, x0 @ rotation.T)
        ok: Array = (error0 * camera0.focal_px <= max_error_px) & (error1 * camera1.focal_px <= max_error_px)
    return ok


def verify_pair(
    job: PairJob, *, known_poses: bool, max_error_px: float, min_num_inliers: int
) -> VerifiedPair:
    """Verify one pair; the result has no matches where fewer than ``min_num_inliers`` agree."""
    first, second = job.first, job.second
    if len(job.indices) < min_num_inliers:
        return VerifiedPair(first.name, second.name, job.indices[:0], int(_CONFIG.DEGENERATE))
    if known_poses and first.pose is not None and second.pose is not None:
        pair = _by_poses(job, first.pose, second.pose, max_error_px=max_error_px)
    else:
        pair = _by_two_views(job, max_error_px=max_error_px, min_num_inliers=min_num_inliers)
    if len(pair) < min_num_inliers or pair.config in _USELESS:
        return VerifiedPair(first.name, second.name, job.indices[:0], int(_CONFIG.DEGENERATE))
    return pair


def verify_pairs(
    jobs: Iterable[PairJob], *, known_poses: bool, max_error_px: float, min_num_inliers: int, workers: int
) -> Iterator[VerifiedPair]:
    """Verify pairs on ``workers`` threads; results come in the order of ``jobs``.

    The estimators release the GIL and are seeded, one thread per pair: the result does not depend
    on ``workers``. Few pairs are in flight, so ``jobs`` may be a generator over many.
    """

    def verified(job: PairJob) -> VerifiedPair:
        return verify_pair(
            job, known_poses=known_poses, max_error_px=max_error_px, min_num_inliers=min_num_inliers
        )

    if workers <= 1:
        yield from map(verified, jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        flying: deque[Future[VerifiedPair]] = deque()
        try:
            for job in jobs:
                flying.append(pool.submit(verified, job))
                if len(flying) >= workers * _AHEAD:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()


def _by_poses(job: PairJob, pose0: Pose, pose1: Pose, *, max_error_px: float) -> VerifiedPair:
    first, second = job.first, job.second
    mask = verify_known_poses(
        first.xy,
        second.xy,
        job.indices,
        first.camera,
        second.camera,
        pose0,
        pose1,
        max_error_px=max_error_px,
    )
    rotation, translation, parallax = _relative(pose0, pose1)
    relative = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), translation)
    return VerifiedPair(
        first.name,
        second.name,
        job.indices[mask],
        int(_CONFIG.CALIBRATED if parallax else _CONFIG.PANORAMIC),
        E=_cross(translation) @ rotation,
        cam2_from_cam1=Pose(relative.rotation.quat, relative.translation),
    )


def _by_two_views(job: PairJob, *, max_error_px: float, min_num_inliers: int) -> VerifiedPair:
    """COLMAP's own verifier: essential matrix if both focal lengths are known, else fundamental."""
    first, second = job.first, job.second
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = min_num_inliers
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = 0
    options.ransac.num_threads = 1
    geometry = pycolmap.estimate_two_view_geometry(
        camera_to_colmap(first.camera),
        first.xy[job.indices[:, 0]].astype(np.float64),
        camera_to_colmap(second.camera),
        second.xy[job.indices[:, 1]].astype(np.float64),
        matches=np.repeat(np.arange(len(job.indices), dtype=np.uint32)[:, None], 2, axis=1),
        options=options,
    )
    rows = np.asarray(geometry.inlier_matches, np.int64).reshape(-1, 2)[:, 0]
    relative = geometry.cam2_from_cam1
    return VerifiedPair(
        first.name,
        second.name,
        job.indices[rows],
        int(geometry.config),
        E=geometry.E,
        F=geometry.F,
        H=geometry.H,
        cam2_from_cam1=None if relative is None else Pose(relative.rotation.quat, relative.translation),
    )


def _relative(pose0: Pose, pose1: Pose) -> tuple[Array, Array, bool]:
    """Rotation and translation of ``cam1_from_cam0``, and whether there is a baseline."""
    relative = pose_to_colmap(pose1) * pose_to_colmap(pose0).inverse()
    rotation: Array = relative.rotation.matrix()
    reach = max(1e-300, float(np.abs([pose0.translation, pose1.translation]).max()))
    translation: Array = relative.translation
    return rotation, translation, bool(np.linalg.norm(translation) > _ZERO_BASELINE * reach)


def _normalised(xy: Array, camera: Camera) -> Array:
    """Homogeneous ``(m, 3)`` float64 rays of pixels; NaN where the camera has none."""
    rays = camera_to_colmap(camera).cam_from_img(np.ascontiguousarray(xy, np.float64))
    return np.column_stack([rays, np.ones(len(rays))])


def _line_distance(points: Array, lines: Array) -> Array:
    """Distance of homogeneous points from lines, in units of the normalised plane."""
    distance: Array = np.abs(np.sum(points * lines, axis=1)) / np.hypot(lines[:, 0], lines[:, 1])
    return distance


def _transfer_distance(points: Array, rotated: Array) -> Array:
    """Distance of points from rotated rays; infinite where these look backwards."""
    distance = np.linalg.norm(points[:, :2] - rotated[:, :2] / rotated[:, 2:], axis=1)
    return np.where(rotated[:, 2] > 0, distance, np.inf)


def _cross(vector: Array) -> Float64[Array, "3 3"]:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
