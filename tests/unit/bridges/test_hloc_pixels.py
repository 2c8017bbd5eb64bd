"""A global extractor of pixels that learns from the database, as hloc calls it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hloc_stand_in import dynamic_load, installed

import loc.bridges.hloc as bridge
from loc.errors import ConfigError


@pytest.fixture
def load(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path / "cache"))
    with installed(monkeypatch) as modules:
        bridge.register()
        yield lambda conf: dynamic_load(modules["hloc.extractors"], conf["name"])(conf).eval()


def test_whitening_of_regions(tmp_path, load) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        path = tmp_path / "db" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (128, 96)))
    conf = {"name": "loc_rmac", "pca_dim": 4, "precision": "fp32"}
    image = {"image": torch.rand(1, 3, 96, 128)}
    row = load({**conf, "database": str(tmp_path / "db")})(image)["global_descriptor"]
    assert row.shape == (1, 4)
    assert float(row.norm()) == pytest.approx(1, abs=1e-5)
    plain = load({"name": "loc_rmac", "precision": "fp32"})(image)["global_descriptor"]
    assert plain.shape == (1, 512)
    with pytest.raises(ConfigError, match="rmac learns from the database"):
        load(conf)
