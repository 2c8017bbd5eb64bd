"""Pairs by retrieval whose order a config changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loc.config import RetrievalPairs
from loc.errors import ConfigError
from loc.plugins.blocks import load_config
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


def test_map_pairs_by_diffusion():
    config = RetrievalPairs.model_validate({"for": "map", "k": 1, "diffusion": {"k": 3}})
    pairs = generate_pairs("map", [config], SCENE, set(DIRECTIONS), descriptors)
    assert ("a", "b") in pairs
    assert all(first < second for first, second in pairs)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"diffusion": {"gama": 1}}, "gama"),
        ({"diffusion": {"alpha": 1}}, "alpha"),
        ({"expansion": {"queries": -1}}, "queries"),
        ({"diffusion": {}, "min_similarity": 0.2}, "min_similarity is a cosine"),
    ],
)
def test_wrong_options(options, match):
    with pytest.raises(ConfigError, match=match):
        load_config({"pairs": [{"use": "retrieval", **options}]})
