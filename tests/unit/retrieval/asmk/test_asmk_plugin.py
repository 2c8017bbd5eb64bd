"""ASMK as a plug-in: from local features to rankings; VLAD of regions; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from loc.config.ranking import DiffusionConfig
from loc.errors import ConfigError, ContractError, DataError, PluginError, StoreError
from loc.plugins.contract import check_global_extractor
from loc.retrieval.asmk.aggregate import Signature, residuals, signature
from loc.retrieval.asmk.inverted import InvertedFile, decode, encode
from loc.retrieval.asmk.kernel import Kernel
from loc.retrieval.asmk.plugin import Asmk, AsmkConfig
from loc.retrieval.asmk.rvlad import Rvlad, RvladConfig
from loc.retrieval.asmk.words import Codebook, train_words
from loc.retrieval.ranking import ranking_of
from loc.types import LocalFeatures


def features(descriptors, xy=None, scores=None):
    n = len(descriptors)
    xy = np.random.default_rng(n).uniform(0, [640, 480], (n, 2)) if xy is None else xy
    scores = np.ones(n, np.float32) if scores is None else scores
    return LocalFeatures(np.asarray(xy, np.float32), scores, descriptors, (640, 480))


def places(count=6, dim=16, *, dtype=np.uint8):
    """Two views of each place: the same descriptors with noise, in another order."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(count):
        place = rng.gamma(1.0, 40, (80, dim))
        for _ in range(2):
            view = np.clip(place + rng.normal(0, 6, place.shape), 0, 255)[rng.permutation(80)]
            out.append(features(view.astype(dtype)))
    return out


def fitted(images, **options):
    plugin = Asmk(AsmkConfig(**options))
    plugin.load_state(plugin.fit(images))
    return plugin


def rows_of(plugin, images):
    rows = np.empty(len(images), object)
    rows[:] = plugin(images)
    return rows


@pytest.mark.parametrize("options", [{}, {"binary": False}, {"regions": "rmac"}, {"dim": None, "words": 30}])
def test_contract(options) -> None:
    check_global_extractor(Asmk, {"words": 40, **options})


@pytest.mark.parametrize("options", [{}, {"regions": "none", "assignments": 2}])
def test_contract_of_rvlad(options) -> None:
    check_global_extractor(Rvlad, {"words": 8, **options})


def test_as_many_words_as_descriptors_are_refused() -> None:
    """Each descriptor would be a word: no residual, and no image is found, not even by itself."""
    images = places(2)
    with pytest.raises(DataError, match="cannot learn 320 words from 320 descriptors") as caught:
        fitted(images, words=320)
    assert caught.value.next_step == "set globals.words=null, or at most 20"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("regions", ["none", "rmac"])
def test_views_of_a_place_find_each_other(binary, regions) -> None:
    images = places(dim=64)
    plugin = fitted(images, words=60, binary=binary, regions=regions, iterations=5)
    rows = rows_of(plugin, images)
    rank = Asmk.ranking(plugin.config, rows)
    itself = np.array([(row, row) for row in range(len(images))])
    order, scores = rank(rows, 12, exclude=itself)
    assert order[:, 0].tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    assert all(row not in order[row] for row in range(12))
    assert (scores[:, 0] > 2 * scores[:, 1]).all()
    assert (np.diff(scores, axis=1)[order[:, 1:] >= 0] <= 0).all()


def test_an_image_without_keypoints_finds_nothing_and_is_not_found() -> None:
    images = [*places(3), features(np.zeros((0, 0), np.uint8))]
    plugin = fitted(images, words=40)
    rows = rows_of(plugin, images)
    unread = np.zeros(0, np.uint8)  # a photo that could not be read
    database = np.empty(len(rows) + 1, object)
    database[:-1], database[-1] = rows, unread
    order, scores = Asmk.ranking(plugin.config, database)(database, 99)
    assert order.shape == (8, 8)
    assert (order[6:] == -1).all()
    assert np.isneginf(scores[6:]).all()
    assert not np.isin(order, [6, 7]).any()
    nothing = Asmk.ranking(plugin.config, database[:0])
    assert nothing(database, 5)[0].shape == (8, 0)


def test_signatures_survive_the_store(tmp_path) -> None:
    from loc.stores.features import GlobalStore
    from loc.stores.parts import ItemKey

    rng = np.random.default_rng(0)
    for binary, dim in ((True, 12), (False, 5)):
        plugin = fitted(places(2, dim), words=20, binary=binary, dim=None)
        rows = plugin([*places(2, dim), features(np.zeros((0, dim), np.uint8))])
        store = GlobalStore(tmp_path / str(dim), {"kind": "globals"})
        keys = [ItemKey(f"{index}.jpg", f"{rng.integers(2**32):08x}") for index in range(len(rows))]
        with store.writer() as writer:
            for key, row in zip(keys, rows, strict=True):
                writer.put(key, row)
        back = store.matrix(keys)
        assert back.shape == (5,)
        for row, same in zip(rows, back, strict=True):
            index, query = decode(same)
            np.testing.assert_array_equal(encode(index, query), row)
            assert len(query) >= len(index)


def test_a_query_looks_only_at_the_lists_of_its_words() -> None:
    rng = np.random.default_rng(0)
    signatures = [
        Signature(
            np.sort(rng.choice(65_536, 50, replace=False)).astype(np.int32),
            rng.integers(0, 256, (50, 16)).astype(np.uint8),
            128,
        )
        for _ in range(200)
    ]
    lists, kernel = InvertedFile(signatures), Kernel()
    query = signatures[3]
    found = lists.search(query, kernel)
    shared = sum(len(np.intersect1d(query.words, each.words)) for each in signatures)
    assert found.entries == shared < 80  # of 10,000 entries
    few = Signature(query.words[:5], query.codes[:5], 128)
    assert lists.search(few, kernel).entries < found.entries
    expected = [kernel(query, signatures[image]) for image in found.images]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-12)
    assert found.images[found.scores.argmax()] == 3
    assert lists.nbytes < 1.2 * 200 * 50 * (16 + 4 + 12)  # no array as long as the codebook is wide
    unknown = Signature(np.array([65_535], np.int32), query.codes[:1], 128)
    assert lists.search(unknown, kernel).entries == sum(65_535 in each.words for each in signatures)


def test_words_of_two_levels_are_repeatable_and_as_many_as_asked(monkeypatch) -> None:
    rows = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    monkeypatch.setattr("loc.retrieval.asmk.words.FLAT_WORDS", 50)
    words = train_words(rows, 200, iterations=5)
    assert words.shape == (200, 8)
    np.testing.assert_array_equal(words, train_words(rows, 200, iterations=5))
    deep = np.sqrt(((rows - words[Codebook(words).nearest(rows)[:, 0]]) ** 2).sum(1)).mean()
    monkeypatch.setattr("loc.retrieval.asmk.words.FLAT_WORDS", 500)
    flat = train_words(rows, 200, iterations=5)
    assert deep < 1.1 * np.sqrt(((rows - flat[Codebook(flat).nearest(rows)[:, 0]]) ** 2).sum(1)).mean()
    assert train_words(rows[:3].repeat(5, axis=0), 64).shape == (3, 8)


def test_fewer_words_for_few_descriptors() -> None:
    assert len(Asmk(AsmkConfig()).fit(places())["codebook"]) == 12 * 80 // 16


def test_regions_tell_where_a_feature_lies() -> None:
    """A small object fills one region, so it weighs more than in the whole image."""
    rng = np.random.default_rng(0)
    words = np.eye(4, 8, dtype=np.float32)
    rows = np.repeat(words, 10, axis=0) + rng.normal(0, 0.05, (40, 8)).astype(np.float32)
    xy = np.full((40, 2), 600.0)
    xy[:5] = 10
    plugin = Rvlad(RvladConfig(regions="rmac"))
    plugin.load_state({"codebook": words})
    whole = Rvlad(RvladConfig(regions="none"))
    whole.load_state({"codebook": words})
    image = features(rows.astype(np.float32), xy)
    share, plain = (np.square(each([image])[0][:8]).sum() for each in (plugin, whole))
    assert share > 1.5 * plain


def test_errors() -> None:
    images = places(2)
    with pytest.raises(PluginError, match="no codebook yet"):
        Asmk(AsmkConfig())(images)
    with pytest.raises(DataError, match="no image has keypoints"):
        Asmk(AsmkConfig()).fit([features(np.zeros((0, 8), np.uint8))])
    with pytest.raises(ContractError, match=r"dimensions \[8, 16\]"):
        Asmk(AsmkConfig()).fit([*images, *places(1, 8)])
    plugin = fitted(images, words=10)
    with pytest.raises(ContractError, match="dimension 16, got 8"):
        plugin(places(1, 8))
    state = plugin.fit(images)
    with pytest.raises(StoreError, match="lacks projection"):
        plugin.load_state({key: state[key] for key in ("center", "codebook")})
    with pytest.raises(StoreError, match="do not fit together"):
        plugin.load_state({**state, "codebook": state["codebook"][:, :3]})
    with pytest.raises(ContractError, match="no signatures"):
        decode(np.zeros(40, np.uint8) + 7)
    with pytest.raises(ContractError, match="words of dimension 16, the descriptors 8"):
        Codebook(np.ones((2, 16), np.float32)).nearest(np.ones((1, 8), np.float32))
    with pytest.raises(DataError, match="finite numbers"):
        Codebook(np.full((2, 2), np.nan, np.float32))
    codebook = Codebook(np.eye(3, dtype=np.float32))
    real = signature(residuals(np.ones((2, 3), np.float32), codebook))
    with pytest.raises(ContractError, match="binary signatures of dimension 3 cannot be compared with real"):
        Kernel()(real.signs(), real)
    rows = rows_of(plugin, images)
    with pytest.raises(ConfigError, match="expansion and diffusion need"):
        ranking_of(rows, own=lambda given: Asmk.ranking(plugin.config, given), diffusion=DiffusionConfig())
