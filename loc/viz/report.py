"""The report of a run: one self-contained HTML page for any browser, with or without scripts.

The page loads nothing: its content security policy forbids it, and allows no script but the one that
is written into it (sorting and filtering of the queries; without it the page is complete).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loc.sfm.bundle import MapBundle
from loc.sfm.funnel import STEPS, ImageFunnel, read_funnel
from loc.sfm.model import read_colors
from loc.types import Pose, QueryResult, Scene
from loc.viz.curves import Plot, inlier_plot, recall_plot
from loc.viz.overhead import Plan, PlanQuery, draw_plan
from loc.viz.page import render_page
from loc.viz.palette import group_keys
from loc.viz.queryrows import STATUS_ORDER, STATUS_TEXT, PoseErrors, QueryRow, query_rows, with_pictures

__all__ = ["PoseErrors", "render_evaluation", "render_report"]

#: Images listed in the funnel's table; those that fell come first. All are in funnel.json.
MAX_FUNNEL_ROWS = 400
_ALL = "all"
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
class GroupSummary:
    """One card of the summary: statuses of a group's queries, and its row of the metrics, if any."""

    name: str
    queries: int
    statuses: tuple[tuple[str, int], ...]
    measured: dict[str, Any] | None


@dataclass(frozen=True)
class Survivors:
    """What came through a step of the funnel."""

    label: str
    count: int
    total: int
    lost: str = ""

    @property
    def percent(self) -> float:
        return 100 * self.count / self.total if self.total else 0.0


@dataclass(frozen=True)
class Known:
    """What is known of the queries besides their results.

    Attributes:
        metrics: with ``groups`` as :func:`loc.metrics.poses.summarize` gives them, or without.
        errors: query name → errors, where there are a pose and a ground truth.
        truth: query name → true pose, where there is one.
        ranked: query name → database images it was matched with, most similar first.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, PoseErrors] = field(default_factory=dict)
    truth: Mapping[str, Pose] = field(default_factory=dict)
    ranked: Mapping[str, Sequence[str]] = field(default_factory=dict)


def render_report(
    scene: Scene,
    bundle: MapBundle,
    results: Sequence[QueryResult],
    known: Known,
    *,
    title: str,
    workers: int = 1,
) -> str:
    """The page as text. Every string from outside is escaped by the template engine.

    Args:
        workers: threads that draw pictures.
    """
    # Where a query is matched with every image of the map, their order says nothing.
    ranked = {name: images for name, images in known.ranked.items() if len(images) < len(bundle.poses)}
    rows = query_rows(scene, results, metrics=known.metrics, errors=known.errors, ranked=ranked)
    rows = with_pictures(rows, scene, bundle, workers=workers)
    funnel, pairs = read_funnel(bundle.folder / "funnel.json")
    groups = _groups(rows, known.metrics)
    ordered = sorted(funnel, key=lambda row: (STEPS.index(row.step), row.name))
    return render_page(
        "report.html.j2",
        title=title,
        methods=_methods(bundle.blocks),
        config=json.dumps(bundle.blocks, indent=2, ensure_ascii=False),
        stats=_stats(bundle.stats),
        groups=groups,
        keys=group_keys([group.name for group in groups]),
        rows=rows,
        photos=_photos(rows),
        wrong_ok=sum(row.wrong and row.result.status == "ok" for row in rows),
        plots=_plots(rows, [group.name for group in groups], known.metrics, bundle.localize),
        status_text=STATUS_TEXT,
        statuses=[
            status for status in reversed(STATUS_ORDER) if any(r.result.status == status for r in rows)
        ],
        funnels=_funnels(funnel, pairs, rows),
        funnel=ordered[:MAX_FUNNEL_ROWS],
        fallen=sum(row.step != "registered" for row in funnel),
        funnel_total=len(funnel),
        skipped=sorted((name, why) for name, why in scene.skipped.items()),
        plan=_plan(rows, bundle, known.truth),
        anchors={row.result.name: f"q{number}" for number, row in enumerate(rows, start=1)},
    )


def render_evaluation(summary: Mapping[str, Any], *, title: str) -> str:
    """The page of ``loc eval``: recall per group, its curves, and a row per query.

    Args:
        summary: what :func:`loc.stages.evaluate.evaluate_files` returns.
    """
    worst_first = sorted(
        summary["per_query"],
        key=lambda row: (row["localized"], -(row["error"] or 0.0), row["name"]),
    )
    errors = [
        (row["group"], None if not row["localized"] else PoseErrors(row["error"], row["error_deg"]))
        for row in summary["per_query"]
    ]
    return render_page(
        "eval.html.j2",
        title=title,
        summary=summary,
        rows=worst_first,
        keys=group_keys(summary["groups"]),
        plots=_recall_plots(errors, list(summary["groups"]), summary),
    )


def _groups(rows: Sequence[QueryRow], metrics: Mapping[str, Any]) -> list[GroupSummary]:
    """All queries, then each group, if there is more than one."""
    measured = metrics.get("groups") or {}
    names = sorted({row.group for row in rows} | set(measured), key=lambda name: (name != _ALL, name))
    if not rows:
        return []
    named = [name for name in names if name != _ALL]
    if len(named) == 1 and all(row.group == named[0] for row in rows):
        named = []
    out = []
    for name in [_ALL, *named]:
        members = [row for row in rows if name in (_ALL, row.group)]
        counts: Counter[str] = Counter(row.result.status for row in members)
        statuses = tuple((each, counts[each]) for each in reversed(STATUS_ORDER) if counts[each])
        out.append(GroupSummary(name, len(members), statuses, measured.get(name)))
    return out


def _plots(
    rows: Sequence[QueryRow], groups: Sequence[str], metrics: Mapping[str, Any], localize: Mapping[str, Any]
) -> list[Plot]:
    """Recall against both errors where there is a ground truth, else the inliers; none without queries."""
    if not rows:
        return []
    if metrics.get("groups"):
        return _recall_plots([(row.group, row.errors) for row in rows], groups, metrics)
    inliers: dict[str, list[int]] = {name: [] for name in groups}
    for row in rows:
        for name in {_ALL, row.group} & set(inliers):
            inliers[name].append(row.result.num_inliers if row.result.pose else 0)
    return [inlier_plot(inliers, enough=int(localize.get("min_inliers_ok", 30)))]


def _recall_plots(
    errors: Sequence[tuple[str, PoseErrors | None]], groups: Sequence[str], metrics: Mapping[str, Any]
) -> list[Plot]:
    """Recall against the position error and against the rotation error, a curve per group."""
    totals = {name: metrics["groups"][name]["queries"] for name in groups if name in metrics["groups"]}
    found: dict[str, list[PoseErrors]] = {name: [] for name in totals}
    for group, each in errors:
        for name in {_ALL, group} & set(found):
            if each is not None:
                found[name].append(each)
    thresholds = metrics["thresholds"]
    return [
        recall_plot(
            {name: [each.error for each in values] for name, values in found.items()},
            totals,
            title="Position",
            x_label="position error, world units",
            thresholds=[each[0] for each in thresholds],
        ),
        recall_plot(
            {name: [each.error_deg for each in values] for name, values in found.items()},
            totals,
            title="Rotation",
            x_label="rotation error, degrees",
            thresholds=[each[1] for each in thresholds],
        ),
    ]


def _funnels(
    funnel: Sequence[ImageFunnel], pairs: Mapping[str, Any], rows: Sequence[QueryRow]
) -> list[tuple[str, list[Survivors]]]:
    """How much came through every step: database images and their pairs, and queries."""
    images = _survivors(
        Counter(row.step for row in funnel),
        ("unreadable", "keypoints", "matches", "verification", "registration"),
        ("database images", "can be read", "have keypoints", "have matches", "verified", "in the map"),
    )
    counts = [int(count) for count in pairs.values()]
    listed = [Survivors(f"pairs {name}", int(count), counts[0]) for name, count in pairs.items()]
    out = [("Database images", images), ("Pairs of database images", listed)]
    if rows:
        queries = _survivors(
            Counter(row.result.status for row in rows),
            STATUS_ORDER[:-1],
            ("queries", "can be read", "have pairs", "see points of the map", "have a pose", "are ok"),
        )
        out.append(("Queries", queries))
    return out


def _survivors(fallen: Mapping[str, int], steps: Sequence[str], labels: Sequence[str]) -> list[Survivors]:
    total = left = sum(fallen.values())
    out = [Survivors(labels[0], total, total)]
    for step, label in zip(steps, labels[1:], strict=True):
        left -= fallen.get(step, 0)
        lost = fallen.get(step, 0)
        out.append(Survivors(label, left, total, f"{lost} {step}" if lost else ""))
    return out


def _plan(rows: Sequence[QueryRow], bundle: MapBundle, truth: Mapping[str, Pose]) -> Plan | None:
    queries = [
        PlanQuery(
            row.result.name,
            row.result.status,
            row.group,
            row.result.pose,
            truth.get(row.result.name),
            row.wrong,
        )
        for row in rows
    ]
    poses = [bundle.poses[name] for name in bundle.registered]
    return draw_plan(poses, queries, bundle.index.xyz, read_colors(bundle.model_folder))


def _photos(rows: Sequence[QueryRow]) -> dict[str, str]:
    """URI → id of every photo on the page: one that is shown twice is embedded once."""
    ids: dict[str, str] = {}
    for row in rows:
        if row.picture is None:
            continue
        for photo in (row.picture.query, row.picture.reference, *(each.photo for each in row.stamps)):
            if photo is not None:
                ids.setdefault(photo.uri, f"p{len(ids) + 1}")
    return ids


def _methods(blocks: Mapping[str, Any]) -> list[str]:
    """Names of the plug-ins, in the order of the line."""
    out = []
    for section in ("features", "globals", "matcher"):
        block = blocks.get(section)
        if block is not None:
            out.append(str(block.get("use") if isinstance(block, Mapping) else block))
    return out


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
