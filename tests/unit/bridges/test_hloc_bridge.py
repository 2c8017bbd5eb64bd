"""The hloc bridge against a small hloc that takes its protocol literally (interop notes, C4)."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
import types
from typing import ClassVar

import numpy as np
import pytest
import torch

import loc.bridges.hloc as bridge
from loc.bridges.hloc_models import HlocExtractor, HlocGlobal, HlocImageConfig, HlocMatcher
from loc.errors import ContractError, PluginError
from loc.plugins.blocks import resolve_block
from loc.plugins.contract import check_extractor, check_matcher
from loc.types import LocalFeatures


class StrictBase(torch.nn.Module):
    """hloc's base class as documented: merged conf with `name` left in, required inputs checked."""

    default_conf: ClassVar[dict] = {}
    required_inputs: ClassVar[list] = []

    def __init__(self, conf) -> None:
        super().__init__()
        self.conf = conf = {**self.default_conf, **conf}
        self.required_inputs = copy.copy(self.required_inputs)
        self._init(conf)

    def forward(self, data):
        for key in self.required_inputs:
            assert key in data, f"Missing key {key} in data"
        return self._forward(data)


def dynamic_load(root, name):
    """Exactly one class of the module that is a model, found by import."""
    module = importlib.import_module(f"{root.__name__}.{name}")
    found = [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and issubclass(each, StrictBase)
    ]
    assert len(found) == 1, found
    return found[0]


class Blobs(StrictBase):
    """An extractor of the protocol: blobs and corners, with their neighbourhood as descriptor."""

    default_conf: ClassVar = {"count": 80, "name": "blobs"}
    required_inputs: ClassVar = ["image"]
    detection_noise = 0.7

    def _init(self, conf) -> None:
        conf.pop("name")  # as hloc's ALIKED does

    def _forward(self, data):
        image = data["image"]
        assert image.dtype == torch.float32
        assert image.shape[:2] in ((1, 1), (1, 3))
        gray = torch.nn.functional.avg_pool2d(image.mean(1, keepdim=True), 5, 1, 2)
        width = gray.shape[3]
        response = (gray - torch.nn.functional.avg_pool2d(gray, 9, 1, 4)).abs()
        inner = response[0, 0, 4:-4, 4:-4]
        peak = inner * (torch.nn.functional.max_pool2d(inner[None, None], 9, 1, 4)[0, 0] == inner)
        scores, index = peak.flatten().topk(min(self.conf["count"], peak.numel()))
        y, x = index // (width - 8) + 4, index % (width - 8) + 4
        rows = torch.nn.functional.unfold(gray, 9, padding=4)[0][:, y * width + x]
        rows = torch.nn.functional.normalize(rows - rows.mean(0), dim=0)
        keypoints = torch.stack([x, y], 1).float()
        return {"keypoints": keypoints[None], "scores": scores[None], "descriptors": rows[None]}


class Mutual(StrictBase):
    """A matcher of the protocol: mutual nearest neighbours."""

    required_inputs: ClassVar = ["descriptors0", "descriptors1", "image0", "image1"]

    def _init(self, conf) -> None:
        assert "name" in conf

    def _forward(self, data):
        assert data["image0"].ndim == 4
        similar = data["descriptors0"][0].T @ data["descriptors1"][0]
        forth, back = similar.argmax(1), similar.argmax(0)
        mutual = back[forth] == torch.arange(len(forth))
        matches = torch.where(mutual, forth, -1)
        return {"matches0": matches[None], "matching_scores0": mutual[None].float()}


class Mean(StrictBase):
    required_inputs: ClassVar = ["image"]

    def _init(self, conf) -> None: ...

    def _forward(self, data):
        pooled = torch.nn.functional.adaptive_avg_pool2d(data["image"], 4)
        return {"global_descriptor": pooled.flatten(1) * 3}


@pytest.fixture
def hloc(monkeypatch):
    """An importable `hloc` with one model per module."""
    made = {}
    for name in ("hloc", "hloc.utils", "hloc.utils.base_model", "hloc.extractors", "hloc.matchers"):
        made[name] = types.ModuleType(name)
        made[name].__path__ = []
        monkeypatch.setitem(sys.modules, name, made[name])
    made["hloc.utils.base_model"].BaseModel = StrictBase
    for name, cls in (
        ("hloc.extractors.blobs", Blobs),
        ("hloc.extractors.mean", Mean),
        ("hloc.matchers.mutual", Mutual),
    ):
        module = types.ModuleType(name)
        copied = type(cls.__name__, cls.__bases__, dict(cls.__dict__) | {"__module__": name})
        setattr(module, cls.__name__, copied)
        module.StrictBase = StrictBase  # imported names of other modules do not count
        monkeypatch.setitem(sys.modules, name, module)
        made[name] = module
    before = set(sys.modules)
    yield made
    for name in {each for each in sys.modules if each.startswith("hloc.")} - before:
        del sys.modules[name]


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
