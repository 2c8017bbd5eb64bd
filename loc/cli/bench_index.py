"""``loc bench index``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loc.cli.console import Json, print_json, print_line, print_rows

if TYPE_CHECKING:
    from loc.bench.index import Row


def register(bench: typer.Typer) -> None:
    """Add ``loc bench index``."""
    bench.command()(index)


def index(
    vectors: Annotated[
        Path | None, typer.Option(help="Measure on descriptors of this .npy file instead: (n, d), unit norm.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="With --vectors: queries (default: 200 taken out of them).")
    ] = None,
    sizes: Annotated[
        list[str] | None, typer.Option(help="VECTORSxDIM, e.g. 100000x256; repeat it (default: all).")
    ] = None,
    kills: Annotated[
        int, typer.Option(min=0, help="Instead: SIGKILL a writer so often at 100,000 vectors, and compare.")
    ] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="How often each time is measured.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="A tiny size, only to see that it runs.")] = False,
    json: Json = False,
) -> None:
    """Recall, speed, size and training time of each kind of index (about 40 minutes on two cores)."""
    if kills:
        _kill(kills, quick, json)
        return
    rows = []
    header = ["data", "vectors", "dim", "kind", "recall@20", "queries/s", "speed / exact", "time / faiss"]
    header += ["B/vector searched", "on disk", "train s", "add s"]
    if not json:
        print_line("  ".join(header))
    for row in _rows(vectors, queries, sizes, repeats, quick):
        rows.append(row)
        if not json:
            print_line("  ".join(_cells(row)))
            sys.stdout.flush()  # minutes may pass until the next
    if json:
        print_json([row.to_json() for row in rows])
    else:
        print_line()
        print_rows(header, [_cells(row) for row in rows])


def _rows(
    vectors: Path | None, queries: Path | None, sizes: list[str] | None, repeats: int, quick: bool
) -> Iterator[Row]:
    from loc.bench.index import QUICK, SIZES, file_rows, synthetic_rows

    if vectors is not None:
        return file_rows(vectors, queries, repeats=repeats)
    chosen = tuple(_size(text) for text in sizes or []) or (QUICK if quick else SIZES)
    return synthetic_rows(chosen, repeats=1 if quick else repeats)


def _size(text: str) -> tuple[int, int]:
    from loc.errors import ConfigError

    count, _, dim = text.partition("x")
    if not (count.isdecimal() and dim.isdecimal() and int(count) >= 100 and int(dim) >= 1):
        raise ConfigError(f"--sizes {text!r} is not VECTORSxDIM", "for example --sizes 100000x256")
    return int(count), int(dim)


def _cells(row: Row) -> list[str]:
    return [
        row.data,
        str(row.vectors),
        str(row.dim),
        row.kind,
        f"{row.recall:.3f}",
        f"{row.queries_per_s:.0f}",
        f"{row.speed:.2f}",
        f"{row.over_faiss:.2f}",
        f"{row.searched_bytes:.0f}",
        f"{row.disk_bytes:.0f}",
        f"{row.train_s:.1f}",
        f"{row.add_s:.1f}",
    ]


def _kill(kills: int, quick: bool, json: bool) -> None:
    from loc.bench.index_kills import kill_campaign

    campaign = kill_campaign(kills, vectors=5_000 if quick else 100_000)
    if json:
        print_json(campaign.to_json())
    else:
        for line in campaign.lines():
            print_line(line)
    if campaign.failures:
        raise typer.Exit(1)
