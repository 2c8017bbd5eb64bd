"""A small hloc that takes its protocol literally: batch 1, one class a module, `name` left in the conf."""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch


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
        # Networks return more than hloc reads, not all of batch 1 (LightGlue: how many layers it ran).
        return {"matches0": matches[None], "matching_scores0": mutual[None].float(), "stop": 3, "matches": []}


class Mean(StrictBase):
    required_inputs: ClassVar = ["image"]

    def _init(self, conf) -> None: ...

    def _forward(self, data):
        pooled = torch.nn.functional.adaptive_avg_pool2d(data["image"], 4)
        return {"global_descriptor": pooled.flatten(1) * 3}


@contextmanager
def installed(monkeypatch: Any) -> Iterator[dict[str, types.ModuleType]]:
    """An importable `hloc` with one model per module, while the block runs."""
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
    try:
        yield made
    finally:
        for name in {each for each in sys.modules if each.startswith("hloc.")} - before:
            del sys.modules[name]
