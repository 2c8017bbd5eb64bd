"""`loc demo`: the main job on a rendered town with exact truth, without network or weights.

The photos are rendered (:mod:`loc.town`) into the folders of Aachen Day-Night v1.1, then the ordinary
pipeline runs on them: map from known poses, localize the queries by day and night, evaluate, report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loc.config import RunConfig
from loc.plugins.blocks import load_config
from loc.runtime.runtime import Runtime
from loc.town.dataset import make_dataset

#: Folder of the rendered data set under the run folder.
TOWN = "town"


def make_demo(
    folder: Path,
    overrides: dict[str, Any] | None = None,
    *,
    size: str = "default",
    runtime: Runtime | None = None,
) -> RunConfig:
    """Render the town, unless it is there, and return the config that maps and localizes it.

    Args:
        folder: the run folder; the data set is put into a folder under it.
        overrides: dotted config keys, e.g. ``{"features": "sift"}``.
        size: ``small``, ``default`` or ``large``.
    """
    root = make_dataset(folder / TOWN, size, runtime=runtime)
    scene = {
        "scene.images": str(root / "images/images_upright"),
        "scene.model": str(root / "3D-models/aachen_v_1_1"),
        "scene.queries": str(root / "queries/*_with_intrinsics.txt"),
        "scene.ground_truth": str(root / "ground_truth.txt"),
    }
    return load_config("colmap_sift", {**scene, **(overrides or {})})
