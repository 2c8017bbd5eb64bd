"""The Aachen line by its shipped config, its result file, and its pipeline script."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aachen_folders import make_folders
from scenes import Cli

from loc.layouts.lists import read_poses

ROOT = Path(__file__).resolve().parents[2]
LEAST = ["--set", "features.first_octave=0", "--set", "features.resize_max=320", "--workers", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("aachen") / "root"
    return root, make_folders(root)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run folder of ``loc run aachen_sift``."""
    workdir = tmp_path_factory.mktemp("run")
    command = [
        sys.executable,
        "-c",
        "from loc.cli import main; main()",
        "run",
        "aachen_sift",
        "-o",
        str(workdir),
    ]
    done = subprocess.run(
        [*command, "--set", f"scene.images={data[0]}", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return workdir, json.loads(done.stdout)


def test_run_localizes_by_day_and_night(finished):
    _, out = finished
    groups = out["evaluation"]["groups"]
    assert {name: group["queries"] for name, group in groups.items() if name != "all"} == {
        "day": 1,
        "night": 2,
    }
    assert out["registered"] == out["images"] == 9
    for group in ("day", "night"):
        assert groups[group]["recall"]["0.25, 2°"] == 1.0


def test_submit(finished, data, capsys, tmp_path):
    workdir, _ = finished
    cli = Cli(capsys)
    path = tmp_path / "Aachen_eval_sift.txt"
    assert cli("submit", workdir, "-o", path) == 0
    assert "day    1 of 1 queries" in cli.out
    assert "night  2 of 2 queries" in cli.out
    assert "note" not in cli.out
    truth = {Path(name).name: pose for name, pose in data[1].items() if name.startswith("query/")}
    found = read_poses(path)
    assert sorted(found) == sorted(truth)
    for name, pose in found.items():
        assert np.linalg.norm(pose.center_in_world - truth[name].center_in_world) < 0.05
    assert cli("eval", path, data[0] / "ground_truth.txt", "--json") == 0
    assert cli.json["unknown"] == 0


def test_submit_of_odd_requests(finished, capsys, tmp_path):
    workdir, _ = finished
    cli = Cli(capsys)
    assert cli("submit", workdir, "-o", tmp_path / "poses.txt", "--names", "path", "--json") == 0
    assert cli.json["names"] == "path"
    assert any("Aachen_eval_METHOD.txt" in note for note in cli.json["notes"])
    assert cli("submit", tmp_path, "-o", tmp_path / "x.txt") == 3
    assert "is not a run folder" in cli.err
    assert cli("submit", workdir, "-o", tmp_path / "x.txt", "--names", "folder") == 2
    assert cli("submit", workdir, "-o", tmp_path) == 2
    assert "is a folder" in cli.err
    assert cli("submit", workdir, "-o", tmp_path / "poses.txt") == 0  # an earlier result is replaced
    record = (workdir / "run.json").read_bytes()
    assert cli("submit", workdir, "-o", workdir / "run.json") == 3
    assert "is no result file: it is not replaced" in cli.err
    assert (workdir / "run.json").read_bytes() == record


def test_submit_of_a_run_without_poses(data, capsys, tmp_path):
    cli = Cli(capsys)
    images = f"scene.images={data[0]}"
    assert cli("extract", "aachen_sift", "-o", tmp_path / "run", "--set", images, *LEAST) == 0
    assert cli("submit", tmp_path / "run", "-o", tmp_path / "x.txt") == 3
    assert "has no poses of queries" in cli.err


def test_pipeline_script(finished, data, tmp_path):
    """On the stores of the run before: its config is the shipped one."""
    script = ROOT / "pipelines" / "aachen.py"
    assert len(script.read_text().splitlines()) <= 66  # one page
    night = data[0] / "queries" / "night_time_queries_with_intrinsics.txt"
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, script, "--dataset", data[0], "--outputs", tmp_path, "--queries", night],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "night: 2 of 2 queries have a pose" in done.stdout
    assert len(read_poses(tmp_path / "Aachen_eval_sift.txt")) == 2
    for part in ("features", "map"):  # nothing was made anew
        assert len(list((tmp_path / part).glob("[!.]*"))) == 1
