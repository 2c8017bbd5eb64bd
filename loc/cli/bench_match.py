"""``loc bench match``: the matchers and the stage against what they cannot avoid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loc.cli.console import Device, Json, runtime

if TYPE_CHECKING:
    from loc.bench.ratio import Ratio

Repeats = Annotated[int, typer.Option(min=1, help="How often each ratio is measured; the median counts.")]


def register(bench: typer.Typer, report: Callable[[Iterator[Ratio], bool], None]) -> None:
    """Add the command to ``loc bench``; ``report`` prints ratios as they come, or as JSON."""

    @bench.command()
    def match(
        photos: Annotated[
            list[Path] | None,
            typer.Option(help="Folder of photos of one place, for LightGlue; repeat it for several."),
        ] = None,
        repeats: Repeats = 5,
        quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, only to see that it runs.")] = False,
        device: Device = "cpu",
        json: Json = False,
    ) -> None:
        """The matchers and their stage against blocked products and top-2; LightGlue alone and in batches."""
        from dataclasses import replace

        from loc.bench.match import match as measure
        from loc.bench.ratio import Size

        with runtime(device, 0) as where:
            ratios = measure(Size(repeats, quick), photos or (), device=where.torch_device())
            report((replace(each, goal=None) if quick else each for each in ratios), json)
