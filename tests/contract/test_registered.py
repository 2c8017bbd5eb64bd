"""Every registered plug-in keeps the contract."""

from __future__ import annotations

import os

import pytest
from hloc_stand_in import installed
from made_weights import FROM_SHARED, MAKERS

from loc.plugins.contract import check_extractor, check_global_extractor, check_matcher
from loc.plugins.registry import list_plugins, load_plugin

CHECKS = {"extractor": check_extractor, "global": check_global_extractor, "matcher": check_matcher}


#: What the defaults need that is not here: the authors' fine-tuned weights, a licence's acceptance.
OPTIONS = {
    "d2net": {"weights": "ots", "precision": "fp32"},
    "r2d2": {"accept_license": True},
    "lightglue": {"features": "disk"},
    "superpoint": {"accept_license": True, "max_keypoints": 1000},
    "dog_hardnet": {"max_keypoints": 120},
    "loftr": {"min_score": 0.05},
    # A grid of 16 px: of one of 32, few points lie where the mirror image has theirs.
    "delf": {"score_threshold": 0, "scales": [2.0]},
    "delg": {"score_threshold": 0, "scales": [2.0]},
    "delf_ots": {"scales": [1.0], "precision": "fp32"},
}


#: Networks whose made weights see a mirror image as the mirror image: their origin is checked sharply.
SYMMETRIC = ("superpoint", "xfeat", "dog_hardnet")
#: The bridge runs what is installed: here a small hloc that takes the protocol literally.
HLOC_MODELS = {
    "extractor": "hloc.extractors.blobs",
    "global": "hloc.extractors.mean",
    "matcher": "hloc.matchers.mutual",
}


@pytest.mark.parametrize("info", list_plugins(), ids=lambda info: f"{info.kind}-{info.name}")
def test_contract(info, request, tmp_path, monkeypatch) -> None:
    cls = load_plugin(info.kind, info.name)
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_OFFLINE", "1")
    if info.name in FROM_SHARED or (getattr(cls, "weights", ()) and info.name not in MAKERS):
        folders = (request.getfixturevalue("shared") / "weights", request.getfixturevalue("public_weights"))
        monkeypatch.setenv("LOC_WEIGHTS_DIR", os.pathsep.join(map(str, folders)))
    if info.name in MAKERS:
        MAKERS[info.name](tmp_path)
    if info.name in SYMMETRIC:
        cls = type(cls.__name__, (cls,), {"mirror_symmetric": True})
    if info.name == "hloc":
        with installed(monkeypatch):
            CHECKS[info.kind](cls, {"model": HLOC_MODELS[info.kind]})
    else:
        CHECKS[info.kind](cls, OPTIONS.get(info.name) if info.kind != "global" else None)


def test_the_built_ins_are_among_them() -> None:
    assert {("extractor", "sift"), ("global", "vlad"), ("matcher", "nearest")} <= {
        (info.kind, info.name) for info in list_plugins()
    }


@pytest.mark.parametrize(
    "options", [{"upright": True}, {"domain_size_pooling": True}, {"affine_shape": True}]
)
def test_variants_of_sift(options) -> None:
    check_extractor(load_plugin("extractor", "sift"), {**options, "first_octave": 0})


@pytest.mark.parametrize(
    "options", [{"ratio": None}, {"mutual": False}, {"ratio": None, "min_similarity": 0.5}]
)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_variants_of_nearest(options, dtype) -> None:
    check_matcher(load_plugin("matcher", "nearest"), options, descriptor_dtype=dtype)


def test_vlad_on_other_descriptors() -> None:
    check_global_extractor(load_plugin("global", "vlad"), {"words": 8}, dim=64, descriptor_dtype="float16")
