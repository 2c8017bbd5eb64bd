import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from synthetic_map import synthesize

from loc.config import MapConfig
from loc.errors import MapError
from loc.sfm import mapper
from loc.sfm.mapper import mapper_options, needs_refinement, triangulation_options
from loc.types import Camera


def _run(folder: Path, monkeypatch, code: str, **options):
    monkeypatch.setattr(mapper, "command", lambda request: [sys.executable, "-c", code])
    return mapper.run_mapper(
        "incremental",
        database=folder / "database.db",
        output=folder / "models",
        options={},
        triangulation={},
        log=folder / "colmap.log",
        **options,
    )


def test_a_native_abort_is_a_map_error_with_the_last_words(tmp_path, monkeypatch):
    code = "import os, sys; print('Check failed: 1 == 2', flush=True); os.abort()"
    with pytest.raises(MapError) as error:
        _run(tmp_path, monkeypatch, code)
    assert re.fullmatch(
        r"the incremental mapper was ended by SIGABRT after \d+\.\d s: Check failed: 1 == 2\n"
        r"  run the same command again; if it fails again, try the other map\.mapper; "
        rf"details: {tmp_path}/colmap\.log",
        str(error.value),
    )
    assert "Check failed" in (tmp_path / "colmap.log").read_text()


def test_an_exception_is_a_map_error(tmp_path, monkeypatch):
    with pytest.raises(MapError, match=r"failed \(exit code 1\) after .* s: .*RuntimeError: no luck"):
        _run(tmp_path, monkeypatch, "raise RuntimeError('no luck')")


def test_a_child_that_prints_nothing_is_a_map_error(tmp_path, monkeypatch):
    with pytest.raises(MapError, match=r"exit code 7\) after .* s: it printed nothing"):
        _run(tmp_path, monkeypatch, "raise SystemExit(7)")


def test_a_hang_is_stopped(tmp_path, monkeypatch):
    started = time.monotonic()
    with pytest.raises(MapError) as error:
        _run(tmp_path, monkeypatch, "import time; time.sleep(60)", timeout_s=0.5)
    assert time.monotonic() - started < 20
    assert str(error.value) == (
        "the incremental mapper did not finish within map.timeout_s = 0.5 s\n"
        f"  raise map.timeout_s, or map fewer images at once; details: {tmp_path}/colmap.log"
    )


def test_ctrl_c_ends_the_child_and_goes_on(tmp_path, monkeypatch):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, monkeypatch, code)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


_PARENT = """
import sys
from pathlib import Path
from loc.sfm import mapper
mapper.run_mapper("incremental", database=Path(sys.argv[1]), output=Path(sys.argv[2]) / "models",
                  options={"min_model_size": 3, "extract_colors": False, "num_threads": 1},
                  triangulation={}, log=Path(sys.argv[2]) / "colmap.log")
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the child in /proc")
def test_a_killed_parent_leaves_no_mapper_behind(tmp_path):
    scene = synthesize(tmp_path, images=20, points=1000)  # maps for seconds
    bundle_database = _database(scene, tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(bundle_database), str(tmp_path)])
    try:
        child = _wait_for_child(str(tmp_path / "models" / "request.json"))
        _wait_until(lambda: "Registering" in _text(tmp_path / "colmap.log"))
        assert _alive(child)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _wait_until(lambda: not _alive(child))


def _database(scene, folder: Path) -> Path:
    from loc.runtime.runtime import Runtime
    from loc.stages.map import _MapJob

    job = _MapJob.of(
        scene.scene, scene.features, scene.pairs, scene.matches, MapConfig(verification="known_poses")
    )
    job._write_database(folder, Runtime(device="cpu", workers=1))
    return folder / "database.db"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _wait_until(ready, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _wait_for_child(argument: str) -> int:
    found: list[int] = []

    def look() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "loc.sfm.child" in words and argument in words:
                found.append(int(path.parent.name))
        return bool(found)

    _wait_until(look)
    return found[0]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _camera(model: str, params: list[float], *, known: bool) -> Camera:
    return Camera(model, 640, 480, np.array(params, np.float64), has_prior_focal_length=known)


CALIBRATED = _camera("SIMPLE_RADIAL", [500, 320, 240, 0.1], known=True)
FROM_EXIF = _camera("SIMPLE_RADIAL", [500, 320, 240, 0.0], known=True)
GUESS = _camera("PINHOLE", [500, 500, 320, 240], known=False)
PINHOLE = _camera("PINHOLE", [500, 500, 320, 240], known=True)


def test_guesses_and_unmeasured_distortion_are_refined():
    assert [needs_refinement(camera) for camera in (CALIBRATED, FROM_EXIF, GUESS, PINHOLE)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("refine", "constant"), [("auto", [1, 4]), ("always", []), ("never", [1, 2, 3, 4])])
def test_constant_cameras_of_the_incremental_mapper(refine, constant):
    cameras = {1: CALIBRATED, 2: FROM_EXIF, 3: GUESS, 4: PINHOLE}
    options = mapper_options("incremental", MapConfig(refine_intrinsics=refine), cameras)
    assert options["constant_cameras"] == constant


def _options(task: str, config: MapConfig) -> dict:
    return (
        triangulation_options(config) if task == "triangulate" else mapper_options(task, config, {1: GUESS})
    )


@pytest.mark.parametrize("task", ["incremental", "global", "triangulate"])
@pytest.mark.parametrize(("deterministic", "threads"), [(True, 1), (False, -1)])
def test_threads_and_seeds_are_pinned(task, deterministic, threads):
    options = _options(task, MapConfig(deterministic=deterministic))
    assert options["num_threads"] == options["mapper.num_threads"] == threads
    assert options["random_seed"] == options["mapper.random_seed"] == 0


@pytest.mark.parametrize("task", ["incremental", "global", "triangulate"])
def test_every_option_exists_in_pycolmap(task):
    from loc.colmap import pycolmap
    from loc.sfm.child import set_options

    kind = pycolmap.GlobalPipelineOptions if task == "global" else pycolmap.IncrementalPipelineOptions
    options = set_options(kind(), _options(task, MapConfig(min_num_inliers=17)))
    assert options.random_seed == 0
    assert options.min_num_matches == 17
