"""``loc bench``: what the parts cost, as ratios inside one run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from loc.cli import (
    bench_d2net,
    bench_delf,
    bench_faults,
    bench_gldv2,
    bench_index,
    bench_match,
    bench_methods,
    bench_rejection,
    bench_roxford,
)
from loc.cli.console import Json, print_json, print_line

if TYPE_CHECKING:
    from loc.bench.ratio import Ratio

Repeats = Annotated[int, typer.Option(min=1, help="How often each ratio is measured; the median counts.")]
Quick = Annotated[bool, typer.Option("--quick", help="Tiny sizes, only to see that everything runs.")]

_ABOUT = {
    "startup": "`loc --help` against a bare typer program.",
    "stores": "Writing and reading features and matches against plain h5py.",
    "localize": "Share of localization that is spent inside pycolmap's estimator.",
    "map": "Share of mapping that is database import and verification.",
    "retrieve": "Exact search in 100,000 descriptors against the bare matrix product, and its memory.",
}


class _DefaultsToAll(TyperGroup):
    """``loc bench [OPTIONS]`` is ``loc bench all [OPTIONS]``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["all", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add ``loc bench``."""
    bench = typer.Typer(
        cls=_DefaultsToAll,
        help="What the parts cost, as ratios inside one run: median, smallest and largest, and the goal. "
        "Without a name: all of them.",
    )
    for name, about in _ABOUT.items():
        _add(bench, name, about, [name])
    bench_match.register(bench, _report)
    bench_d2net.register(bench, _report)
    bench_delf.register(bench, _report)
    _add(bench, "diffusion", "Diffusion: its graph, queries and memory, and its shortcuts.", ["diffusion"])
    _add(bench, "asmk", "ASMK*: what a query of its inverted file costs.", ["asmk"])
    _add(bench, "all", "All of these (about 25 minutes on two cores).", [])
    bench_index.register(bench)
    bench_rejection.register(bench)
    bench_faults.register(bench)
    bench_methods.register(bench)
    bench_roxford.register(bench)
    bench_gldv2.register(bench)
    app.add_typer(bench, name="bench")


def _add(bench: typer.Typer, name: str, about: str, benchmarks: list[str]) -> None:
    @bench.command(name, help=about)
    def command(repeats: Repeats = 5, quick: Quick = False, json: Json = False) -> None:
        from loc.bench.ratio import Size
        from loc.bench.suite import BENCHMARKS, measure

        _report(measure(benchmarks or list(BENCHMARKS), Size(repeats, quick)), json)


def _report(measured: Iterator[Ratio], json: bool) -> None:
    """Print ratios as they come, or all at the end as JSON."""
    ratios = []
    for ratio in measured:
        ratios.append(ratio)
        if not json:
            print_line(_line(ratio))
            sys.stdout.flush()  # minutes may pass until the next
    if json:
        print_json([ratio.to_json() for ratio in ratios])


def _line(ratio: Ratio) -> str:
    found = ratio.to_json()
    if ratio.median is None:
        return f"{ratio.benchmark:9}{ratio.note}\n{'':9}  {ratio.what}"
    spread = f"{ratio.median:7.3f}  ({found['min']:.3f} to {found['max']:.3f})"
    verdict = {None: "", True: f"{found['goal']}: met", False: f"{found['goal']}: MISSED"}[ratio.met]
    note = f"\n{'':11}{ratio.note}" if ratio.note else ""
    return f"{ratio.benchmark:9}{spread:28}{verdict:18}{ratio.what}{note}"
