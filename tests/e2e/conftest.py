from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scenes import Cli, make_nested_run, make_seen_run

from loc.pipeline import Run

#: Address space that a test of bad input may add, and seconds after which it counts as hanging.
MEMORY, SECONDS = 3 << 30, 20


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def bounded() -> Iterator[None]:
    """A test that hangs fails; one that wants more memory than bad input is worth is refused it."""
    import cv2  # noqa: F401  what reserves address space does so before it is counted
    import torch  # noqa: F401

    import loc.colmap  # noqa: F401

    def hangs(_signal: int, _frame: Any) -> None:
        pytest.fail(f"still running after {SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="session")
def seen_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to look at: two queries by day and night with a pose, and two that have none."""
    return make_seen_run(tmp_path_factory.mktemp("seen"))


@pytest.fixture(scope="session")
def nested_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run up to the poses, to export: its image names nest."""
    return make_nested_run(tmp_path_factory.mktemp("exchange"))
