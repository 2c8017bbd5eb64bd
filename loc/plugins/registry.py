"""Finding plug-ins: Python entry points, ``package.module:Class``, and presets.

Listing imports nothing. A broken plug-in fails only when it is used, and the error names the
distribution it came from. The built-ins are registered in `pyproject.toml` the way a third
party does it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from loc.config import suggest
from loc.errors import ConfigError, PluginError
from loc.plugins.protocols import Kind

GROUPS: dict[Kind, str] = {
    "extractor": "loc.extractors",
    "global": "loc.global_extractors",
    "matcher": "loc.matchers",
}
#: What a class of each kind must define, checked when it is loaded.
_REQUIRED: dict[Kind, tuple[str, ...]] = {
    "extractor": ("Config", "version", "pixel_origin", "color", "parallel", "min_side", "ranked", "__call__"),
    "global": ("Config", "version", "source", "needs_fit", "__call__"),
    "matcher": ("Config", "version", "requires", "prepare", "__call__"),
}


@dataclass(frozen=True)
class PluginInfo:
    """A registered plug-in, not imported yet."""

    kind: Kind
    name: str
    target: str
    distribution: str


@lru_cache(maxsize=1)
def _entry_points() -> dict[Kind, dict[str, list[EntryPoint]]]:
    found: dict[Kind, dict[str, list[EntryPoint]]] = {}
    for kind, group in GROUPS.items():
        found[kind] = {}
        for point in entry_points(group=group):
            known = found[kind].setdefault(point.name, [])
            # The same installation can be listed twice (an editable install beside its source).
            if all(
                (other.value, _distribution(other)) != (point.value, _distribution(point)) for other in known
            ):
                known.append(point)
    return found


def list_plugins(kind: Kind | None = None) -> list[PluginInfo]:
    """All registered plug-ins, sorted by kind and name; imports none of them."""
    kinds = [kind] if kind else list(GROUPS)
    return [
        PluginInfo(each, name, point.value, _distribution(point))
        for each in kinds
        for name, points in sorted(_entry_points()[each].items())
        for point in points
    ]


def load_plugin(kind: Kind, name: str) -> Any:
    """The plug-in class called ``name``, or at ``package.module:Class``.

    Raises:
        ConfigError: no plug-in has this name.
        PluginError: two distributions register it, it cannot be imported, or its class lacks a
            part of the protocol.
    """
    if ":" in name:
        return _checked(kind, name, _import(name, f"use: {name}"))
    points = _entry_points()[kind].get(name)
    if not points:
        raise ConfigError(
            f"no {kind} is called {name!r}",
            f"{suggest(name, list(_entry_points()[kind]))}   see: loc plugins",
        )
    if len(points) > 1:
        owners = " and ".join(sorted(_distribution(point) for point in points))
        raise PluginError(
            f"{kind} {name!r} is registered by {owners}",
            "uninstall one of them, or name the class: use: package.module:Class",
        )
    return _checked(kind, name, _import(points[0].value, f"distribution {_distribution(points[0])}"))


def _import(target: str, owner: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a third party may raise anything
        if _interrupted(error):
            raise KeyboardInterrupt from error
        raise PluginError(
            f"cannot import {target} ({owner}): {type(error).__name__}: {error}",
            f"check it with: python -c 'import {module_name}'",
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise PluginError(f"{module_name} has no {attribute!r} ({owner})") from error


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what made an import fail (extension modules turn it into an ImportError)."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _checked(kind: Kind, name: str, cls: Any) -> Any:
    missing = [part for part in _REQUIRED[kind] if not hasattr(cls, part)]
    if missing or not isinstance(cls, type):
        article = "an" if kind == "extractor" else "a"
        raise PluginError(
            f"{name} is not {article} {kind}: it lacks {', '.join(missing) or 'a class'}",
            f"see loc.plugins.protocols for what {article} {kind} defines",
        )
    return cls


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"
