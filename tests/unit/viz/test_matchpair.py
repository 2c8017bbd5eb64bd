"""Where lines between two photos go."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from loc.viz.matchpair import ShownPhoto, draw_matches

NONE = np.zeros((0, 2))


def saved(path, wh, orientation=1):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", wh, (0, 0, 90)).save(path, exif=exif)
    return path


def drawn(canvas):
    """Rows and columns where something other than the blue photos and the white gap is."""
    return np.argwhere((canvas[..., 1] > 60) & (canvas[..., 2] < 250))


def test_photos_stand_side_by_side_upright_at_one_height(tmp_path):
    left = ShownPhoto(saved(tmp_path / "a.png", (300, 100)), NONE, NONE)
    right = ShownPhoto(saved(tmp_path / "b.png", (40, 20), orientation=6), NONE, NONE)
    canvas = draw_matches(left, right, np.zeros(0, bool))
    assert canvas.shape == (720, 3 * 720 + 8 + 360, 3)
    assert (canvas[:, 3 * 720 : 3 * 720 + 8] == 255).all()
    assert len(drawn(canvas)) == 0
    wide = ShownPhoto(saved(tmp_path / "c.png", (3000, 30)), NONE, NONE)
    assert draw_matches(wide, right, np.zeros(0, bool)).shape[1] <= 3200


@pytest.mark.parametrize(
    ("orientation", "stored"), [(1, (75.0, 25.0)), (3, (25.0, 75.0)), (6, (25.0, 25.0)), (8, (75.0, 75.0))]
)
def test_an_inlier_joins_its_points(tmp_path, orientation, stored):
    """Upright, the point is three quarters to the right and one quarter down."""
    left = ShownPhoto(saved(tmp_path / "a.png", (100, 100), orientation), np.array([stored]), NONE)
    right = ShownPhoto(saved(tmp_path / "b.png", (100, 100)), np.array([[25.0, 75.0]]), NONE)
    found = drawn(draw_matches(left, right, np.ones(1, bool)))
    first, last = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
    np.testing.assert_allclose(first, [180, 540], atol=4)
    np.testing.assert_allclose(last, [540, 728 + 180], atol=4)


def test_what_is_no_inlier_is_a_dot(tmp_path):
    points = np.array([[20.0, 50.0], [50.0, 50.0], [80.0, 50.0]])
    photo = saved(tmp_path / "a.png", (100, 100))
    left, right = ShownPhoto(photo, points, NONE), ShownPhoto(photo, points, points + np.array([0, 30]))
    canvas = draw_matches(left, right, np.zeros(3, bool))
    assert len(drawn(canvas)) < 600  # a line alone has a thousand
    assert (canvas[360, [144, 360, 576]][:, 0] > 150).all()
    assert (canvas[576, 728 + np.array([144, 360, 576])] > 200).all()


def test_at_most_so_many_lines(tmp_path):
    rng = np.random.default_rng(0)
    photo = saved(tmp_path / "a.png", (100, 100))
    side = ShownPhoto(photo, rng.uniform(5, 95, (300, 2)), NONE)
    inliers = np.ones(300, bool)
    counts = [len(drawn(draw_matches(side, side, inliers, most_lines=most))) for most in (0, 10, 300)]
    everything = draw_matches(side, side, inliers)
    assert counts[0] == 0 < counts[1] < counts[2] == len(drawn(everything))
