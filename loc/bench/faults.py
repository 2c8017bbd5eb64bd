"""`loc bench faults`: kills at random times over a whole run, and whether anything was hurt.

A run is started as a user starts it, killed with everything it started (SIGKILL: nothing can clean up)
at a uniformly random time, and started again, with another kill waiting, until one attempt gets through.
What it computed must then equal, by ``loc digest``, what an undisturbed run computed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loc.colmap import pycolmap
from loc.digest import run_digest
from loc.errors import LocError, ResourceError
from loc.plugins.blocks import load_config
from loc.stores.files import make_folder, write_text

STAGES = ("start-up", "extract", "match", "map", "localize", "report", "exit")
#: What ``run.log`` calls the stages.
_STAGE_OF = {
    **{"features": "extract", "globals": "extract", "pairs": "match", "matches": "match"},
    **{"map": "map", "poses": "localize", "report": "report"},
}
#: Parts of two photos and eight pairs, so that a scene of seconds has many of them.
_COMMAND = """
import sys
from loc.cli import main
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.matches import MatchStore
if __name__ == "__main__":
    FeatureStore.max_items = GlobalStore.max_items = 2
    MatchStore.max_items = 8
    main(sys.argv[1:])
"""
_CONFIG = {
    "features.max_keypoints": 1000,
    "pairs": [{"use": "retrieval", "k": 5, "for": "both"}],
}
#: An attempt that runs this many times as long as the undisturbed run hangs.
_PATIENCE = 20.0
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        stage: what the run was doing, one of ``STAGES``.
        unfinished: parts and products that it was writing, which are computed again.
        lost_s: time since the last finished part or product (or since the stage began), at most so
            much work is lost.
    """

    stage: str
    unfinished: int
    lost_s: float


@dataclass
class Campaign:
    """What came of all kills; ``failures`` names each run that was hurt, and how."""

    undisturbed_s: float
    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def equal(self) -> int:
        """Runs whose digest equals the undisturbed one's."""
        return self.runs - len(self.failures)

    def to_json(self) -> dict[str, Any]:
        hit = Counter(kill.stage for kill in self.kills)
        return {
            "kills": len(self.kills),
            "runs": self.runs,
            "equal": self.equal,
            "failures": self.failures,
            "undisturbed_s": round(self.undisturbed_s, 2),
            "stages": {
                stage: {
                    "kills": hit[stage],
                    "unfinished": sum(kill.unfinished for kill in self.kills if kill.stage == stage),
                    "lost_s_max": round(
                        max((kill.lost_s for kill in self.kills if kill.stage == stage), default=0.0), 2
                    ),
                }
                for stage in STAGES
            },
        }


def kill_campaign(kills: int, *, seed: int = 0, progress: Progress | None = None) -> Campaign:
    """Kill runs over a small synthetic scene until ``kills`` have hit.

    Args:
        kills: how many; runs that got through before their kill do not count.
        seed: of the times.
        progress: called with kills so far and in all.

    Raises:
        ResourceError: the undisturbed run itself fails.
    """
    root = Path(tempfile.mkdtemp(prefix="loc-faults-"))
    rng = np.random.default_rng(seed)
    # From scratch, although the poses are known: so the kills find the mapper at work.
    config = make_scene(root / "scene", {"map.mode": "reconstruct"})
    started = time.monotonic()
    ending = _attempt(config, root / "undisturbed", None)
    if ending.code != 0:
        raise ResourceError(f"the undisturbed run failed: {ending.said}", f"see {root}/undisturbed/run.log")
    campaign = Campaign(time.monotonic() - started)
    expected = run_digest(root / "undisturbed")
    while len(campaign.kills) < kills:
        folder = root / f"run-{campaign.runs:04d}"
        failure = _killed_until_done(config, folder, expected, campaign, kills, rng)
        campaign.runs += 1
        if failure is None:
            shutil.rmtree(folder)
        else:
            campaign.failures.append(f"{folder}: {failure}")
        if progress is not None:
            progress(len(campaign.kills), kills)
    if not campaign.failures:
        shutil.rmtree(root)
    return campaign


def _killed_until_done(
    config: Path,
    folder: Path,
    expected: dict[str, str],
    campaign: Campaign,
    kills: int,
    rng: np.random.Generator,
) -> str | None:
    """Run one folder to its end, with a kill waiting for every attempt; how it was hurt, or None."""
    while True:
        enough = len(campaign.kills) >= kills
        delay = None if enough else float(rng.uniform(0.0, campaign.undisturbed_s))
        ending = _attempt(config, folder, delay, patience_s=_PATIENCE * campaign.undisturbed_s)
        if ending.kill is not None:
            campaign.kills.append(ending.kill)
            continue
        if ending.code != 0:
            return f"exit code {ending.code}: {ending.said}"
        try:
            found = run_digest(folder)
        except LocError as error:
            return error.message
        changed = [name for name in expected if found.get(name) != expected[name]]
        leftovers = _unfinished(folder)
        if changed:
            return f"other {', '.join(changed)}"
        return f"left behind: {', '.join(path.name for path in leftovers)}" if leftovers else None


@dataclass(frozen=True)
class _Ending:
    code: int
    said: str
    kill: Kill | None = None


def _attempt(
    config: Path, folder: Path, delay_s: float | None, *, patience_s: float | None = None
) -> _Ending:
    """Run the command; kill it and all its children ``delay_s`` after its start, if it still runs."""
    log = folder / "run.log"
    before = log.stat().st_size if log.is_file() else 0
    command = [sys.executable, "-c", _COMMAND, "run", str(config), "-o", str(folder)]
    began = time.time()
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--workers", "2", "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=patience_s if delay_s is None else delay_s)
        return _Ending(process.returncode, said.strip())
    except subprocess.TimeoutExpired:
        killed = time.time()
    finally:  # also when the campaign itself is interrupted
        if process.poll() is None:
            _kill_family(process.pid)
            process.communicate()
    if delay_s is None:
        return _Ending(-1, f"it hangs: still running after {patience_s:.0f} s")
    stage = _stage(log, before)
    unfinished = len(_unfinished(folder))
    return _Ending(-signal.SIGKILL, "", Kill(stage, unfinished, killed - _last_finished(folder, began)))


def _stage(log: Path, before: int) -> str:
    """What the log says that this attempt was doing; ``before`` is its size when it began."""
    if not log.is_file():
        return STAGES[0]
    with log.open("rb") as file:
        file.seek(before)
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    if any(line.endswith("INFO loc: finished") for line in lines):
        return STAGES[-1]
    named = [line.rpartition(" stage ")[2] for line in lines if " INFO loc: stage " in line]
    return _STAGE_OF[named[-1]] if named else STAGES[0]


def _unfinished(folder: Path) -> list[Path]:
    """Temporary files and products in the making."""
    found = [*folder.rglob("*.tmp"), *folder.rglob("*.partial")]
    return sorted(path for path in found if not any(".partial" in part.name for part in path.parents))


def _last_finished(folder: Path, began: float) -> float:
    """When the last part or product was finished, or a stage of this attempt began, whichever is later."""
    files = [*folder.rglob("parts/*.h5"), *folder.rglob("manifest.json"), *folder.glob("run.log")]
    return max([began, *(path.stat().st_mtime for path in files)])


def _kill_family(pid: int) -> None:
    """SIGKILL to a process, its group, and all descendants in groups of their own (the mapper)."""
    family = [pid, *_descendants(pid)]
    os.killpg(pid, signal.SIGKILL)
    for each in family:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _descendants(pid: int) -> list[int]:
    """Children, their children and so on, where the system has ``/proc``."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def make_scene(
    folder: Path, overrides: dict[str, Any] | None = None, *, frames: int = 12, points: int = 200
) -> Path:
    """Photos of textured patches with a model, by COLMAP's synthesizer; every fourth is a query.

    Returns:
        The file of a config that maps and localizes them.
    """
    images, model = make_folder(folder / "images"), make_folder(folder / "model")
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig = 1, 1
    options.num_frames_per_rig, options.num_points3D = frames, points
    options.camera_width, options.camera_height = 640, 480
    options.camera_params = [800.0, 320.0, 240.0, 0.0]
    options.camera_has_prior_focal_length = True
    truth = pycolmap.synthesize_dataset(options)
    pycolmap.synthesize_images(pycolmap.SyntheticImageOptions(), truth, images)
    truth.write(model)
    names = sorted(image.name for image in truth.images.values())
    write_text(folder / "queries.txt", "".join(f"{name}\n" for name in names[1::4]))
    scene = {
        "scene.layout": "colmap",
        "scene.images": str(images),
        "scene.model": str(model),
        "scene.queries": str(folder / "queries.txt"),
    }
    config = load_config(None, {**scene, **_CONFIG, **(overrides or {})})
    path = folder / "config.yaml"  # JSON is YAML
    write_text(path, config.model_dump_json(by_alias=True))
    return path
