"""Run a config from the command line, with progress, and print the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loc.cli.console import print_json, print_line, runtime

if TYPE_CHECKING:
    from loc.config import RunConfig
    from loc.pipeline import Run


def run_and_report(
    config: RunConfig,
    output: Path,
    device: str,
    workers: int,
    batch_size: int = 8,
    *,
    until: str = "report",
    json: bool,
) -> None:
    """Run a config and print what came of it."""
    from loc.cli.results import run_json, run_lines
    from loc.pipeline import run as run_pipeline

    with runtime(device, workers, batch_size) as where:
        finished: Run = run_pipeline(config, output, runtime=where, until=until)
    if json:
        print_json(run_json(finished))
    else:
        for line in run_lines(finished):
            print_line(line)
