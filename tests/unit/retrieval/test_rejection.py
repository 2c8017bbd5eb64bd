"""The score of "no match": monotone, kept in files that can be trusted, tied to what made the evidence."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loc.config.ranking import RerankConfig, suited_reranking
from loc.errors import ConfigError, DataError
from loc.plugins.blocks import resolve_block
from loc.retrieval.calibration import calibrate
from loc.retrieval.rejection import (
    GENERIC_INLIERS,
    Evidence,
    Rejection,
    generic,
    method_name,
    rerank_name,
    shipped,
    shipped_for,
)
from loc.retrieval.verification import Verified
from loc.types import LocalFeatures

MODEL = Rejection((8.0, 5.0, 2.0, 0.5, -0.25), -10.0, 0.4, "vlad", "sift", "d2r", {"set": "somewhere"})
WEAK, STRONG = Evidence(0.05, 0.02, 12, 11, 1000), Evidence(0.4, 0.3, 200, 150, 1000)


def made_evidence(count=400, seed=0):
    """Right answers have more of everything, with overlap; where a value misleads, its weight must be 0."""
    random = np.random.default_rng(seed)
    rows, labels = [], random.random(count) < 0.5
    for label in labels:
        similarity = random.normal(0.2 if label else 0.3, 0.1)
        inliers = random.poisson(40 if label else 20)
        rows.append(
            Evidence(similarity, random.normal(0.1 * label, 0.1), inliers, random.poisson(12), 300 + inliers)
        )
    return rows, labels.tolist(), [f"place{row % 5}" for row in range(count)]


@functools.cache
def fitted():
    return calibrate(*made_evidence(), max_false_accept=0.1).rejection


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.sampled_from(["similarity", "margin", "inliers", "second_inliers", "query_keypoints"]),
    st.integers(0, 1000),
)
def test_more_evidence_never_lowers_the_score(similarity, margin, inliers, second, keypoints, what, more):
    less = Evidence(similarity, margin, inliers, second, keypoints)
    much = replace(less, **{what: getattr(less, what) + more})
    for model in (MODEL, fitted(), generic()):
        if what == "query_keypoints":
            less, much = much, less
        assert 0 <= model.score(less) <= model.score(much) <= 1


def test_a_value_that_misleads_weighs_nothing():
    model = fitted()
    assert model.weights[0] == 0
    assert model.weights[1] > 0
    assert model.weights[2] > 0


def test_strong_evidence_is_accepted_and_none_is_not():
    assert MODEL.accepts(STRONG)
    assert not MODEL.accepts(WEAK)
    certain = replace(MODEL, intercept=50.0)
    assert certain.score(WEAK) == pytest.approx(1)
    assert not certain.accepts(replace(WEAK, inliers=0, second_inliers=0))
    assert MODEL.score(Evidence(1e6, 1e6, 10**9, 0, 0)) == 1
    assert MODEL.score(Evidence(-1e6, 0.0, 0, 0, 0)) == 0


def test_the_generic_rule_counts_inliers_and_says_so():
    rule = generic()
    assert rule.accepts(Evidence(0.0, 0.0, GENERIC_INLIERS, 0, 0))
    assert not rule.accepts(Evidence(1.0, 1.0, GENERIC_INLIERS - 1, 0, 0))
    assert not rule.calibrated
    assert "not calibrated for this combination" in rule.note
    assert MODEL.calibrated
    assert "somewhere" in MODEL.note
    rule.require(globals_name="any", features_name="thing", rerank="at all")


def test_evidence_of_a_ranking():
    ranked = [(0.5, 40), (0.9, 12), (0.1, 0)]
    assert Evidence.of(ranked, 700) == Evidence(0.5, 0.0, 40, 12, 700)
    assert Evidence.of([(0.5, 3)], 7) == Evidence(0.5, 0.0, 3, 0, 7)
    assert Evidence.of([], 7) == Evidence(0.0, 0.0, 0, 0, 7)
    query = LocalFeatures(
        np.zeros((9, 2), np.float32), np.zeros(9, np.float32), np.zeros((9, 4), np.float32), (10, 10)
    )
    none = Verified(0, np.zeros((0, 2), np.int32), None)
    found = [("a", 0.5, replace(none, inliers=40)), ("b", 0.9, replace(none, inliers=12)), ("c", 0.1, None)]
    config = RerankConfig(max_keypoints=5)
    assert Evidence.of_reranked(query, found, config) == Evidence(0.5, 0.0, 40, 12, 5)


def test_a_calibration_of_another_method_is_refused():
    MODEL.require(globals_name="vlad", features_name="sift", rerank="d2r")
    with pytest.raises(
        ConfigError, match="globals vlad and not gem, features sift and not delf_ots"
    ) as error:
        MODEL.require(globals_name="gem", features_name="delf_ots", rerank="d2r")
    assert "loc bench rejection" in error.value.next_step
    with pytest.raises(ConfigError, match="rerank d2r and not delg"):
        MODEL.require(globals_name="vlad", features_name="sift", rerank="delg")


def test_methods_are_named_by_what_they_do_and_not_by_how_that_is_spelled():
    def name(section, block):
        return method_name(resolve_block(section, block))

    assert name("globals", "vlad") == "vlad"
    assert name("features", {"use": "sift", "resize_max": 1600}) == "sift"
    assert name("features", {"use": "sift", "resize_max": 800}) == "sift (resize_max=800)"
    assert name("features", {"use": "d2net", "precision": "fp32"}) == "d2net"
    assert (
        name("features", "d2net_ms") == name("features", {"use": "d2net", "scales": [0.5, 1, 2]}) != "d2net"
    )
    assert rerank_name(RerankConfig(use="delg")) == "delg"
    assert rerank_name(RerankConfig(trials=500, candidates=7)) == "d2r (trials=500)"


def test_a_file_gives_the_same_model_back(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(MODEL.to_json()))
    assert Rejection.read(path) == MODEL
    again = Rejection.from_json(json.loads(json.dumps(fitted().to_json())))
    assert again == fitted()
    assert again.score(STRONG) == fitted().score(STRONG)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "something"}, "its format is not"),
        ({"version": 2}, "of version 2, and this reads 1"),
        ({"weights": [1, 2]}, "5 finite weights"),
        ({"weights": "12345"}, "no numbers"),
        ({"weights": [1, 1, 1, 1, True]}, "no numbers"),
        ({"weights": [float("nan")] * 5}, "no numbers"),
        ({"weights": [1e400, 1, 1, 1, 0]}, "no numbers"),
        ({"weights": [10**400, 1, 1, 1, 0]}, "no numbers"),
        ({"weights": [-1, 1, 1, 1, -1]}, "wrong sign"),
        ({"weights": [1, 1, 1, 1, 1]}, "wrong sign"),
        ({"threshold": 1.5}, "no probability"),
        ({"threshold": None}, "no numbers"),
        ({"intercept": {}}, "no numbers"),
        ({"globals_name": 7}, "no text"),
        ({"provenance": "here"}, "no object"),
        ({"extra": 1}, "missing or unknown: extra"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(change, says):
    with pytest.raises(DataError, match=says) as error:
        Rejection.from_json({**MODEL.to_json(), **change}, source="x.json")
    assert error.value.message.startswith("x.json is no usable calibration")


def test_what_is_no_file_of_this_kind_is_refused(tmp_path):
    for data in (None, [], "text", 7, {}):
        with pytest.raises(DataError, match="its format is not"):
            Rejection.from_json(data)
    short = MODEL.to_json()
    del short["threshold"]
    with pytest.raises(DataError, match="missing or unknown: threshold"):
        Rejection.from_json(short)
    path = tmp_path / "calibration.json"
    for content, says in (
        (b"{", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b" " * (2 << 20), "larger than any calibration"),
        (json.dumps(generic().to_json()).encode(), "which globals and features it is for"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=says):
            Rejection.read(path)
    with pytest.raises(DataError, match="cannot read"):
        Rejection.read(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot read"):
        Rejection.read(tmp_path)


@pytest.mark.parametrize(
    ("most", "there"), [(8192, True), (4000, True), (1000, True), (999, False), (None, True)]
)
def test_a_calibration_holds_for_other_numbers_of_keypoints(most, there):
    """Only the first ones are verified; but few of them are too few."""
    features = resolve_block("features", {"use": "sift", "max_keypoints": most})
    found = shipped_for("gem", features, RerankConfig())
    assert (found is not None) == there
    if found is not None:
        assert ("another max_keypoints" in found.note) == (most != 8192)
        assert found.weights == shipped("gem", "sift").weights


def test_a_calibration_does_not_hold_for_other_options():
    features = resolve_block("features", {"use": "sift", "max_keypoints": 2000, "upright": True})
    assert shipped_for("gem", features, RerankConfig()) is None
    sift = resolve_block("features", "sift")
    assert shipped_for("gem", sift, RerankConfig(ratio=0.7)) is None
    assert shipped_for("gem", sift, RerankConfig(candidates=7)) == shipped("gem", "sift")


def test_shipped_calibrations_are_those_of_their_combination():
    assert shipped("no such", "combination") is None
    model = shipped("vlad", "sift")
    assert model is not None
    model.require(globals_name="vlad", features_name="sift", rerank="d2r")
    assert model.calibrated
    assert {"set", "command", "date", "loc", "auc", "false_accepts", "true_accepts"} <= set(model.provenance)
    assert model.accepts(STRONG)
    assert not model.accepts(WEAK)
    for globals_name in ("gem", "vlad"):  # what `loc retrieve` verifies by without being told
        for features_name in ("sift", "delf_ots", "d2net (weights=ots)", "aliked"):
            suited = suited_reranking(features_name.split()[0])
            assert shipped(globals_name, features_name, suited) is not None
    for globals_name in ("gem", "vlad"):  # by `ratio`, chance has a handful of inliers
        model = shipped(globals_name, "sift", "ratio")
        assert model is not None
        assert model.weights[-1] == 0  # photos had much the same number of keypoints
        assert model.accepts(Evidence(0.5, 0.3, 60, 30, 2000))
        assert not model.accepts(Evidence(0.1, 0.1, 7, 7, 2000))
