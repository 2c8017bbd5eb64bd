"""All benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import import_module

from loc.bench.ratio import Ratio, Size

#: Name on the command line → module and function; a benchmark imports what it measures when it runs.
BENCHMARKS: dict[str, tuple[str, str]] = {
    "startup": ("loc.bench.startup", "startup"),
    "match": ("loc.bench.match", "match"),
    "stores": ("loc.bench.stores", "stores"),
    "localize": ("loc.bench.localize", "localize"),
    "map": ("loc.bench.mapping", "map_"),
    "retrieve": ("loc.bench.retrieve", "retrieve"),
    "diffusion": ("loc.bench.diffusion", "diffusion"),
    "asmk": ("loc.bench.asmk", "asmk"),
    "d2net": ("loc.bench.d2net", "d2net"),
    "delf": ("loc.bench.delf", "delf"),
}


def measure(names: list[str], size: Size) -> Iterator[Ratio]:
    """Run benchmarks one after another; ratios come as soon as they are there.

    The goals are for the full sizes: quick ones are measured against none.
    """
    for name in names:
        module, function = BENCHMARKS[name]
        run: Callable[[Size], Iterable[Ratio]] = getattr(import_module(module), function)
        for ratio in run(size):
            yield replace(ratio, goal=None) if size.quick else ratio
