"""``loc match-pair``."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add ``loc match-pair``."""
