"""A small synthetic scene with known truth, and a child process to kill; shared by the e2e tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_scene import make_scene

from loc.cli import main
from loc.colmap import pycolmap
from loc.config import RunConfig
from loc.pipeline import Run, run
from loc.runtime.runtime import Runtime

#: Small photos: what is tested is the line, not the features.
SMALL = {"features.resize_max": 800, "features.max_keypoints": 2000}


def small_scene(folder: Path, **overrides: Any) -> RunConfig:
    return make_scene(folder, {**SMALL, **overrides}, frames=8, points=400)


def make_seen_run(folder: Path) -> Path:
    """A run with what a report and a 3-D view have to show; its names hold what HTML would take for tags."""
    config = small_scene(folder / "scene")
    listed = folder / "scene" / "queries.txt"
    truth = folder / "scene" / "ground_truth.txt"
    lines, poses = listed.read_text().splitlines(), truth.read_text().splitlines()
    names = ["day/<b>&amp;.png", "night/b.png"]
    for number, name in enumerate(names):
        old = lines[number].split()[0]
        path = folder / "scene" / "images" / name
        path.parent.mkdir(exist_ok=True)
        (folder / "scene" / "images" / old).rename(path)
        lines[number], poses[number] = (line.replace(old, name, 1) for line in (lines[number], poses[number]))
    camera, pose = lines[0].split(" ", 1)[1], poses[0].split(" ", 1)[1].rsplit(" ", 1)[0] + " 7"
    for name in ("night/blank.png", "night/gone.png"):
        lines.append(f"{name} {camera}")
        poses.append(f"{name} {pose}")
    write_photo(folder / "scene" / "images" / "night" / "blank.png", wh=(1024, 768), seed=3)
    listed.write_text("\n".join(lines) + "\n")
    truth.write_text("\n".join(poses) + "\n")
    run(config, folder / "run", runtime=Runtime(device="cpu", workers=1))
    return folder / "run"


def make_nested_run(folder: Path) -> Run:
    """A run whose image names nest."""
    fast = {"globals.words": 8, "pairs": [{"use": "retrieval", "k": 4, "for": "both"}]}
    config = small_scene(folder / "scene", **fast)
    scene = config.scene
    for old in (folder / "scene" / "images").iterdir():
        (folder / "images" / "db").mkdir(parents=True, exist_ok=True)
        shutil.move(old, folder / "images" / "db" / old.name)
    model = pycolmap.Reconstruction(scene.model)
    for image in model.images.values():
        image.name = f"db/{image.name}"
    model.write(scene.model)
    for path in (scene.queries, scene.ground_truth):
        lines = path.read_text().splitlines()
        path.write_text("".join(f"db/{line}\n" for line in lines))
    update = {"images": folder / "images"}
    config = config.model_copy(update={"scene": scene.model_copy(update=update)})
    return run(config, folder / "run", runtime=Runtime(device="cpu", workers=1), until="poses")


class Cli:
    """Runs ``loc`` in this process and keeps what it printed."""

    def __init__(self, capsys: Any) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *argv: object) -> int:
        self.capsys.readouterr()
        try:
            main([str(item) for item in argv])
            code: Any = 0
        except SystemExit as error:
            code = error.code or 0
        self.out, self.err = self.capsys.readouterr()
        return int(code)

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def fails(cli: Cli, code: int, message: str) -> None:
    """What :class:`loc.errors.LocError` prints: the problem, and indented what to do about it."""
    assert code in (2, 3, 5), cli.err
    assert "Traceback" not in cli.err
    first, _, rest = cli.err.rpartition("\n  ")
    assert message in first.split("Error: ", 1)[1], cli.err
    assert rest.strip()


def write_photo(path: Path, *, wh: tuple[int, int] = (64, 48), seed: int = 0) -> Path:
    """A textured photo that decodes, with nothing in it."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (wh[1] // 4 + 1, wh[0] // 4 + 1, 3), np.uint8)
    Image.fromarray(noise).resize(wh, Image.Resampling.BICUBIC).save(path)
    return path


CHILD = """
import json, sys
from pathlib import Path
from loc.config import RunConfig
from loc.pipeline import run
from loc.runtime.runtime import Runtime
from loc.stores.features import FeatureStore
from loc.stores.matches import MatchStore

if __name__ == "__main__":
    FeatureStore.max_items, MatchStore.max_items = 2, 4  # several parts even in a small scene
    config, workdir, workers = sys.argv[1:]
    def progress(what, done, total):
        print(json.dumps([what, done, total]), flush=True)
    config = RunConfig.model_validate_json(Path(config).read_text())
    run(config, workdir, runtime=Runtime(device="cpu", workers=int(workers), progress=progress))
"""


def start_child(config: Path, workdir: Path, workers: int = 2) -> subprocess.Popen[str]:
    """``loc.run`` in another process; its stdout holds a JSON line per unit of progress."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(config), str(workdir), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
