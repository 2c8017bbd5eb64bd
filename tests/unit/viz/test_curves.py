"""Recall curves: the staircase of the errors, on a logarithmic axis."""

from __future__ import annotations

import re

import numpy as np
import pytest

from loc.viz.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot, inlier_plot, recall_plot


def corners(d: str) -> list[tuple[float, float]]:
    """Corners of a path of M, H and V."""
    x = y = 0.0
    out = []
    for command, first, second in re.findall(r"([MHV])([-\d.]+)(?: ([-\d.]+))?", d):
        if command == "M":
            x, y = float(first), float(second)
        elif command == "H":
            x = float(first)
        else:
            y = float(first)
        out.append((x, y))
    return out


def share_at(plot: Plot, group: str, x: float) -> float:
    """Height of a curve at a place of the page, as a share."""
    d = next(curve.d for curve in plot.curves if curve.group == group)
    y = [corner[1] for corner in corners(d) if corner[0] <= x + 1e-6][-1]
    return (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM)


def place(plot: Plot, value: float) -> float:
    first, last = plot.x_ticks[0], plot.x_ticks[-1]
    a, b, x0, x1 = float(first.label), float(last.label), first.at, last.at
    return x0 + (x1 - x0) * (np.log10(value) - np.log10(a)) / (np.log10(b) - np.log10(a))


def plot_of(errors: dict[str, list[float]], totals: dict[str, int]) -> Plot:
    return recall_plot(errors, totals, title="Position", x_label="error", thresholds=[0.25, 0.5, 5.0])


def test_the_curve_is_the_share_of_all_queries_within_an_error() -> None:
    random = np.random.default_rng(0)
    errors = (10 ** random.uniform(-2, 0.6, 80)).tolist()
    plot = plot_of({"all": errors, "day": errors[:40]}, {"all": 100, "day": 40})
    for value in (0.02, 0.1, 0.25, 1.0, 5.0):
        for group, chosen, total in (("all", errors, 100), ("day", errors[:40], 40)):
            expected = sum(error <= value for error in chosen) / total
            assert share_at(plot, group, place(plot, value)) == pytest.approx(expected, abs=0.03)
    assert share_at(plot, "all", WIDTH - RIGHT) == pytest.approx(0.8, abs=0.01)
    assert "all: reaches 80 %" in [curve.about for curve in plot.curves]


def test_the_axis_holds_the_thresholds_in_whole_decades() -> None:
    plot = plot_of({"all": [0.003, 0.02]}, {"all": 2})
    labels = [tick.label for tick in plot.x_ticks]
    assert labels == ["0.001", "0.01", "0.1", "1", "10"]
    assert [mark.label for mark in plot.marks] == ["0.25", "0.5", "5"]
    assert all(LEFT <= tick.at <= WIDTH - RIGHT for tick in (*plot.x_ticks, *plot.marks))
    assert plot.marks[0].at == pytest.approx(place(plot, 0.25), abs=0.1)


@pytest.mark.parametrize("errors", [[], [0.0], [0.0, 1e-300], [1e9]])
def test_odd_errors_stay_on_the_page(errors: list[float]) -> None:
    plot = plot_of({"all": errors}, {"all": 3})
    for x, y in corners(plot.curves[0].d):
        assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1
    assert len(plot.x_ticks) <= 6
    expected = sum(error <= 10 for error in errors) / 3
    assert share_at(plot, "all", WIDTH - RIGHT) == pytest.approx(expected, abs=0.01)


def test_five_thousand_queries_make_a_short_path() -> None:
    errors = (10 ** np.random.default_rng(0).uniform(-2, 1, 5000)).tolist()
    plot = plot_of({"all": errors}, {"all": 5000})
    assert len(plot.curves[0].d) < 25_000
    assert share_at(plot, "all", place(plot, 0.5)) == pytest.approx(
        sum(error <= 0.5 for error in errors) / 5000, abs=0.01
    )


def test_thresholds_of_zero_are_no_place_on_the_axis() -> None:
    plot = recall_plot({"all": [0.1]}, {"all": 1}, title="", x_label="", thresholds=[0.0])
    assert plot.marks == ()


def test_inliers_where_there_is_no_ground_truth() -> None:
    plot = inlier_plot({"all": [0, 0, 50, 500]}, enough=30)
    path = corners(plot.curves[0].d)  # drawn from the right: the share grows as fewer are asked for

    def share_with(least: float) -> float:
        y = [corner[1] for corner in path if corner[0] >= place(plot, least) - 0.1][-1]
        return round((HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM), 3)

    assert [share_with(least) for least in (1, 30, 50, 60, 500, 600)] == [0.5, 0.5, 0.5, 0.25, 0.25, 0]
    assert [mark.label for mark in plot.marks] == ["30"]
    assert plot.curves[0].about == "all: 2 of 4 have inliers"
    assert inlier_plot({"all": []}, enough=30).curves[0].d
