"""Errors of camera poses, recall at thresholds, and their summary per group.

The protocol is that of visuallocalization.net: a query counts as localized within (d, a) if its
camera centre is at most d from the true one *and* its orientation at most a; a query without a pose
counts as a miss, so every query is in the denominator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from loc.types import Pose

Threshold = tuple[float, float]
#: The group that holds every query.
ALL = "all"


def pose_error(estimate: Pose, truth: Pose) -> tuple[float, float]:
    """Distance of the camera centres (world units) and angle between the orientations (degrees).

    The angle is ``2 atan2(|v|, |w|)`` of the relative quaternion: the usual arc cosine of the trace
    has no digits left below about 1e-6 degrees and is NaN beside 1.
    """
    position = float(np.linalg.norm(estimate.center_in_world - truth.center_in_world))
    a, b = estimate.quat_xyzw, truth.quat_xyzw
    vector = b[3] * a[:3] - a[3] * b[:3] - np.cross(a[:3], b[:3])
    scalar = abs(float(a @ b))
    return position, math.degrees(2 * math.atan2(float(np.linalg.norm(vector)), scalar))


def recall(
    errors: Iterable[tuple[float, float]], thresholds: Sequence[Threshold], n_queries: int
) -> list[float]:
    """Share of ``n_queries`` within each threshold.

    Args:
        errors: (world units, degrees) of the localized queries; infinite ones are misses.
        thresholds: (world units, degrees), both inclusive.
        n_queries: all queries, localized or not; with 0 every recall is 0.
    """
    listed = list(errors)
    return [
        sum(position <= near and angle <= small for position, angle in listed) / n_queries
        if n_queries
        else 0.0
        for near, small in thresholds
    ]


def summarize(
    results: Mapping[str, Pose | None],
    truth: Mapping[str, Pose],
    groups: Mapping[str, str],
    thresholds: Sequence[Threshold],
) -> dict[str, Any]:
    """Counts, recall and errors per group, ready for JSON.

    Args:
        results: query name → pose, or None; a query of ``truth`` that is missing has no pose.
        truth: every query, with its true pose. Results for other names are not evaluated.
        groups: query name → group (day, night, …); default ``all``.
        thresholds: (world units, degrees).

    Returns:
        ``{"groups": {"all": row, "day": row, …}}``; a row has ``queries``, ``localized``, ``recall``
        (threshold name → share of all queries), ``median_error`` and ``median_error_deg`` over **all**
        queries, where one without a pose counts as infinitely wrong, and ``max_error`` and
        ``max_error_deg`` over the localized ones. None stands for infinite, or for no query.
    """
    errors: dict[str, tuple[float, float] | None] = {}
    members: dict[str, list[str]] = {ALL: []}
    for name in sorted(truth):
        pose = results.get(name)
        errors[name] = None if pose is None else pose_error(pose, truth[name])
        members[ALL].append(name)
        group = groups.get(name, ALL)
        if group != ALL:
            members.setdefault(group, []).append(name)
    ordered = [ALL, *sorted(group for group in members if group != ALL)]
    return {"groups": {group: _row([errors[n] for n in members[group]], thresholds) for group in ordered}}


def threshold_name(threshold: Threshold) -> str:
    """How a threshold is called in tables.

    >>> threshold_name((0.25, 2.0))
    '0.25, 2°'
    """
    return f"{threshold[0]:g}, {threshold[1]:g}°"


def _row(errors: Sequence[tuple[float, float] | None], thresholds: Sequence[Threshold]) -> dict[str, Any]:
    localized = [error for error in errors if error is not None]
    lost = [(math.inf, math.inf)] * (len(errors) - len(localized))
    shares = recall(localized, thresholds, len(errors))
    row: dict[str, Any] = {
        "queries": len(errors),
        "localized": len(localized),
        "recall": {threshold_name(each): share for each, share in zip(thresholds, shares, strict=True)},
    }
    for column, suffix in enumerate(("", "_deg")):
        row[f"median_error{suffix}"] = _finite(
            median(e[column] for e in localized + lost) if errors else None
        )
        row[f"max_error{suffix}"] = max((error[column] for error in localized), default=None)
    return row


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
