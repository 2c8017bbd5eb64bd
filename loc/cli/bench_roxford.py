"""``loc bench roxford``: mAP of retrieval methods and rankings on Revisited Oxford and Paris."""

from __future__ import annotations

import sys
import tempfile
import textwrap
from contextlib import ExitStack, suppress
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.console import Batch, Device, Json, Workers, print_json, print_line, runtime

if TYPE_CHECKING:
    from loc.bench.roxford import Row

#: A plug-in that is no method by itself.
_BRIDGE = "hloc"
#: Characters of a line, where names leave a choice.
_LINE = 80
Root = Annotated[
    Path, typer.Option(help="Folder of a set (gnd_*.json, .pkl or .mat, and jpg/), or one of such folders.")
]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Global extractors or presets, with commas between, or a list with their options as in "
        "'[vlad, {use: rmac, keep_regions: 21}]'; default: all that there are."
    ),
]
Rank = Annotated[
    list[str] | None,
    typer.Option(
        help="similarity, aqe, alpha_qe, dba, diffusion, offline, spectral; d2r, delg, example, ratio "
        "(re-ranked by --features); or options of the pair generator retrieval as in "
        "'{diffusion: {k: 20}}'; may be given several times."
    ),
]
Features = Annotated[
    str,
    typer.Option(
        help="Local features for methods that aggregate them, and for re-ranking; with options as in "
        "'{use: d2net, weights: ots}'."
    ),
]
ResizeMax = Annotated[int, typer.Option(min=0, help="Long side of photos, px; 0: as they are.")]
Distractors = Annotated[Path | None, typer.Option(help="Folder of photos that are wrong for every query.")]
Fuse = Annotated[bool, typer.Option("--fuse", help="Also fuse the rankings of all methods.")]
Keep = Annotated[
    Path | None, typer.Option("-o", "--output", help="Keep what is extracted; run again to resume.")
]


def register(bench: typer.Typer) -> None:
    """Add the command to ``loc bench``."""
    bench.command()(roxford)


def roxford(
    root: Root,
    methods: Methods = None,
    rank: Rank = None,
    features: Features = "sift",
    resize_max: ResizeMax = 1024,
    distractors: Distractors = None,
    fuse: Fuse = False,
    output: Keep = None,
    device: Device = "auto",
    workers: Workers = 0,
    batch_size: Batch = 8,
    json: Json = False,
) -> None:
    """Measure mAP of retrieval on Revisited Oxford and Paris, the classic sets, or sets in their format."""
    from loc.bench.roxford import rank_options, retrieval_table
    from loc.errors import ConfigError
    from loc.layouts.revisited import open_sets
    from loc.plugins.blocks import resolve_block
    from loc.plugins.registry import list_plugins

    rankings = rank or ["similarity"]
    for each in rankings:
        rank_options(each)  # a typing mistake is told before photos are read
    registered = [info.name for info in list_plugins("global") if info.name != _BRIDGE]
    chosen = blocks_of(methods, "--methods") if methods else registered
    for block in chosen if methods else ():
        resolve_block("globals", block)
    local = blocks_of(features, "--features")
    if len(local) > 1:
        raise ConfigError(f"--features {features} is more than one", "run once for each")
    resolve_block("features", local[0])
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output} is no folder", "name a new folder, or one of an earlier run")
    rows: list[Row] = []
    with ExitStack() as stack:
        if output is None:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        where = stack.enter_context(runtime(device, workers, batch_size))
        for data in open_sets(root, distractors):
            for row in retrieval_table(
                data,
                chosen,
                rankings,
                features=local[0],
                resize_max=resize_max or None,
                fuse=fuse,
                workdir=output,
                runtime=where,
            ):
                rows.append(row)
                if sys.stderr.isatty():
                    sys.stderr.write(f"{row.set_name}: {row.method} {row.ranking}\n")
    if json:
        print_json([row.to_json() for row in rows])
    else:
        _print_tables(rows)


def blocks_of(text: str, option: str) -> list[Any]:
    """Names with commas between them, or a YAML list that may hold blocks (or one block)."""
    import yaml

    from loc.errors import ConfigError

    blocks: Any = None
    if not text.startswith(("[", "{")):
        blocks = [name.strip() for name in text.split(",") if name.strip()]
    else:
        with suppress(yaml.YAMLError):
            blocks = yaml.safe_load(text if text.startswith("[") else f"[{text}]")
    if (
        not isinstance(blocks, list)
        or not blocks
        or not all(isinstance(block, str | dict) for block in blocks)
    ):
        raise ConfigError(
            f"{option} {text!r} is no list of plug-ins",
            f"e.g. {option} '[name, {{use: name, option: 21}}]'",
        )
    return blocks


def _print_tables(rows: list[Row]) -> None:
    """Per set and ranking: mAP and mP@10 in per cent, the best first, and methods without numbers last."""
    for name in dict.fromkeys(row.set_name for row in rows):
        of_set = [row for row in rows if row.set_name == name]
        without = [row for row in of_set if not row.scores]
        rankings = list(dict.fromkeys(row.ranking for row in of_set if row.scores))
        for ranking in rankings:
            print_line(f"{name}, {ranking} (%)")
            _print_table([row for row in of_set if row.scores and row.ranking == ranking])
            print_line()
        if without:
            print_line(f"{name}, without numbers")
            labels = [", ".join(part for part in (row.method, row.ranking) if part) for row in without]
            wide = max(len(label) for label in labels)
            for label, row in zip(labels, without, strict=True):
                print_line(_wrapped(f"{label:<{wide}}  {row.note}"))


def _print_table(rows: list[Row]) -> None:
    """Rows of one ranking, sorted by the protocol in the middle."""
    protocols = list(rows[0].scores)
    key = protocols[len(protocols) // 2]
    rows = sorted(rows, key=lambda row: -_number(row.scores[key].mean_ap))
    lines = [["dim", *protocols, *protocols]]
    for row in rows:
        scores = [row.scores[name] for name in protocols]
        numbers = [each.mean_ap for each in scores] + [each.mean_precision[-1] for each in scores]
        dimension = "–" if row.dimension is None else str(row.dimension)
        lines.append([dimension, *(f"{100 * number:.1f}" if isfinite(number) else "–" for number in numbers)])
    widths = [max(5, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    cells = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    room = _LINE - 2 - len(cells[0])
    labels = [row.method for row in rows]
    wide = max(len(label) for label in ["method", *labels] if len(label) <= room)
    half = 2 * len(protocols) + sum(widths[1 : 1 + len(protocols)])
    print_line(" " * (wide + 2 + widths[0]) + "mAP".rjust(half) + "mP@10".rjust(half))
    print_line(f"{'method':<{wide}}  {cells[0]}")
    for row, label, line in zip(rows, labels, cells[1:], strict=True):
        if len(label) > wide:  # on a line of its own
            print_line(label)
            label = ""
        print_line(f"{label:<{wide}}  {line}")
        if row.note:
            print_line(_wrapped(f"  {row.note}"))


def _number(value: float) -> float:
    """A mean over no query sorts last."""
    return value if isfinite(value) else -1.0


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
