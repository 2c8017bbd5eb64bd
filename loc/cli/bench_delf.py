"""``loc bench delf``: what DELF, DELG and the poolings cost beside their networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from loc.cli.console import Device, Json, runtime

if TYPE_CHECKING:
    from loc.bench.ratio import Ratio


def register(bench: typer.Typer, report: Callable[[Iterator[Ratio], bool], None]) -> None:
    """Add the command to ``loc bench``; ``report`` prints ratios as they come, or as JSON."""

    @bench.command()
    def delf(
        repeats: Annotated[
            int, typer.Option(min=1, help="How often each ratio is measured; the median counts.")
        ] = 5,
        quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, only to see that it runs.")] = False,
        device: Device = "cpu",
        json: Json = False,
    ) -> None:
        """DELF, DELG, poolings: all but the trunk / trunk over whole pyramids, and memory."""
        from dataclasses import replace

        from loc.bench.delf import delf as measure
        from loc.bench.ratio import Size

        with runtime(device, 0) as where:
            ratios = measure(Size(repeats, quick), device=where.torch_device())
            report((replace(each, goal=None) if quick else each for each in ratios), json)
