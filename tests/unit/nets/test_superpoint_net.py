"""SuperPoint's maps and what is read from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loc.nets.superpoint import CELL_PX, dense_maps, local_maxima, parameter_shapes, sampled


def test_layout_is_that_of_the_release() -> None:
    shapes = parameter_shapes()
    assert len(shapes) == 24
    assert shapes["conv1a.weight"] == (64, 1, 3, 3)
    assert shapes["convPb.weight"] == (65, 256, 1, 1)
    assert shapes["convDb.bias"] == (256,)
    assert sum(np.prod(shape) for shape in shapes.values()) == 1_300_865  # as published


def test_channels_are_pixels_of_their_cell() -> None:
    """With all weights zero the bias of the detector head decides: channel 8 row + column."""
    parameters = {key: torch.zeros(shape) for key, shape in parameter_shapes().items()}
    parameters["convPb.bias"][8 * 2 + 5] = 9
    heat, descriptors = dense_maps(torch.rand(2, 1, 50, 35), parameters)
    assert heat.shape == (2, 48, 32)
    assert descriptors.shape == (2, 256, 6, 4)
    rows, columns = np.nonzero(heat[0].numpy() > 0.5)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (8 * row + 2, 8 * column + 5) for row in range(6) for column in range(4)
    ]


def test_a_pixel_that_only_a_suppressed_one_had_beaten_is_chosen() -> None:
    heat = torch.zeros(1, 9, 40)
    for column, value in ((10, 3.0), (13, 2.0), (16, 1.0), (30, 0.5)):
        heat[0, 4, column] = value
    chosen = local_maxima(heat, 4) & (heat > 0)
    assert chosen[0, 4].nonzero()[:, 0].tolist() == [10, 16, 30]


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_no_two_chosen_pixels_share_a_window(radius) -> None:
    heat = torch.rand(2, 64, 80, generator=torch.Generator().manual_seed(0))
    for each in local_maxima(heat, radius):
        at = each.nonzero().float()
        apart = torch.cdist(at, at, p=float("inf")).fill_diagonal_(99)
        assert len(at) > 20
        assert apart.min() > radius


def test_descriptors_between_cells() -> None:
    """Centred: at the centre of a cell its own; between two, half of both. Release: as its formula says."""
    height, width = 5, 7
    maps = torch.nn.functional.normalize(torch.randn(256, height, width), dim=0)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.stack([column, row], -1).reshape(-1, 2) * CELL_PX + 3.5
    own = maps.flatten(1).T
    torch.testing.assert_close(sampled(maps, centres, release=False), own)
    between = sampled(maps, torch.tensor([[7.5, 3.5]]), release=False)
    expected = torch.nn.functional.normalize(maps[:, 0, 0] + maps[:, 0, 1], dim=0)
    torch.testing.assert_close(between[0], expected)
    # The published grid: (x - 3.5) / (8 w - 4.5) of the way from the first to the last cell.
    cells = torch.tensor([2.0, 3.0])
    size = torch.tensor([width, height])
    xy = 3.5 + cells / (size - 1) * (8 * size - 4.5)
    torch.testing.assert_close(sampled(maps, xy[None], release=True)[0], maps[:, 3, 2])


def test_one_cell() -> None:
    maps = torch.nn.functional.normalize(torch.randn(256, 1, 1), dim=0)
    for release in (True, False):
        rows = sampled(maps, torch.tensor([[0.0, 7.0], [3.5, 3.5]]), release=release)
        torch.testing.assert_close(rows, maps[:, 0, 0].expand(2, 256))
