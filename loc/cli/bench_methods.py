"""``loc bench methods``: methods side by side on photo sets, by day and by night."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import Device, Json, Workers, print_json, print_line, print_rows, runtime
from loc.cli.demo import Size

if TYPE_CHECKING:
    from loc.errors import LocError


def register(bench: typer.Typer) -> None:
    """Add the command to ``loc bench``."""
    bench.command()(methods)


def methods(
    root: Annotated[Path, typer.Option(help="Folder of the photo sets.")] = Path("../shared/data"),
    sets: Annotated[
        str | None,
        typer.Option(help="Comma-separated names of folders in ROOT, and town; default: all known."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: EXTRACTOR[+MATCHER], e.g. disk+lightglue; default: all compared."
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where results are kept; run again to resume.")] = Path(
        "runs/methods"
    ),
    long_side: Annotated[int, typer.Option(min=32, help="Photos are shrunk to this, px.")] = 800,
    keypoints: Annotated[int, typer.Option(min=8, help="Per photo, of methods with LightGlue.")] = 1024,
    town_size: Annotated[Size, typer.Option(help="As of loc demo.")] = Size.default,
    town_neighbours: Annotated[int, typer.Option(min=1, help="Pairs of each photo of the town.")] = 10,
    pictures: Annotated[
        Path | None, typer.Option(help="Write pictures of the matches by day and night.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    device: Device = "auto",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Compare methods: maps, held-out photos, recall by day and night, seconds; results are kept."""
    from loc.bench.methods import ALL_SETS, METHODS, Settings, compare
    from loc.bench.methods_table import tables

    settings = Settings(root, cache, long_side, keypoints, town_size.value, town_neighbours)
    failures: list[LocError] = []

    def failed(name: str, method: str, error: LocError) -> None:
        failures.append(error)
        sys.stderr.write(f"{name}, {method}: {error}\n")

    with runtime(device, workers) as where:
        results = list(
            compare(
                _names(sets) or ALL_SETS, _names(methods) or METHODS, settings, runtime=where, failed=failed
            )
        )
    if pictures is not None:
        _draw(results, root, pictures)
    if json:
        print_json([{"set": each.set, "method": each.method, **each.data} for each in results])
    else:
        for title, header, rows in tables(results):
            _print(title, header, rows, markdown=markdown)
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _print(title: str, header: list[str], rows: list[list[str]], *, markdown: bool) -> None:
    print_line(f"**{title}**\n" if markdown else title)
    if markdown:
        for row in (header, ["---"] * len(header), *rows):
            print_line(f"| {' | '.join(row)} |")
    else:
        print_rows(header, rows)
    print_line()


def _draw(results: list[Any], root: Path, folder: Path) -> None:
    """One picture per method and pair by day and night."""
    from PIL import Image

    from loc.bench.methods import PAIRS
    from loc.bench.methods_pairs import draw_pairs
    from loc.stores.files import make_folder, writing

    make_folder(folder)
    for result in results:
        if result.set == PAIRS:
            for name, picture in draw_pairs(root / PAIRS, result.folder):
                with writing(folder):
                    Image.fromarray(picture).save(folder / f"{name}-{result.method}.png")
