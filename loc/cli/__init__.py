"""The command line. ``loc --help`` imports none of the heavy libraries: commands import theirs."""

from __future__ import annotations

import io
import signal
import sys
from typing import Any


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script ``loc``; exits with the code of architecture §6."""
    from loc.cli.app import app
    from loc.cli.guard import Guard

    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # a photo's name may be more than the terminal can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    Guard.debug = "--debug" in argv
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's stop is an interruption: work is kept
    app([item for item in argv if item != "--debug"], prog_name="loc")


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt
