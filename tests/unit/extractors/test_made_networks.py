"""Networks whose published weights are not here, with made weights in the published layout.

The files are read as a user's are: found in a folder, pinned, checked key by key.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_weights import MAKERS, SuperPoint, XFeat

import loc.extractors.dog_hardnet as dog
from loc.errors import ContractError, WeightsError
from loc.extractors.dog_hardnet import DogHardNet
from loc.extractors.superpoint import SuperPointConfig
from loc.plugins.blocks import resolve_block
from loc.plugins.contract_samples import as_color, textured_canvas
from loc.plugins.standing import UNVERIFIED, commercial_ok, unverified_files, weights_verified
from loc.types import LocalFeatures

OPTIONS = {"superpoint": {"accept_license": True}, "xfeat": {}, "dog_hardnet": {}}
#: What the checkpoint keeps its tensors under.
UNDER = {"superpoint": None, "xfeat": None, "dog_hardnet": "state_dict"}


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LOC_OFFLINE", "1")
    monkeypatch.delenv("LOC_ACCEPT_LICENSE", raising=False)
    (tmp_path / "weights").mkdir()


def block(name: str, **options: object) -> dict[str, object]:
    return {"use": name, **OPTIONS[name], **options}


def picture(color: str = "gray", *, height: int = 160, width: int = 192) -> torch.Tensor:
    return torch.from_numpy(as_color(textured_canvas(0), color)[None, :, :height, :width].copy())


@pytest.mark.parametrize("name", OPTIONS)
def test_missing_unknown_and_misshapen_tensors_are_listed(name, tmp_path) -> None:
    path = MAKERS[name](tmp_path / "weights")
    plugin = resolve_block("features", block(name))
    plugin.build()
    whole = torch.load(path, weights_only=True)
    state = whole[UNDER[name]] if UNDER[name] else whole
    first, second, *_ = (key for key, value in state.items() if value.ndim == 4)
    state["extra.weight"] = state.pop(first)
    state[second] = state[second][:, :, :1]
    shape = tuple(state[second].shape)
    torch.save(whole, path)
    (tmp_path / "cache" / "weights.lock.json").unlink()
    with pytest.raises(WeightsError, match="does not fit this network") as caught:
        plugin.build()
    assert f"1 missing: {first}" in caught.value.message
    assert "1 unknown: extra.weight" in caught.value.message
    assert f"{second} is {shape}, expected" in caught.value.message


@pytest.mark.parametrize("name", OPTIONS)
def test_another_file_than_the_pinned_one_is_refused(name, tmp_path) -> None:
    path = MAKERS[name](tmp_path / "weights")
    resolve_block("features", block(name)).build()
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="not the expected file"):
        resolve_block("features", block(name)).build()


@pytest.mark.parametrize("name", OPTIONS)
def test_without_the_file_the_error_says_where_to_get_it(name) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve_block("features", block(name)).build()
    assert "https://github.com/" in caught.value.next_step
    assert "--weights-dir" in caught.value.next_step


@pytest.mark.parametrize("name", OPTIONS)
def test_marked_as_not_verified(name) -> None:
    plugin = resolve_block("features", block(name))
    assert not weights_verified(plugin)
    assert unverified_files(plugin.cls) == plugin.cls.weights
    assert commercial_ok(plugin.cls) is (name != "superpoint")
    assert UNVERIFIED == "weights not verified here"


@pytest.mark.parametrize("name", OPTIONS)
def test_the_wrong_number_of_channels(name, tmp_path) -> None:
    MAKERS[name](tmp_path / "weights")
    extractor = resolve_block("features", block(name)).build()
    with pytest.raises(ContractError, match=f"{name} takes"):
        extractor(torch.zeros(1, 2, 64, 64))


def test_superpoint_needs_the_licence_accepted(tmp_path, monkeypatch) -> None:
    MAKERS["superpoint"](tmp_path / "weights")
    with pytest.raises(WeightsError, match="non-commercial research only") as caught:
        SuperPoint(SuperPointConfig())
    assert "--accept-license" in caught.value.next_step
    monkeypatch.setenv("LOC_ACCEPT_LICENSE", "1")
    SuperPoint(SuperPointConfig())
    plain, accepted = (
        resolve_block("features", {"use": "superpoint", **each}) for each in ({}, block("superpoint"))
    )
    assert plain.fingerprint_fields() == accepted.fingerprint_fields()


def test_nothing_is_downloaded_before_the_licence_is_accepted(monkeypatch) -> None:
    monkeypatch.delenv("LOC_OFFLINE")
    with pytest.raises(WeightsError, match="non-commercial research only"):
        resolve_block("features", "superpoint").ready(lambda: "cpu")


def test_superpoint_keeps_away_from_the_border_and_to_its_cap(tmp_path) -> None:
    MAKERS["superpoint"](tmp_path / "weights")
    image = picture(height=100, width=130)
    every, near, few = (
        resolve_block("features", block("superpoint", **options)).build()(image)[0]
        for options in (
            {"max_keypoints": None},
            {"max_keypoints": None, "border_px": 0},
            {"max_keypoints": 7},
        )
    )
    low, high = every.keypoints.min(axis=0), every.keypoints.max(axis=0)
    assert (low >= 4).all()
    assert (high < [124, 92]).all()  # of 16 x 12 whole cells
    assert near.keypoints.min() < 4
    assert len(every) > len(few) == 7
    np.testing.assert_array_equal(few.keypoints, every.keypoints[:7])
    np.testing.assert_allclose(np.linalg.norm(every.descriptors, axis=1), 1, atol=1e-5)


def test_xfeat_sees_whole_cells(tmp_path) -> None:
    path = MAKERS["xfeat"](tmp_path / "weights")
    plugin = resolve_block("features", "xfeat")
    extractor = plugin.build()
    assert extractor.resized_wh((4000, 3000), 1600) == (1600, 1184)
    assert extractor.resized_wh((100, 20), None) == (96, 20)
    from kornia.feature import XFeat as Network

    kornia = Network()
    kornia.net.load_state_dict(torch.load(path, weights_only=True))
    image = picture("rgb")
    (found,), (theirs,) = extractor(image), kornia.eval().detectAndCompute(image)
    assert len(found) == len(theirs["keypoints"]) > 100
    np.testing.assert_array_equal(found.keypoints, theirs["keypoints"].numpy() + 0.5)  # corner origin
    np.testing.assert_array_equal(found.descriptors, theirs["descriptors"].numpy())
    other = picture("rgb", height=183, width=213)
    (stretched,) = extractor(other)
    whole = torch.nn.functional.interpolate(other, (160, 192), mode="bilinear", align_corners=False)
    (shown,) = extractor(whole)
    np.testing.assert_allclose(stretched.keypoints, shown.keypoints * [213 / 192, 183 / 160], rtol=1e-6)


def feature(x: float, y: float, scale: float, degrees: float) -> LocalFeatures:
    one = np.ones(1, np.float32)
    return LocalFeatures(
        np.array([[x, y]], np.float32),
        one,
        np.zeros((1, 128), np.float32),
        image_wh=(200, 160),
        scales=scale * one,
        orientations_rad=np.radians(degrees).astype(np.float32) * one,
    )


@pytest.mark.parametrize(("degrees", "along"), [(0, (1, 0)), (90, (0, 1)), (180, (-1, 0)), (-90, (0, -1))])
def test_patches_turn_with_their_keypoints(degrees, along, tmp_path) -> None:
    """Columns of a patch run along the orientation (from +x to +y), and 32 of them span 12 sigma."""
    MAKERS["dog_hardnet"](tmp_path / "weights")
    extractor = resolve_block("features", "dog_hardnet").build()
    y, x = torch.meshgrid(torch.arange(160.0) + 0.5, torch.arange(200.0) + 0.5, indexing="ij")
    for axis, ramp in enumerate((x, y)):
        (patch,) = extractor._patches(ramp[None, None], feature(90.25, 70.75, 2, degrees))[0]
        assert patch.mean().item() == pytest.approx((90.25, 70.75)[axis], abs=1e-3)
        step = (patch[:, -1] - patch[:, 0]).mean().item() / 31
        assert step == pytest.approx(along[axis] * 24 / 32, abs=1e-3)


def test_hardnet_finds_turned_points_again(tmp_path, monkeypatch) -> None:
    """A quarter turn of the picture: most points have their own descriptor nearest."""
    MAKERS["dog_hardnet"](tmp_path / "weights")
    extractor = resolve_block("features", "dog_hardnet").build()
    image = picture(height=160, width=200)
    (first,), (second,) = extractor(image), extractor(torch.rot90(image, 1, (2, 3)).contiguous())
    nearest = (first.descriptors @ second.descriptors.T).argmax(axis=1)
    x, y = first.keypoints.T
    error = np.abs(second.keypoints[nearest] - np.stack([y, 200 - x], 1)).max(axis=1)
    assert len(first) > 60
    assert (error < 1).mean() > 0.8
    monkeypatch.setattr(dog, "_BLOCK", 13)
    (again,) = extractor(image)
    np.testing.assert_allclose(again.descriptors, first.descriptors, atol=1e-5)


def test_dog_hardnet_detects_as_sift_does(tmp_path) -> None:
    MAKERS["dog_hardnet"](tmp_path / "weights")
    options = {"max_keypoints": 50, "first_octave": 0}
    (found,) = resolve_block("features", block("dog_hardnet", **options)).build()(picture())
    (points,) = resolve_block("features", {"use": "sift", **options}).build()(picture().numpy())
    np.testing.assert_array_equal(found.keypoints, points.keypoints)
    assert found.descriptors.shape == (50, 128)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)


def test_classes_are_those_registered() -> None:
    for name, cls in (("superpoint", SuperPoint), ("xfeat", XFeat), ("dog_hardnet", DogHardNet)):
        assert resolve_block("features", name).cls is cls
