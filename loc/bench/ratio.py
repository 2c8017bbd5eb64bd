"""What a benchmark measures: ratios inside one run, so that the machine's speed cancels.

Absolute times of a shared machine say little. So everything here is a ratio of two things timed in
turn (A B, B A, A B …), or the share of one inside the other, and its median over the repeats.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

Timed = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How much to measure: ``quick`` takes seconds in all and proves only that the benchmarks run."""

    repeats: int = 5
    quick: bool = False


@dataclass(frozen=True)
class Ratio:
    """One measured ratio.

    Attributes:
        benchmark: the benchmark it belongs to.
        what: what is divided by what.
        values: one per repeat; empty if it could not be measured, then ``note`` says why.
        goal: the bound that was set, or None where there is none.
        ceiling: the goal is an upper bound.
        note: what limits or explains the number.
    """

    benchmark: str
    what: str
    values: tuple[float, ...]
    goal: float | None = None
    ceiling: bool = False
    note: str = ""

    @property
    def median(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None without a goal or a measurement."""
        if self.goal is None or self.median is None:
            return None
        return self.median <= self.goal if self.ceiling else self.median >= self.goal

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "median": None if self.median is None else round(self.median, 4),
            "min": round(min(self.values), 4) if self.values else None,
            "max": round(max(self.values), 4) if self.values else None,
            "repeats": len(self.values),
            "goal": None if self.goal is None else f"{'<=' if self.ceiling else '>='} {self.goal:g}",
            "met": self.met,
            "note": self.note,
        }


def seconds(call: Timed) -> float:
    """Wall time of one call, without the garbage collector, as :mod:`timeit` does it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    finally:
        if collects:
            gc.enable()


def times_of(ours: Timed, bare: Timed, repeats: int) -> tuple[float, ...]:
    """How many times as long as ``bare`` takes ``ours``: one ratio per repeat.

    Both run once uncounted. Who goes first alternates, so that a drift of the machine's speed
    favours neither.
    """
    ours()
    bare()
    ratios = []
    for number in range(repeats):
        if number % 2:
            b, a = seconds(bare), seconds(ours)
        else:
            a, b = seconds(ours), seconds(bare)
        ratios.append(a / b)
    return tuple(ratios)


def speed_of(ours: Timed, bare: Timed, repeats: int) -> tuple[float, ...]:
    """Speed of ``ours`` as a fraction of the speed of ``bare``; see :func:`times_of`."""
    return tuple(1 / ratio for ratio in times_of(ours, bare, repeats))


class Clock:
    """Wall time of the calls of one function; see :func:`clocked`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0


@contextmanager
def clocked(owner: Any, name: str) -> Iterator[Clock]:
    """Inside the block, add up the wall time of all calls of ``owner.name`` (of one thread at a time)."""
    clock, original = Clock(), getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            clock.seconds += time.perf_counter() - started
            clock.calls += 1

    setattr(owner, name, timed)
    try:
        yield clock
    finally:
        setattr(owner, name, original)
