"""``loc bench rejection``: when a query has no match, calibrated and tested on places left out."""

from __future__ import annotations

import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loc.cli.bench_roxford import blocks_of
from loc.cli.console import Batch, Device, Json, Workers, print_json, print_line, print_rows, runtime

if TYPE_CHECKING:
    from loc.bench.rejection_report import Outcome
    from loc.layouts.placed import PlacedPhotos

Root = Annotated[
    Path,
    typer.Option(help="Folder of a set (gnd_*.json, .pkl or .mat, and jpg/), or of photos with --places."),
]
Places = Annotated[
    Path | None, typer.Option(help="List of photos of --root, 'name place' per line; '-' is no place.")
]
Same = Annotated[
    list[str] | None,
    typer.Option(
        help="Places that see each other and count as one, with commas; may be given several times."
    ),
]
Distractors = Annotated[Path | None, typer.Option(help="Folder of photos that show none of the places.")]
Globals = Annotated[
    str, typer.Option("--globals", help="Global extractors or presets, with commas, or a list with options.")
]
Features = Annotated[str, typer.Option(help="Local features or presets, with commas, or a list likewise.")]
Rerank = Annotated[
    str,
    typer.Option(
        help="Verification: auto (what suits the features), d2r, delg, example, ratio, or options in YAML."
    ),
]
MaxFalseAccept = Annotated[
    float, typer.Option(help="Largest share of wrong best images that may be accepted.")
]
PerPlace = Annotated[int, typer.Option(min=1, help="Most photos of a place that are asked.")]
Save = Annotated[Path | None, typer.Option(help="Write the calibration, for loc retrieve --rejection.")]
Keep = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Keep what is extracted and verified; run again to resume."),
]


def register(bench: typer.Typer) -> None:
    """Add ``loc bench rejection``."""
    bench.command()(rejection)


def rejection(
    root: Root,
    places: Places = None,
    same: Same = None,
    distractors: Distractors = None,
    globals_: Globals = "vlad",
    features: Features = "sift",
    rerank: Rerank = "auto",
    max_false_accept: MaxFalseAccept = 0.05,
    per_place: PerPlace = 50,
    save: Save = None,
    output: Keep = None,
    device: Device = "auto",
    workers: Workers = 0,
    batch_size: Batch = 8,
    json: Json = False,
) -> None:
    """Calibrate when a query has no match, leaving one place out at a time, and print what it is worth."""
    from loc.bench.rejection import photos_of, rerank_options
    from loc.bench.rejection_report import outcomes
    from loc.errors import ConfigError
    from loc.stores.files import write_json

    config = rerank_options(rerank)
    chosen = _methods(globals_, features, save)
    if not 0 < max_false_accept < 1:
        raise ConfigError(f"--max-false-accept {max_false_accept:g} is no share", "give one between 0 and 1")
    photos = photos_of(root, places, distractors, same or ())
    found: list[Outcome] = []
    with ExitStack() as stack:
        workdir = output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        where = stack.enter_context(runtime(device, workers, batch_size))
        for outcome in outcomes(
            photos,
            *chosen,
            config,
            max_false_accept=max_false_accept,
            per_place=per_place,
            workdir=workdir / photos.name,
            runtime=where,
        ):
            found.append(outcome)
            if sys.stderr.isatty():
                sys.stderr.write(f"{outcome.globals_name}, {outcome.features_name}: done\n")
    if json:
        print_json([outcome.to_json() for outcome in found])
    else:
        _print(photos, found, max_false_accept)
    if save is not None:
        if found[0].calibration is None:
            raise ConfigError(
                f"there is no calibration to save: {found[0].note}", "change what is calibrated"
            )
        by = found[0].rerank if rerank == "auto" else rerank
        methods = {"--globals": globals_, "--features": features, "--rerank": by}
        rest = {**methods, "--max-false-accept": f"{max_false_accept:g}"}
        command = _command(
            [("--root", root), ("--places", places), ("--distractors", distractors)], same, rest
        )
        write_json(save, found[0].named({"set": photos.name, "command": command}).to_json())


def _methods(globals_: str, features: str, save: Path | None) -> tuple[list[Any], list[Any]]:
    """The blocks of both options; a typing mistake is told before photos are read."""
    from loc.errors import ConfigError
    from loc.plugins.blocks import resolve_block

    chosen = blocks_of(globals_, "--globals"), blocks_of(features, "--features")
    for section, blocks in zip(("globals", "features"), chosen, strict=True):
        for block in blocks:
            resolve_block(section, block)
    count = len(chosen[0]) * len(chosen[1])
    if save is not None and count > 1:
        raise ConfigError(
            f"--save {save} keeps one calibration, and these are {count}",
            "name one of --globals and one of --features",
        )
    return chosen


def _command(paths: list[tuple[str, Path | None]], same: list[str] | None, options: dict[str, str]) -> str:
    """What makes the calibration again, with the names of folders and not where they are."""
    words = ["loc", "bench", "rejection"]
    for option, path in paths:
        words += [option, path.resolve().name] if path is not None else []
    for names in same or ():
        words += ["--same", names]
    for option, value in options.items():
        words += [option, value]
    return shlex.join(words)


def _print(photos: PlacedPhotos, found: list[Outcome], most: float) -> None:
    """The set, a line per combination, then tables of each."""
    from loc.layouts.placed import DISTRACTORS, UNLABELLED

    count = {name: photos.places.count(name) for name in (UNLABELLED, DISTRACTORS)}
    known = len(photos.photos) - sum(count.values())
    print_line(
        f"{photos.name}: {known} photos of {len(set(photos.places) - count.keys())} places, "
        f"{count[UNLABELLED]} of none, {count[DISTRACTORS]} distractors"
    )
    print_line(
        f"each place is scored by a model and a threshold made without it; at most {most:.1%} wrong ones"
    )
    print_line()
    header = ["globals", "features", "rerank", "right first", "AUC", "Brier", "threshold"]
    print_rows([*header, "false accepts", "true accepts"], [_row(each) for each in found])
    for outcome in found:
        if outcome.calibration is not None:
            print_line()
            _print_details(photos, outcome)


def _row(outcome: Outcome) -> list[str]:
    names = [outcome.globals_name, outcome.features_name, outcome.rerank, str(outcome.right_first)]
    if outcome.calibration is None:
        return [*names, "–", "–", "–", outcome.note, ""]
    numbers = (outcome.roc.auc, outcome.brier, outcome.calibration.rejection.threshold)
    rates = (outcome.false_accepts, outcome.true_accepts)
    return [*names, *(f"{number:.3f}" for number in numbers), *map(str, rates)]


def _print_details(photos: PlacedPhotos, outcome: Outcome) -> None:
    from loc.bench.rejection_report import ROC_AT

    print_line(f"{outcome.globals_name}, {outcome.features_name}: accepted of the held-out queries")
    true, false = outcome.of_queries(photos)
    rows = [[kind, str(rate)] for kind, rate in outcome.kinds().items()]
    own = [["the set's own queries: right", str(true)], ["the set's own queries: wrong", str(false)]]
    print_rows(["queries", "accepted (95 %)"], rows + (own if true.of + false.of else []))
    print_line()
    print_rows(
        ["place", "right ones accepted", "wrong ones accepted"],
        [[place, *map(str, rates)] for place, rates in outcome.by_place().items()],
    )
    print_line()
    roc = outcome.roc
    print_rows(
        ["ROC: false accepts", *(f"{100 * rate:g} %" for rate in ROC_AT)],
        [["true accepts", *(f"{100 * roc.true_rate_at(rate):.1f} %" for rate in ROC_AT)]],
    )
    print_line()
    print_rows(
        ["score", "queries", "right ones among them, classes balanced"],
        [
            [f"{low:.1f}–{high:.1f}", str(n), f"{100 * share:.0f} %" if n else "–"]
            for low, high, n, share in outcome.reliability()
        ],
    )
