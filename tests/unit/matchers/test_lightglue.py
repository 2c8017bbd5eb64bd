"""LightGlue and the features it was trained for, on a real pair."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from loc.errors import PluginError
from loc.extractors.aliked import Aliked, AlikedConfig
from loc.extractors.disk import Disk, DiskConfig
from loc.matchers.lightglue import LightGlue, LightGlueConfig, read_weights
from loc.nets.lightglue import LightGlueNet
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


@pytest.fixture(scope="module")
def features(pair) -> list[LocalFeatures]:
    folder = Path(__file__).parents[3] / ".cache" / "weights"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOC_WEIGHTS_DIR", str(folder))
        patch.setenv("LOC_OFFLINE", "1")
        extractor = Aliked(AlikedConfig(max_keypoints=300))
        return [extractor(image)[0] for image in pair]


def _first(features: LocalFeatures, count: int) -> LocalFeatures:
    return features.select(np.arange(count))


#: Keypoints of both images of eight pairs, one of which hardly matches.
COUNTS = [(250, 256), (256, 131), (40, 30), (250, 100), (1, 200), (201, 240), (120, 119), (256, 256)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_matches_do_not_depend_on_the_batch(features, precision) -> None:
    """Calls with 1, 3 and 8 pairs: the same bits. A pair without padding: the same matches in float32."""
    options = {"features": "aliked", "precision": precision, "min_score": 0.05}
    matcher = LightGlue(LightGlueConfig(**options, batch=8))
    alone = LightGlue(LightGlueConfig(**options, batch="never"))
    pairs = [
        (matcher.prepare(_first(features[0], a)), matcher.prepare(_first(features[1], b))) for a, b in COUNTS
    ]
    together = matcher(pairs)
    assert sum(len(found) for found in together) > 300
    threes = matcher(pairs[:3]), matcher(pairs[5:])
    for mine, other in zip((*threes[0], *threes[1]), together[:3] + together[5:], strict=True):
        assert np.array_equal(mine.indices, other.indices)
        assert np.array_equal(mine.scores, other.scores)
    (single,) = matcher(pairs[3:4])
    assert np.array_equal(single.indices, together[3].indices)
    assert np.array_equal(single.scores, together[3].scores)
    if precision == "fp32":
        for mine, other in zip(alone(pairs), together, strict=True):
            assert np.array_equal(mine.indices, other.indices)
            np.testing.assert_allclose(mine.scores, other.scores, atol=1e-4)


@pytest.mark.parametrize("width", [0.7, -1])
def test_all_layers_in_a_batch(features, width) -> None:
    """Without stopping, points dropped or not: a padded batch gives what its pairs give alone."""
    options = {"features": "aliked", "precision": "fp32", "depth_confidence": -1, "width_confidence": width}
    batched, alone = (LightGlue(LightGlueConfig(**options, batch=batch)) for batch in (2, "never"))
    pairs = [
        (batched.prepare(_first(features[0], a)), batched.prepare(_first(features[1], b)))
        for a, b in ((256, 129), (60, 200))
    ]
    for mine, other in zip(batched(pairs), alone(pairs), strict=True):
        assert len(mine) > 10
        assert np.array_equal(mine.indices, other.indices)
        np.testing.assert_allclose(mine.scores, other.scores, atol=1e-4)


def test_one_forward_per_bucket(features, monkeypatch) -> None:
    forwards: list[int] = []
    match = LightGlueNet.match

    def counting(self, pairs, *rest, **options):
        forwards.append(len(pairs))
        return match(self, pairs, *rest, **options)

    monkeypatch.setattr(LightGlueNet, "match", counting)
    few = [(12, 9), (300, 280), (20, 256), (0, 5), (299, 260), (1, 1)]
    for batch, expected in ((8, [3, 2]), (2, [2, 1, 2]), ("never", [1] * 5)):
        forwards.clear()
        matcher = LightGlue(LightGlueConfig(features="aliked", batch=batch))
        found = matcher([tuple(map(matcher.prepare, map(_first, features, pair))) for pair in few])
        assert forwards == expected
        assert len(found[3]) == 0


@pytest.mark.parametrize("confidence", [(0.95, 0.99), (-1.0, -1.0)])
def test_equals_kornia(features, confidence) -> None:
    """The folded weights and the fused attention give what the plain network gives."""
    depth, width = confidence
    net = pytest.importorskip("kornia.feature").LightGlue(
        None, weights=None, input_dim=128, depth_confidence=depth, width_confidence=width
    )
    state = read_weights(LightGlue.weights_for(LightGlueConfig(features="aliked"))[0], 128)
    missing = net.load_state_dict(state, strict=False).missing_keys
    assert missing == ["confidence_thresholds"]
    options = LightGlueConfig(
        features="aliked", depth_confidence=depth, width_confidence=width, precision="fp32"
    )
    matcher = LightGlue(options)
    data = {
        f"image{side}": {
            "keypoints": torch.from_numpy(each.keypoints)[None] - 0.5,
            "descriptors": torch.from_numpy(each.descriptors)[None],
            "image_size": torch.tensor([each.image_wh], dtype=torch.float32),
        }
        for side, each in enumerate(features)
    }
    with torch.inference_mode():
        expected = net.eval()(data)
    (found,) = matcher([tuple(map(matcher.prepare, features))])
    assert found.indices.tolist() == expected["matches"][0].tolist()
    np.testing.assert_allclose(found.scores, expected["scores"][0].numpy(), atol=1e-4)


def test_what_enters_the_fingerprint() -> None:
    """The precision that `auto` stands for; and the batch, since padding moves scores in the last places."""
    disk = resolve_block("features", "disk")
    plain, batched = (
        resolve_block("matcher", {"use": "lightglue", **more}).for_features(disk).ready(lambda: "cpu")
        for more in ({}, {"batch": 4})
    )
    assert plain.config.precision in ("fp32", "bf16")
    assert batched.config.batch == 4
    assert plain.fingerprint_fields() != batched.fingerprint_fields()


def test_the_run_s_extractor_chooses_the_weights() -> None:
    disk, sift = resolve_block("features", "disk"), resolve_block("features", "sift")
    plugin = resolve_block("matcher", "lightglue")
    assert plugin.for_features(disk).config.features == "disk"
    with pytest.raises(PluginError, match="no weights for the features of sift") as caught:
        plugin.for_features(sift)
    assert "matcher: nearest" in caught.value.next_step
    aliked = resolve_block("matcher", {"use": "lightglue", "features": "aliked"})
    with pytest.raises(PluginError, match="weights for aliked do not fit the features of disk"):
        aliked.for_features(disk)
    assert aliked.for_features(sift).config.features == "aliked"  # its features, under another name
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
