"""Sparse detection against the dense definition, filter by filter."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from loc.nets.peaks import detect


def smooth_map(seed: int, *, hw=(23, 31), channels=24, relu: bool) -> torch.Tensor:
    torch.manual_seed(seed)
    noise = torch.randn(1, channels, *hw)
    features = torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 3
    return (features.relu() if relu else features - 1.0)[0].permute(1, 2, 0).contiguous()


def dense(features: torch.Tensor, banned: torch.Tensor | None = None):
    """(channel, row, column), step and validity by convolutions over all channels, in float64."""
    maps = features.permute(2, 0, 1)[:, None].double()
    filtered = {}
    for name, kernel in {
        "ii": [[0, 1, 0], [0, -2, 0], [0, 1, 0]],
        "jj": [[0, 0, 0], [1, -2, 1], [0, 0, 0]],
        "ij": [[0.25, 0, -0.25], [0, 0, 0], [-0.25, 0, 0.25]],
        "i": [[0, -0.5, 0], [0, 0, 0], [0, 0.5, 0]],
        "j": [[0, 0, 0], [-0.5, 0, 0.5], [0, 0, 0]],
    }.items():
        filtered[name] = conv2d(maps, torch.tensor([[kernel]], dtype=torch.float64), padding=1)
    ii, jj, ij, gi, gj = (filtered[name] for name in ("ii", "jj", "ij", "i", "j"))
    det, trace = ii * jj - ij**2, ii + jj
    detected = (maps == maps.amax(0)) & (maps == max_pool2d(maps, 3, 1, 1))
    detected &= (det > 0) & (trace**2 / det <= 7.2)
    if banned is not None:
        detected &= ~banned
    channel, _, row, column = torch.nonzero(detected, as_tuple=True)
    at = (channel, 0, row, column)
    step = torch.stack([-(jj * gi - ij * gj)[at] / det[at], -(ii * gj - ij * gi)[at] / det[at]], 1)
    cells = torch.stack([row, column], 1) + step
    last = torch.tensor(features.shape[:2]) - 1
    valid = (step.abs() < 0.5).all(1) & (cells.floor() >= 0).all(1) & (cells.ceil() <= last).all(1)
    return channel, row, column, cells, valid


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_sparse_is_dense(seed, relu) -> None:
    features = smooth_map(seed, relu=relu)
    channel, row, column, cells, valid = dense(features)
    assert valid.sum() > 10
    found = detect(features)
    assert found.detected.tolist() == torch.stack([row, column], 1).tolist()
    torch.testing.assert_close(found.cells.double(), cells[valid], atol=1e-4, rtol=0)
    at = (row[valid], column[valid], channel[valid])
    torch.testing.assert_close(found.scores, features[at])


def test_border_responses_below_zero() -> None:
    """Without ReLU a negative response at the border is a maximum (nothing beyond it competes)."""
    features = torch.full((5, 5, 2), -4.0)
    features[..., 1] = -5.0  # no ties over channels
    features[0, 2, 0] = features[3, 0, 1] = -1.0
    _, row, column, _, _ = dense(features)
    assert detect(features).detected.tolist() == torch.stack([row, column], 1).tolist()


def test_banned_cells_are_not_detected() -> None:
    features = smooth_map(0, relu=True)
    everywhere = detect(features)
    banned = torch.zeros(features.shape[:2], dtype=torch.bool)
    chosen = everywhere.detected[::2]
    banned[chosen[:, 0], chosen[:, 1]] = True
    _channel, row, column, *_ = dense(features, banned)
    assert detect(features, banned).detected.tolist() == torch.stack([row, column], 1).tolist()
    assert len(row) == len(everywhere.detected) - len(chosen)


def test_descriptors_are_bilinear_unit_rows() -> None:
    features = smooth_map(3, relu=True)
    found = detect(features)
    (y, x), expected = found.cells[5].tolist(), np.zeros(features.shape[2])
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            expected += (1 - abs(y - row)) * (1 - abs(x - column)) * features[row, column].numpy()
    np.testing.assert_allclose(found.descriptors[5], expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (2, 2, 3)])
def test_tiny_maps(shape) -> None:
    torch.manual_seed(0)
    found = detect(torch.rand(shape))
    assert found.cells.shape[1] == 2
    assert found.descriptors.shape[1] == 3


def test_nothing_on_a_flat_map() -> None:
    found = detect(torch.zeros(6, 6, 4))
    assert len(found.cells) == len(found.detected) == 0
