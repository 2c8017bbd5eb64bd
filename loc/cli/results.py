"""Results as JSON for machines and as rows for people."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING, Any

from loc.errors import ConfigError

if TYPE_CHECKING:
    from loc.pipeline import Run
    from loc.planning import Step
    from loc.types import QueryResult

Rows = tuple[list[str], list[list[str]]]


def run_json(finished: Run) -> dict[str, Any]:
    """What ``--json`` of ``run`` and its parts prints; keys of stages that did not run are absent."""
    out: dict[str, Any] = {"run": str(finished.workdir)}
    skipped = dict(finished.scene.skipped)
    if finished.features is not None:
        skipped |= finished.features.skipped
        out["features"] = {"images": len(finished.features.keys)}
    if finished.matches is not None:
        queries = finished.query_matches
        out["matches"] = {
            "map_pairs": len(finished.matches.keys),
            "query_pairs": 0 if queries is None else len(queries.keys),
        }
    if finished.bundle is not None:
        # The four figures of a reconstruction stand at the top, where scripts look for them.
        out |= finished.bundle.stats
    if finished.poses is not None:
        out["queries"] = [query_json(result) for result in finished.poses.results]
    if finished.report is not None:
        out["evaluation"] = finished.report.metrics
        out["report"] = str(finished.report.folder / "index.html")
    out["skipped"] = dict(sorted(skipped.items()))
    out["seconds"] = finished.seconds
    return out


def run_lines(finished: Run) -> list[str]:
    """What a run prints on a terminal."""
    out = run_json(finished)
    lines = []
    if finished.features is not None:
        lines.append(f"features   {len(finished.features.keys)} images")
    if finished.matches is not None:
        pairs = out["matches"]
        lines.append(f"matches    {pairs['map_pairs']} map pairs, {pairs['query_pairs']} query pairs")
    if finished.bundle is not None:
        stats = finished.bundle.stats
        lines.append(
            f"map        {stats['registered']} of {stats['images']} images registered, "
            f"{stats['points']} points, "
            f"mean reprojection error {_number(stats['mean_reprojection_error_px'])} px"
        )
    if finished.poses is not None and finished.poses.results:
        counts: dict[str, int] = {}
        for result in finished.poses.results:
            counts[result.status] = counts.get(result.status, 0) + 1
        shown = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        lines.append(f"queries    {len(finished.poses.results)}: {shown}")
    if finished.report is not None and finished.report.metrics.get("groups"):
        header, rows = evaluation_rows(finished.report.metrics)
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        for row in [header, *rows]:
            lines.append(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            )
    for name, reason in out["skipped"].items():
        lines.append(f"skipped    {printable(name)}: {printable(reason)}")
    if finished.report is not None:
        lines.append(f"report     {finished.report.folder / 'index.html'}")
    return lines


def printable(text: str) -> str:
    """One line that moves no cursor: control characters, and bytes that are not UTF-8, as escapes."""
    return "".join(
        ascii(each)[1:-1] if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") else each for each in text
    )


def query_json(result: QueryResult) -> dict[str, Any]:
    """One query: status, pose in both orders of the quaternion's name, counts."""
    pose = None
    if result.pose is not None:
        pose = {**result.pose.to_json(), "center_in_world": result.pose.center_in_world.tolist()}
    return {
        "name": result.name,
        "status": result.status,
        "reason": result.reason,
        "cam_from_world": pose,
        "camera": None if result.camera is None else result.camera.to_json(),
        "matches": result.num_matches,
        "inliers": result.num_inliers,
        "second_cluster_ratio": result.second_cluster_ratio,
        "references": list(result.references[:10]),
    }


def photo_rows(results: list[QueryResult]) -> Rows:
    """A row per photo of ``loc localize-photo``."""
    rows = []
    for result in results:
        center = "-"
        if result.pose is not None:
            center = " ".join(f"{value:.4f}" for value in result.pose.center_in_world)
        inliers = f"{result.num_inliers}/{result.num_matches}"
        rows.append([printable(result.name), result.status, inliers, center, printable(result.reason)])
    return ["photo", "status", "inliers", "camera centre", "why"], rows


def evaluation_rows(summary: dict[str, Any]) -> Rows:
    """A row per group: recall at every threshold and median errors."""
    groups = summary["groups"]
    names = list(next(iter(groups.values()))["recall"]) if groups else []
    rows = []
    for group, values in groups.items():
        recalls = [f"{100 * values['recall'][name]:.1f} %" for name in names]
        medians = [_number(values["median_error"]), _number(values["median_error_deg"])]
        rows.append([group, f"{values['localized']}/{values['queries']}", *recalls, *medians])
    return ["group", "localized", *names, "median error", "median deg"], rows


def holdout_rows(summary: dict[str, Any]) -> Rows:
    """``loc holdout`` as name and value."""
    stats = summary["map"]
    return ["what", "value"], [
        ["map images", f"{stats['registered']} of {stats['images']}"],
        ["map points", str(stats["points"])],
        ["reprojection error", f"{_number(stats['mean_reprojection_error_px'])} px"],
        ["queries localized", f"{summary['localized']} of {summary['queries']}"],
        ["status", ", ".join(f"{count} {status}" for status, count in summary["status"].items())],
        ["median error", f"{_number(summary['median_error'])}, {_number(summary['median_error_deg'])} deg"],
        ["worst error", f"{_number(summary['max_error'])}, {_number(summary['max_error_deg'])} deg"],
        ["seconds", f"{summary['seconds']['total']:.1f}"],
    ]


def plan_rows(steps: list[Step]) -> Rows:
    """A row per stage of ``loc plan``."""
    rows = [[step.stage, step.counts, step.why, _size(step.nbytes), _seconds(step.seconds)] for step in steps]
    total = sum(step.nbytes or 0 for step in steps)
    known = [step.seconds for step in steps if step.seconds is not None]
    rows.append(["total", "", "", _size(total), _seconds(sum(known)) if known else "-"])
    return ["stage", "items", "why", "disk", "time"], rows


def parse_thresholds(texts: list[str] | None) -> list[tuple[float, float]] | None:
    """``0.25,2`` → (0.25, 2.0)."""
    if not texts:
        return None
    out = []
    for text in texts:
        try:
            position, degrees = (float(part) for part in text.split(","))
        except ValueError as error:
            raise ConfigError(
                f"a threshold is POSITION,DEGREES, got {text!r}", "example: --threshold 0.25,2"
            ) from error
        if not (0 <= position < math.inf and 0 <= degrees < math.inf):
            raise ConfigError(
                f"a threshold is two finite numbers, not negative: got {text!r}",
                "example: --threshold 0.25,2",
            )
        out.append((position, degrees))
    return out


def unknown_note(summary: dict[str, Any]) -> list[str]:
    """A line about poses that the evaluation had to ignore, if there are any."""
    if not summary["unknown"]:
        return []
    return [
        f"note: {summary['unknown']} of {summary['poses']} poses are not in the ground truth and were ignored"
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _size(nbytes: float | None) -> str:
    if nbytes is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
