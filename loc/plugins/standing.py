"""What may be said of a plug-in before it is built: was it checked with its real weights, may it be sold."""

from __future__ import annotations

from typing import Any

from loc.plugins.blocks import ResolvedPlugin
from loc.weights.card import WeightFile

#: How ``loc plugins`` and ``loc weights list`` mark weights that the project has never run.
UNVERIFIED = "weights not verified here"


def weights_verified(plugin: ResolvedPlugin) -> bool:
    """Whether the output with each file this configuration needs was checked; True without weights.

    What is not may run, and is absent from every table of results.
    """
    return all(file.output_checked for file in plugin.weights)


def unverified_files(cls: Any) -> tuple[WeightFile, ...]:
    """The files of a plug-in's class that its output was never checked with."""
    return tuple(file for file in getattr(cls, "weights", ()) if not file.output_checked)


def commercial_ok(cls: Any) -> bool | None:
    """Whether the licences of a plug-in and of all its weights allow commercial use; None: unknown.

    A class says it of itself with ``commercial_ok``; without, its weights speak for it.
    """
    files = getattr(cls, "weights", ())
    said = [file.commercial_ok for file in files]
    own = getattr(cls, "commercial_ok", None)
    if own is not None or not files:
        said.append(own)
    if False in said:
        return False
    return None if None in said else True


def commercial_use(allowed: bool | None) -> str:
    """The word for it.

    >>> commercial_use(None)
    'unknown'
    """
    return {True: "yes", False: "no", None: "unknown"}[allowed]
