"""``loc demo``: the main job on a town that is rendered on the spot."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import (
    Device,
    FeaturesOption,
    Json,
    MatcherOption,
    Output,
    Settings,
    Workers,
    overrides,
    print_json,
    print_line,
    runtime,
)

if TYPE_CHECKING:
    from loc.pipeline import Run


class Size(str, Enum):
    """How large a town: for tests, to look at, for benchmarks."""

    small = "small"
    default = "default"
    large = "large"


def register(app: typer.Typer) -> None:
    """Add ``loc demo``."""
    app.command()(demo)


def demo(
    output: Output,
    size: Annotated[
        Size, typer.Option(help="small: 22 database photos; default: 63; large: 512.")
    ] = Size.default,
    features: FeaturesOption = None,
    matcher: MatcherOption = None,
    settings: Settings = None,
    device: Device = "auto",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """The main job on a rendered town, by day and night, with known truth: no network, no weights."""
    from loc.cli.results import run_lines
    from loc.demo import make_demo
    from loc.pipeline import run

    chosen = overrides(settings, features=features, matcher=matcher)
    with runtime(device, workers) as where:
        finished = run(make_demo(output, chosen, size=size.value, runtime=where), output, runtime=where)
    if json:
        print_json(demo_json(finished))
    else:
        for line in run_lines(finished):
            print_line(line)


def demo_json(finished: Run) -> dict[str, Any]:
    """What ``loc demo --json`` prints: the map, the groups by day and night, and the report's path."""
    if finished.bundle is None or finished.report is None:
        return {}
    stats, metrics = finished.bundle.stats, finished.report.metrics
    names = [f"{position:g}m_{degrees:g}deg" for position, degrees in metrics["thresholds"]]
    groups = {}
    for group in ("day", "night"):
        found = metrics["groups"][group]
        recall = dict(zip(names, found["recall"].values(), strict=True))
        groups[group] = {"queries": found["queries"], "localized": found["localized"], "recall": recall}
    return {
        "map": {key: stats[key] for key in ("images", "registered", "points")},
        "groups": groups,
        "report": str(finished.report.folder / "index.html"),
    }
