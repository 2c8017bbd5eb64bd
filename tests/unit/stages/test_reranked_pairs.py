"""Pairs by retrieval that matches of local features reorder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import loc
from loc.config import RerankConfig, RetrievalPairs
from loc.errors import ConfigError
from loc.layouts import load_scene
from loc.planning import plan
from loc.plugins.blocks import load_config
from loc.plugins.protocols import PluginConfig
from loc.runtime.runtime import Runtime
from loc.stages.correspond import features_block
from loc.stages.onephoto import Retrieval
from loc.stages.pairs import generate_pairs, pair_fields, predict_pairs
from loc.stages.reranking import LocalSource, remembered, rerank_pairs
from loc.types import Camera, ImageRecord, LocalFeatures, Scene

CAMERA = Camera("PINHOLE", 8, 6, np.array([5.0, 5, 4, 3]))
#: Degrees: by similarity to the query the order is a, b, c, d.
DIRECTIONS = {"a": 10, "b": 20, "c": 30, "d": 40, "q": 0}
#: Keypoints that an image shares with the query.
SHARED = {"a": 0, "b": 8, "c": 20, "d": 40, "q": 40}
SCENE = Scene(
    tuple(
        ImageRecord(name, Path(name), "query" if name == "q" else "db", "c") for name in sorted(DIRECTIONS)
    ),
    {"c": CAMERA},
)


def descriptors(names):
    angles = np.radians([DIRECTIONS[name] for name in names])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def local(name):
    rng = np.random.default_rng(0)
    common, xy = rng.normal(size=(40, 16)), rng.uniform(0, 500, (40, 2))
    own = np.random.default_rng(ord(name)).normal(size=(40, 16))
    keep = SHARED[name]
    rows = np.vstack([common[:keep], own[keep:]]).astype(np.float32)
    return LocalFeatures(xy.astype(np.float32), np.ones(40, np.float32), rows, (640, 480))


def references(role="query", source=local, **options):
    config = RetrievalPairs.model_validate({"for": role, "k": 2, "rerank": "example", **options})
    pairs = generate_pairs(
        role,
        [config],
        SCENE,
        set(DIRECTIONS),
        descriptors,
        local=None if source is None else LocalSource(source),
    )
    predicted = predict_pairs(role, [config], SCENE, set(DIRECTIONS))
    assert len(pairs) == predicted.count or (not predicted.exact and len(pairs) <= predicted.count)
    return pairs


def test_matches_of_more_than_k_candidates_decide():
    assert references() == [("q", "d"), ("q", "c")]
    assert references(rerank={"use": "example", "candidates": 3}) == [("q", "c"), ("q", "b")]
    # Images beyond the candidates follow in their order.
    assert references(rerank={"candidates": 1}, k=4) == [("q", name) for name in "abcd"]


def test_map_pairs_too():
    assert ("c", "d") in references("map", k=1)
    assert all(first < second for first, second in references("map"))


def test_with_other_rankings():
    assert references(diffusion={"k": 3, "query_k": 1}) == references()
    assert references(min_similarity=0.85) == [("q", "c"), ("q", "b")]  # d is 40 degrees off


def test_one_photo_is_reranked_as_the_run_does():
    names = ("a", "b", "c", "d")
    for options in ("example", {"use": "delg", "candidates": 2}):
        generator = RetrievalPairs.model_validate({"k": 2, "rerank": options})
        retrieval = Retrieval(
            names,
            (generator,),
            descriptors(names),
            describe=lambda features: descriptors(["q"]),
            local=local,
        )
        asked = retrieval.references(None, local("q"))  # type: ignore[arg-type]
        assert asked == [name for _, name in references(rerank=options)]


def test_features_are_read_once_and_cut():
    read = []

    def get(name):
        read.append(name)
        return local(name)

    config = RerankConfig(max_keypoints=7, candidates=4)
    assert len(remembered(get, config)("a")) == 7
    read.clear()
    tracked = []

    def track(queries):
        for query in queries:
            tracked.append(query)
            yield query

    pairs = [("q", "a"), ("q", "b"), ("a", "b"), ("a", "q")]
    rerank_pairs(pairs, config, 2, LocalSource(get, track))
    assert (sorted(read), tracked) == (["a", "b", "q"], ["q", "a"])


def test_without_local_features():
    with pytest.raises(ConfigError, match="this run has none"):
        references(source=None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("fast", "rerank.use"),
        ({"candidates": 0}, "candidates"),
        ({"use": "d2r", "bound": 3}, "bound is not an option"),
        ({"ratio": 1.5}, "ratio"),
        (3, "rerank"),
    ],
)
def test_wrong_options(options, match):
    with pytest.raises(ConfigError, match=match):
        load_config({"pairs": [{"use": "retrieval", "rerank": options}]})


class MeanColour:
    """The mean colour of an image."""

    class Config(PluginConfig):
        pass

    version, licence, paper, weights = 1, "Apache-2.0", "", ()
    source, color, min_side, needs_fit = "image", "rgb", 1, False

    def __init__(self, config, *, device, dtype):
        pass

    def __call__(self, images):
        rows = images.numpy().mean(axis=(2, 3))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (96, 72))
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
    return folder


def configured(photos, **options):
    return load_config(
        {
            "scene": {"images": str(photos)},
            "features": {"use": "sift", "max_keypoints": 60},
            "pairs": [{"use": "retrieval", "k": 1}],
            **options,
        }
    )


def test_a_run_resumes_and_depends_on_its_features(photos, tmp_path):
    alone = Runtime(device="cpu", workers=1)

    def pairs(config):
        loc.run(config, tmp_path, runtime=alone, until="matches")
        return {path.name for path in (tmp_path / "pairs").iterdir() if path.is_dir()}

    plain = pairs(configured(photos))
    config = configured(photos, pairs=[{"use": "retrieval", "k": 1, "rerank": "d2r"}])
    first = pairs(config)
    assert (len(plain), len(first)) == (1, 2)
    assert pairs(config) == first
    steps = {step.stage: step.why for step in plan(config, tmp_path, sample=0, runtime=alone)}
    assert steps["pairs map"] == "done"
    fewer = configured(
        photos, pairs=config.model_dump(by_alias=True)["pairs"], features={"use": "sift", "max_keypoints": 40}
    )
    assert len(pairs(fewer)) == 3  # other features, other pairs
    # A config that does not re-rank keeps its pairs whatever the features are.
    assert len(pairs(configured(photos, globals=None, pairs=[{"use": "exhaustive"}]))) == 4
    other = configured(
        photos, globals=None, pairs=[{"use": "exhaustive"}], features={"use": "sift", "max_keypoints": 40}
    )
    assert len(pairs(other)) == 4


def test_a_matcher_of_pixels_needs_features_for_it(photos):
    options = {
        "globals": f"{__name__}:MeanColour",
        "pairs": [{"use": "retrieval", "rerank": "d2r"}],
        "matcher": "loftr",
    }
    with pytest.raises(ConfigError, match="features: null, but pairs are re-ranked by local features"):
        configured(photos, **options, features=None)
    config = configured(photos, **options)
    assert features_block(config, load_scene(config.scene)) == config.features
    plain = configured(photos, **options | {"pairs": [{"use": "retrieval"}]})
    assert features_block(plain, load_scene(plain.scene)) is None


def test_pairs_made_before_this_option_stay_valid():
    features = SimpleNamespace(keys={}, store=SimpleNamespace(folder=Path("sift-1")))
    plain, ranked = (
        pair_fields("query", SCENE, features, None, config=[RetrievalPairs(rerank=rerank)])  # type: ignore[arg-type]
        for rerank in (None, RerankConfig())
    )
    assert "features" not in plain
    assert sorted(plain["pairs"][0]) == [
        "diffusion",
        "expansion",
        "for_",
        "fusion",
        "k",
        "min_similarity",
        "use",
    ]
    assert ranked["features"] == "sift-1"
    assert ranked["pairs"][0]["rerank"]["residual_px"] == 10
