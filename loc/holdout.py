"""`loc holdout`: how well would this method localize in my scene?

From a COLMAP model with poses: some images are held out, the map is triangulated from the others
alone (never from the model's points, which saw the held-out images), and the held-out images are
localized in it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from loc.config import RunConfig
from loc.errors import ConfigError, DataError
from loc.layouts import load_scene
from loc.layouts.lists import expand_glob, read_poses, write_names
from loc.pipeline import Run, run
from loc.plugins.blocks import load_config
from loc.runtime.runtime import Runtime
from loc.stores.files import make_folder, write_text

DEFAULT_EVERY = 5
_DEFAULTS: dict[str, Any] = {
    "pairs": [{"use": "auto", "for": "both"}],
    "map.mode": "triangulate",
}


def run_holdout(
    model: Path,
    images: Path,
    output: Path,
    *,
    queries: Path | None = None,
    every: int | None = None,
    overrides: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """Hold images out, map with the rest, localize them, and summarize.

    Args:
        model: COLMAP model folder with known poses.
        images: image root of the model.
        output: run folder.
        queries: list of names to hold out (of a pose list, its names); or
        every: hold out every N-th image in order of names (default 5).
        overrides: dotted config keys (``features``, ``matcher.ratio``, …).

    Returns:
        The JSON object of ``loc holdout --json``.
    """
    if queries is not None and every is not None:
        raise ConfigError("--queries and --every exclude each other", "give one of the two")
    started = time.perf_counter()
    if queries is None:
        queries = _every_nth(model, images, output, every or DEFAULT_EVERY)
    else:
        queries = _as_names(queries, output)
    config = _config(model, images, queries, overrides or {})
    scene = load_scene(config.scene)
    if not scene.db:
        raise DataError(
            f"all {len(scene.queries)} images are held out", "leave images for the map: hold out fewer"
        )
    finished = run(config, output, runtime=runtime)
    return summarize(finished, seconds=time.perf_counter() - started)


def summarize(finished: Run, *, seconds: float) -> dict[str, Any]:
    """Map statistics, statuses and pose errors of a finished run with ground truth."""
    if finished.bundle is None or finished.poses is None or finished.report is None:
        raise DataError("nothing was held out", "give --queries LIST or a smaller --every N")
    stats, results = finished.bundle.stats, finished.poses.results
    errors = finished.report.metrics["groups"]["all"]
    statuses: dict[str, int] = {}
    for result in results:
        statuses[result.status] = statuses.get(result.status, 0) + 1
    return {
        "map": {
            name: stats[name] for name in ("images", "registered", "points", "mean_reprojection_error_px")
        },
        "queries": len(results),
        "localized": sum(result.pose is not None for result in results),
        "status": dict(sorted(statuses.items())),
        "median_error": errors["median_error"],
        "median_error_deg": errors["median_error_deg"],
        "max_error": errors["max_error"],
        "max_error_deg": errors["max_error_deg"],
        "seconds": {"total": round(seconds, 3), **finished.seconds},
    }


def _config(model: Path, images: Path, queries: Path, overrides: dict[str, Any]) -> RunConfig:
    scene = {
        "scene.layout": "colmap",
        "scene.model": str(model),
        "scene.images": str(images),
        "scene.queries": str(queries),
    }
    return load_config(None, {**scene, **_DEFAULTS, **overrides})


def _as_names(queries: Path, output: Path) -> Path:
    """The list itself; of a list of poses (``name`` and seven numbers), its names."""
    try:
        names = [name for path in expand_glob(queries) for name in read_poses(path)]
    except DataError:  # no list of poses: names, which the layout reads
        return queries
    path = make_folder(output) / "holdout_names.txt"
    write_names(path, names)
    return path


def _every_nth(model: Path, images: Path, output: Path, every: int) -> Path:
    """Write the list of held-out images: every N-th, from the middle of the first N on."""
    config = load_config(
        None, {"scene.layout": "colmap", "scene.model": str(model), "scene.images": str(images)}
    )
    names = [image.name for image in load_scene(config.scene).db][every // 2 :: every]
    if not names:
        raise DataError(f"the model {model} has too few images to hold out every {every}th", "lower --every")
    path = make_folder(output) / f"holdout_every_{every}.txt"
    write_text(path, "".join(f"{name}\n" for name in names))
    return path
