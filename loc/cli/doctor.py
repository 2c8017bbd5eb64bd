"""``loc doctor``: is this environment, and is this data, fit for a run?"""

from __future__ import annotations

from typing import Annotated

import typer

from loc.cli.console import Json, Settings, overrides, print_json, print_line

_MARKS = {"ok": "ok     ", "warning": "WARNING", "problem": "PROBLEM"}


def register(app: typer.Typer) -> None:
    """Add ``loc doctor``."""
    app.command()(doctor)


def doctor(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[FOLDER|CONFIG]", help="Photos, a run, an Aachen data set, or a config."),
    ] = None,
    settings: Settings = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every photo, not only its header.")] = False,
    environment: Annotated[bool, typer.Option(help="Look at the environment too.")] = True,
    json: Json = False,
) -> None:
    """Is this environment, and is this data, fit for a run? Changes nothing; says what to do."""
    from loc.doctor import diagnose

    found = diagnose(target, overrides(settings), full=full, with_environment=environment)
    if json:
        print_json(found.to_json())
    else:
        for finding in found.findings:
            print_line(f"{_MARKS[finding.level]}  {finding.check}: {finding.what}")
            if finding.todo:
                print_line(f"         → {finding.todo}")
        print_line(f"{found.count('problem')} problems, {found.count('warning')} warnings")
    if found.exit_code:
        raise typer.Exit(found.exit_code)
