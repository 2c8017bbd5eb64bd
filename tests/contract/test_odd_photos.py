"""Photos that are huge, tiny, thin, black or nearly empty go through every plug-in, by way of the runtime."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import pytest
from hloc_stand_in import installed
from made_weights import MAKERS

from loc.errors import DataError
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.plugins.contract_samples import textured_canvas
from loc.plugins.registry import list_plugins, load_plugin
from loc.runtime.extraction import PhotoExtractor, PhotoFile
from loc.runtime.pairing import PairMatcher
from loc.types import LocalFeatures

#: What the defaults need that is not here, and what keeps the tests short.
BLOCKS: dict[str, dict[str, Any]] = {
    "d2net": {"weights": "ots", "precision": "fp32"},
    "d2net_ms": {"weights": "ots", "precision": "fp32"},
    "r2d2": {"accept_license": True},
    "superpoint": {"accept_license": True},
    "dog_hardnet": {"max_keypoints": 200},
    "delf": {"score_threshold": 0, "scales": [0.25, 1.0]},
    "delg": {"score_threshold": 0, "scales": [0.25, 1.0]},
    "delf_ots": {"scales": [0.25, 1.0], "precision": "fp32"},
    "hloc": {"model": "hloc.extractors.blobs"},
}
#: The others see the huge photo smaller than by default: they took minutes on a CPU, and passed.
FAST = ("sift", "xfeat", "hloc")
SMALL = {"d2net_ms": 160}
EXTRACTORS = [*(info.name for info in list_plugins("extractor")), "d2net_ms"]
#: What a matcher is trained for; the others match anything.
TRAINED = {"lightglue": ("disk", "aliked")}


@pytest.fixture(autouse=True)
def weights(shared, public_weights, tmp_path, monkeypatch):
    folders = (shared / "weights", public_weights, tmp_path)
    monkeypatch.setenv("LOC_WEIGHTS_DIR", os.pathsep.join(map(str, folders)))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_OFFLINE", "1")
    with installed(monkeypatch):
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[str, PhotoFile]:
    picture = (textured_canvas(0).transpose(1, 2, 0) * 255).astype(np.uint8)
    dot = np.zeros((120, 160), np.float32)
    dot[70, 50] = 1
    dot = cv2.GaussianBlur(dot, (0, 0), 3)
    pictures = {
        "huge": cv2.resize(picture, (4000, 3000), interpolation=cv2.INTER_CUBIC),
        "tiny": picture[:20, :20],
        "thin": picture[40:49, :300],
        "pixel": picture[:1, :1],
        "black": np.zeros((120, 160, 3), np.uint8),
        "dot": np.repeat((dot / dot.max() * 200)[..., None], 3, 2).astype(np.uint8),
    }
    folder = tmp_path_factory.mktemp("photos")
    for name, pixels in pictures.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), pixels)
    return {name: PhotoFile(name, folder / f"{name}.png") for name in pictures}


def resolved(name: str, tmp_path, **options: Any) -> ResolvedPlugin:
    if name in MAKERS:
        MAKERS[name](tmp_path)
    return resolve_block("features", {"use": name, **BLOCKS.get(name, {}), **options})


def extracted(plugin: ResolvedPlugin, files: list[PhotoFile]) -> list[LocalFeatures]:
    extractor = PhotoExtractor(plugin)
    return [extractor.run([extractor.read(file)])[0] for file in files]


def check(features: LocalFeatures, wh: tuple[int, int]) -> None:
    assert features.image_wh == wh
    assert len(features.scores) == len(features.descriptors) == len(features)
    assert np.isfinite(features.keypoints).all()
    assert np.isfinite(features.descriptors.astype(np.float32)).all()
    assert (features.keypoints >= 0).all()
    assert (features.keypoints <= wh).all()


@pytest.mark.parametrize("name", EXTRACTORS)
def test_odd_photos(name, photos, tmp_path) -> None:
    tiny, thin, pixel, black, dot = (photos[key] for key in ("tiny", "thin", "pixel", "black", "dot"))
    found = extracted(resolved(name, tmp_path), [tiny, thin, pixel, black, dot])
    for features, wh in zip(found, ((20, 20), (300, 9), (1, 1), (160, 120), (160, 120)), strict=True):
        check(features, wh)
    assert len(found[2]) == 0


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_huge_photo(name, photos, tmp_path) -> None:
    options = {} if name in FAST else {"resize_max": SMALL.get(name, 320)}
    (found,) = extracted(resolved(name, tmp_path, **options), [photos["huge"]])
    check(found, (4000, 3000))
    assert len(found) > 50
    assert (np.ptp(found.keypoints, axis=0) > [3000, 2250]).all()  # px of the photo, not of what was shown


def matchers(*, of_images: bool) -> list[str]:
    names = [info.name for info in list_plugins("matcher")]
    return [name for name in names if ("images" in load_plugin("matcher", name).requires) is of_images]


PAIRS = [
    (name, extractor)
    for name in matchers(of_images=False)
    for extractor in TRAINED.get(name, ("sift", "aliked"))
]


@pytest.mark.parametrize(("name", "extractor"), PAIRS)
def test_pairs_with_no_and_one_keypoint(name, extractor, photos, tmp_path) -> None:
    source = resolved(extractor, tmp_path, resize_max=320, max_keypoints=100)
    many, nothing = extracted(source, [photos["huge"], photos["pixel"]])
    model = {"model": "hloc.matchers.mutual"} if name == "hloc" else {}
    matcher = resolve_block("matcher", {"use": name, **model}).for_features(source).build()
    black, one = many.select(np.arange(0)), many.select(np.arange(1))
    prepared = [matcher.prepare(each) for each in (many, one, black, nothing)]
    counts = (len(many), 1, 0, 0)
    assert counts[0] == 100
    for i, first in enumerate(prepared):
        for j, second in enumerate(prepared):
            (matches,) = matcher([(first, second)])
            assert len(matches) <= min(counts[i], counts[j])
    (itself,) = matcher([(prepared[0], prepared[0])])
    assert (itself.indices[:, 0] == itself.indices[:, 1]).mean() > 0.9


@pytest.mark.parametrize("name", matchers(of_images=True))
def test_pairs_of_odd_photos(name, photos, tmp_path) -> None:
    """Matchers that find their own points, by pairs of what can be seen in the photos and what cannot."""
    if name in MAKERS:
        MAKERS[name](tmp_path)
    matcher = PairMatcher(resolve_block("matcher", {"use": name, "resize_max": 160}))
    huge, *others = (matcher.shown(file, key=key) for key, file in photos.items())
    pairs = [*((huge, other) for other in others), (others[-2], huge), (others[-2], others[-1])]
    for pair, found in zip(pairs, matcher.match(pairs), strict=True):
        for xy, side in zip((found.xy0, found.xy1), pair, strict=True):
            assert ((xy >= 0) & (xy <= side.photo.stored_wh)).all()
    (itself,) = matcher.match([(huge, huge)])
    assert itself.xy0.max() > 2000  # px of the photo, not of what was shown


IMAGE_GLOBALS = [
    info.name for info in list_plugins("global") if load_plugin("global", info.name).source == "image"
]


@pytest.mark.parametrize("name", IMAGE_GLOBALS)
def test_global_descriptors_of_odd_photos(name, photos, tmp_path) -> None:
    cls = load_plugin("global", name)
    if name in MAKERS:
        MAKERS[name](tmp_path)
    model = {"model": "hloc.extractors.mean"} if name == "hloc" else {}
    extractor = PhotoExtractor(resolve_block("globals", {"use": name, "resize_max": 320, **model}))
    for file in photos.values():
        item = extractor.read(file)
        if min(item.image.shape[1:]) < cls.min_side:
            with pytest.raises(DataError, match="is smaller than"):
                extractor.run([item])
            continue
        norm = np.linalg.norm(extractor.run([item])[0])
        assert norm == pytest.approx(1, abs=1e-3) or norm == 0


def test_vlad_of_no_and_one_keypoint(photos, tmp_path) -> None:
    source = resolved("sift", tmp_path, resize_max=320)
    many, nothing = extracted(source, [photos["huge"], photos["pixel"]])
    vlad = resolve_block("globals", {"use": "vlad", "words": 8}).build()
    vlad.load_state(vlad.fit([many]))
    rows = vlad([many, many.select(np.arange(1)), many.select(np.arange(0)), nothing])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 0], atol=1e-5)
