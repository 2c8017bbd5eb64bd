"""What is said when Open3D, a system library, a driver or the display is missing; and the legend.

Each case puts a stand-in called ``open3d`` before the real one, so that the real child process meets it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from loc.errors import ResourceError
from loc.types import Camera, Pose
from loc.viz import view3d
from loc.viz.scene3d import Drawing, draw_scene, place_camera
from loc.viz.view3d import open_viewer, save_picture

#: A renderer that paints everything in one colour.
PAINTS = """
import numpy as np
class _Any:
    def __init__(self, *a, **k): pass
    def __getattr__(self, name): return _Any()
    def __call__(self, *a, **k): return _Any()
class _Renderer(_Any):
    def __init__(self, width, height): self.wh = width, height
    def render_to_image(self): return np.full((self.wh[1], self.wh[0], 3), 200, np.uint8)
class rendering(_Any):
    OffscreenRenderer = _Renderer
class visualization: pass
visualization.rendering = rendering
rendering.MaterialRecord = _Any
utility = geometry = _Any()
"""


@pytest.fixture
def drawing() -> Drawing:
    camera = Camera("SIMPLE_PINHOLE", 640, 480, np.array([500.0, 320, 240]))
    xyz = np.random.default_rng(0).uniform([-1, -1, 4], [1, 1, 6], (50, 3))
    db = {"a": (Pose(np.array([0, 0, 0, 1.0]), np.zeros(3)), camera)}
    return draw_scene(db, [], (xyz, np.full((50, 3), 90, np.uint8)))


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    (folder / "stand_in").mkdir()
    (folder / "stand_in" / "open3d.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "stand_in"))


def failure(drawing: Drawing, path: Path) -> ResourceError:
    with pytest.raises(ResourceError) as caught:
        save_picture(drawing, place_camera(drawing, "top", aspect=1.0), path, width=64, height=64)
    assert not path.exists()
    return caught.value


@pytest.mark.parametrize(
    ("code", "message", "next_step"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'open3d'\", name='open3d')",
            "is not installed",
            'pip install "visloc[view]"',
        ),
        (
            "raise OSError('libGL.so.1: cannot open shared object file: No such file or directory')",
            "libGL.so.1 is missing",
            "apt-get install libgl1",
        ),
        (
            "raise ImportError('libusb-1.0.so.0: cannot open shared object file')",
            "libusb-1.0.so.0 is missing",
            "apt-get install libusb-1.0-0",
        ),
        (
            "raise ImportError('libfoo-2.so.5: cannot open shared object file')",
            "libfoo-2.so.5 is missing",
            "apt-get install libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6 libvulkan1 mesa-vulkan-drivers",
        ),
        ("raise ImportError('numpy.core.multiarray failed')", "numpy.core", "reinstall it"),
        (
            "import os, sys; sys.stderr.write('reason: Unable to create Vulkan instance\\n');"
            "sys.stderr.flush(); os.abort()",
            "was ended by SIGABRT: no working Vulkan or EGL driver was found",
            "apt-get install libvulkan1 mesa-vulkan-drivers",
        ),
        ("raise RuntimeError('something else')", "failed (exit code 1): ", "check its libraries"),
    ],
)
def test_what_is_missing_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawing: Drawing, code: str, message: str, next_step: str
) -> None:
    stand_in(monkeypatch, tmp_path, code)
    error = failure(drawing, tmp_path / "out.png")
    assert message in error.message
    assert next_step in str(error.next_step)


def test_a_renderer_that_hangs_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawing: Drawing
) -> None:
    stand_in(monkeypatch, tmp_path, "import time; time.sleep(60)")
    monkeypatch.setattr(view3d, "_TIMEOUT_S", 1.0)
    assert "did not finish a picture within 1 s" in failure(drawing, tmp_path / "out.png").message


def test_without_a_display_a_picture_is_suggested(monkeypatch: pytest.MonkeyPatch, drawing: Drawing) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ResourceError) as caught:
        open_viewer(drawing, place_camera(drawing, "top", aspect=1.0), title="t", width=64, height=64)
    assert "no display" in caught.value.message
    assert caught.value.next_step == "render a picture instead: loc show RUN --png FILE"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 is asked for a display")
def test_a_display_that_does_not_answer_is_no_display(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawing: Drawing
) -> None:
    stand_in(
        monkeypatch, tmp_path, PAINTS + "visualization.draw = lambda *a, **k: __import__('time').sleep(60)\n"
    )
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ResourceError) as caught:
        open_viewer(drawing, place_camera(drawing, "top", aspect=1.0), title="t", width=64, height=64)
    assert "DISPLAY is :987, and no server answers there" in caught.value.message
    assert "--png" in str(caught.value.next_step)


def test_the_picture_has_its_size_and_a_legend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawing: Drawing
) -> None:
    from PIL import Image

    stand_in(monkeypatch, tmp_path, PAINTS)
    path = tmp_path / "new" / "out.png"
    save_picture(drawing, place_camera(drawing, "top", aspect=2.0), path, width=400, height=200)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (200, 400, 3)
    assert (pixels[0] == 200).all()
    assert (pixels[150:, :100] != 200).any()
