"""What `loc doctor` says: ok, warning or problem, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]
Area = Literal["environment", "data"]

_SHOWN = 3
#: Exit codes: those of :class:`loc.errors.LocError` and :class:`loc.errors.DataError`.
_EXIT_CODES: dict[Area, int] = {"environment": 1, "data": 3}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``warning``: a run works, its result may not be what was meant; ``problem``: it does not.
        area: the environment or the data.
        check: short name of the check, stable, for machines.
        what: one sentence.
        todo: a command to type or a thing to do; empty where there is nothing to do.
        names: all photos it concerns; ``what`` shows a few.
    """

    level: Level
    area: Area
    check: str
    what: str
    todo: str = ""
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "area": self.area,
            "check": self.check,
            "what": self.what,
            "todo": self.todo,
            "names": list(self.names),
        }


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    def count(self, level: Level) -> int:
        return sum(finding.level == level for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 without problems; 1 for the environment, which comes first; 3 for the data."""
        areas = {finding.area for finding in self.findings if finding.level == "problem"}
        return next((_EXIT_CODES[area] for area in ("environment", "data") if area in areas), 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "problems": self.count("problem"),
            "warnings": self.count("warning"),
            "findings": [finding.to_json() for finding in self.findings],
        }


def some(names: Sequence[str]) -> str:
    """The first few of many names.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def visible(text: str) -> str:
    """Text with what a terminal would obey, or could not show, as Python writes it.

    >>> visible("a\\x1b[31m\\nb é")
    'a\\\\x1b[31m\\\\nb é'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def data(level: Level, check: str, what: str, todo: str = "", *, names: Iterable[str] = ()) -> Finding:
    """A finding about the data."""
    return Finding(level, "data", check, visible(what), visible(todo), tuple(names))


def environment(level: Level, check: str, what: str, todo: str = "") -> Finding:
    """A finding about the environment."""
    return Finding(level, "environment", check, visible(what), visible(todo))
