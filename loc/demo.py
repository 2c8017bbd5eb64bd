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
    # The config asks for 50 database images per query, of thousands in Aachen; of 60 here, 20 are plenty.
    pairs = [{"use": "covisibility", "for": "map", "k": 20}, {"use": "retrieval", "for": "query", "k": 20}]
    return load_config("aachen_sift", {"scene.images": str(root), "pairs": pairs, **(overrides or {})})
