"""``loc bench gldv2``: scores of predictions for Google Landmarks v2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loc.cli.console import Json, print_json, print_rows

Task = Annotated[str, typer.Argument(help="recognition or retrieval")]
Solution = Annotated[Path, typer.Option(help="CSV of the benchmark: id, landmarks or images, split.")]
Predictions = Annotated[Path, typer.Option(help="CSV: id, then 'landmark confidence' or images, best first.")]


def register(bench: typer.Typer) -> None:
    """Add the command to ``loc bench``."""
    bench.command()(gldv2)


def gldv2(task: Task, solution: Solution, predictions: Predictions, json: Json = False) -> None:
    """Score predictions for Google Landmarks v2: GAP of recognition, mAP@100 of retrieval, by split."""
    from loc.bench.gldv2 import score_predictions

    found = score_predictions(task, solution, predictions)
    if json:
        print_json(found)
        return
    header = list(next(iter(found.values())))
    print_rows(["split", *header], [[split, *map(_text, row.values())] for split, row in found.items()])


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
