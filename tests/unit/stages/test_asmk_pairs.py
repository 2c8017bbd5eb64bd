"""Pairs by visual words: the run's pair generators and a single photo rank by what `asmk` makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loc.config import RetrievalPairs
from loc.errors import ConfigError
from loc.plugins.blocks import resolve_block
from loc.stages.onephoto import Retrieval
from loc.stages.pair_generators import Described
from loc.stages.pairs import generate_pairs
from loc.types import Camera, ImageRecord, LocalFeatures, Scene

#: The place that each image shows.
PLACES = {"a": 0, "b": 0, "c": 1, "d": 1, "nothing": None, "q": 1}
SCENE = Scene(
    tuple(ImageRecord(name, Path(name), "query" if name == "q" else "db", "c") for name in sorted(PLACES)),
    {"c": Camera("PINHOLE", 8, 6, np.array([5.0, 5, 4, 3]))},
)


def features(name):
    shown = PLACES[name]
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 30, 32))[shown] if shown is not None else np.zeros((0, 32))
    rows = rows + np.random.default_rng(sum(map(ord, name))).normal(0, 0.1, rows.shape)
    n = len(rows)
    return LocalFeatures(
        np.zeros((n, 2), np.float32), np.ones(n, np.float32), rows.astype(np.float32), (8, 6)
    )


@pytest.fixture(scope="module")
def plugin():
    resolved = resolve_block("globals", {"use": "asmk", "words": 20, "iterations": 3})
    built = resolved.build()
    built.load_state(built.fit([features(name) for name in "abcd"]))
    return resolved, built


def described(plugin):
    resolved, built = plugin

    def rows(names):
        out = np.empty(len(names), object)
        out[:] = built([features(name) for name in names])
        return out

    return Described(rows, own=resolved.own_ranking)


def pairs(plugin, role, **options):
    words = described(plugin)
    config = RetrievalPairs.model_validate({"k": 1, **options})
    return generate_pairs(role, [config], SCENE, set(PLACES), words.rows, own=words.own)


def test_images_of_a_place_are_paired(plugin) -> None:
    assert pairs(plugin, "map") == [("a", "b"), ("c", "d")]
    assert {first for _, first in pairs(plugin, "query", k=2)} == {"c", "d"}
    assert pairs(plugin, "query", k=2, min_similarity=2.0) == []


def test_fused_with_vectors(plugin) -> None:
    """Another descriptor that likes `a` best; both together put what both like first."""
    words = described(plugin)
    config = RetrievalPairs.model_validate({"for": "query", "k": 3, "fusion": {"of": ["vlad"]}})
    angles = {"a": 0, "b": 90, "c": 60, "d": 20, "nothing": 80, "q": 0}

    def vectors(names):
        turned = np.radians([angles[name] for name in names])
        return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)

    (key,) = config.fusion.blocks
    fused = generate_pairs(
        "query",
        [config],
        SCENE,
        set(PLACES),
        words.rows,
        own=words.own,
        others={key: Described(vectors)},
    )
    assert next(name for _, name in fused) == "d"


def test_one_photo_is_ranked_as_the_run_ranks(plugin) -> None:
    resolved, built = plugin
    names = tuple(name for name in sorted(PLACES) if name != "q")
    retrieval = Retrieval(
        names,
        (RetrievalPairs(k=2),),
        described(plugin).rows(names),
        describe=built,
        own=resolved.own_ranking,
    )
    expected = [name for _, name in pairs(plugin, "query", k=2)]
    assert retrieval.references(None, features("q")) == expected


def test_what_needs_vectors_is_refused(plugin) -> None:
    for options in ({"diffusion": {}}, {"expansion": {"queries": 1}}):
        with pytest.raises(ConfigError, match="need global descriptors that are vectors"):
            pairs(plugin, "query", **options)
