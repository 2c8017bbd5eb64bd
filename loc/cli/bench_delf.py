"""``loc bench delf``."""

from __future__ import annotations

import typer


def register(bench: typer.Typer) -> None:
    """Add ``loc bench delf``."""
