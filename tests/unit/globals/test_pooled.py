"""Poolings as plug-ins, on a network of one layer: scales, whitening, regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loc.errors import ConfigError, ContractError, DataError, StoreError
from loc.globals.gem import Gem
from loc.globals.pooling import Crow, Mac, Spoc, Trunk
from loc.globals.rmac import Rmac
from loc.nets.pooling import gem, regional
from loc.nets.pooling import mac as mac_of
from loc.plugins.blocks import resolve_block
from loc.plugins.contract import check_global_extractor
from loc.retrieval.regions import regions_of_rows

ALL = (Mac, Spoc, Crow, Gem, Rmac)


class Blocks(Trunk):
    """Means of 8 x 8 px and their products: six maps that are not negative."""

    channels = 6

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([means, means * means.roll(1, 1)], 1)


def small(cls: type) -> type:
    return type(cls.__name__, (cls,), {"open_trunk": lambda self: Blocks()})


def photos(count: int, hw: tuple[int, int] = (96, 128)) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    coarse = torch.rand((count, 3, hw[0] // 16, hw[1] // 16), generator=rng)
    return torch.nn.functional.interpolate(coarse, size=hw, mode="bilinear")


@pytest.mark.parametrize("cls", ALL)
def test_contract(cls) -> None:
    check_global_extractor(small(cls))


@pytest.mark.parametrize(
    ("cls", "options"), [(Gem, {"scales": [1.0, 0.7071, 0.5]}), (Rmac, {"scales": [0.5], "keep_regions": 9})]
)
def test_contract_of_scales(cls, options) -> None:
    check_global_extractor(small(cls), options)


def test_regional_whitening_learns_from_regions() -> None:
    check_global_extractor(small(Rmac), {"pca_dim": 4})
    plugin = small(Rmac)(Rmac.Config(pca_dim=4))
    images = photos(2)  # two images are 42 regions
    state = plugin.fit(list(images.numpy()))
    rows = regional(Blocks()(images[:1])[0], mac_of).numpy()
    plugin.load_state(state)
    turned = (rows - state["mean"]) @ state["projection"].T
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    expected = turned.sum(0) / np.linalg.norm(turned.sum(0))
    assert plugin(images[:1])[0] == pytest.approx(expected, abs=1e-5)


def test_other_whitening_learns_from_images() -> None:
    plugin = small(Gem)(Gem.Config(pca_dim=3))
    images = photos(40)
    with pytest.raises(DataError, match="from 29 vectors"):
        plugin.fit(list(images[:29].numpy()))
    with pytest.raises(ContractError, match="no whitening yet"):
        plugin(images[:1])
    state = plugin.fit(iter(images.numpy()))
    plugin.load_state(state)
    rows = plugin(images)
    assert rows.shape == (40, 3)
    raw = small(Gem)(Gem.Config())(images)
    turned = (raw - raw.mean(0)) @ state["projection"].T
    assert rows == pytest.approx(turned / np.linalg.norm(turned, axis=1, keepdims=True), abs=1e-3)
    with pytest.raises(StoreError, match="does not fit"):
        small(Gem)(Gem.Config(pca_dim=2)).load_state(state)


@pytest.mark.parametrize("scales", [[], [0.0], [1.0, 5.0]])
def test_senseless_scales_are_refused(scales) -> None:
    with pytest.raises(ConfigError, match=r"globals\.scales"):
        resolve_block("globals", {"use": "mac", "scales": scales})


def test_a_whitening_of_one_image_over_and_over_is_finite() -> None:
    plugin = small(Mac)(Mac.Config(pca_dim=2))
    plugin.load_state(plugin.fit([np.zeros((3, 64, 64), np.float32)] * 20))
    assert np.isfinite(plugin(photos(2))).all()


def test_without_whitening_nothing_is_learned() -> None:
    plugin = small(Mac)(Mac.Config())
    assert not Mac.learns(plugin.config)
    assert plugin.fit(iter(())) == {}
    plugin.load_state({})


def test_scales_of_gem_are_joined_by_its_power() -> None:
    image = photos(1)
    plugin = small(Gem)(Gem.Config(scales=(1.0, 0.5), p=3.0))
    parts = []
    for scaled in (image, torch.nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear")):
        vector = gem(Blocks()(scaled)[0], 3.0)
        parts.append((vector / vector.norm()).numpy())
    mean = (np.mean(np.power(parts, 3), axis=0)) ** (1 / 3)
    assert plugin(image)[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_a_scale_too_small_is_left_out() -> None:
    image = photos(1, (16, 64))
    both, one = (small(Mac)(Mac.Config(scales=scales))(image) for scales in ((1.0, 0.5), (1.0,)))
    assert np.array_equal(both, one)
    assert not small(Mac)(Mac.Config(scales=(0.5,)))(image).any()


def test_regions_kept_apart() -> None:
    assert Rmac.regions(Rmac.Config()) == 1
    config = Rmac.Config(keep_regions=24)
    assert Rmac.regions(config) == 24
    row = small(Rmac)(config)(photos(1))
    assert np.linalg.norm(row) == pytest.approx(1)
    vectors, _ = regions_of_rows(row, 24)
    assert len(vectors) == 21  # 12 x 16 cells
    expected = regional(Blocks()(photos(1))[0], mac_of).numpy()
    assert vectors == pytest.approx(expected, abs=1e-5)
    assert small(Rmac)(Rmac.Config(keep_regions=5))(photos(1)).shape == (1, 30)


def test_gray_images_are_refused() -> None:
    with pytest.raises(ContractError, match=r"mac takes RGB images \(b, 3, h, w\), got \(1, 1, 32, 32\)"):
        small(Mac)(Mac.Config())(torch.zeros(1, 1, 32, 32))
