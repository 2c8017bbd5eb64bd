"""Start-up: what typing ``loc --help`` costs, against the smallest program on the same library."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from loc.bench.ratio import Ratio, Size, times_of

_HELLO = """
import typer
app = typer.Typer(rich_markup_mode=None)
@app.command()
def hello(name: str) -> None:
    "Say hello."
    typer.echo(name)
app(["--help"])
"""
_LOC_HELP = "from loc.cli import main; main(['--help'])"


def startup(size: Size) -> list[Ratio]:
    """Whole processes in turn: our help against bare typer's, and ``import loc`` against nothing."""
    repeats = 2 if size.quick else 4 * size.repeats  # a process takes a tenth of a second
    return [
        Ratio(
            "startup",
            "time of `loc --help` / of a one-command typer program's --help",
            times_of(lambda: _python(_LOC_HELP), lambda: _python(_HELLO), repeats),
            note="bare typer without rich's markup, as loc uses it",
        ),
        Ratio(
            "startup",
            "time of `import loc` / of an empty program",
            times_of(lambda: _python("import loc"), lambda: _python("pass"), repeats),
        ),
    ]


def _python(code: str) -> None:
    command: Sequence[str] = [sys.executable, "-c", code]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
