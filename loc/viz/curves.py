"""Recall curves as SVG paths: how many queries are within an error, over all errors at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loc.types import Array

#: Size of a plot and of its axes' margins, SVG units.
WIDTH, HEIGHT = 480.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 22.0, 12.0, 44.0
_MAX_DECADES = 5


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, SVG units."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """One group's line: ``d`` of an SVG path, and how it ends for those who cannot see it."""

    group: str
    d: str
    about: str


@dataclass(frozen=True)
class Plot:
    """A plot ready for the template; all lengths in SVG units of a ``WIDTH`` × ``HEIGHT`` box."""

    title: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def recall_plot(
    errors: Mapping[str, Sequence[float]],
    totals: Mapping[str, int],
    *,
    title: str,
    x_label: str,
    thresholds: Sequence[float],
) -> Plot:
    """Share of queries with at most an error, for every error; one curve per group.

    Args:
        errors: group → errors of its localized queries.
        totals: group → number of its queries, localized or not: the curves of groups with failures
            end below 100 %.
        thresholds: marked on the axis.
    """
    every = np.array([value for group in errors.values() for value in group], np.float64)
    low, high = _decades(every, thresholds)
    curves = []
    for group, values in errors.items():
        ordered = np.sort(np.asarray(values, np.float64))
        total = totals[group]
        best = len(ordered) / total if total else 0.0
        share = np.arange(1, len(ordered) + 1) / max(total, 1)
        at = _log_x(ordered, low, high)
        curves.append(Curve(group, _steps(at, share), f"{group}: reaches {100 * best:.0f} %"))
    marks = tuple(
        Tick(_page(float(_log_x(np.array([value]), low, high)[0])), f"{value:g}")
        for value in sorted(set(thresholds))
        if value > 0
    )
    ticks = tuple(
        Tick(_page((power - low) / (high - low)), f"{10.0**power:g}") for power in range(low, high + 1)
    )
    return Plot(title, x_label, ticks, _percent_ticks(), marks, tuple(curves))


def inlier_plot(inliers: Mapping[str, Sequence[int]], *, enough: int) -> Plot:
    """Share of queries with at least so many inliers: what there is to see without a ground truth.

    Args:
        inliers: group → inliers of every query (0 where it failed).
        enough: inliers that ``ok`` needs, marked on the axis.
    """
    most = max((max(values, default=0) for values in inliers.values()), default=0)
    high = max(2, math.ceil(math.log10(max(most, enough, 1))))
    curves = []
    for group, values in inliers.items():
        found = np.sort(np.array([value for value in values if value > 0], np.float64))[::-1]
        share = np.arange(1, len(found) + 1) / max(len(values), 1)
        # Read from the right: the share grows as fewer inliers are asked for.
        steps = _steps(1.0 - _log_x(found, 0, high), share, mirrored=True)
        curves.append(Curve(group, steps, f"{group}: {len(found)} of {len(values)} have inliers"))
    ticks = tuple(Tick(_page(power / high), f"{10**power:g}") for power in range(high + 1))
    marks = (Tick(_page(float(_log_x(np.array([enough]), 0, high)[0])), str(enough)),)
    return Plot("Inliers", "at least so many inliers", ticks, _percent_ticks(), marks, tuple(curves))


def _decades(values: Array, thresholds: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that the axis begins and ends with."""
    positive = [value for value in thresholds if value > 0] or [1.0]
    high = math.ceil(math.log10(max(positive)) - 1e-9)
    least = min(positive)
    found = values[values > 0]
    if len(found):
        least = min(least, float(np.percentile(found, 5)))
    low = math.floor(math.log10(max(least, 1e-12)) + 1e-9)
    return max(min(low, high - 2), high - _MAX_DECADES), high


def _log_x(values: Array, low: int, high: int) -> Array:
    """Place on the axis in [0, 1]; what lies beyond its right end stays beyond."""
    tiny = 10.0**low
    placed: Array = (np.log10(np.maximum(values, tiny)) - low) / (high - low)
    return placed


def _steps(at: Array, share: Array, *, mirrored: bool = False) -> str:
    """Path of a staircase from the axis; of the steps within a quarter of a unit the last is drawn."""
    inside = at <= 1.0
    pixels = np.round(4 * (WIDTH - LEFT - RIGHT) * at[inside])
    last = np.append(pixels[1:] != pixels[:-1], True) if len(pixels) else np.zeros(0, bool)
    path = [f"M{_x(0.0, mirrored):.1f} {_y(0.0):.1f}"]
    for x, y in zip(at[inside][last].tolist(), share[inside][last].tolist(), strict=True):
        path.append(f"H{_x(x, mirrored):.1f}V{_y(y):.1f}")
    return "".join([*path, f"H{_x(1.0, mirrored):.1f}"])


def _x(at: float, mirrored: bool) -> float:
    return _page(1.0 - at if mirrored else at)


def _page(at: float) -> float:
    return LEFT + at * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)


def _percent_ticks() -> tuple[Tick, ...]:
    return tuple(Tick(_y(percent / 100), f"{percent} %") for percent in (0, 25, 50, 75, 100))
