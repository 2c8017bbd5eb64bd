"""One set of colours for the report and the 3-D view, distinct for most kinds of colour vision."""

from __future__ import annotations

from collections.abc import Iterable

#: Groups with a colour of their own; ``all`` holds queries of no particular group.
_KNOWN = ("all", "day", "night")
_OTHERS = tuple(f"g{number}" for number in range(1, 7))
#: sRGB of what is drawn on a dark ground; the style sheet of the report has them for both of its modes.
ON_DARK: dict[str, str] = {
    "db": "#7d8a99",
    "all": "#5aa2ff",
    "day": "#ffb02e",
    "night": "#a78bfa",
    "g1": "#2dd4bf",
    "g2": "#f472b6",
    "g3": "#a3e635",
    "g4": "#38bdf8",
    "g5": "#fdba74",
    "g6": "#c4b5fd",
    "failed": "#ff4d4f",
    "ray": "#8f7433",
}


def group_keys(groups: Iterable[str]) -> dict[str, str]:
    """Key of a colour per group: its own for ``all``, ``day`` and ``night``, the others in turn.

    >>> group_keys(["rain", "night", "all"])
    {'all': 'all', 'night': 'night', 'rain': 'g1'}
    """
    ordered = sorted(set(groups), key=lambda group: (group != "all", group))
    others = [group for group in ordered if group not in _KNOWN]
    turn = {group: _OTHERS[number % len(_OTHERS)] for number, group in enumerate(others)}
    return {group: turn.get(group, group) for group in ordered}


def rgb(key: str) -> tuple[float, float, float]:
    """A colour of :data:`ON_DARK` as numbers in [0, 1].

    >>> rgb("all")[2]
    1.0
    """
    text = ON_DARK[key].lstrip("#")
    red, green, blue = (int(text[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return red, green, blue
