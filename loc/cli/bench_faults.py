"""``loc bench faults``: kills at random times, and whether a run was hurt."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from loc.cli.console import Json, print_json, print_line, print_rows


def register(bench: typer.Typer) -> None:
    """Add the command to ``loc bench``."""
    bench.command()(faults)


def faults(
    kills: Annotated[int, typer.Option(min=1, help="SIGKILLs that must hit (100: about 15 minutes).")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the times of the kills.")] = 0,
    json: Json = False,
) -> None:
    """Kill whole runs at random times, resume them, and compare their digests with an undisturbed run's."""
    from loc.bench.faults import kill_campaign

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done}/{total} kills")

    campaign = kill_campaign(kills, seed=seed, progress=progress)
    found = campaign.to_json()
    if json:
        print_json(found)
    else:
        header = ["stage", "kills", "unfinished parts and products", "lost at most (s)"]
        print_rows(
            header,
            [
                [stage, str(row["kills"]), str(row["unfinished"]), f"{row['lost_s_max']:.2f}"]
                for stage, row in found["stages"].items()
            ],
        )
        print_line(
            f"{found['kills']} kills in {found['runs']} runs of {found['undisturbed_s']} s: "
            f"{found['equal']} equal to the undisturbed run, {len(found['failures'])} hurt"
        )
        for failure in found["failures"]:
            print_line(failure)
    if campaign.failures:
        raise typer.Exit(1)
