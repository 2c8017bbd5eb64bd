"""The command line. ``loc --help`` imports none of the heavy libraries: commands import theirs."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

_SWITCHES = {"--offline": "LOC_OFFLINE", "--accept-license": "LOC_ACCEPT_LICENSE"}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script ``loc``; exits with the code of architecture §6."""
    from loc.cli.app import app

    argv = _without_common_options(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a photo's name may be more than the terminal can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's stop is an interruption: work is kept
    app(argv, prog_name="loc")


def _without_common_options(argv: list[str]) -> list[str]:
    """Act on the options that every command takes, wherever they stand; return the other arguments.

    They reach worker processes through the environment.
    """
    from loc.cli.guard import Guard

    rest, waiting = [], iter(argv)
    Guard.debug = "--debug" in argv
    for item in waiting:
        name, given, value = item.partition("=")
        if name == "--weights-dir":
            folder = value if given else next(waiting, "")
            before = os.environ.get("LOC_WEIGHTS_DIR")
            os.environ["LOC_WEIGHTS_DIR"] = os.pathsep.join(filter(None, (folder, before)))
        elif item in _SWITCHES:
            os.environ[_SWITCHES[item]] = "1"
        elif item != "--debug":
            rest.append(item)
    return rest


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt
