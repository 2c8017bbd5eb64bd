"""DELG's local features and global descriptors: one pass of the network where both are asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from delf_fixtures import ARCHIVES
from PIL import Image

import loc
from loc.config import LocalizeConfig
from loc.config.ranking import RerankConfig
from loc.nets.resnet import ResNet
from loc.plugins.blocks import resolve_block
from loc.plugins.joint import joint
from loc.runtime.runtime import Runtime
from loc.stages import localize
from loc.stages.extract import extract_globals
from loc.stages.landmarks import Retriever
from loc.stages.localize import Localizer
from loc.stages.places_build import build_places
from loc.stores.features import GlobalStore

RUNTIME = Runtime(device="cpu", workers=1)
LOCAL = {"use": "delg", "resize_max": 96, "score_threshold": 0}
OVERALL = {"use": "delg", "resize_max": 96}


@pytest.fixture(scope="module")
def cache(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    source = request.getfixturevalue("shared") / "fixtures" / ARCHIVES["delg"]
    shutil.copy(source, folder / "r50delg_gldv2clean_20200914.tar.gz")
    return folder


@pytest.fixture(autouse=True)
def weights(cache, monkeypatch) -> None:
    monkeypatch.setenv("LOC_CACHE_DIR", str(cache))
    monkeypatch.setenv("LOC_OFFLINE", "1")


@pytest.fixture
def passes(monkeypatch) -> list[tuple[int, ...]]:
    """Sizes of what the trunk was shown."""
    seen: list[tuple[int, ...]] = []
    plain = ResNet.block3

    def counted(self, images):
        seen.append(tuple(images.shape[2:]))
        return plain(self, images)

    monkeypatch.setattr(ResNet, "block3", counted)
    return seen


@pytest.fixture
def config(shared, tmp_path) -> loc.RunConfig:
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("delf", "delg")):
        picture = Image.open(shared / "fixtures" / name / "image.png")
        picture.save(tmp_path / "photos" / f"{number}.png")
    return loc.load_config(
        {
            "scene": {"layout": "folder", "images": str(tmp_path / "photos")},
            "features": LOCAL,
            "globals": OVERALL,
            "pairs": [{"use": "retrieval", "k": 1, "for": "both"}],
        }
    )


def test_one_pass_gives_both(config, tmp_path, passes) -> None:
    done = loc.run(config, tmp_path / "run", runtime=RUNTIME, until="features")
    assert len(passes) == 2 * 7  # two photos, seven levels
    names = sorted(done.features.keys)
    (folder,) = (path for path in (tmp_path / "run" / "globals").iterdir() if path.is_dir())
    where = {"workdir": tmp_path / "run", "runtime": RUNTIME, "fit_names": []}
    plugin = resolve_block("globals", OVERALL).ready(RUNTIME.torch_device)
    images = done.scene.db
    found = extract_globals(images, done.features, plugin=plugin, **where)
    assert (found.computed, found.store.folder) == (0, folder)
    alone = extract_globals(images, done.features, plugin=plugin, **{**where, "workdir": tmp_path / "alone"})
    assert alone.computed == 2
    assert len(passes) == 2 * 7 + 2 * 3
    assert alone.store.folder.name == folder.name
    np.testing.assert_array_equal(found.matrix(names), alone.matrix(names))
    local = loc.run(
        config.model_copy(update={"globals": None}), tmp_path / "local", runtime=RUNTIME, until="features"
    )
    assert local.features.store.folder.name == done.features.store.folder.name
    for name in names:
        got, expected = done.features.get(name), local.features.get(name)
        np.testing.assert_array_equal(got.keypoints, expected.keypoints)
        np.testing.assert_array_equal(got.descriptors, expected.descriptors)


def test_one_pass_gives_both_of_a_query_of_an_index(config, tmp_path, passes) -> None:
    photos = config.scene.images
    places, _ = build_places([photos], tmp_path / "i", features=LOCAL, globals_=OVERALL, runtime=RUNTIME)
    passes.clear()
    retriever = Retriever(places, verification=RerankConfig(), runtime=RUNTIME)
    for name in ("0.png", "1.png"):
        best = retriever.retrieve(photos / name, 1).images[0]
        assert best.name == name
        assert best.score == pytest.approx(1, abs=1e-5)
    assert len(passes) == 2 * 7


def test_one_pass_gives_both_of_a_photo_to_localize(config, tmp_path, passes, monkeypatch) -> None:
    """The extraction and retrieval of a photo; the matching and the pose are not asked for."""
    done = loc.run(config, tmp_path / "run", runtime=RUNTIME, until="features")
    (folder,) = (path for path in (tmp_path / "run" / "globals").iterdir() if path.is_dir())
    names = tuple(sorted(done.features.keys))
    bundle = SimpleNamespace(
        extractor=resolve_block("features", LOCAL),
        global_extractor=resolve_block("globals", OVERALL),
        fit_folder=None,
        open_globals=lambda: GlobalStore(folder),
        images=done.features.keys,
        registered=names,
        blocks={"pairs": [{"use": "retrieval", "k": 1, "for": "query"}]},
        index=None,
    )
    asked = {}

    def match(photo, features, references):
        asked[photo.file.name] = (features, references)
        return features.keypoints, []

    monkeypatch.setattr(localize, "MapBundle", SimpleNamespace)
    monkeypatch.setattr(localize, "photo_matching", lambda *_, **__: SimpleNamespace(match=match))
    monkeypatch.setattr(localize, "locate", lambda *_: None)
    localizer = Localizer(bundle, runtime=RUNTIME, config=LocalizeConfig())
    passes.clear()
    for name in names:
        localizer.localize(config.scene.images / name)
        features, references = asked[name]
        assert references == [name]
        np.testing.assert_array_equal(features.keypoints, done.features.get(name).keypoints)
    assert len(passes) == 2 * 7


@pytest.mark.parametrize(
    ("overall", "together"),
    [
        ({}, True),
        ({"scales": [1.0]}, True),
        ({"scales": [0.9]}, False),
        ({"precision": "bf16"}, False),
        ({"resize_max": 128}, False),
        ({"weights": "r101delg_gldv2clean_20200914"}, False),
    ],
)
def test_only_what_is_the_same_pass(overall, together) -> None:
    plugins = resolve_block("features", LOCAL), resolve_block("globals", {**OVERALL, **overall})
    assert (joint(*plugins) is not None) is together


def test_other_plugins_go_their_own_way() -> None:
    assert joint(resolve_block("features", "sift"), resolve_block("globals", OVERALL)) is None
    assert joint(resolve_block("features", LOCAL), resolve_block("globals", "vlad")) is None


def test_scales_in_any_order(shared) -> None:
    image = np.asarray(Image.open(shared / "fixtures/delg/image.png").resize((80, 60))).transpose(2, 0, 1)
    batch = image[None].astype(np.float32) / 255
    import torch

    options = {**OVERALL, "scales": [1.4142135, 0.5]}
    plugins = resolve_block("features", LOCAL), resolve_block("globals", options)
    (both,) = joint(*plugins).build()(torch.from_numpy(batch))
    (alone,) = plugins[1].build()(torch.from_numpy(batch))
    np.testing.assert_array_equal(both.vector, alone)
