"""The artefact *poses*: what became of every query, as text for benchmarks and as JSON with everything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loc.errors import StoreError
from loc.layouts.lists import write_poses
from loc.stores.files import RUN_AGAIN, write_text
from loc.stores.products import check_product
from loc.types import Array, Camera, Pose, QueryResult

#: ``name qw qx qy qz tx ty tz`` (cam_from_world), localized queries only: what benchmarks read.
POSES_FILE = "poses.txt"
#: One JSON object per query, localized or not.
QUERIES_FILE = "queries.jsonl"
#: COLMAP's covariance repeats to about 1e-15 only; so many digits are the same every time.
_COVARIANCE_DIGITS = 6


@dataclass(frozen=True)
class Poses:
    """Results of all queries of a run, sorted by name."""

    folder: Path
    results: tuple[QueryResult, ...]

    @property
    def localized(self) -> dict[str, Pose]:
        """Name → cam_from_world of the queries that have a pose (``ok`` and ``doubtful``)."""
        return {result.name: result.pose for result in self.results if result.pose is not None}

    @staticmethod
    def open(folder: Path) -> Poses:
        """Read a finished product.

        Raises:
            StoreError: ``queries.jsonl`` is missing or damaged.
        """
        check_product(folder)
        path = folder / QUERIES_FILE
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            results = tuple(result_from_json(json.loads(line)) for line in lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} cannot be read ({type(error).__name__}: {error})",
                f"delete the folder {folder} and {RUN_AGAIN}",
            ) from error
        return Poses(folder, results)


def write_results(folder: Path, results: Sequence[QueryResult]) -> None:
    """Write ``poses.txt`` and ``queries.jsonl`` into ``folder``."""
    ordered = sorted(results, key=lambda result: result.name)
    write_poses(folder / POSES_FILE, {each.name: each.pose for each in ordered if each.pose is not None})
    rows = [json.dumps(result_to_json(each), ensure_ascii=False, allow_nan=False) for each in ordered]
    write_text(folder / QUERIES_FILE, "".join(f"{row}\n" for row in rows))


def result_to_json(result: QueryResult) -> dict[str, Any]:
    """Everything a :class:`QueryResult` holds, in plain JSON types."""
    return {
        "name": result.name,
        "status": result.status,
        "reason": result.reason,
        "pose": None if result.pose is None else result.pose.to_json(),
        "camera": None if result.camera is None else result.camera.to_json(),
        "covariance": None if result.covariance is None else _rounded(result.covariance),
        "num_matches": result.num_matches,
        "num_inliers": result.num_inliers,
        "inlier_ratio": round(result.inlier_ratio, 6),
        "references": list(result.references),
        "second_cluster_ratio": round(result.second_cluster_ratio, 6),
        "inlier_xy": None if result.inlier_xy is None else result.inlier_xy.tolist(),
        "inlier_points3d": None if result.inlier_points3d is None else result.inlier_points3d.tolist(),
        "seconds": dict(result.seconds),
    }


def result_from_json(row: dict[str, Any]) -> QueryResult:
    """Inverse of :func:`result_to_json`."""
    return QueryResult(
        name=row["name"],
        status=row["status"],
        reason=row["reason"],
        pose=None if row["pose"] is None else Pose.from_json(row["pose"]),
        camera=None if row["camera"] is None else Camera.from_json(row["camera"]),
        covariance=_array(row["covariance"], np.float64, (-1, 6)),
        num_matches=row["num_matches"],
        num_inliers=row["num_inliers"],
        references=tuple(row["references"]),
        second_cluster_ratio=row.get("second_cluster_ratio", 0.0),  # older files have none
        inlier_xy=_array(row["inlier_xy"], np.float32, (-1, 2)),
        inlier_points3d=_array(row["inlier_points3d"], np.int64, (-1,)),
        seconds=row["seconds"],
    )


def _rounded(covariance: Array) -> list[list[float]]:
    return [[float(f"{value:.{_COVARIANCE_DIGITS}g}") for value in row] for row in covariance.tolist()]


def _array(values: Any, dtype: Any, shape: tuple[int, ...]) -> Array | None:
    return None if values is None else np.asarray(values, dtype).reshape(shape)
