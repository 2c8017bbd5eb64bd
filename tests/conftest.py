"""Fixtures shared by all tests."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything loads OpenMP: one process per core is enough
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("LOC_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real photo sets and fixtures; absent in a user's clone, required in CI."""
    if not SHARED.is_dir():
        if os.environ.get("LOC_CI"):
            pytest.fail(f"there is no shared data folder at {SHARED}")
        pytest.skip(f"needs the shared data folder at {SHARED} (set LOC_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def public_weights() -> Path:
    """Folder with the weights of DISK, ALIKED and LightGlue (`make weights`); required in CI."""
    folder = ROOT / ".cache" / "weights"
    if not (folder / "disk_lightglue.pth").is_file():
        if os.environ.get("LOC_CI"):
            pytest.fail(f"{folder} has no weights: make weights")
        pytest.skip(f"needs weights in {folder}: make weights")
    return folder


@pytest.fixture(scope="session")
def delf_models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the unpacked fixture archives of DELF and DELG (random weights)."""
    folder = tmp_path_factory.mktemp("delf_models")
    for name in ("delf/delf_gld_like", "delg/r50delg_like"):
        with tarfile.open(shared / "fixtures" / f"{name}.tar.gz") as tar:
            tar.extractall(folder)
    return folder


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a measured number in the summary; what a worker of xdist prints is lost otherwise."""

    def note(text: str) -> None:
        record_property("measured", text)

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    lines = [text for each in reports for name, text in each.user_properties if name == "measured"]
    if lines:
        terminalreporter.section("measured on real photographs")
        for line in sorted(lines):
            terminalreporter.write_line(line)
