"""``loc demo``: the main job on a scene that is made on the spot."""

from __future__ import annotations

import typer

from loc.cli.console import Device, FeaturesOption, Json, MatcherOption, Output, Workers, overrides
from loc.cli.running import run_and_report


def register(app: typer.Typer) -> None:
    """Add ``loc demo``."""
    app.command()(demo)


def demo(
    output: Output,
    features: FeaturesOption = None,
    matcher: MatcherOption = None,
    device: Device = "auto",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """The main job on a small scene with known truth: no network, no weights, seconds."""
    from loc.demo import make_demo

    config = make_demo(output / "scene", overrides(None, features=features, matcher=matcher))
    run_and_report(config, output, device, workers, json=json)
