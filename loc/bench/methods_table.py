"""Tables of `loc bench methods`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loc.bench.methods import PAIRS, Result
from loc.bench.methods_pairs import WITHIN_PX
from loc.bench.methods_scenes import TOWN

Table = tuple[str, list[str], list[list[str]]]
_MAP = ["method", "registered", "points", "track", "px"]
_SECONDS = ["processor s", "s"]


def tables(results: Sequence[Result]) -> list[Table]:
    """Title, header and rows: one table per set, in the order of the results."""
    out = []
    for name in dict.fromkeys(result.set for result in results):
        of_set = [result for result in results if result.set == name]
        build = {PAIRS: _pairs, TOWN: _town}.get(name, _held_out)
        out.append(build(name, of_set))
    return out


def _pairs(name: str, results: list[Result]) -> Table:
    """Per pair: median distance (least and largest of the estimates), inliers of matches."""
    pairs = [row["pair"] for row in results[0].data["pairs"]]
    rows = []
    for result in results:
        cells = [_judged(row) for row in result.data["pairs"]]
        rows.append([result.method, f"{result.data['right']} of {len(pairs)}", *cells, *_seconds(result)])
    title = (
        f"{name}: distance of annotated points from the estimated epipolar geometry, px "
        "(least-largest of the estimates), inliers/matches"
    )
    return title, ["method", f"within {WITHIN_PX:g} px", *pairs, *_SECONDS], rows


def _judged(row: dict[str, Any]) -> str:
    """``3 (2-9), 21/235``: distance, its extremes, inliers of matches."""
    distance = "no geometry"
    if row["median_px"] is not None:
        distance = f"{row['median_px']:.0f} ({_px(row['best_px'])}-{_px(row['worst_px'])})"
    return f"{distance}, {row['inliers']}/{row['matches']}"


def _town(name: str, results: list[Result]) -> Table:
    """Recall at every threshold by day and by night."""
    groups = ("day", "night")
    rows, thresholds = [], ""
    for result in results:
        cells = ["-"] * len(groups)
        if "groups" in result.data:
            thresholds = "; ".join(result.data["groups"][groups[0]]["recall"])
            cells = [_recalls(result.data["groups"][group]) for group in groups]
        rows.append([*_map(result), _ok(result), *cells, *_seconds(result)])
    return f"{name}: queries within {thresholds}", [*_MAP, "ok", *groups, *_SECONDS], rows


def _held_out(name: str, results: list[Result]) -> Table:
    """Median error of the held-out photos, one without a pose counted as infinite."""
    rows = []
    for result in results:
        found = result.data["groups"]["all"] if "groups" in result.data else None
        error = (
            "-"
            if found is None
            else f"{_number(found['median_error'])}, {_number(found['median_error_deg'])}°"
        )
        rows.append([*_map(result), _ok(result), error, *_seconds(result)])
    return name, [*_MAP, "ok", "median error", *_SECONDS], rows


def _map(result: Result) -> list[str]:
    stats = result.data.get("map")
    if stats is None:
        return [result.method, result.data["failed"], "-", "-", "-"]
    return [
        result.method,
        f"{stats['registered']} of {stats['images']}",
        str(stats["points"]),
        f"{stats['mean_track_length']:.2f}",
        f"{stats['mean_reprojection_error_px']:.2f}",
    ]


def _ok(result: Result) -> str:
    if "status" not in result.data:
        return "-"
    return f"{result.data['status'].get('ok', 0)} of {result.data['queries']}"


def _recalls(group: dict[str, Any]) -> str:
    """Numbers of queries, not shares: of fourteen, one is seven percent."""
    counts = (round(share * group["queries"]) for share in group["recall"].values())
    return " / ".join(map(str, counts)) + f" of {group['queries']}"


def _seconds(result: Result) -> list[str]:
    """Of an interrupted measurement, only its last part is known."""
    least = "> " if result.data["resumed"] else ""
    return [f"{least}{result.data['seconds'][name]:.0f}" for name in ("processor", "wall")]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def _px(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
