"""Every plug-in with weights that were verified finds its inliers on a real pair.

Two photos of the fountain, 480 px wide (the slow ones: 320); an inlier lies within 1 px of that size (or the
noise of the keypoints, if that is more) of the fundamental matrix that MAGSAC finds. Floors are about 70 % of
what was measured; the numbers are printed with the others of this folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import pytest

from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.plugins.registry import list_plugins, load_plugin
from loc.plugins.standing import weights_verified
from loc.runtime.extraction import PhotoExtractor, PhotoFile
from loc.types import LocalFeatures

WIDTH, SMALL = 480, 320
D2NET = {"weights": "ots", "precision": "fp32"}
R2D2 = {"use": "r2d2", "accept_license": True, "max_keypoints": 1000, "resize_max": SMALL, "min_size": 128}
#: (features, matcher, least inliers)
FLOORS: list[tuple[str | dict[str, Any], str, int]] = [
    ("sift", "nearest", 580),
    ("sift", "adalam", 600),
    ("sift", "guided", 580),
    ({"use": "d2net_ss", **D2NET}, "nearest", 175),
    ({"use": "d2net_ms", "resize_max": SMALL, **D2NET}, "nearest", 80),
    (R2D2, "nearest", 230),
    ({"use": "disk", "max_keypoints": 1000}, "nearest", 510),
    ({"use": "disk", "max_keypoints": 512}, "lightglue", 265),
    *(
        ({"use": "aliked", "model": f"aliked-{model}", "max_keypoints": 1000}, "nearest", 460)
        for model in ("n16", "n16rot", "n32", "t16")
    ),
    ({"use": "aliked", "max_keypoints": 512}, "lightglue", 270),
    ({"use": "delf_ots", "precision": "fp32", "resize_max": SMALL, "scales": [1.0, 2.0]}, "nearest", 90),
]
#: Runs what is installed elsewhere: tests/unit/bridges.
BRIDGE = "hloc"


@pytest.fixture(autouse=True)
def weights(shared, public_weights, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", os.pathsep.join(map(str, (shared / "weights", public_weights))))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_OFFLINE", "1")


def plugins(features: str | dict[str, Any], matcher: str) -> tuple[ResolvedPlugin, ResolvedPlugin]:
    block = {"use": features} if isinstance(features, str) else features
    extractor = resolve_block("features", {"resize_max": WIDTH, **block})
    return extractor, resolve_block("matcher", matcher).for_features(extractor)


def described(extractor: ResolvedPlugin, folder: Path) -> list[LocalFeatures]:
    runner = PhotoExtractor(extractor)
    photos = sorted(folder.iterdir())[3:5]
    return [runner.run([runner.read(PhotoFile(path.name, path))])[0] for path in photos]


def title(case: tuple[str | dict[str, Any], str, int]) -> str:
    features, matcher, _ = case
    name = features if isinstance(features, str) else features.get("model", features["use"])
    return f"{name}+{matcher}"


@pytest.mark.parametrize("case", FLOORS, ids=title)
def test_inliers(case, shared, say) -> None:
    extractor, plugin = plugins(*case[:2])
    features = described(extractor, shared / "data/strecha_fountain_p11/images")
    matcher = plugin.build()
    (found,) = matcher([tuple(matcher.prepare(each) for each in features)])
    xy = [each.keypoints[found.indices[:, side]] for side, each in enumerate(features)]
    cv2.setRNGSeed(0)
    width = extractor.stage_options["resize_max"]
    within_px = max(features[0].image_wh[0] / width, features[0].noise_px)
    _, inliers = cv2.findFundamentalMat(*xy, cv2.USAC_MAGSAC, within_px, 0.999, 10_000)
    say(f"pair of fountain, {width} px: {title(case)}: {inliers.sum()} of {len(found)} matches are inliers")
    assert inliers.sum() >= case[2]


def test_every_verified_plugin_has_a_floor() -> None:
    """And every one of its files of weights."""
    used = [plugin for case in FLOORS for plugin in plugins(*case[:2])]
    assert all(weights_verified(plugin) for plugin in used)
    tried = {(plugin.kind, plugin.name) for plugin in used}
    files = {file.name for plugin in used for file in plugin.weights}
    for info in list_plugins():
        if info.kind == "global" or info.name == BRIDGE:
            continue
        known = load_plugin(info.kind, info.name).weights
        verified = {file.name for file in known if file.output_checked}
        assert verified <= files
        assert (info.kind, info.name) in tried or (known and not verified), f"{info.name} has no floor"
