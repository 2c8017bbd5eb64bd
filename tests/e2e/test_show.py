"""``loc show`` with the real Open3D: pictures off screen, the chosen query, and mistakes.

Open3D is an extra (pip install "visloc[view]"); continuous integration installs it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import Cli

from loc.viz.palette import rgb

pytestmark = pytest.mark.xdist_group("seen_run")


@pytest.fixture
def open3d() -> None:
    if importlib.util.find_spec("open3d") is None:
        if os.environ.get("LOC_CI"):
            pytest.fail('continuous integration must have Open3D: pip install "visloc[view]"')
        pytest.skip('needs Open3D (pip install "visloc[view]") to draw with')


def drawn(path: Path) -> np.ndarray:
    """The picture without the corner of its legend."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    pixels[pixels.shape[0] // 2 :, : pixels.shape[1] // 2] = pixels[0, 0]
    return pixels


def share_of(pixels: np.ndarray, key: str) -> float:
    """Share of the pixels that are nearly of a colour; lines blend at their edges."""
    away = np.abs(pixels - 255 * np.array(rgb(key))).max(axis=2)
    return float((away < 30).mean())


@pytest.mark.usefixtures("open3d")
def test_a_picture_shows_points_cameras_and_queries(cli: Cli, seen_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "map.png"
    assert cli("show", seen_run, "--png", path, "--view", "top", "--width", 800, "--height", 700) == 0
    assert f"picture    {path}" in cli.out
    pixels = drawn(path)
    assert pixels.shape == (700, 800, 3)
    ground = pixels[0, 0]
    assert ground.max() < 40
    assert 0.002 < (np.abs(pixels - ground).max(axis=2) > 30).mean() < 0.8
    for key in ("db", "day", "night", "failed"):
        assert share_of(pixels, key) > 2e-4, key


@pytest.mark.usefixtures("open3d")
def test_the_chosen_query_is_seen_from_behind_with_its_rays(cli: Cli, seen_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "query.png"
    size = ("--width", 640, "--height", 480)
    assert cli("show", seen_run, "--query", "b.png", "--png", path, *size, "--json") == 0
    assert cli.json["drawn"]["inlier rays"] > 20
    assert cli.json["drawn"]["failed, at the true pose"] == 1
    with_rays = share_of(drawn(path), "ray")
    assert cli("show", seen_run, "--png", path, *size) == 0
    assert with_rays > 10 * share_of(drawn(path), "ray")


@pytest.mark.parametrize(
    ("argv", "code", "message", "next_step"),
    [
        (["--query", "nigth/b.png"], 2, "no query is called 'nigth/b.png'", "did you mean night/b.png?"),
        (["--view", "query"], 2, "--view query shows what one query sees", "--query NAME --view query"),
        (["--query", "gone.png"], 3, "'night/gone.png' has no pose to show: it is unreadable", "the report"),
        (["--width", "5"], 2, "Invalid value", ""),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(
    cli: Cli, seen_run: Path, tmp_path: Path, argv: list[str], code: int, message: str, next_step: str
) -> None:
    path = tmp_path / "x.png"
    assert cli("show", seen_run, "--png", path, *argv) == code
    assert message in cli.err
    assert next_step in cli.err
    assert not path.exists()


def test_a_folder_that_is_no_run(cli: Cli, tmp_path: Path) -> None:
    assert cli("show", tmp_path, "--png", tmp_path / "x.png") == 3
    assert "is not a run folder" in cli.err


def test_a_file_that_is_a_folder(cli: Cli, seen_run: Path, tmp_path: Path) -> None:
    assert cli("show", seen_run, "--png", tmp_path) == 3
    assert "is a folder" in cli.err


def test_only_a_picture_is_replaced(cli: Cli, seen_run: Path, tmp_path: Path) -> None:
    assert cli("show", seen_run, "--png", tmp_path / "a.jpg") == 2
    assert "a.png" in cli.err
    note = tmp_path / "note.png"
    note.write_text("mine", encoding="utf-8")
    assert cli("show", seen_run, "--png", note) == 3
    assert "is no picture: it is not replaced" in cli.err
    assert note.read_text(encoding="utf-8") == "mine"
