"""Files of DELF: the authors', ours, empty and damaged ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from loc.errors import DataError
from loc.exchange.d2net import DELF, export_d2net, import_d2net
from loc.exchange.delf_files import Boxes, read_boxes, read_delf, write_boxes, write_delf
from loc.pipeline import run
from loc.plugins.blocks import load_config
from loc.runtime.runtime import Runtime
from loc.types import LocalFeatures
from loc.weights.tensorflow.datum import (
    read_datum,
    read_datum_pair,
    write_datum,
    write_datum_pair,
)


@pytest.fixture
def fixtures(shared):
    return shared / "fixtures/delf"


def test_datums(fixtures, tmp_path) -> None:
    floats, integers = read_datum(fixtures / "datum_float.datum"), read_datum(fixtures / "datum_uint32.datum")
    np.testing.assert_array_equal(floats, (np.arange(6, dtype=np.float32) / 4 - 0.5).reshape(2, 3))
    np.testing.assert_array_equal(integers, np.asarray([[0, 1, 255], [65535, 4294967295, 7]], np.uint32))
    assert (floats.dtype, integers.dtype) == (np.float32, np.uint32)
    for name, values in (("datum_float", floats), ("datum_uint32", integers)):
        write_datum(tmp_path / "a.datum", values)
        assert (tmp_path / "a.datum").read_bytes() == (fixtures / f"{name}.datum").read_bytes()


@pytest.mark.parametrize("name", ["asmk", "asmk_star", "rasmk_star"])
def test_pairs_of_datums(fixtures, tmp_path, name) -> None:
    path = fixtures / f"aggregation_files/img1.{name}"
    expected = np.load(fixtures / "aggregation.npz")
    first, second = read_datum_pair(path)
    np.testing.assert_array_equal(first.ravel(), expected[f"img1_m1_{name}"].ravel())
    np.testing.assert_array_equal(second, expected[f"img1_m1_{name.removesuffix('_star')}_words"])
    write_datum_pair(tmp_path / "a", first, second)
    assert (tmp_path / "a").read_bytes() == path.read_bytes()


def test_features_of_the_release(fixtures) -> None:
    expected = np.load(fixtures / "expected.npz")
    found = read_delf(fixtures / "expected_pca40.delf", (317, 239))
    np.testing.assert_array_equal(found.keypoints, expected["main_locations"][:, ::-1] + np.float32(0.5))
    np.testing.assert_array_equal(found.descriptors, expected["main_desc_pca40"])
    np.testing.assert_array_equal(found.scores, expected["main_scores"][:, 0])
    np.testing.assert_array_equal(found.scales, expected["main_scales"])
    assert not found.orientations_rad.any()


def test_no_features(fixtures, tmp_path) -> None:
    nothing = read_delf(fixtures / "empty.delf", (10, 10))
    assert len(nothing) == 0
    assert nothing.scales.shape == (0,)
    write_delf(tmp_path / "a.delf", nothing)
    assert (tmp_path / "a.delf").read_bytes() == b""


def test_other_features(tmp_path) -> None:
    """SIFT's bytes become floats; without scales they are one; a resize is taken out of them."""
    rng = np.random.default_rng(0)
    features = LocalFeatures(
        keypoints=rng.uniform(0, 99, (3, 2)).astype(np.float32),
        scores=rng.random(3).astype(np.float32),
        descriptors=rng.integers(0, 256, (3, 8)).astype(np.uint8),
        image_wh=(100, 100),
        orientations_rad=np.asarray([0.1, 0.2, 0.3], np.float32),
    )
    write_delf(tmp_path / "a.delf", features)
    found = read_delf(tmp_path / "a.delf", (100, 100))
    np.testing.assert_allclose(found.keypoints, features.keypoints, atol=1e-5)
    np.testing.assert_allclose(found.descriptors, features.descriptors / np.float32(512))
    assert found.scales.tolist() == [1, 1, 1]
    np.testing.assert_array_equal(found.orientations_rad, features.orientations_rad)
    scaled = found.select(np.arange(2))
    write_delf(tmp_path / "b.delf", scaled, shrunk=2.0)
    assert read_delf(tmp_path / "b.delf", (100, 100)).scales.tolist() == [0.5, 0.5]


def test_boxes(tmp_path) -> None:
    boxes = Boxes(
        np.asarray([[0, 0.25, 0.5, 1], [0.1, 0.2, 0.3, 0.4]], np.float32),
        np.asarray([0.9, 0.1], np.float32),
        np.asarray([1, 600], np.int32),
    )
    write_boxes(tmp_path / "a.boxes", boxes)
    # Tags of the fields, in the order of the proto: 0D, 15, 1D, 25, 2D, 30.
    assert (tmp_path / "a.boxes").read_bytes()[:3] == b"\x0a\x1b\x0d"
    found = read_boxes(tmp_path / "a.boxes")
    np.testing.assert_array_equal(found.boxes, boxes.boxes)
    np.testing.assert_array_equal(found.scores, boxes.scores)
    np.testing.assert_array_equal(found.classes, boxes.classes)
    (tmp_path / "none.boxes").write_bytes(b"")
    assert read_boxes(tmp_path / "none.boxes").boxes.shape == (0, 4)


def test_damage(fixtures, tmp_path) -> None:
    good = (fixtures / "expected_pca40.delf").read_bytes()
    path = tmp_path / "a.delf"
    for size in (1, 50, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(DataError, match="cannot be read"):
            read_delf(path, (317, 239))
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 60).tolist():
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x81]) + good[place + 1 :])
        for read in (lambda: read_delf(path, (317, 239)), lambda: read_boxes(path), lambda: read_datum(path)):
            try:
                read()
            except DataError:
                continue
    with pytest.raises(DataError, match="cannot read"):
        read_delf(tmp_path / "absent.delf", (1, 1))


def test_values_that_make_no_features(tmp_path) -> None:
    one = LocalFeatures(
        np.zeros((1, 2), np.float32), np.ones(1, np.float32), np.ones((1, 4), np.float32), (9, 9)
    )
    write_delf(tmp_path / "a", one)
    write_delf(
        tmp_path / "b", LocalFeatures(one.keypoints, one.scores, np.ones((1, 5), np.float32), one.image_wh)
    )
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    with pytest.raises(DataError, match="descriptors of 4 and 5 numbers"):
        read_delf(tmp_path / "c", (9, 9))
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "c").write_bytes(data[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(DataError, match="NaN"):
        read_delf(tmp_path / "c", (9, 9))
    far = LocalFeatures(one.keypoints + np.float32(30), one.scores, one.descriptors, (40, 40))
    write_delf(tmp_path / "far", far)
    with pytest.raises(DataError, match=r"a keypoint at \(29\.5, 29\.5\), outside the photo of 9 x 9 px"):
        read_delf(tmp_path / "far", (9, 9))
    with pytest.raises(DataError, match="floats or unsigned integers"):
        write_datum(tmp_path / "d", np.asarray([-1]))


def test_a_run_and_back(shared, tmp_path) -> None:
    """Exported, imported, exported again; the ending takes the place of the photo's own."""
    photos = tmp_path / "photos" / "db"
    photos.mkdir(parents=True)
    for name in ("delf", "delg"):
        shutil.copy(shared / "fixtures" / name / "image.png", photos / f"{name}.png")
    features = {"use": "sift", "max_keypoints": 50, "resize_max": 200}
    config = load_config(
        {"scene": {"layout": "folder", "images": str(photos.parent)}, "features": features, "globals": None}
    )
    where = Runtime(device="cpu", workers=1)
    run(config, tmp_path / "run", runtime=where, until="features")
    export_d2net(tmp_path / "run", tmp_path / "out", files=DELF)
    names = ["db/delf.delf", "db/delg.delf"]
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.glob("out/*/*")) == names
    done = import_d2net(
        tmp_path / "out", photos.parent, tmp_path / "back", kind=DELF, runtime=where, force=True
    )
    assert done.counts == {"features": 2}
    imported = run(load_config(done.place), tmp_path / "back", runtime=where, until="features")
    assert imported.features.count("db/delf.png") == 50
    export_d2net(tmp_path / "back", tmp_path / "again", files=DELF)
    for name in names:
        mine, theirs = (read_delf(tmp_path / folder / name, (317, 239)) for folder in ("out", "again"))
        np.testing.assert_allclose(mine.keypoints, theirs.keypoints, atol=1e-5)
        np.testing.assert_allclose(mine.descriptors, theirs.descriptors, atol=1e-3)
    shutil.copy(photos / "delf.png", photos / "delf.jpg")
    with pytest.raises(DataError, match=r"have the same file 'db/delf\.delf'"):
        import_d2net(tmp_path / "out", photos.parent, tmp_path / "new", kind=DELF, runtime=where)
