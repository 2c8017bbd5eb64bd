"""Paintings: deterministic, within range, seamless; and an atlas that gives back what it was given."""

from __future__ import annotations

import numpy as np
import pytest

from loc.town import textures
from loc.town.atlas import LEVELS, AtlasBuilder
from loc.town.lettering import board, clock_face
from loc.town.noise import fractal
from loc.town.paintbox import NEUTRAL, Paintbox


def test_noise_has_unit_strength_and_continues_over_its_edges() -> None:
    field = fractal((96, 160), 40, np.random.default_rng(0))
    assert abs(field.mean()) < 1e-4
    assert field.std() == pytest.approx(1, abs=1e-3)
    inner = np.abs(np.diff(field, axis=1)).mean()
    assert np.abs(field[:, 0] - field[:, -1]).mean() < 2 * inner
    assert np.abs(field[0] - field[-1]).mean() < 2 * np.abs(np.diff(field, axis=0)).mean()


@pytest.mark.parametrize(
    "name",
    ["plaster", "stone", "dressed", "brick", "wood", "metal", "setts", "slabs", "water", "tiles_red"],
)
def test_materials_are_paintings_and_repeatable(name: str) -> None:
    first, again = (Paintbox(16, np.random.default_rng(4)).sheet(name) for _ in range(2))
    assert first.shape[2] == 4
    assert first.dtype == np.float32
    assert 0 <= first.min() <= first.max() <= 1
    assert first[..., :3].std() > 0.005  # something to see
    np.testing.assert_array_equal(first, again)


def test_a_tint_makes_the_tone() -> None:
    box = Paintbox(16, np.random.default_rng(0))
    tint = np.array(box.material("plaster", (100, 150, 200)).tint)
    linear = (np.array(NEUTRAL) / 255) ** 2.2 * tint
    np.testing.assert_allclose(linear ** (1 / 2.2) * 255, (100, 150, 200), atol=0.5)


def test_atlas_returns_pixels_and_means_and_repeats() -> None:
    rng = np.random.default_rng(0)
    paintings = [rng.uniform(size=(64, 96, 4)).astype(np.float32), np.full((32, 32, 4), 0.5, np.float32)]
    builder = AtlasBuilder()
    numbers = [builder.add(painting) for painting in paintings]
    assert builder.size(numbers[0]) == (96, 64)
    atlas = builder.build()
    x, y = np.array([3, 40, 95]), np.array([5, 63, 0])
    texture, level = np.full(3, numbers[0], np.int32), np.zeros(3, np.int32)
    expected = (paintings[0][y, x] * 255 + 0.5).astype(np.uint8)
    xy = np.stack([x + 0.5, y + 0.5]).astype(np.float32)
    np.testing.assert_array_equal(atlas.sample(texture, xy, level), expected)
    np.testing.assert_array_equal(
        atlas.sample(texture, xy + np.array([[96], [-64]], np.float32), level), expected
    )
    coarse = atlas.sample(texture, xy, np.full(3, LEVELS - 1, np.int32))
    assert np.abs(coarse.astype(int) - 128).max() < 20  # the mean of noise


def test_leaves_have_holes_and_letters_are_legible_blocks() -> None:
    spray = textures.leaves((64, 64), (90, 120, 60), np.random.default_rng(0))
    assert 0.2 < spray[..., 3].mean() < 0.95
    sign = board((40, 160), "CAFE", np.random.default_rng(0), ground=(20, 20, 20), letters=(250, 250, 250))
    columns = (sign[10:30, 12:-12, 0] > 0.6).any(axis=0)
    assert int((np.diff(columns.astype(int)) == 1).sum()) >= 3  # letters with gaps between them
    dial, disk = clock_face(64, hours=3.0)
    assert disk[32, 32]
    assert not disk[0, 0]
    assert dial[32, 44, 0] > 0.6  # at three the short hand points right
    assert dial[32, 20, 0] < 0.5
