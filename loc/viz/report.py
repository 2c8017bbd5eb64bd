"""The report of a run: one self-contained HTML page (no script, no external file), for any browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loc import __version__
from loc.sfm.bundle import MapBundle
from loc.sfm.funnel import STEPS, ImageFunnel, read_funnel
from loc.stores.features import FeatureStore
from loc.types import Array, QueryResult, Scene
from loc.viz.figures import PhotoWithPoints, PlanDot, pair_thumbnail, plan

#: Queries with pictures (15 to 60 kB each); the others have their row without.
MAX_THUMBNAILS = 150
#: Images listed in the funnel's table; those that fell come first. All are in funnel.json.
MAX_FUNNEL_ROWS = 400
_STATUS_ORDER = ("unreadable", "no_pairs", "no_matches", "pnp_failed", "doubtful", "ok")
STATUS_TEXT = {
    "unreadable": "the photo could not be read",
    "no_pairs": "no database image to match it with",
    "no_matches": "no match leads to a 3-D point",
    "pnp_failed": "too few matches agree on a pose",
    "doubtful": "there is a pose, but it may be wrong",
    "ok": "there is a pose, and its inliers bear it out",
}
_STAT_NAMES = {
    "registered": "images registered",
    "points": "3-D points",
    "observations": "observations",
    "mean_track_length": "mean track length",
    "mean_reprojection_error_px": "mean reprojection error, px",
    "task": "made by",
    "verification": "verification",
}


@dataclass(frozen=True)
class QueryRow:
    """A query as the page shows it; errors are None where there is no ground truth or no pose.

    Attributes:
        wrong: the pose is off by more than the coarsest threshold.
        picture: data URI.
        reference: the database image in the picture, which sees ``shared`` of the inlier points.
    """

    result: QueryResult
    group: str
    error: float | None = None
    error_deg: float | None = None
    wrong: bool = False
    picture: str | None = None
    reference: str | None = None
    shared: int = 0


@dataclass(frozen=True)
class PoseErrors:
    """Errors of one query with ground truth: world units and degrees."""

    error: float
    error_deg: float


def render_report(
    scene: Scene,
    bundle: MapBundle,
    results: Sequence[QueryResult],
    *,
    metrics: Mapping[str, Any],
    errors: Mapping[str, PoseErrors],
    title: str,
    workers: int = 1,
) -> str:
    """The page as text. Every string from outside is escaped by the template engine.

    Args:
        metrics: with ``groups`` as :func:`loc.metrics.poses.summarize` gives them, or without.
        errors: query name → errors, where there are a pose and a ground truth.
        workers: threads that draw thumbnails.
    """
    rows = _query_rows(scene, bundle, results, metrics, errors, workers)
    funnel, pairs = _funnel(bundle)
    dots, height = plan(
        bundle.poses,
        [(each.name, each.status, each.pose) for each in results if each.pose is not None],
        bundle.index.xyz,
    )
    page: str = _template("report.html.j2").render(
        title=title,
        version=__version__,
        stats=_stats(bundle.stats),
        groups=metrics.get("groups") or {},
        statuses=[
            (status, sum(row.result.status == status for row in rows), STATUS_TEXT[status])
            for status in reversed(_STATUS_ORDER)
        ],
        rows=rows,
        wrong_ok=sum(row.wrong and row.result.status == "ok" for row in rows),
        steps=[(step, sum(row.step == step for row in funnel)) for step in STEPS],
        funnel=_fallen_first(funnel)[:MAX_FUNNEL_ROWS],
        funnel_total=len(funnel),
        pairs=pairs,
        skipped=sorted((name, why) for name, why in scene.skipped.items()),
        dots=dots,
        plan_height=height,
        layers=_layers(dots),
    )
    return page


def render_evaluation(summary: Mapping[str, Any], *, title: str) -> str:
    """The page of ``loc eval``: recall per group, and a row per query.

    Args:
        summary: what :func:`loc.stages.evaluate.evaluate_files` returns.
    """
    worst_first = sorted(
        summary["per_query"],
        key=lambda row: (row["localized"], -(row["error"] or 0.0), row["name"]),
    )
    page: str = _template("eval.html.j2").render(
        title=title, version=__version__, summary=summary, rows=worst_first
    )
    return page


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(name)


def _query_rows(
    scene: Scene,
    bundle: MapBundle,
    results: Sequence[QueryResult],
    metrics: Mapping[str, Any],
    errors: Mapping[str, PoseErrors],
    workers: int,
) -> list[QueryRow]:
    """Wrong poses called ok first, then failures, then doubtful ones, then the rest by name."""
    groups = {image.name: image.group for image in scene.queries}
    limit = _coarsest(metrics)
    rows = []
    for result in results:
        found = errors.get(result.name)
        wrong = found is not None and limit is not None and not _within(found, limit)
        rows.append(
            QueryRow(
                result,
                groups.get(result.name, "all"),
                None if found is None else found.error,
                None if found is None else found.error_deg,
                wrong,
            )
        )
    rows.sort(
        key=lambda row: (
            not (row.wrong and row.result.status == "ok"),
            _STATUS_ORDER.index(row.result.status),
            not row.wrong,
            row.result.name,
        )
    )
    return _with_pictures(rows, scene, bundle, workers)


def _with_pictures(rows: list[QueryRow], scene: Scene, bundle: MapBundle, workers: int) -> list[QueryRow]:
    """Draw the first rows; the store is read by this thread, photos by several."""
    paths = {image.name: image.path for image in scene.images}
    store = bundle.open_features()
    views = [_views(row.result, paths, bundle, store) for row in rows[:MAX_THUMBNAILS]]
    store.close()

    def draw(job: tuple[QueryRow, _Views]) -> QueryRow:
        row, view = job
        picture = None if view.query is None else pair_thumbnail(view.query, view.reference, view.rows)
        return replace(row, picture=picture, reference=view.name, shared=len(view.rows))

    with ThreadPoolExecutor(workers) as threads:
        drawn = threads.map(draw, zip(rows, views))  # noqa: B905  (the others stay without)
        return [*drawn, *rows[MAX_THUMBNAILS:]]


@dataclass(frozen=True, eq=False)
class _Views:
    """What a picture shows: ``rows[i]`` of the query's points is row ``i`` of the reference's."""

    query: PhotoWithPoints | None
    reference: PhotoWithPoints | None
    name: str | None
    rows: Array


def _views(result: QueryResult, paths: Mapping[str, Path], bundle: MapBundle, store: FeatureStore) -> _Views:
    """The query with its inliers, and the reference that sees most of their points."""
    name, rows, keypoints = _best_reference(result, bundle)
    nothing = np.zeros((0, 2), np.float32)
    query = reference = None
    if result.name in paths:
        xy = nothing if result.inlier_xy is None else result.inlier_xy
        query = PhotoWithPoints(paths[result.name], xy)
    if name is not None and name in paths:
        xy = store.keypoints(bundle.images[name])[keypoints] if len(rows) else nothing
        reference = PhotoWithPoints(paths[name], xy)
    return _Views(query, reference, name, rows)


def _best_reference(result: QueryResult, bundle: MapBundle) -> tuple[str | None, Array, Array]:
    """Its name, and ``(inlier rows, keypoint rows)`` of the points it shares with the query.

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


def _funnel(bundle: MapBundle) -> tuple[tuple[ImageFunnel, ...], dict[str, Any]]:
    return read_funnel(bundle.folder / "funnel.json")


def _fallen_first(funnel: Sequence[ImageFunnel]) -> list[ImageFunnel]:
    return sorted(funnel, key=lambda row: (STEPS.index(row.step), row.name))


def _stats(stats: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Name and value of what a reader wants to know of the map."""
    shown = dict(stats)
    if "images" in shown and "registered" in shown:
        shown["registered"] = f"{shown['registered']} of {shown['images']}"
    others = shown.get("other_models") or []
    rows = [(text, shown[name]) for name, text in _STAT_NAMES.items() if name in shown]
    if others:
        sizes = ", ".join(f"{each['registered']} images" for each in others)
        rows.append(("other, smaller models", sizes))
    return rows


def _layers(dots: Sequence[PlanDot]) -> list[tuple[str, int]]:
    """Kinds of the plan's dots and how many there are, for its legend."""
    kinds = ("db", *reversed(_STATUS_ORDER))
    counts = {kind: sum(dot.kind == kind for dot in dots) for kind in kinds}
    return [(kind, count) for kind, count in counts.items() if count]


def _coarsest(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    thresholds = metrics.get("thresholds") or []
    if not thresholds:
        return None
    return max(each[0] for each in thresholds), max(each[1] for each in thresholds)


def _within(found: PoseErrors, limit: tuple[float, float]) -> bool:
    return found.error <= limit[0] and found.error_deg <= limit[1]


def _number(value: Any, digits: int = 3) -> str:
    """Numbers as people read them: integers with thin spaces, others with some digits."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", "\u2009")
    if value != 0 and abs(value) < 10 ** (-digits - 1):
        return f"{value:.1e}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
