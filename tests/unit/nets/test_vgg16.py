"""VGG-16 in strips: the same bits as at once."""

from __future__ import annotations

import pytest
import torch

from loc.nets.vgg16 import BLOCKS, Vgg16


def thin_blocks() -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """The layers of VGG-16 with eight channels each."""
    generator, inputs, blocks = torch.Generator().manual_seed(0), 3, []
    for _, depth in BLOCKS:
        blocks.append([])
        for _ in range(depth):
            weight = torch.randn(8, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
            blocks[-1].append((weight, torch.randn(8, generator=generator)))
            inputs = 8
    return blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hw", [(640, 48), (655, 33), (399, 130), (272, 16)])
def test_strips_change_no_bit(hw: tuple[int, int], dtype: torch.dtype) -> None:
    image = torch.randn(1, 3, *hw, generator=torch.Generator().manual_seed(1)) * 50
    whole, cut = (
        Vgg16(device="cpu", dtype=dtype, blocks=thin_blocks(), **options)
        for options in ({}, {"budget_bytes": 1})
    )
    seen = []
    original = cut._maps
    cut._maps = lambda pixels: (seen.append(pixels.shape[2]), original(pixels))[1]  # type: ignore[method-assign]
    assert torch.equal(whole(image), cut(image))
    assert len(seen) == -(-(hw[0] // 16) // 16)  # strips of sixteen rows of cells
    assert max(seen) <= (16 + 12) * 16 + 15


def test_a_large_image_takes_strips() -> None:
    net = Vgg16(device="cpu", dtype=torch.float32, blocks=thin_blocks())
    assert net._strip_cells(1280) > 960 // 16  # twice 640 x 480: at once
    assert net._strip_cells(3200) < 2400 // 16
