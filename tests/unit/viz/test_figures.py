"""Thumbnails and the plan: right place, right size, upright."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loc.conventions import stored_from_upright_xy, upright_wh
from loc.types import Pose
from loc.viz.figures import THUMB_WH, PhotoWithPoints, pair_thumbnail, plan, upright_from_stored_xy


def decoded(uri: str | None) -> np.ndarray:
    assert uri is not None
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def photo(folder: Path, name: str, wh: tuple[int, int], orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", wh, (128, 128, 128)).save(folder / name, exif=exif, quality=95)
    return folder / name


def colorful(pixels: np.ndarray, least: int = 60) -> np.ndarray:
    """Where marks are: the photos are grey. Thin lines are paler than points."""
    return np.ptp(pixels, axis=2) > least


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_from_stored_is_the_inverse(orientation: int) -> None:
    upright = np.random.default_rng(0).uniform(0, 100, (20, 2))
    stored = stored_from_upright_xy(upright, stored_wh=(640, 480), exif_orientation=orientation)
    back = upright_from_stored_xy(stored, stored_wh=(640, 480), exif_orientation=orientation)
    assert np.allclose(back, upright)


def test_marks_are_where_the_points_are(tmp_path: Path) -> None:
    path = photo(tmp_path, "a.jpg", (1600, 1200))
    pixels = decoded(
        pair_thumbnail(PhotoWithPoints(path, np.array([[400.0, 300.0], [1200.0, 900.0]], np.float32)))
    )
    assert pixels.shape == (300, 400, 3)
    rows, columns = np.nonzero(colorful(pixels))
    near = (np.hypot(columns + 0.5 - 100, rows + 0.5 - 75) < 6) | (
        np.hypot(columns + 0.5 - 300, rows + 0.5 - 225) < 6
    )
    assert len(rows) > 10
    assert near.all()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_rotated_photo_is_shown_upright_with_its_marks(tmp_path: Path, orientation: int) -> None:
    path = photo(tmp_path, "a.jpg", (800, 600), orientation)
    width, height = upright_wh((800, 600), orientation)
    upright = np.array([[0.25 * width, 0.75 * height]])
    stored = stored_from_upright_xy(upright, stored_wh=(800, 600), exif_orientation=orientation)
    pixels = decoded(pair_thumbnail(PhotoWithPoints(path, stored.astype(np.float32))))
    assert (pixels.shape[1] > pixels.shape[0]) == (width > height)
    rows, columns = np.nonzero(colorful(pixels))
    assert abs(columns.mean() + 0.5 - 0.25 * pixels.shape[1]) < 2
    assert abs(rows.mean() + 0.5 - 0.75 * pixels.shape[0]) < 2


def test_a_pair_lies_side_by_side_with_lines_between(tmp_path: Path) -> None:
    left, right = photo(tmp_path, "l.jpg", (400, 300)), photo(tmp_path, "r.jpg", (300, 400))
    query = PhotoWithPoints(left, np.array([[10.0, 10.0], [200.0, 150.0]], np.float32))
    reference = PhotoWithPoints(right, np.array([[150.0, 200.0]], np.float32))
    pixels = decoded(pair_thumbnail(query, reference, np.array([1])))
    assert pixels.shape == (300, 400 + 8 + 225, 3)
    marked = colorful(pixels, 20)
    crossing = marked[:, 395:415].any(axis=0)
    assert crossing.mean() > 0.5  # one line from (200, 150) to (408 + 112, 150)
    assert abs(np.nonzero(marked[:, 380])[0].mean() - 150) < 3
    without = decoded(pair_thumbnail(query, reference, np.zeros(0, int)))
    assert not colorful(without)[:, 300:].any()


def test_small_photos_are_not_enlarged(tmp_path: Path) -> None:
    path = photo(tmp_path, "a.jpg", (60, 40))
    assert decoded(pair_thumbnail(PhotoWithPoints(path, np.zeros((0, 2), np.float32)))).shape == (40, 60, 3)
    assert THUMB_WH == (400, 300)


def test_a_photo_that_is_gone_has_no_picture(tmp_path: Path) -> None:
    nothing = np.zeros((0, 2), np.float32)
    assert pair_thumbnail(PhotoWithPoints(tmp_path / "gone.jpg", nothing)) is None
    here = PhotoWithPoints(photo(tmp_path, "a.jpg", (60, 40)), nothing)
    assert decoded(pair_thumbnail(here, PhotoWithPoints(tmp_path / "gone.jpg", nothing))).shape == (40, 60, 3)


def level(x: float, z: float, heading_deg: float = 0.0) -> Pose:
    """A camera at height 0 (world y points down), turned about the vertical; 0 looks along +z."""
    half = np.radians(heading_deg) / 2
    turn = Pose(np.array([0, -np.sin(half), 0, np.cos(half)]), np.zeros(3))
    return Pose(turn.quat_xyzw, -turn.rotation @ np.array([x, 0.0, z]))


def test_the_plan_is_seen_from_above() -> None:
    """Right is right, forward is up, triangles turn with the cameras."""
    db = {"a": level(-1, 0), "b": level(1, 0)}
    xyz = np.array([[0.0, -5.0, 4.0], [0.5, 3.0, 4.0]])
    dots, height = plan(db, [("q", "ok", level(0.5, 1, heading_deg=90))], xyz)
    at = {dot.name: dot for dot in dots if dot.name}
    assert at["a"].x < at["q"].x < at["b"].x
    assert at["q"].y < at["a"].y == at["b"].y
    assert at["a"].heading_deg == pytest.approx(0, abs=0.1)
    assert at["q"].heading_deg == pytest.approx(90, abs=0.1)
    assert sum(dot.kind == "point" for dot in dots) == 2
    assert 0.4 < height < 2


def test_a_query_far_outside_does_not_shrink_the_plan() -> None:
    db = {"a": level(-1, 0), "b": level(1, 0)}
    xyz = np.array([[0.0, 0.0, 4.0]])
    alone, _ = plan(db, [], xyz)
    dots, _ = plan(db, [("far", "doubtful", level(900, 900)), ("lost", "ok", level(-900, 0))], xyz)
    assert dots == alone


def test_an_empty_map_has_no_plan() -> None:
    assert plan({}, [], np.zeros((0, 3))) == ([], 0.0)
    dots, _ = plan({"a": level(0, 0)}, [], np.zeros((0, 3)))
    assert [dot.name for dot in dots] == ["a"]
