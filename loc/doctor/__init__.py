"""`loc doctor`: is this environment, and is this data, fit for a run? Looks, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loc.doctor.findings import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]


def diagnose(
    target: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    full: bool = False,
    with_environment: bool = True,
) -> Diagnosis:
    """Check the environment and, where there is a target, the data.

    Args:
        target: a folder of photos, a run folder, the root of an Aachen data set, a config's file, or
            the name of a shipped config; None: only the environment.
        overrides: dotted config keys, as by ``--set``.
        full: decode every photo; otherwise headers and the ends of the files are read.
        with_environment: look at the environment at all.

    Raises:
        ConfigError, DataError: the target is neither a folder nor a config.
    """
    from loc.doctor.environment import examine_environment
    from loc.doctor.scene import examine_scene, scene_of

    config = None if target is None else scene_of(target, overrides or {})
    findings = examine_environment() if with_environment else []
    if config is not None:
        findings += examine_scene(config, full=full)
    return Diagnosis(tuple(findings))
