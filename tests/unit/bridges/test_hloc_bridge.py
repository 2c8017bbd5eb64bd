"""The hloc bridge against a small hloc that takes its protocol literally (interop notes, C4)."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hloc_stand_in import StrictBase, dynamic_load, installed

import loc.bridges.hloc as bridge
from loc.bridges.hloc_models import HlocExtractor, HlocGlobal, HlocImageConfig, HlocMatcher
from loc.errors import ContractError, PluginError
from loc.plugins.blocks import resolve_block
from loc.plugins.contract import check_extractor, check_matcher
from loc.types import LocalFeatures


@pytest.fixture
def hloc(monkeypatch):
    with installed(monkeypatch) as modules:
        yield modules


def test_their_extractor_keeps_our_contract(hloc) -> None:
    check_extractor(HlocExtractor, {"model": "hloc.extractors.blobs"})
    check_extractor(HlocExtractor, {"model": "hloc.extractors.blobs", "grayscale": True})


def test_their_matcher_keeps_our_contract(hloc) -> None:
    check_matcher(HlocMatcher, {"model": "hloc.matchers.mutual"})


def test_their_conf_reaches_the_model(hloc) -> None:
    config = HlocImageConfig(model="hloc.extractors.blobs", conf={"count": 7})
    (found,) = HlocExtractor(config)(torch.rand(1, 3, 64, 80))
    assert len(found) == 7
    assert found.noise_px == 0.7


def test_their_global_descriptor_has_unit_norm(hloc) -> None:
    rows = HlocGlobal(HlocImageConfig(model="hloc.extractors.mean"))(torch.rand(3, 3, 40, 50))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_local_model_as_global_is_an_error(hloc) -> None:
    with pytest.raises(ContractError, match="global_descriptor"):
        HlocGlobal(HlocImageConfig(model="hloc.extractors.blobs"))(torch.rand(1, 3, 64, 80))


def test_modules_that_cannot_be_used(hloc) -> None:
    module = hloc["hloc.extractors.blobs"]
    with pytest.raises(PluginError, match=r"cannot import hloc\.extractors\.none"):
        HlocExtractor(HlocImageConfig(model="hloc.extractors.none"))
    with pytest.raises(PluginError, match="needs `model:`"):
        HlocExtractor(HlocImageConfig())
    module.Second = type("Second", (StrictBase,), {"__module__": module.__name__})
    with pytest.raises(PluginError, match=r"exactly one model class, it holds Blobs, Second"):
        HlocExtractor(HlocImageConfig(model="hloc.extractors.blobs"))


def test_our_names_in_hloc(hloc) -> None:
    names = bridge.register()
    assert {"loc_sift", "loc_nearest", "loc_d2net_ms"} <= set(names)
    assert "loc_vlad" not in names  # it learns from the database
    assert "loc_hloc" not in names


def test_our_extractor_and_matcher_in_hloc(hloc) -> None:
    bridge.register()
    load = {kind: hloc[f"hloc.{kind}"] for kind in ("extractors", "matchers")}
    extractor = dynamic_load(load["extractors"], "loc_sift")(
        {"name": "loc_sift", "max_keypoints": 200}
    ).eval()
    matcher = dynamic_load(load["matchers"], "loc_nearest")({"name": "loc_nearest"}).eval()
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 30, 40), scale_factor=4, mode="bicubic")
    image = image.clamp(0, 1)
    found = extractor({"image": image})
    count = found["keypoints"].shape[1]
    assert found["keypoints"].shape == (1, count, 2)
    assert found["descriptors"].shape == (1, 128, count)
    assert found["scores"].shape == (1, count)
    norms = found["descriptors"][0].norm(dim=0)
    torch.testing.assert_close(norms, torch.ones(count), atol=1e-3, rtol=0)

    plugin = resolve_block("features", {"use": "sift", "max_keypoints": 200}).build()
    (own,) = plugin(image.numpy())
    np.testing.assert_allclose(found["keypoints"][0].numpy() + 0.5, own.keypoints, atol=1e-4)

    data = {f"{key}{side}": value for key, value in found.items() for side in (0, 1)}
    data |= {f"image{side}": torch.empty(1, 1, 120, 160) for side in (0, 1)}
    matched = matcher(data)
    assert matched["matches0"].shape == matched["matching_scores0"].shape == (1, count)
    hits = matched["matches0"][0]
    assert (hits >= 0).sum() > 0.5 * count  # places with two orientations are ambiguous
    assert (hits[hits >= 0] == torch.nonzero(hits >= 0)[:, 0]).all()


def test_wrong_options_are_said_inside_hloc(hloc) -> None:
    bridge.register()
    with pytest.raises(Exception, match=r"features\.max_kpts"):
        dynamic_load(hloc["hloc.extractors"], "loc_sift")({"name": "loc_sift", "max_kpts": 5})


def test_without_hloc(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hloc", None)
    with pytest.raises(PluginError, match="hloc cannot be imported") as caught:
        bridge.register()
    assert "pip install git+" in caught.value.next_step


def test_features_of_hloc_go_back_by_half_a_pixel() -> None:
    data = {
        "keypoints0": torch.tensor([[[3.0, 4.0]]]),
        "descriptors0": torch.ones(1, 5, 1),
        "image0": torch.empty(1, 1, 10, 20),
    }
    found = bridge._features(data, 0)
    assert isinstance(found, LocalFeatures)
    assert found.keypoints.tolist() == [[3.5, 4.5]]
    assert found.image_wh == (20, 10)
