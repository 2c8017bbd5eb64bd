"""`loc`: visual localization in SfM workflows, from a folder of photos to poses with a verdict."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# PEP 562: `import loc` costs nothing; each name imports its module on first use.
_EXPORTS = {
    "load_config": "loc.plugins.blocks",
    "run": "loc.pipeline",
    "plan": "loc.planning",
    "Runtime": "loc.runtime.runtime",
    "Localizer": "loc.stages.localize",
    "MapBundle": "loc.sfm.bundle",
    "Camera": "loc.types",
    "Pose": "loc.types",
    "LocalFeatures": "loc.types",
    "Matches": "loc.types",
    "Scene": "loc.types",
    "QueryResult": "loc.types",
    "LocError": "loc.errors",
}

if TYPE_CHECKING:
    from loc.errors import LocError
    from loc.pipeline import run
    from loc.planning import plan
    from loc.plugins.blocks import load_config
    from loc.runtime.runtime import Runtime
    from loc.sfm.bundle import MapBundle
    from loc.stages.localize import Localizer
    from loc.types import Camera, LocalFeatures, Matches, Pose, QueryResult, Scene

__all__ = [
    "Camera",
    "LocError",
    "LocalFeatures",
    "Localizer",
    "MapBundle",
    "Matches",
    "Pose",
    "QueryResult",
    "Runtime",
    "Scene",
    "load_config",
    "plan",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'loc' has no attribute {name!r}")


def __dir__() -> list[str]:  # not globals(): that name is our sub-package once it is imported
    return sorted([*__all__, "__version__"])
