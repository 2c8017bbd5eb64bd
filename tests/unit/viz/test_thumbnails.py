"""Thumbnails: right place, right size, upright."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loc.conventions import stored_from_upright_xy, upright_wh
from loc.viz.thumbnails import (
    GAP_PX,
    MAX_DOTS,
    MAX_LINES,
    STAMP_WH,
    THUMB_WH,
    Pair,
    PhotoWithPoints,
    Thumbnail,
    draw_pair,
    stamp,
    upright_from_stored_xy,
)

NOTHING = np.zeros((0, 2), np.float32)


def decoded(thumbnail: Thumbnail | None) -> np.ndarray:
    assert thumbnail is not None
    head, _, data = thumbnail.uri.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def photo(folder: Path, name: str, wh: tuple[int, int], orientation: int = 1) -> Path:
    """Grey, with a red quarter in the stored image's upper left."""
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.new("RGB", wh, (128, 128, 128))
    image.paste((220, 20, 20), (0, 0, wh[0] // 4, wh[1] // 4))
    image.save(folder / name, exif=exif, quality=95)
    return folder / name


def drawn(query: PhotoWithPoints, *others: object) -> Pair:
    pair = draw_pair(query, *others)  # type: ignore[arg-type]
    assert pair is not None
    return pair


def dots(pair: Pair) -> np.ndarray:
    return np.array([[float(x), float(y)] for x, y in re.findall(r"M([-\d.]+) ([-\d.]+)h0", pair.dots)])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_from_stored_is_the_inverse(orientation: int) -> None:
    upright = np.random.default_rng(0).uniform(0, 100, (20, 2))
    stored = stored_from_upright_xy(upright, stored_wh=(640, 480), exif_orientation=orientation)
    back = upright_from_stored_xy(stored, stored_wh=(640, 480), exif_orientation=orientation)
    assert np.allclose(back, upright)


def test_dots_are_where_the_points_are(tmp_path: Path) -> None:
    path = photo(tmp_path, "a.jpg", (1600, 1200))
    pair = drawn(PhotoWithPoints(path, np.array([[400.0, 300.0], [1200.0, 900.0]], np.float32)))
    width, height = THUMB_WH
    assert (pair.width, pair.height) == (width, height)
    assert np.allclose(dots(pair), [[width / 4, height / 4], [3 * width / 4, 3 * height / 4]], atol=0.1)
    assert decoded(pair.query).shape == (height, width, 3)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_rotated_photo_is_shown_upright_with_its_dots(tmp_path: Path, orientation: int) -> None:
    """The dot lies in the red quarter, wherever that comes to be."""
    path = photo(tmp_path, "a.jpg", (800, 600), orientation)
    pair = drawn(PhotoWithPoints(path, np.array([[100.0, 75.0]], np.float32)))
    width, height = upright_wh((800, 600), orientation)
    assert (pair.width > pair.height) == (width > height)
    x, y = dots(pair)[0].astype(int)
    red = decoded(pair.query)[y, x]
    assert red[0] > 180
    assert red[1] < 80


def test_a_pair_lies_side_by_side_with_lines_between(tmp_path: Path) -> None:
    left, right = photo(tmp_path, "l.jpg", (400, 300)), photo(tmp_path, "r.jpg", (300, 400))
    query = PhotoWithPoints(left, np.array([[10.0, 10.0], [200.0, 150.0]], np.float32))
    reference = PhotoWithPoints(right, np.array([[150.0, 200.0]], np.float32))
    pair = drawn(query, reference, np.array([1]))
    assert pair.reference is not None
    assert pair.reference.height == THUMB_WH[1]
    assert pair.reference_x == 400 + GAP_PX
    assert pair.query_y == (THUMB_WH[1] - 300) // 2
    ends = [float(each) for each in re.findall(r"[\d.]+", "".join(pair.lines))]
    factor = THUMB_WH[1] / 400
    expected = [200, 150 + pair.query_y, pair.reference_x + 150 * factor, 200 * factor]
    assert np.allclose(ends, expected, atol=0.6)
    assert len(dots(pair)) == 3
    assert drawn(query, reference, np.zeros(0, int)).lines == ()


def test_many_points_are_thinned_but_cover_the_photo(tmp_path: Path) -> None:
    left, right = photo(tmp_path, "l.jpg", (400, 300)), photo(tmp_path, "r.jpg", (400, 300))
    random = np.random.default_rng(0)
    crowd = random.uniform([0, 0], [40, 30], (5000, 2))  # most points in one corner
    xy = np.concatenate([crowd, random.uniform([0, 0], [400, 300], (500, 2))]).astype(np.float32)
    pair = drawn(PhotoWithPoints(left, xy), PhotoWithPoints(right, xy), np.arange(len(xy)))
    assert MAX_DOTS < len(dots(pair)) <= 2 * MAX_DOTS
    count = "".join(pair.lines).count("M")
    assert MAX_LINES // 2 < count <= MAX_LINES
    own = dots(pair)[dots(pair)[:, 0] <= 400]
    assert (own[:, 0] > 200).mean() > 0.3  # the crowd does not take all


def test_small_photos_are_not_enlarged(tmp_path: Path) -> None:
    path = photo(tmp_path, "a.jpg", (60, 40))
    assert decoded(drawn(PhotoWithPoints(path, NOTHING)).query).shape == (40, 60, 3)
    small = stamp(photo(tmp_path, "b.jpg", (800, 600)))
    assert small is not None
    assert (small.width, small.height) == STAMP_WH


def test_a_photo_that_is_gone_has_no_picture(tmp_path: Path) -> None:
    assert draw_pair(PhotoWithPoints(tmp_path / "gone.jpg", NOTHING)) is None
    assert stamp(tmp_path / "gone.jpg") is None
    here = PhotoWithPoints(photo(tmp_path, "a.jpg", (60, 40)), NOTHING)
    pair = drawn(here, PhotoWithPoints(tmp_path / "gone.jpg", NOTHING))
    assert pair.reference is None
    assert pair.width == 60
