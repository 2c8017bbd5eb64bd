"""What commands share: options, progress on stderr, results on stdout."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from loc.config import RunConfig
    from loc.runtime.runtime import Progress, Runtime

#: Of work that takes long, where progress is lines.
_SECONDS_BETWEEN_LINES = 60.0
Output = Annotated[Path, typer.Option("-o", "--output", help="Run folder; run again to resume.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="SECTION.OPTION=VALUE, e.g. --set matcher.ratio=0.9")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
Workers = Annotated[int, typer.Option(min=0, help="Processes and threads; 0 is one per core.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Images shown to a network at once.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
FeaturesOption = Annotated[str | None, typer.Option("--features", help="Extractor or preset (loc plugins).")]
MatcherOption = Annotated[str | None, typer.Option("--matcher", help="Matcher or preset (loc plugins).")]


def overrides(settings: list[str] | None, **blocks: str | None) -> dict[str, Any]:
    """``--features NAME`` and the like, then every ``--set``, as dotted keys."""
    from loc.config import parse_override

    chosen: dict[str, Any] = {name: value for name, value in blocks.items() if value is not None}
    return {**chosen, **dict(parse_override(item) for item in settings or [])}


def read_config(path: str, settings: list[str] | None) -> RunConfig:
    from loc.plugins.blocks import load_config

    return load_config(path, overrides(settings))


@contextmanager
def runtime(device: str, workers: int, batch_size: int = 8) -> Iterator[Runtime]:
    """A runtime that draws progress with an ETA on a terminal; elsewhere lines as stages start and end."""
    from loc.runtime.runtime import Runtime

    if not sys.stderr.isatty():
        with _log_to_stderr():
            yield Runtime(device=device, workers=workers, batch_size=batch_size, progress=_progress_lines())
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _log_to_stderr(), Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks or done == 0:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield Runtime(device=device, workers=workers, batch_size=batch_size, progress=advance)


def _progress_lines() -> Progress:
    """Progress as lines on stderr: when work of a kind starts, every minute of it, and when it ends."""
    started: dict[str, float] = {}
    said: dict[str, float] = {}

    def advance(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0:
            started[what] = now
        if total and (done in (0, total) or now - said[what] >= _SECONDS_BETWEEN_LINES):
            said[what] = now
            spent = f", {now - started[what]:.0f} s" if done else ""
            sys.stderr.write(f"progress: {what} {done}/{total}{spent}\n")
            sys.stderr.flush()

    return advance


def print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def print_line(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def print_rows(header: list[str], rows: list[list[str]]) -> None:
    """A plain aligned table: the same on a terminal, in a file and in a pipe."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line(line.rstrip())


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Warnings of the package on stderr while the block runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger("loc").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("loc").removeHandler(handler)
