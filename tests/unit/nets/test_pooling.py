"""Poolings of maps, by what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loc.nets.pooling import crow, gem, mac, regional, rmac_grid, spoc, unit


def maps(seed: int = 0, shape: tuple[int, int, int] = (5, 6, 8)) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_gem_lies_between_mean_and_maximum() -> None:
    some = maps()
    assert torch.allclose(gem(some, 1.0), spoc(some), atol=1e-6)
    assert torch.allclose(gem(some, 200.0), mac(some), rtol=0.03)
    assert (gem(some, 3.0) > spoc(some)).all()
    assert (gem(some, 3.0) < mac(some)).all()


def test_all_of_a_constant_map_is_the_constant() -> None:
    constant = torch.full((3, 4, 4), 0.7)
    for pooling in (mac, spoc, gem):
        assert torch.allclose(pooling(constant), torch.full((3,), 0.7), atol=1e-6)


def test_crow_by_hand() -> None:
    some = torch.zeros(2, 1, 2)
    some[0] = torch.tensor([[3.0, 1.0]])  # active everywhere
    some[1] = torch.tensor([[0.0, 3.0]])  # active in half of the cells
    strength = np.array([3.0, 4.0])
    weights = np.sqrt(strength / 5)
    expected = [(3 * weights[0] + weights[1]) * np.log(1.5 / 1.0), 3 * weights[1] * np.log(1.5 / 0.5)]
    assert crow(some).numpy() == pytest.approx(expected, rel=1e-4)


def test_crow_of_nothing_is_nothing() -> None:
    assert torch.equal(crow(torch.zeros(3, 2, 2)), torch.zeros(3))


def test_the_grid_of_the_published_code() -> None:
    grid = rmac_grid(24, 32)
    assert len(grid) == 20
    assert [side for _, _, side in grid] == [24] * 2 + [16] * 6 + [12] * 12
    last = [(y, x) for y, x, side in grid if side == 12]
    assert last == [(y, x) for y in (0, 6, 12) for x in (0, 6, 13, 20)]
    turned = rmac_grid(32, 24)
    assert sorted((x, y, side) for y, x, side in grid) == sorted(turned)


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (2, 3), (5, 5), (7, 40)])
def test_regions_lie_inside(hw) -> None:
    for row, column, side in rmac_grid(*hw):
        assert side >= 1
        assert 0 <= row <= hw[0] - side
        assert 0 <= column <= hw[1] - side


def test_regional_vectors_are_those_of_the_crops() -> None:
    some = maps(shape=(4, 24, 32))
    rows = regional(some, mac)
    assert rows.shape == (21, 4)
    assert torch.allclose(rows[0], unit(some.amax((1, 2))))
    row, column, side = rmac_grid(24, 32)[11]
    crop = some[:, row : row + side, column : column + side].amax((1, 2))
    assert torch.allclose(rows[12], crop / crop.norm(), atol=1e-5)
