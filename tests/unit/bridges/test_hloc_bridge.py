"""The hloc bridge against a small hloc that takes its protocol literally (interop notes, C4)."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import torch
from hloc_stand_in import StrictBase, dynamic_load, installed

import loc.bridges.hloc as bridge
from loc.bridges.hloc_models import (
    HlocExtractor,
    HlocExtractorConfig,
    HlocGlobal,
    HlocImageConfig,
    HlocMatcher,
)
from loc.errors import ConfigError, ContractError, DataError, PluginError
from loc.plugins.blocks import resolve_block
from loc.plugins.contract import check_extractor, check_matcher
from loc.plugins.contract_samples import textured_canvas
from loc.types import LocalFeatures


@pytest.fixture
def hloc(monkeypatch):
    with installed(monkeypatch) as modules:
        yield modules


def test_their_extractor_keeps_our_contract(hloc) -> None:
    check_extractor(HlocExtractor, {"model": "hloc.extractors.blobs"})
    check_extractor(HlocExtractor, {"model": "hloc.extractors.blobs", "grayscale": True})


def test_their_matcher_keeps_our_contract(hloc) -> None:
    check_matcher(HlocMatcher, {"model": "hloc.matchers.mutual"})


def test_their_conf_reaches_the_model(hloc) -> None:
    config = HlocExtractorConfig(model="hloc.extractors.blobs", conf={"count": 7})
    (found,) = HlocExtractor(config)(torch.rand(1, 3, 64, 80))
    assert len(found) == 7
    assert found.noise_px == 0.7


def test_their_model_may_change_its_conf(hloc, monkeypatch) -> None:
    monkeypatch.setattr(hloc["hloc.extractors.mean"].Mean, "_init", lambda _, conf: conf["net"].pop("depth"))
    config = HlocImageConfig(model="hloc.extractors.mean", conf={"net": {"depth": 3}})
    HlocGlobal(config)
    assert config.conf == {"net": {"depth": 3}}


def test_their_global_descriptor_has_unit_norm(hloc) -> None:
    rows = HlocGlobal(HlocImageConfig(model="hloc.extractors.mean"))(torch.rand(3, 3, 40, 50))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_local_model_as_global_is_an_error(hloc) -> None:
    with pytest.raises(ContractError, match="global_descriptor"):
        HlocGlobal(HlocImageConfig(model="hloc.extractors.blobs"))(torch.rand(1, 3, 64, 80))


def test_a_model_that_returns_nothing(hloc, monkeypatch) -> None:
    monkeypatch.setattr(hloc["hloc.extractors.blobs"].Blobs, "_forward", lambda _, data: None)
    with pytest.raises(ContractError, match="Blobs returned NoneType, not a dict"):
        HlocExtractor(HlocExtractorConfig(model="hloc.extractors.blobs"))(torch.rand(1, 3, 64, 80))


def test_modules_that_cannot_be_used(hloc) -> None:
    module = hloc["hloc.extractors.blobs"]
    with pytest.raises(PluginError, match=r"cannot import hloc\.extractors\.none"):
        HlocExtractor(HlocExtractorConfig(model="hloc.extractors.none"))
    with pytest.raises(PluginError, match="needs `model:`"):
        HlocExtractor(HlocExtractorConfig())
    module.Second = type("Second", (StrictBase,), {"__module__": module.__name__})
    with pytest.raises(PluginError, match=r"exactly one model class, it holds Blobs, Second"):
        HlocExtractor(HlocExtractorConfig(model="hloc.extractors.blobs"))


def test_our_names_in_hloc(hloc) -> None:
    names = bridge.register()
    assert {"loc_sift", "loc_nearest", "loc_adalam", "loc_guided", "loc_d2net_ms", "loc_vlad"} <= set(names)
    assert "loc_hloc" not in names
    assert "loc_loftr" not in names  # hloc's match_features shows no images
    assert len(names) == len(set(names))


def test_local_and_global_features_of_one_name(hloc, monkeypatch) -> None:
    """They are in one package of hloc: neither takes the other's place."""
    monkeypatch.setattr(bridge, "_model_class", lambda base, section, _: type("M", (base,), {"of": section}))
    assert {"loc_delg", "loc_delg_global"} <= set(bridge.register())
    made = [sys.modules[f"hloc.extractors.loc_{name}"].M for name in ("delg", "delg_global")]
    assert [each.of for each in made] == ["features", "globals"]


def test_our_extractor_and_matcher_in_hloc(hloc) -> None:
    bridge.register()
    load = {kind: hloc[f"hloc.{kind}"] for kind in ("extractors", "matchers")}
    extractor = dynamic_load(load["extractors"], "loc_sift")(
        {"name": "loc_sift", "max_keypoints": 200}
    ).eval()
    matcher = dynamic_load(load["matchers"], "loc_nearest")({"name": "loc_nearest"}).eval()
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 30, 40), scale_factor=4, mode="bicubic")
    image = image.clamp(0, 1)
    found = extractor({"image": image})
    count = found["keypoints"].shape[1]
    assert found["keypoints"].shape == (1, count, 2)
    assert found["descriptors"].shape == (1, 128, count)
    assert found["scores"].shape == (1, count)
    norms = found["descriptors"][0].norm(dim=0)
    torch.testing.assert_close(norms, torch.ones(count), atol=1e-3, rtol=0)

    plugin = resolve_block("features", {"use": "sift", "max_keypoints": 200}).build()
    (own,) = plugin(image.numpy())
    np.testing.assert_allclose(found["keypoints"][0].numpy() + 0.5, own.keypoints, atol=1e-4)

    data = {f"{key}{side}": value for key, value in found.items() for side in (0, 1)}
    data |= {f"image{side}": torch.empty(1, 1, 120, 160) for side in (0, 1)}
    matched = matcher(data)
    assert matched["matches0"].shape == matched["matching_scores0"].shape == (1, count)
    hits = matched["matches0"][0]
    assert (hits >= 0).sum() > 0.5 * count  # places with two orientations are ambiguous
    assert (hits[hits >= 0] == torch.nonzero(hits >= 0)[:, 0]).all()


@pytest.fixture
def photos(tmp_path) -> list[np.ndarray]:
    """Six photos in ``tmp_path / db``, three places twice; returns them as RGB in [0, 1]."""
    (tmp_path / "db").mkdir()
    shown = []
    for number in range(6):
        canvas = textured_canvas(number % 3)
        image = canvas[:, number : number + 200, number : number + 280]
        stored = (image.transpose(1, 2, 0) * 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "db" / f"{number}.png"), stored[:, :, ::-1])
        shown.append(stored.transpose(2, 0, 1).astype(np.float32) / 255)
    return shown


def test_our_global_descriptor_in_hloc_learns_from_the_database(hloc, photos, tmp_path) -> None:
    bridge.register()
    load = hloc["hloc.extractors"]
    features = {"use": "sift", "max_keypoints": 100}
    conf = {"name": "loc_vlad", "database": str(tmp_path / "db"), "features": features, "words": 4}
    model = dynamic_load(load, "loc_vlad")(conf).eval()
    rows = [model({"image": torch.from_numpy(image)[None]})["global_descriptor"] for image in photos]
    assert all(row.shape == (1, 4 * 128) for row in rows)
    similar = np.array([[float(a[0] @ b[0]) for b in rows] for a in rows])
    np.testing.assert_allclose(np.diag(similar), 1, atol=1e-5)
    np.fill_diagonal(similar, -1)
    assert similar.argmax(1).tolist() == [3, 4, 5, 0, 1, 2]  # as pairs_from_retrieval would pair them


def test_what_a_global_descriptor_has_to_learn_from(hloc, tmp_path) -> None:
    bridge.register()
    load = dynamic_load(hloc["hloc.extractors"], "loc_vlad")
    with pytest.raises(ConfigError, match="learns from the database") as caught:
        load({"name": "loc_vlad"})
    assert '"database": "images/db"' in caught.value.next_step
    with pytest.raises(DataError, match="holds no photos"):
        load({"name": "loc_vlad", "database": str(tmp_path)})({"image": torch.rand(1, 3, 100, 100)})


def test_scales_and_orientations_cross_the_bridge(hloc, photos) -> None:
    bridge.register()
    extractor = dynamic_load(hloc["hloc.extractors"], "loc_sift")({"name": "loc_sift"}).eval()
    assert extractor.detection_noise == 0.5
    image = torch.from_numpy(photos[0])[None]
    found = extractor({"image": image})
    (own,) = resolve_block("features", "sift").build()(bridge._in_color(image, "gray").numpy())
    np.testing.assert_array_equal(found["scales"][0].numpy(), own.scales)
    np.testing.assert_allclose(np.deg2rad(found["oris"][0].numpy()), own.orientations_rad, atol=1e-5)
    data = {f"{key}0": value for key, value in found.items()} | {"image0": torch.empty(1, 1, 200, 280)}
    back = bridge._features(data, 0)
    np.testing.assert_allclose(back.keypoints, own.keypoints, atol=1e-4)
    np.testing.assert_allclose(back.orientations_rad, own.orientations_rad, atol=1e-5)
    np.testing.assert_array_equal(back.scales, own.scales)


@pytest.mark.parametrize("name", ["loc_adalam", "loc_guided"])
def test_our_geometric_matchers_in_hloc(hloc, photos, name) -> None:
    bridge.register()
    extractor = dynamic_load(hloc["hloc.extractors"], "loc_sift")({"name": "loc_sift"}).eval()
    matcher = dynamic_load(hloc["hloc.matchers"], name)({"name": name}).eval()
    first, second = (extractor({"image": torch.from_numpy(photos[i])[None]}) for i in (0, 3))
    data = {f"{key}0": value for key, value in first.items()}
    data |= {f"{key}1": value for key, value in second.items()}
    data |= {f"image{side}": torch.empty(1, 1, 200, 280) for side in (0, 1)}
    partner = matcher(data)["matches0"][0].numpy()
    rows = np.flatnonzero(partner >= 0)
    moved = second["keypoints"][0].numpy()[partner[rows]] - first["keypoints"][0].numpy()[rows]
    right = np.abs(moved - [-3, -3]).max(1) < 1
    assert right.sum() >= 40
    assert right.mean() > 0.95


def test_an_image_too_small_for_a_plug_in(hloc) -> None:
    bridge.register()
    extractor = dynamic_load(hloc["hloc.extractors"], "loc_sift")({"name": "loc_sift"})
    found = extractor({"image": torch.rand(1, 3, 5, 5)})
    assert found["keypoints"].shape == (1, 0, 2)
    assert found["descriptors"].shape[2] == 0


def test_scores_by_either_name() -> None:
    data = {
        "keypoints0": torch.zeros(1, 2, 2),
        "descriptors0": torch.ones(1, 5, 2),
        "keypoint_scores0": torch.tensor([[0.25, 0.75]]),  # hloc's DISK and ALIKED
        "image0": torch.empty(1, 1, 10, 20),
    }
    assert bridge._features(data, 0).scores.tolist() == [0.25, 0.75]


def test_their_keypoints_with_the_corner_origin(hloc) -> None:
    image = torch.rand(1, 3, 64, 80)
    (center,), (corner,) = (
        HlocExtractor(HlocExtractorConfig(model="hloc.extractors.blobs", keypoint_origin=origin))(image)
        for origin in ("center", "corner")
    )
    np.testing.assert_allclose(center.keypoints - 0.5, corner.keypoints)


def test_what_is_missing_is_named(hloc, tmp_path, monkeypatch) -> None:
    (tmp_path / "needs_more.py").write_text("import not_here_at_all.models\n")
    (tmp_path / "needs_older.py").write_text("import torch.not_in_this_torch\n")
    (tmp_path / "no_python.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for model, says in (
        ("needs_more", "install not_here_at_all"),
        ("needs_older", "written for another version of torch"),
        ("hloc.extractors.none", "check the name"),
        ("no_python", "check it"),
        (".none", "check it"),
    ):
        with pytest.raises(PluginError, match="cannot import") as caught:
            HlocExtractor(HlocExtractorConfig(model=model))
        assert says in caught.value.next_step


def test_wrong_options_are_said_inside_hloc(hloc) -> None:
    bridge.register()
    with pytest.raises(Exception, match=r"features\.max_kpts"):
        dynamic_load(hloc["hloc.extractors"], "loc_sift")({"name": "loc_sift", "max_kpts": 5})


def test_without_hloc(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hloc", None)
    with pytest.raises(PluginError, match="hloc cannot be imported") as caught:
        bridge.register()
    assert "pip install git+" in caught.value.next_step


def test_features_of_hloc_go_back_by_half_a_pixel() -> None:
    data = {
        "keypoints0": torch.tensor([[[3.0, 4.0]]]),
        "descriptors0": torch.ones(1, 5, 1),
        "image0": torch.empty(1, 1, 10, 20),
    }
    found = bridge._features(data, 0)
    assert isinstance(found, LocalFeatures)
    assert found.keypoints.tolist() == [[3.5, 4.5]]
    assert found.image_wh == (20, 10)
