"""Methods on scenes: a map from photos with known poses, and held-out photos localized in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loc.config import RunConfig
from loc.demo import make_demo
from loc.errors import DataError
from loc.holdout import run_holdout
from loc.pipeline import run
from loc.record import open_map, read_record
from loc.runtime.runtime import Runtime
from loc.stores.files import read_json

#: Photo sets with true poses and a list of held-out photos, quick ones first.
SETS = (
    "strecha_fountain_p11",
    "kermit",
    "sacre_coeur",
    "virtual_gallery",
    "strecha_entry_p10",
    "lund_door",
)
#: The rendered town of ``loc demo``: the only set whose queries are by day and by night.
TOWN = "town"
_MAP = ("images", "registered", "points", "mean_track_length", "mean_reprojection_error_px")


def measure_set(data: Path, overrides: dict[str, Any], folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Map a set from its mapping photos, all pairs, and localize the held-out ones.

    Args:
        data: folder with ``gt_colmap``, ``images`` and ``splits/query_images.txt``.
        overrides: the method, for the run's config.
        folder: the run folder.
    """
    queries = data / "splits" / "query_images.txt"
    if not queries.is_file():
        raise DataError(f"{data} has no list of held-out photos", f"write their names into {queries}")
    run_holdout(
        data / "gt_colmap", data / "images", folder, queries=queries, overrides=overrides, runtime=runtime
    )
    return outcome(folder)


def town_config(cache: Path, overrides: dict[str, Any], town: dict[str, Any], runtime: Runtime) -> RunConfig:
    """Render the town, unless it is there; the config that maps and localizes it.

    Args:
        cache: where the rendered photos lie, once for all methods.
        overrides: the method, for the run's config.
        town: ``size``, and ``neighbours`` of each photo.
    """
    k = town["neighbours"]
    pairs = [{"use": "covisibility", "for": "map", "k": k}, {"use": "retrieval", "for": "query", "k": k}]
    return make_demo(cache, {**overrides, "pairs": pairs}, size=town["size"], runtime=runtime)


def measure_town(config: RunConfig, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Map the town with known poses and localize its queries by day and by night."""
    run(config, folder, runtime=runtime)
    return outcome(folder)


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished run with ground truth says: its map, its statuses, its errors by group of queries."""
    stats = open_map(folder).stats
    metrics = read_json(folder / read_record(folder)["report"] / "metrics.json")
    return {
        "map": {name: stats[name] for name in _MAP},
        "queries": metrics["queries"],
        "status": metrics["status"],
        "groups": metrics["groups"],
        "per_query": metrics["per_query"],
    }
