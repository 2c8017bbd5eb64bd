"""The trunk in strips is the trunk."""

import pytest
import torch

from loc.nets.vgg import CONVOLUTIONS, DenseVgg, map_hw


@pytest.fixture(scope="module")
def parameters():
    torch.manual_seed(0)
    return {
        index: (torch.randn(o, i, 3, 3) * (2 / (9 * i)) ** 0.5, torch.randn(o) * 0.01)
        for index, (i, o) in CONVOLUTIONS.items()
    }


@pytest.mark.parametrize("hw", [(203, 64), (260, 40), (101, 33)])
def test_strips_change_nothing(parameters, hw) -> None:
    image = torch.randn(1, 3, *hw)
    whole = DenseVgg(parameters, device="cpu", dtype=torch.float32, budget_bytes=1 << 40)(image)
    strips = DenseVgg(parameters, device="cpu", dtype=torch.float32, budget_bytes=1)(image)
    assert whole.shape == (*map_hw(*hw), 512)
    torch.testing.assert_close(strips, whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


def test_a_shorter_halo_would_show(parameters, monkeypatch) -> None:
    image = torch.randn(1, 3, 203, 64)
    whole = DenseVgg(parameters, device="cpu", dtype=torch.float32, budget_bytes=1 << 40)(image)
    monkeypatch.setattr("loc.nets.vgg._HALO_ABOVE", 5)
    strips = DenseVgg(parameters, device="cpu", dtype=torch.float32, budget_bytes=1)(image)
    assert (strips - whole).abs().max() > 1e-3 * whole.abs().max()


@pytest.mark.parametrize(
    ("hw", "cells"), [((480, 640), (119, 159)), ((256, 256), (63, 63)), ((101, 203), (24, 49))]
)
def test_size_of_the_map(hw, cells) -> None:
    assert map_hw(*hw) == cells
