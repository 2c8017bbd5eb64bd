"""The plug-ins delf, delg (local and global) and delf_ots as users run them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from delf_fixtures import ARCHIVES, assert_near, fixture_image

from loc.errors import ConfigError, ContractError, DataError, StoreError, WeightsError
from loc.exchange.delf_files import read_delf, write_delf
from loc.extractors.delf import Delf
from loc.extractors.delf_ots import DelfOts
from loc.extractors.delg import Delg
from loc.globals.delg import DelgGlobal
from loc.plugins.blocks import resolve_block
from loc.plugins.standing import weights_verified
from loc.types import LocalFeatures
from loc.weights.tensorflow.convert import convert
from loc.weights.tensorflow.datum import read_datum
from loc.weights.tensorflow.files import open_model, save

NAMES = {"delf": "delf_gld_20190411", "delg": "r50delg_gldv2clean_20200914"}


@pytest.fixture(scope="module")
def cache(request, tmp_path_factory) -> Path:
    """The fixtures in the place of the released archives; converted once."""
    shared, folder = request.getfixturevalue("shared"), tmp_path_factory.mktemp("cache")
    for kind, name in NAMES.items():
        shutil.copy(shared / "fixtures" / ARCHIVES[kind], folder / f"{name}.tar.gz")
    return folder


@pytest.fixture(autouse=True)
def weights(shared, cache, monkeypatch) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(cache))
    monkeypatch.setenv("LOC_OFFLINE", "1")


@pytest.fixture(scope="module")
def images(request) -> dict[str, torch.Tensor]:
    folder = request.getfixturevalue("shared") / "fixtures"
    return {name: fixture_image(folder / name / "image.png")[None] for name in NAMES}


def check_files(found: LocalFeatures, path: Path, tmp_path: Path) -> None:
    """What we write reads as what the release wrote, and the release's file is reproduced byte by byte."""
    stored = LocalFeatures(
        found.keypoints + np.float32(0.5), found.scores, found.descriptors, found.image_wh, found.scales
    )
    write_delf(tmp_path / "mine.delf", stored)
    mine, theirs = read_delf(tmp_path / "mine.delf", found.image_wh), read_delf(path, found.image_wh)
    np.testing.assert_array_equal(mine.keypoints, theirs.keypoints)
    np.testing.assert_array_equal(mine.scales, theirs.scales)
    assert_near(mine.descriptors, theirs.descriptors)
    assert_near(mine.scores, theirs.scores)
    write_delf(tmp_path / "again.delf", theirs)
    assert (tmp_path / "again.delf").read_bytes() == path.read_bytes()


def test_delf_is_the_release(shared, images, tmp_path) -> None:
    """Keypoints, order, scores, both PCAs with and without whitening, and the authors' files."""
    folder = shared / "fixtures/delf"
    expected = np.load(folder / "expected.npz")
    extractor = Delf(Delf.Config())
    (found,) = extractor(images["delf"])
    np.testing.assert_array_equal(found.keypoints, expected["main_locations"][:, ::-1])
    np.testing.assert_array_equal(found.scales, expected["main_scales"])
    assert_near(found.scores, expected["main_scores"][:, 0])
    assert_near(found.descriptors, expected["main_desc_pca128"])
    check_files(found, folder / "expected_pca128.delf", tmp_path)
    raw = extractor.detect(images["delf"][0]).features
    for options, key in (
        ({"pca_dim": 40}, "pca40"),
        ({"pca_dim": 40, "whiten": True}, "pca40_white"),
        ({"pca_dim": 128, "whiten": True}, "pca128_white"),
    ):
        project = Delf(Delf.Config(**options))._project
        assert_near(project(raw), expected[f"main_desc_{key}"])


def test_delg_is_the_release(shared, images, tmp_path) -> None:
    folder = shared / "fixtures/delg"
    expected = np.load(folder / "expected.npz")
    (found,) = Delg(Delg.Config(score_threshold=175))(images["delg"])
    np.testing.assert_array_equal(found.keypoints, expected["main_locations"][:, ::-1])
    assert_near(found.scores, expected["main_scores"][:, 0])
    assert_near(found.descriptors, expected["main_desc"])
    check_files(found, folder / "expected.delg_local", tmp_path)


def test_global_delg_is_the_release(shared, images) -> None:
    (row,) = DelgGlobal(DelgGlobal.Config())(images["delg"])
    assert_near(row, read_datum(shared / "fixtures/delg/expected.delg_global"))


def test_limited_size(shared) -> None:
    """At most 200 px: the size is the release's, keypoints scale back to the photo."""
    plugin = resolve_block("features", {"use": "delg", "resize_max": 200})
    assert resolve_block("features", "delg").stage_options == {"resize_max": 1024}
    expected = np.load(shared / "fixtures/delg/expected.npz")
    image = fixture_image(shared / "fixtures/delg/image_max200.png")[None]
    config = plugin.config.model_copy(update={"score_threshold": 175.0})
    (found,) = Delg(config)(image)
    assert_near(found.keypoints[:, ::-1].copy(), expected["maxsize_locations_resized"], 1e-6)
    assert_near(found.descriptors, expected["maxsize_desc"])
    factors = expected["maxsize_scale_factors"][::-1]
    assert_near(found.keypoints / factors, expected["maxsize_locations"][:, ::-1], 1e-6)


def test_the_best_and_none(shared, images) -> None:
    expected = np.load(shared / "fixtures/delf/expected.npz")
    some = Delf(Delf.Config(score_threshold=0, max_keypoints=60, scales=(0.5, 1.0)))(images["delf"])[0]
    assert len(some) == 60
    assert (np.diff(some.scores) <= 0).all()
    assert set(some.scales) <= set(expected["main_scales"])
    (none,) = Delf(Delf.Config(score_threshold=1e6, scales=(0.5,)))(images["delf"])
    assert (len(none), none.descriptors.shape) == (0, (0, 128))


def test_centred_positions(images) -> None:
    """239 px at scale 1: conv1 gives 120 rows, so rows look 2 px lower; 317 px gives 159 columns."""
    options = {"score_threshold": 0, "scales": (1.0,)}
    released = Delf(Delf.Config(**options))(images["delf"])[0].keypoints
    centred = Delf(Delf.Config(**options, offset="centred"))(images["delf"])[0].keypoints
    np.testing.assert_array_equal(centred - released, np.tile([[0.0, 2.0]], (len(released), 1)))


def test_weights_that_are_here_or_not(cache, delf_models, tmp_path, monkeypatch) -> None:
    plugin = resolve_block("features", "delf")
    plugin.build()
    assert [file.name for file in plugin.weights] == ["delf_gld_20190411.tar.gz"]
    assert not weights_verified(plugin)
    with pytest.raises(WeightsError, match=r"no weights are called 'mine': there is no mine\.safetensors"):
        resolve_block("features", {"use": "delf", "weights": "mine"}).weights  # noqa: B018
    save(convert(delf_models / "delf_gld_like"), tmp_path / "mine.safetensors")
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(tmp_path))
    (file,) = resolve_block("features", {"use": "delf", "weights": "mine"}).weights
    assert file.name == "mine.safetensors"
    Delf(Delf.Config(weights="mine"))
    with pytest.raises(WeightsError, match="not on this machine"):
        Delf(Delf.Config(weights="delf_v1_20171026"))
    assert len(list(cache.glob("delf_gld_20190411-*.safetensors"))) == 1  # the archive is converted once


def test_kinds_are_not_mixed_up(tmp_path, monkeypatch, cache) -> None:
    (tmp_path / "a").mkdir()
    for source, kind in (("delf", Delg), ("delf", DelgGlobal), ("delg", Delf)):
        open_model({"delf": Delf, "delg": Delg}[source].weights[0])
        shutil.copy(next(cache.glob(f"{NAMES[source]}-*.safetensors")), tmp_path / "a/x.safetensors")
        monkeypatch.setenv("LOC_WEIGHTS_DIR", str(tmp_path / "a"))
        with pytest.raises(WeightsError, match=r"holds del[fg]"):
            kind(kind.Config(weights="x"))


def test_pca_that_is_not_there(delf_models, tmp_path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"the PCA of delf_gld_20190411 has 1024 components"):
        Delf(Delf.Config(pca_dim=1025))
    shutil.copytree(delf_models / "delf_gld_like/model", tmp_path / "m")
    save(convert(tmp_path / "m"), tmp_path / "x.safetensors")
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match="holds no PCA"):
        Delf(Delf.Config(weights="x"))
    assert Delf(Delf.Config(weights="x", pca_dim=None))._project is None


def test_odd_inputs() -> None:
    for cls in (Delf, Delg):
        with pytest.raises(ContractError, match="takes RGB images"):
            cls(cls.Config())(torch.zeros(1, 1, 40, 40))
    assert len(Delf(Delf.Config())(torch.zeros(1, 3, 10, 11))[0]) >= 0


@pytest.mark.parametrize("scales", [[], [0.0], [1.0, 1.0], [9.0]])
def test_pyramids_that_are_none(scales) -> None:
    with pytest.raises(ConfigError, match="scale"):
        resolve_block("features", {"use": "delf", "scales": scales})


@pytest.fixture(scope="module")
def ots(request):
    return lambda **options: DelfOts(DelfOts.Config(**{"precision": "fp32", "scales": (1.0,)} | options))


def test_off_the_shelf_attention_is_the_norm(ots, images) -> None:
    """Against an ordinary VGG-16 built of torch's layers, and its norms."""
    extractor = ots()
    (found,) = extractor(images["delf"])
    layers: list[torch.nn.Module] = []
    for number, block in enumerate(extractor._trunk._blocks):
        layers += [torch.nn.MaxPool2d(2)] if number else []
        for weight, bias in block:
            layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": weight, "bias": bias})
            layers += [layer, torch.nn.ReLU()]
    assert len(layers) == 30
    mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    with torch.inference_mode():
        maps = torch.nn.Sequential(*layers)(images["delf"].flip(1) * 255 - mean)[0]
    norms = maps.norm(dim=0)
    assert maps.shape == (512, 14, 19)
    assert len(found) == norms.numel()
    assert_near(found.scores, np.sort(norms.flatten().numpy())[::-1], 1e-4)
    row, column = np.unravel_index(int(norms.argmax()), norms.shape)
    np.testing.assert_allclose(found.keypoints[0], [16 * column + 7.5, 16 * row + 7.5])
    best = maps[:, row, column] / norms[row, column]
    np.testing.assert_allclose(found.descriptors[0], best.numpy(), atol=1e-5)


def test_what_off_the_shelf_learns(ots, images) -> None:
    raw = ots(scales=(0.7071, 1.0, 1.2))(images["delf"])
    few = ots(pca_dim=24)
    state = few.fit(raw)
    assert sorted(state) == ["components", "deviations", "mean"]
    again = ots(pca_dim=24).fit(raw)
    assert all(np.array_equal(state[key], again[key]) for key in state)
    assert (np.diff(state["deviations"]) <= 0).all()
    np.testing.assert_allclose(state["components"] @ state["components"].T, np.eye(24), atol=1e-5)
    projected = (raw[0].descriptors - state["mean"]) @ state["components"].T / state["deviations"]
    np.testing.assert_allclose(np.cov(projected.T, bias=True), np.eye(24), atol=2e-2)
    none = np.zeros((0, 0), np.float32)  # of a photo below the smallest side
    tiny = LocalFeatures(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), none, (1, 1))
    assert all(np.array_equal(state[key], each) for key, each in few.fit([tiny, *raw]).items())
    few.load_state(state)
    (found,) = few(images["delf"])
    assert found.descriptors.shape[1] == 24
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    with pytest.raises(StoreError, match="does not fit its configuration"):
        ots(pca_dim=25).load_state(state)


def test_too_little_to_learn_from(ots, images) -> None:
    (few,) = ots(scales=(0.5,))(images["delf"])
    with pytest.raises(DataError, match=r"128 dimensions from \d+ descriptors of 1 images: it needs 1280"):
        ots().fit([few])
    with pytest.raises(DataError, match="from 0 descriptors of 0 images"):
        ots().fit([])
