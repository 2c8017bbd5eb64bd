"""Ctrl-C: finished work is kept, the exit code is 130, and the same command resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scenes import SMALL, Cli, small_scene

from loc.stores.features import FeatureStore


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_then_resumed(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    small_scene(tmp_path / "scene")
    options = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    argv = ["reconstruct", str(tmp_path / "scene" / "images"), "-o", str(tmp_path / "run"), *options]
    process = subprocess.Popen(
        [sys.executable, "-c", "from loc.cli import main; main()", *argv, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what runs in the background deaf to Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    features = tmp_path / "run" / "features"
    deadline = time.monotonic() + 60
    while not list(features.glob("*/store.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)  # workers are at it
    os.killpg(process.pid, number)  # what a terminal does: parent and workers get it
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if not line.startswith("progress: ")] == [
        "interrupted: finished work is kept",
        "  run the same command again to resume",
    ]
    kept = sum(len(FeatureStore(folder)) for folder in features.iterdir())
    assert cli(*argv, "--json") == 0, cli.err
    assert cli.json["features"]["images"] == 8
    assert kept <= 8
