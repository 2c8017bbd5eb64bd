"""A row per query: what became of it, how wrong it is, and what it looked like; failures first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.sfm.bundle import MapBundle
from loc.types import Array, QueryResult, Scene
from loc.viz.thumbnails import Pair, PhotoWithPoints, Thumbnail, draw_pair, stamp

#: Queries with pictures (20 to 60 kB each); the others have their row without.
MAX_PICTURES = 150
#: Database images shown small in a query's row.
MAX_STAMPS = 3
STATUS_ORDER = ("unreadable", "no_pairs", "no_matches", "pnp_failed", "doubtful", "ok")
STATUS_TEXT = {
    "unreadable": "the photo could not be read",
    "no_pairs": "no database image to match it with",
    "no_matches": "no match leads to a 3-D point",
    "pnp_failed": "too few matches agree on a pose",
    "doubtful": "there is a pose, but it may be wrong",
    "ok": "there is a pose, and its inliers bear it out",
}


@dataclass(frozen=True)
class PoseErrors:
    """Errors of one query with ground truth: world units and degrees."""

    error: float
    error_deg: float


@dataclass(frozen=True)
class Stamp:
    """A database image shown small: the ``place``-th of its query; ``helped``: it gave 2D-3D matches."""

    name: str
    place: int
    helped: bool
    photo: Thumbnail


@dataclass(frozen=True)
class QueryRow:
    """A query as the page shows it.

    Attributes:
        errors: None where there is no ground truth or no pose.
        wrong: the pose is off by more than the coarsest threshold.
        picture: None where the photo cannot be read, or the row is beyond the bound on pictures.
        reference: the database image in the picture, which sees ``shared`` of the inlier points.
        retrieved: database images it was matched with, most similar first, where this is known.
        stamps: the first of these.
    """

    result: QueryResult
    group: str
    errors: PoseErrors | None = None
    wrong: bool = False
    picture: Pair | None = None
    reference: str | None = None
    shared: int = 0
    retrieved: tuple[str, ...] = ()
    stamps: tuple[Stamp, ...] = ()

    @property
    def rank(self) -> int | None:
        """Place of the reference among the retrieved images, from 1."""
        if self.reference not in self.retrieved:
            return None
        return self.retrieved.index(str(self.reference)) + 1


def query_rows(
    scene: Scene,
    results: Sequence[QueryResult],
    *,
    metrics: Mapping[str, Any],
    errors: Mapping[str, PoseErrors],
    ranked: Mapping[str, Sequence[str]],
) -> list[QueryRow]:
    """Rows without pictures: wrong poses called ok, then failures, then doubtful ones, then the rest."""
    groups = {image.name: image.group for image in scene.queries}
    groups |= {row["name"]: row["group"] for row in metrics.get("per_query", ())}
    limit = _coarsest(metrics)
    rows = []
    for result in results:
        found = errors.get(result.name)
        wrong = found is not None and limit is not None and not _within(found, limit)
        group = groups.get(result.name, "all")
        retrieved = tuple(ranked.get(result.name, ()))
        rows.append(QueryRow(result, group, found, wrong, retrieved=retrieved))
    return sorted(
        rows,
        key=lambda row: (
            not (row.wrong and row.result.status == "ok"),
            STATUS_ORDER.index(row.result.status),
            not row.wrong,
            row.result.name,
        ),
    )


def with_pictures(
    rows: Sequence[QueryRow], scene: Scene, bundle: MapBundle, *, workers: int
) -> list[QueryRow]:
    """Draw the first rows; the store is read by this thread, photos by several."""
    paths = {image.name: image.path for image in scene.images}
    first = list(rows[:MAX_PICTURES])
    store, items = bundle.open_keypoints()

    def keypoints_of(name: str) -> Array:
        return store.keypoints(items[name])

    views = [_views(row, paths, bundle, keypoints_of) for row in first]
    store.close()

    def draw(job: tuple[QueryRow, _Views]) -> QueryRow:
        row, view = job
        picture = None if view.query is None else draw_pair(view.query, view.reference, view.rows)
        stamps = () if picture is None else _stamps(row, paths)
        return replace(row, picture=picture, reference=view.name, shared=len(view.rows), stamps=stamps)

    with ThreadPoolExecutor(workers) as threads:
        return [*threads.map(draw, zip(first, views, strict=True)), *rows[MAX_PICTURES:]]


@dataclass(frozen=True, eq=False)
class _Views:
    """What a picture shows: ``rows[i]`` of the query's points is row ``i`` of the reference's."""

    query: PhotoWithPoints | None
    reference: PhotoWithPoints | None
    name: str | None
    rows: Array


def _views(
    row: QueryRow, paths: Mapping[str, Path], bundle: MapBundle, keypoints_of: Callable[[str], Array]
) -> _Views:
    """The query with its inliers, and the reference that sees most of their points."""
    result = row.result
    name, rows, keypoints = best_reference(result, bundle)
    if name is None and row.retrieved:
        name = row.retrieved[0]
    nothing = np.zeros((0, 2), np.float32)
    query = reference = None
    if result.name in paths:
        xy = nothing if result.inlier_xy is None else result.inlier_xy
        query = PhotoWithPoints(paths[result.name], xy)
    if name is not None and name in paths:
        xy = keypoints_of(name)[keypoints] if len(rows) else nothing
        reference = PhotoWithPoints(paths[name], xy)
    return _Views(query, reference, name, rows)


def _stamps(row: QueryRow, paths: Mapping[str, Path]) -> tuple[Stamp, ...]:
    out = []
    for place, name in enumerate(row.retrieved[:MAX_STAMPS], start=1):
        photo = stamp(paths[name]) if name in paths else None
        if photo is not None:
            out.append(Stamp(name, place, name in row.result.references, photo))
    return tuple(out)


def best_reference(result: QueryResult, bundle: MapBundle) -> tuple[str | None, Array, Array]:
    """The reference that sees most inlier points, and ``(inlier rows, keypoint rows)`` of these.

    Without a pose: the reference with most matches, and no points.
    """
    empty = np.zeros(0, np.int64)
    best: tuple[str | None, Array, Array] = (
        result.references[0] if result.references else None,
        empty,
        empty,
    )
    if result.inlier_points3d is None or not len(bundle.index):
        return best
    wanted = np.searchsorted(bundle.index.point_ids, result.inlier_points3d)
    for name in result.references:
        points, first = np.unique(bundle.index.point_rows(name), return_index=True)
        at = np.searchsorted(points, wanted).clip(max=max(len(points) - 1, 0))
        shared = np.flatnonzero(points[at] == wanted) if len(points) else empty
        if len(shared) > len(best[1]):
            best = (name, shared, first[at[shared]])
    return best


def _coarsest(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    thresholds = metrics.get("thresholds") or []
    if not thresholds:
        return None
    return max(each[0] for each in thresholds), max(each[1] for each in thresholds)


def _within(found: PoseErrors, limit: tuple[float, float]) -> bool:
    return found.error <= limit[0] and found.error_deg <= limit[1]
