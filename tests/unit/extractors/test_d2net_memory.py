"""What of D2-Net exists in memory, and that cutting the work into strips changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loc.extractors.d2net import D2Net, D2NetConfig
from loc.nets.peaks import Peaks, detect

#: Rows of cells per strip of the trunk at the smallest budget.
STRIP = 16


@pytest.fixture(autouse=True)
def weights(shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_OFFLINE", "1")


@pytest.fixture(scope="module")
def photo(request) -> torch.Tensor:
    shared = request.getfixturevalue("shared")
    pixels = np.asarray(Image.open(shared / "fixtures/d2net/image.png").convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def make(budget: int | None = None, **options: Any) -> D2Net:
    net = D2Net(D2NetConfig(**{"weights": "ots", "precision": "fp32"} | options))
    if budget is not None:
        net._trunk._budget = budget
    return net


@pytest.mark.parametrize("use_relu", [True, False])
@pytest.mark.parametrize(("scales", "hw"), [((1.0,), (237, 125)), ((0.5, 1.0, 2.0), (149, 99))])
def test_strips_change_no_row(photo, monkeypatch, scales, hw, use_relu) -> None:
    """Trunk, fusion and search in the smallest strips, with detections on both sides of cuts."""
    rows: list[int] = []

    def noted(features: torch.Tensor, banned: torch.Tensor | None = None) -> Peaks:
        found = detect(features, banned)
        rows.extend(found.detected[:, 0].tolist())
        return found

    image = photo[:, :, : hw[0], 60 : 60 + hw[1]].contiguous()
    (expected,) = make(1 << 40, scales=scales, use_relu=use_relu)(image)
    monkeypatch.setattr("loc.nets.peaks._BLOCK_CELLS", 101)
    monkeypatch.setattr("loc.extractors.d2net._FUSED_ROWS", {"cpu": 5})
    monkeypatch.setattr("loc.extractors.d2net.detect", noted)
    (found,) = make(1, scales=scales, use_relu=use_relu)(image)
    assert len(found) == len(expected) > 20
    for name in ("keypoints", "scores", "scales", "descriptors"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-3)
    assert [row for row in rows if row % STRIP == STRIP - 1]
    assert [row for row in rows if row % STRIP == 0 and row]


class Allocations(TorchDispatchMode):
    """Bytes of the largest storage that an operation makes while ``watching``."""

    def __init__(self) -> None:
        super().__init__()
        self.watching, self.largest = True, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if is_tensor(each)}
        for each in tree_leaves(out):
            if self.watching and is_tensor(each) and each.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, each.untyped_storage().nbytes())
        return out


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def largest_share_of_a_map(net: D2Net, image: torch.Tensor) -> float:
    """The largest thing that exists beside the trunk's maps, as a share of the largest map."""
    allocations, trunk, maps = Allocations(), net._trunk, []

    def unwatched(level: torch.Tensor) -> torch.Tensor:
        allocations.watching = False
        maps.append(trunk(level))
        allocations.watching = True
        return maps[-1]

    net._trunk = unwatched  # type: ignore[assignment]
    with allocations:
        net(image)
    return allocations.largest / max(each.untyped_storage().nbytes() for each in maps)


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0)])
def test_nothing_as_large_as_a_map_exists_after_the_trunk(photo, scales) -> None:
    """The image has 48 numbers per cell, where a map has 512; all that detection makes is smaller."""
    assert largest_share_of_a_map(make(scales=scales), photo[:, :, :136, :160]) < 0.15


@pytest.mark.parametrize(("mib", "fits"), [(8, True), (64, False)])
def test_a_strip_of_the_trunk_fits_its_budget(photo, mib, fits) -> None:
    """Largest are the input and the output of the second convolution, 64 channels at the photo's size."""
    trunk = make(mib << 20)._trunk
    with Allocations() as allocations:
        trunk(photo[:, :, :, :60])
    assert (2 * allocations.largest <= 8 << 20) == fits


def test_a_second_map_would_be_seen(photo, monkeypatch) -> None:
    def dense(features: torch.Tensor, coarser: torch.Tensor) -> None:
        wide = interpolate(coarser.permute(2, 0, 1)[None], features.shape[:2], mode="bilinear")
        features += wide[0].permute(1, 2, 0)

    monkeypatch.setattr("loc.extractors.d2net._add_upsampled", dense)
    assert largest_share_of_a_map(make(scales=(0.5, 1.0)), photo[:, :, :120, :120]) >= 1
