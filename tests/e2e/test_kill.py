"""SIGKILL at uniform times over every stage, then the same command again: nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from scenes import small_scene, start_child

from loc.config import RunConfig
from loc.digest import run_digest
from loc.pipeline import run
from loc.runtime.runtime import Runtime
from loc.stores.features import FeatureStore
from loc.stores.matches import MatchStore

KILLS = 10
#: Stage → label of its progress, and the folder that exists once it is finished.
STAGES = {
    "extraction": ("features", "features"),
    "matching": ("matches", "matches"),
    "mapping": ("verified", "map"),
    "localization": ("poses", "poses"),
}
UNTIL = {"extraction": "features", "matching": "matches", "mapping": "map"}
ORDER = ["features", "fits", "globals", "pairs", "matches", "map", "poses", "report"]


@dataclass
class Undisturbed:
    config: RunConfig
    config_file: Path
    folder: Path
    digest: dict[str, str]
    begins: dict[str, float] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """One run nobody disturbs, and when each of its stages began and ended."""
    root = tmp_path_factory.mktemp("kill")
    config = small_scene(root / "scene")
    file = root / "config.json"
    file.write_text(config.model_dump_json(by_alias=True))
    process = start_child(file, root / "run")
    assert process.stdout is not None
    marks: list[tuple[float, str, int]] = []
    for line in process.stdout:
        what, done, _ = json.loads(line)
        label = "verified" if what.startswith("map ") else what.split()[0]  # two parts of one stage
        marks.append((time.monotonic(), label, done))
    assert process.wait() == 0, process.stderr.read() if process.stderr else ""
    out = Undisturbed(config, file, root / "run", run_digest(root / "run"))
    for stage, (label, _) in STAGES.items():
        first = next(i for i, (_, what, _) in enumerate(marks) if what == label)
        later = [moment for moment, what, _ in marks[first:] if what != label]
        out.begins[stage] = marks[first][0]
        out.ends[stage] = later[0] if later else marks[-1][0] + 0.1
    return out


def state_before(stage: str, undisturbed: Undisturbed, target: Path) -> None:
    """The run folder as it is when ``stage`` begins."""
    target.mkdir()
    for name in ORDER[: ORDER.index(STAGES[stage][1])]:
        if (undisturbed.folder / name).exists():
            shutil.copytree(undisturbed.folder / name, target / name)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_then_resumed_equals_undisturbed(stage: str, undisturbed: Undisturbed, tmp_path: Path) -> None:
    rng = np.random.default_rng(sorted(STAGES).index(stage))
    label = STAGES[stage][0]
    duration = undisturbed.ends[stage] - undisturbed.begins[stage]
    until = UNTIL.get(stage, "report")
    reference = tmp_path / "reference"
    shutil.copytree(undisturbed.folder, reference)
    run(undisturbed.config, reference, runtime=Runtime(device="cpu", workers=1), until=until)
    expected, hit = run_digest(reference), 0
    for attempt in range(3 * KILLS):
        folder = tmp_path / str(attempt)
        state_before(stage, undisturbed, folder)
        moment = (hit + rng.random()) / KILLS * duration
        reported = kill_during(label, moment, undisturbed.config_file, folder)
        if reported is None:  # the machine is faster now than it was when the run was timed
            duration *= 0.8
            shutil.rmtree(folder)
            continue
        hit += 1
        check_kept(stage, reported, folder)
        # Nine of ten stop after the stage that was hit, which is what the kill can have hurt.
        last = hit == KILLS
        run(
            undisturbed.config,
            folder,
            runtime=Runtime(device="cpu", workers=1),
            until="report" if last else until,
        )
        assert run_digest(folder) == (undisturbed.digest if last else expected)
        # A kill may come late and leave the beginnings of a later stage, which this run did not redo.
        redone = ORDER if last else ORDER[: ORDER.index(STAGES[stage][1]) + 1]
        paths = [path for name in redone for path in (folder / name).rglob("*")]
        leftovers = [path for path in paths if path.suffix == ".tmp" or ".partial" in path.name]
        assert leftovers == []
        shutil.rmtree(folder)
        if last:
            return
    pytest.fail(f"only {hit} of {KILLS} kills came before the run ended")


def kill_during(label: str, delay: float, config: Path, folder: Path) -> int | None:
    """Start a run, kill it (and its workers) ``delay`` seconds into a stage; items done by then."""
    process = start_child(config, folder)
    done: list[int] = []
    begun = threading.Event()

    def listen() -> None:
        for line in process.stdout or ():
            what, count, _ = json.loads(line)
            if what.split()[0] == label:
                done.append(count)
                begun.set()
        begun.set()

    listener = threading.Thread(target=listen)
    listener.start()
    begun.wait(120)
    time.sleep(delay)
    alive = process.poll() is None
    # The main process alone: workers and the mapper's child must notice by themselves.
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    listener.join()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return max(done, default=0) if alive and done else None


def check_kept(stage: str, reported: int, folder: Path) -> None:
    """At most one unfinished part of the one writer is lost."""
    if stage == "extraction":
        for path in (folder / "features").glob("*"):
            assert len(FeatureStore(path, {})) >= reported - 2
    elif stage == "matching":
        for path in (folder / "matches").glob("*"):
            assert len(MatchStore(path, {})) >= reported - 4
