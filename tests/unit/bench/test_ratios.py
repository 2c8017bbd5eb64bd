"""How ratios are measured and judged."""

from __future__ import annotations

import time

import pytest

from loc.bench.ratio import Ratio, clocked, speed_of, times_of


def test_median_and_goal() -> None:
    floor = Ratio("match", "a / b", (0.5, 0.9, 0.7), 0.6)
    assert floor.median == 0.7
    assert floor.met is True
    assert Ratio("map", "a / b", (0.5, 0.9, 0.7), 0.6, ceiling=True).met is False
    assert Ratio("map", "a / b", (0.5,)).met is None
    assert floor.to_json() == {
        "benchmark": "match",
        "what": "a / b",
        "median": 0.7,
        "min": 0.5,
        "max": 0.9,
        "repeats": 3,
        "goal": ">= 0.6",
        "met": True,
        "note": "",
    }


def test_what_could_not_be_measured_meets_nothing() -> None:
    nothing = Ratio("retrieve", "a / b", (), 0.5, note="not enough memory")
    assert nothing.median is None
    assert nothing.met is None
    assert nothing.to_json()["repeats"] == 0


def test_both_sides_take_turns() -> None:
    calls: list[str] = []
    ratios = times_of(lambda: calls.append("ours"), lambda: calls.append("bare"), 3)
    assert len(ratios) == 3
    assert calls == ["ours", "bare", "ours", "bare", "bare", "ours", "ours", "bare"]


def test_speed_is_the_inverse_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loc.bench.ratio.seconds", lambda call: call.cost)

    class Cost:
        def __init__(self, cost: float) -> None:
            self.cost = cost

        def __call__(self) -> None:
            pass

    assert times_of(Cost(2.0), Cost(1.0), 2) == (2.0, 2.0)
    assert speed_of(Cost(2.0), Cost(1.0), 2) == (0.5, 0.5)


def test_a_clock_counts_calls_and_puts_back_what_it_replaced() -> None:
    original = time.sleep
    with clocked(time, "sleep") as clock:
        time.sleep(0.001)
        time.sleep(0.001)
    assert clock.calls == 2
    assert clock.seconds >= 0.002
    assert time.sleep is original
