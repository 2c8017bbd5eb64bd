"""Pairs by retrieval whose order a config changes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import loc
from loc.cli.plugin_card import config_card
from loc.config import RetrievalPairs
from loc.errors import ConfigError
from loc.planning import plan
from loc.plugins.blocks import load_config
from loc.plugins.protocols import PluginConfig
from loc.runtime.runtime import Runtime
from loc.stages.onephoto import Retrieval
from loc.stages.pair_generators import Described
from loc.stages.pairs import generate_pairs, predict_pairs
from loc.types import Camera, ImageRecord, Scene

CAMERA = Camera("PINHOLE", 8, 6, np.array([5.0, 5, 4, 3]))
#: Directions in degrees: d leads from the query over c to b and a; rival is near by similarity alone.
DIRECTIONS = {"a": 80, "b": 60, "c": 40, "d": 20, "rival": -50, "q": 0}
SCENE = Scene(
    tuple(
        ImageRecord(name, Path(name), "query" if name == "q" else "db", "c") for name in sorted(DIRECTIONS)
    ),
    {"c": CAMERA},
)


def descriptors(names):
    angles = np.radians([DIRECTIONS[name] for name in names])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def references(**options):
    config = RetrievalPairs.model_validate({"for": "query", "k": 4, **options})
    predicted = predict_pairs("query", [config], SCENE, set(DIRECTIONS))
    pairs = generate_pairs("query", [config], SCENE, set(DIRECTIONS), descriptors)
    assert (len(pairs), True) == (predicted.count, predicted.exact)
    return [name for _, name in pairs]


def test_each_option_reorders():
    assert references() == ["d", "c", "rival", "b"]
    assert references(expansion={"queries": 2, "alpha": 0}) == ["d", "c", "b", "a"]
    assert set(references(diffusion={"k": 3, "query_k": 1})) == {
        "a",
        "b",
        "c",
        "d",
    }  # rival is no neighbour's
    both = references(expansion={"database": 1}, diffusion={"k": 3, "query_k": 1})
    assert set(both) == {"a", "b", "c", "d"}
    assert references(expansion={}) == references()


def test_one_photo_is_ranked_as_the_run_ranks():
    names = ("a", "b", "c", "d", "rival")
    for options in ({}, {"expansion": {"queries": 2, "alpha": 0}}, {"diffusion": {"k": 3, "query_k": 1}}):
        generator = RetrievalPairs.model_validate({"k": 4, **options})
        retrieval = Retrieval(
            names, (generator,), descriptors(names), describe=lambda features: descriptors(["q"])
        )
        assert retrieval.references(None, None) == references(**options)  # type: ignore[arg-type]
    both = (RetrievalPairs(k=1), RetrievalPairs(k=3, min_similarity=0.7))
    retrieval = Retrieval(names, both, descriptors(names), describe=lambda features: descriptors(["q"]))
    assert retrieval.references(None, None) == ["d", "c"]  # type: ignore[arg-type]


def test_map_pairs_by_diffusion():
    config = RetrievalPairs.model_validate({"for": "map", "k": 1, "diffusion": {"k": 3}})
    pairs = generate_pairs("map", [config], SCENE, set(DIRECTIONS), descriptors)
    assert ("a", "b") in pairs
    assert all(first < second for first, second in pairs)


def other_descriptors(names):
    """Of a retriever that sees only the rival."""
    return np.float32([[name in ("q", "rival"), name not in ("q", "rival")] for name in names])


def fused(role="query", **options):
    config = RetrievalPairs.model_validate({"for": role, "k": 3, "fusion": {"of": ["other"], **options}})
    described = {'"other"': Described(other_descriptors)}
    return generate_pairs(role, [config], SCENE, set(DIRECTIONS), descriptors, others=described)


def test_fusion_of_two_descriptors():
    assert next(name for _, name in fused()) == "rival"  # third and first
    assert next(name for _, name in fused(by="scores")) == "rival"
    assert [name for _, name in fused(weights=[1, 0])] == references()[:3]


def test_fused_map_pairs_are_of_different_images():
    pairs = fused("map")
    assert all(first < second for first, second in pairs)
    assert ("a", "b") in pairs


def test_a_run_fuses_plans_and_resumes(tmp_path):
    """Descriptors by two plug-ins, one of the pixels and one of the features; the plan finds them done."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (96, 72))
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    config = load_config(
        {
            "scene": {"images": str(tmp_path)},
            "features": {"use": "sift", "max_keypoints": 100},
            "pairs": [{"use": "retrieval", "k": 1, "fusion": {"of": [f"{__name__}:MeanColour"]}}],
        }
    )
    alone = Runtime(device="cpu", workers=1)
    run = loc.run(config, tmp_path / "run", runtime=alone, until="matches")
    assert run.matches is not None
    assert len(run.matches.keys) in (2, 3)
    stores = sorted(path.name for path in (tmp_path / "run/globals").iterdir())
    assert [name.rpartition("-")[0] for name in stores] == [f"{__name__}_MeanColour", "vlad"]
    steps = {step.stage: step.why for step in plan(config, tmp_path / "run", sample=0, runtime=alone)}
    assert steps["pairs map"] == steps["globals"] == "done"


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


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"diffusion": {"gama": 1}}, "gama"),
        ({"diffusion": {"alpha": 1}}, "alpha"),
        ({"expansion": {"queries": -1}}, "queries"),
        ({"diffusion": {}, "min_similarity": 0.2}, "min_similarity is a cosine"),
        ({"fusion": {"of": []}}, "of"),
        ({"fusion": {"of": ["vlad"], "weights": [1]}}, "weights are 2 numbers"),
        ({"fusion": {"of": ["vlad", "vlad"]}}, "the same descriptor twice"),
        ({"fusion": {"of": ["nonesuch"]}}, "no plug-in or preset is called 'nonesuch'"),
        ({"fusion": {"of": [{"use": "vlad", "word": 3}]}}, "globals.word is not an option"),
    ],
)
def test_wrong_options(options, match):
    with pytest.raises(ConfigError, match=match):
        load_config({"pairs": [{"use": "retrieval", **options}]})


def test_the_options_are_listed_with_those_inside_them():
    data, lines = config_card()
    assert (
        data["pairs: - use: retrieval"]["diffusion"]["options"]["solver"]["default"] == "conjugate_gradients"
    )
    assert any(line.startswith("    query_k (int or None, default None)") for line in lines)
    assert any(line.startswith("  diffusion (mapping or None, default None)") for line in lines)
