"""R2D2 against the features its authors ship, and what surrounds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree

from loc.errors import WeightsError
from loc.extractors.r2d2 import R2D2, R2D2Config
from loc.plugins.blocks import resolve_block


@pytest.fixture(autouse=True)
def weights(shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_OFFLINE", "1")
    monkeypatch.delenv("LOC_ACCEPT_LICENSE", raising=False)


def make(**options) -> R2D2:
    return R2D2(R2D2Config(accept_license=True, **options))


def test_all_features_of_the_authors(shared) -> None:
    """All 500 of an image of 1920 x 1080: positions, scales, descriptors."""
    name, root = "mapping/camera_0/rgb_00223.jpg", shared / "data/virtual_gallery"
    folder = root / "kapture_features/local_features/r2d2_500"
    keypoints = np.fromfile(folder / f"keypoints/{name}.kpt", np.float32).reshape(-1, 3)
    descriptors = np.fromfile(folder / f"descriptors/{name}.desc", np.float32).reshape(-1, 128)
    pixels = np.asarray(Image.open(root / "images" / name).convert("RGB"))
    image = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    (found,) = make(max_keypoints=500, min_scale=0.3, min_size=0)(image)
    assert len(found) == len(keypoints) == 500
    distance, row = cKDTree(np.c_[found.keypoints, found.scales]).query(keypoints)
    assert distance.max() < 1e-3
    assert len(set(row.tolist())) == 500
    np.testing.assert_allclose(found.descriptors[row], descriptors, atol=1e-5)


def test_strips_change_nothing() -> None:
    torch.manual_seed(0)
    image = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 302, 130), 3, 1)
    options = {
        "max_keypoints": None,
        "min_size": 0,
        "min_scale": 0.9,
        "repeatability": 0.0,
        "reliability": 0.0,
    }
    whole, strips = make(**options), make(**options, memory_budget_mib=64)
    strips.config = strips.config.model_copy(update={"memory_budget_mib": 0})  # the smallest strips: 32 rows
    (one,), (other,) = whole(image), strips(image)
    assert len(one) == len(other) > 100
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-3)


def test_levels_stay_between_the_sizes() -> None:
    net = make(min_size=200, max_size=400, min_scale=0.0)
    sizes = [tuple(level.shape[2:]) for _, level in net._levels(torch.zeros(1, 3, 300, 640))]
    assert sizes == [(178, 381), (150, 320), (126, 269), (106, 226)]


def test_licence_must_be_accepted(monkeypatch) -> None:
    with pytest.raises(WeightsError, match="CC-BY-NC-SA") as caught:
        R2D2(R2D2Config())
    assert "--accept-license" in caught.value.next_step
    monkeypatch.setenv("LOC_ACCEPT_LICENSE", "1")
    R2D2(R2D2Config())


def test_accepting_and_strips_do_not_change_the_fingerprint() -> None:
    block = {"use": "loc.extractors.r2d2:R2D2"}
    more = {"accept_license": True, "memory_budget_mib": 64}
    plain, accepted = (resolve_block("features", {**block, **options}) for options in ({}, more))
    assert plain.fingerprint_fields() == accepted.fingerprint_fields()
    assert plain.stage_options == {"resize_max": None}


def test_small_and_black_images() -> None:
    net = make(min_size=0)
    for image in (torch.rand(1, 3, 20, 20), torch.zeros(1, 3, 64, 96)):
        (found,) = net(image)
        assert found.descriptors.shape == (len(found), 128)
