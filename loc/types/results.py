"""What became of a query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Float64, Shaped

from loc.types.geometry import Array, Camera, Pose

Status = Literal["ok", "doubtful", "unreadable", "no_pairs", "no_matches", "pnp_failed"]


@dataclass(frozen=True, eq=False)
class QueryResult:
    """What became of one query. Never an exception, never a substituted database pose.

    Attributes:
        name: the query image.
        status: ``ok`` and ``doubtful`` have a pose; the others say where the query fell.
        reason: one sentence for people.
        pose: estimated cam_from_world, or None.
        camera: the camera after refinement (focal length estimated where it was unknown), or None.
        covariance: ``(6, 6)`` float64 for 1 px of noise: rotation vector (rad, camera frame), then
            translation; or None.
        num_matches: 2D-3D matches after duplicates were merged.
        num_inliers: of these, consistent with the pose.
        references: database images that gave 2D-3D matches, best first; of the best cluster.
        second_cluster_ratio: inliers of the second-best cluster of references that see common points,
            relative to the best; 0 where there is one cluster.
        inlier_xy: ``(i, 2)`` float32 px, corner origin, query keypoints of the inliers.
        inlier_points3d: ``(i,)`` int64 ids of their 3-D points in the map.
        seconds: wall time per step.
    """

    name: str
    status: Status
    reason: str = ""
    pose: Pose | None = None
    camera: Camera | None = None
    covariance: Float64[Array, "6 6"] | None = None
    num_matches: int = 0
    num_inliers: int = 0
    references: tuple[str, ...] = ()
    second_cluster_ratio: float = 0.0
    inlier_xy: Float[Array, "i 2"] | None = None
    inlier_points3d: Shaped[Array, " i"] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def inlier_ratio(self) -> float:
        return self.num_inliers / self.num_matches if self.num_matches else 0.0
