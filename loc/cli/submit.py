"""The command(s) of ``loc`` for submit."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``loc``."""
