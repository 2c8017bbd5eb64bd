"""LightGlue and the features it was trained for, on a real pair."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from loc.errors import PluginError
from loc.extractors.aliked import Aliked, AlikedConfig
from loc.extractors.disk import Disk, DiskConfig
from loc.matchers.lightglue import LightGlue, LightGlueConfig
from loc.plugins.blocks import resolve_block
from loc.types import LocalFeatures

EXTRACTORS = {
    "disk": lambda: Disk(DiskConfig(max_keypoints=512)),
    "aliked": lambda: Aliked(AlikedConfig(max_keypoints=512)),
}


@pytest.fixture(autouse=True)
def weights(public_weights, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(public_weights))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_OFFLINE", "1")


@pytest.fixture(scope="module")
def pair(request) -> list[torch.Tensor]:
    folder = request.getfixturevalue("shared") / "data/strecha_fountain_p11/images"
    shown = []
    for path in sorted(folder.iterdir())[3:5]:
        pixels = np.asarray(Image.open(path).convert("RGB").resize((480, 320)))
        shown.append(torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    return shown


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_inliers_of_a_real_pair(pair, name, say) -> None:
    extractor = EXTRACTORS[name]()
    first, second = (extractor(image)[0] for image in pair)
    assert (np.diff(first.scores) <= 0).all()
    matcher = LightGlue(LightGlueConfig(features=name))
    prepared = matcher.prepare(first), matcher.prepare(second)
    alone, *_ = matcher([prepared])
    among = matcher([prepared[::-1], prepared, (prepared[0], prepared[0])])[1]
    assert np.array_equal(alone.indices, among.indices)
    xy = [each.keypoints[alone.indices[:, side]] for side, each in enumerate((first, second))]
    cv2.setRNGSeed(0)
    _, inliers = cv2.findFundamentalMat(*xy, cv2.USAC_MAGSAC, 1.0, 0.999, 10_000)
    say(f"{name} + lightglue, fountain 480 px, 512 keypoints: {inliers.sum()} of {len(alone)} inliers")
    assert inliers.sum() > 200
    assert inliers.mean() > 0.9


def test_the_run_s_extractor_chooses_the_weights() -> None:
    disk, sift = resolve_block("features", "disk"), resolve_block("features", "sift")
    plugin = resolve_block("matcher", "lightglue")
    assert plugin.for_features(disk).config.features == "disk"
    with pytest.raises(PluginError, match="no weights for the features of sift") as caught:
        plugin.for_features(sift)
    assert "matcher: nearest" in caught.value.next_step
    assert resolve_block("matcher", "nearest").for_features(sift).config.ratio == 0.9


def test_unknown_features_are_an_error() -> None:
    with pytest.raises(PluginError, match=r"does not know which features"):
        LightGlue(LightGlueConfig())


def _features(n: int, dim: int) -> LocalFeatures:
    rng = np.random.default_rng(n)
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    return LocalFeatures(
        (rng.random((n, 2)) * 100).astype(np.float32), np.ones(n, np.float32), rows, image_wh=(100, 100)
    )


def test_descriptors_of_another_length_are_an_error() -> None:
    with pytest.raises(PluginError, match="128-D"):
        LightGlue(LightGlueConfig(features="disk")).prepare(_features(5, 64))


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_few_features(counts) -> None:
    matcher = LightGlue(LightGlueConfig(features="disk"))
    prepared = tuple(matcher.prepare(_features(n, 128 if n else 0)) for n in counts)
    (found,) = matcher([prepared])
    assert len(found) <= min(counts)


def test_borders_and_blank_photos(pair) -> None:
    for extractor in (make() for make in EXTRACTORS.values()):
        for image in (torch.zeros(1, 3, 64, 96), torch.rand(1, 3, 33, 47)):
            (found,) = extractor(image)
            assert found.descriptors.shape[0] == len(found)
