"""Where intrinsics come from, who shares a camera, and which given ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from loc.errors import ConfigError, DataError
from loc.layouts.cameras import (
    GivenIntrinsics,
    PhotoFile,
    assign_cameras,
    exif_focal_px,
    read_intrinsics,
)
from loc.types import CAMERA_PARAMS

NONE = GivenIntrinsics()


def photo(root: Path, name: str, wh=(80, 60), orientation=None, make=None, model=None, mm=None, mm35=None):
    exif = Image.Exif()
    for tag, value in ((274, orientation), (271, make), (272, model)):
        if value is not None:
            exif[tag] = value
    for tag, value in ((0x920A, mm and IFDRational(round(mm * 10), 10)), (0xA405, mm35)):
        if value is not None:
            exif.get_ifd(0x8769)[tag] = value
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", wh, "gray").save(path, exif=exif)
    return PhotoFile.open(name, path)


def assign(photos, given=NONE, sharing="per_folder", camera_model="SIMPLE_RADIAL"):
    return assign_cameras(photos, given=given, sharing=sharing, camera_model=camera_model)


def listed(tmp_path: Path, text: str) -> GivenIntrinsics:
    (tmp_path / "intrinsics.txt").write_text(text)
    return read_intrinsics(tmp_path / "intrinsics.txt")


@pytest.mark.parametrize(
    ("sharing", "groups"),
    [("per_folder", [["a/1.jpg", "a/2.jpg"], ["b/3.jpg"]]), ("single", [["a/1.jpg", "a/2.jpg", "b/3.jpg"]])],
)
def test_sharing(tmp_path, sharing, groups):
    photos = [photo(tmp_path, name) for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg")]
    ids, cameras = assign(photos, sharing=sharing)
    assert len(cameras) == len(groups)
    for group in groups:
        assert len({ids[name] for name in group}) == 1
    assert len(assign(photos, sharing="per_image")[1]) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"wh": (60, 80)},
        {"wh": (81, 60)},
        {"orientation": 6},
        {"make": "Apple"},
        {"model": "iPhone 7"},
        {"mm35": 50},
        {"mm": 4.2},
    ],
)
def test_another_size_orientation_or_lens_never_shares(tmp_path, other):
    same = {"wh": (80, 60), "orientation": 1, "make": "Acme", "model": "X1", "mm35": 28, "mm": 4.1}
    photos = [photo(tmp_path, "1.jpg", **same), photo(tmp_path, "2.jpg", **{**same, **other})]
    ids, cameras = assign(photos, sharing="single")
    assert len(cameras) == 2
    assert ids["1.jpg"] != ids["2.jpg"]
    assert (
        len(assign([photos[0], photo(tmp_path, "3.jpg", **{**same, "orientation": 3})], sharing="single")[1])
        == 1
    )


def test_ids_do_not_depend_on_other_photos(tmp_path):
    photos = [photo(tmp_path, name, wh=wh) for name, wh in (("b.jpg", (80, 60)), ("a.jpg", (60, 80)))]
    both, _ = assign(photos)
    assert assign(photos[:1])[0] == {"b.jpg": both["b.jpg"]}
    assert both["b.jpg"] == ". [80x60]"


def test_default_focal_is_a_guess(tmp_path):
    ids, cameras = assign([photo(tmp_path, "a.jpg")])
    camera = cameras[ids["a.jpg"]]
    assert camera.params.tolist() == [96.0, 40.0, 30.0, 0.0]
    assert not camera.has_prior_focal_length


def test_exif_focal_by_35mm_equivalent(tmp_path):
    (camera,) = assign([photo(tmp_path, "a.jpg", wh=(400, 300), mm35=28, orientation=6)])[1].values()
    assert camera.focal_px == pytest.approx(28 / 43.267 * 500, rel=1e-3)  # of the diagonal
    assert camera.has_prior_focal_length
    assert camera.image_wh == (400, 300)


def test_exif_focal_by_sensor_data_base(tmp_path):
    """iPhone 6: the sensor is 4.8 mm wide; EXIF has no 35 mm equivalent here."""
    one = photo(tmp_path, "a.jpg", wh=(400, 300), make="Apple", model="iPhone 6", mm=4.2)
    assert exif_focal_px(one) == pytest.approx(4.2 / 4.8 * 400, rel=0.05)


@pytest.mark.parametrize("mm35", [0, 60000])
def test_absurd_exif_focal_is_not_believed(tmp_path, mm35):
    (camera,) = assign([photo(tmp_path, "a.jpg", mm35=mm35)])[1].values()
    assert camera.focal_px == pytest.approx(96)
    assert not camera.has_prior_focal_length


@pytest.mark.parametrize("model", CAMERA_PARAMS)
def test_every_camera_model_can_be_a_default(tmp_path, model):
    (camera,) = assign([photo(tmp_path, "a.jpg")], camera_model=model)[1].values()
    assert (camera.model, camera.focal_px) == (model, 96)


def test_unknown_camera_model():
    with pytest.raises(ConfigError, match="'SIMPLE_RADAL' is not a camera model") as caught:
        assign([], camera_model="SIMPLE_RADAL")
    assert caught.value.next_step == "did you mean SIMPLE_RADIAL?"


def test_no_photos():
    assert assign([]) == ({}, {})


def test_given_wins_over_exif_and_globs_come_after_names(tmp_path):
    given = listed(
        tmp_path,
        "c a/*.jpg PINHOLE 80 60 70 70 40 30\n"
        "c a/2.jpg PINHOLE 80 60 75 75 40 30\n"
        "* PINHOLE 80 60 77 77 40 30",
    )
    photos = [photo(tmp_path, name, mm35=28) for name in ("c a/1.jpg", "c a/2.jpg", "c a/3.jpg", "b.jpg")]
    ids, cameras = assign(photos, given)
    assert [cameras[ids[p.name]].focal_px for p in photos] == [70, 75, 70, 77]
    assert ids["c a/1.jpg"] == ids["c a/3.jpg"] != ids["c a/2.jpg"]
    assert all(camera.has_prior_focal_length for camera in cameras.values())


def test_a_name_with_brackets_is_itself(tmp_path):
    given = listed(tmp_path, "a[1].jpg PINHOLE 80 60 70 70 40 30")
    ids, cameras = assign([photo(tmp_path, "a[1].jpg"), photo(tmp_path, "a2.jpg")], given)
    assert cameras[ids["a[1].jpg"]].focal_px == 70
    assert cameras[ids["a2.jpg"]].focal_px == 96


def test_given_intrinsics_of_another_size(tmp_path):
    given = listed(tmp_path, "# x\na.jpg PINHOLE 160 120 70 70 40 30")
    with pytest.raises(
        DataError,
        match=r"of 'a\.jpg' \(.*intrinsics\.txt line 2\) are for 160 x 120 px, the photo is 80 x 60",
    ) as caught:
        assign([photo(tmp_path, "a.jpg")], given)
    assert "scale the intrinsics" in caught.value.next_step


def test_given_intrinsics_of_the_rotated_size(tmp_path):
    given = listed(tmp_path, "a.jpg PINHOLE 60 80 70 70 30 40")
    with pytest.raises(DataError, match="they fit only the rotated size") as caught:
        assign([photo(tmp_path, "a.jpg", orientation=6)], given)
    assert "as stored, before EXIF rotation" in caught.value.next_step


def test_intrinsics_list_without_intrinsics(tmp_path):
    with pytest.raises(DataError, match=r"line 1: 'a\.jpg' has no intrinsics"):
        listed(tmp_path, "a.jpg")


def test_real_photo_with_exif(shared):
    """Lund door: COLMAP reads 2315 px from EXIF (calibrated: 2435)."""
    root = shared / "data" / "lund_door" / "images"
    name = sorted(path.name for path in root.iterdir())[0]
    (camera,) = assign([PhotoFile.open(name, root / name)])[1].values()
    assert camera.has_prior_focal_length
    assert camera.focal_px == pytest.approx(2435, rel=0.06)
    assert np.allclose(camera.params[1:], [648, 968, 0])
