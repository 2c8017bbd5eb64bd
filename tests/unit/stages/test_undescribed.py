"""A photo with local features that a global extractor cannot take: it is in no pair, and the run goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loc.pipeline import run
from loc.plugins.blocks import load_config
from loc.record import read_record
from loc.runtime.runtime import Runtime
from loc.stages.pairs import read_pair_list


def test_a_photo_too_small_for_the_global_extractor(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        blocks = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(blocks).save(photos / name)
    Image.new("RGB", (9, 40)).save(photos / "small.png")
    (photos / "empty.png").write_bytes(b"")
    pairs = [{"use": "retrieval", "k": 2, "for": "both"}]
    config = load_config("folder_sift", {"scene.images": str(photos), "globals": "gem", "pairs": pairs})
    with caplog.at_level(logging.WARNING):
        run(config, tmp_path / "run", until="matches", runtime=Runtime(device="cpu", workers=1))
    assert "small.png is smaller than the 16 px gem needs" in caplog.text
    (folder,) = (tmp_path / "run/pairs").glob("map-*")
    assert read_pair_list(folder).pairs == (("a.png", "b.png"), ("a.png", "c.png"), ("b.png", "c.png"))
    assert "empty (0 bytes)" in str(read_record(tmp_path / "run"))
