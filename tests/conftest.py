"""Fixtures shared by all tests."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything loads OpenMP: one process per core is enough
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LOC_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real photo sets and fixtures; absent in a user's clone, required in CI."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder at {SHARED} (set LOC_SHARED)")
    return SHARED
