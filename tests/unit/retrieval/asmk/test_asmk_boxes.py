"""Regions of images: lists of boxes, detectors, the grid."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from loc.errors import ConfigError, DataError, PluginError
from loc.retrieval.asmk.boxes import (
    RegionsConfig,
    box_finder,
    inside_each,
    read_boxes,
    source_of_boxes,
    with_boxes,
)
from loc.types import LocalFeatures
from loc.weights.tensorflow.boxes import Boxes, write_boxes

ALL = np.arange(4)


@pytest.fixture
def corners():
    xy = np.array([[1, 1], [39, 1], [1, 19], [39, 19]], np.float32)
    return LocalFeatures(xy, np.ones(4, np.float32), np.ones((4, 2), np.float32), (40, 20))


def test_given_boxes(tmp_path, corners) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text("# from a detector\na b.jpg 0 0 20 20\n\na b.jpg 0 0 40 10\nc.jpg 1 2 3 4\n")
    config = RegionsConfig(regions="boxes", boxes=path)
    find = box_finder(config)
    boxed = with_boxes(corners, find("a b.jpg", tmp_path))
    assert [part.tolist() for part in inside_each(boxed, ALL, config)] == [[0, 2], [0, 1]]
    assert [part.tolist() for part in inside_each(boxed, np.array([3, 2]), config)] == [[1], []]
    assert find("unlisted.jpg", tmp_path).shape == (0, 4)
    before = source_of_boxes(config)
    path.write_text("c.jpg 1 2 3 4\n")
    assert source_of_boxes(config) != before


def test_boxes_of_delf(tmp_path, corners) -> None:
    """A folder of .boxes, in parts of the stored photo's sides; a low score does not count."""
    (tmp_path / "boxes/db").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(tmp_path / "a.b.png")
    given = np.array([[0, 0, 1, 0.5], [0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)  # y x y x
    scores = np.array([0.9, 0.05, 0.1], np.float32)
    write_boxes(tmp_path / "boxes/db/a.b.boxes", Boxes(given, scores, np.ones(3, np.int32)))
    config = RegionsConfig(regions="boxes", boxes=tmp_path / "boxes")
    find = box_finder(config)
    boxes = find("db/a.b.jpg", tmp_path / "a.b.png")
    np.testing.assert_array_equal(boxes, [[0, 0, 20, 20], [0, 10, 40, 20]])
    assert [part.tolist() for part in inside_each(with_boxes(corners, boxes), ALL, config)] == [
        [0, 2],
        [2, 3],
    ]
    every = RegionsConfig(regions="boxes", boxes=tmp_path / "boxes", min_box_score=0)
    assert len(box_finder(every)("db/a.b.jpg", tmp_path / "a.b.png")) == 3
    assert find("db/unlisted.jpg", tmp_path / "a.b.png").shape == (0, 4)
    before = source_of_boxes(config)
    write_boxes(tmp_path / "boxes/db/a.b.boxes", Boxes(given[:1], scores[:1], np.ones(1, np.int32)))
    assert source_of_boxes(config) != before


def test_a_folder_without_boxes(tmp_path) -> None:
    with pytest.raises(DataError, match=r"has no \.boxes files"):
        box_finder(RegionsConfig(regions="boxes", boxes=tmp_path))
    (tmp_path / "a.boxes").write_bytes(b"\x0a\xff")
    with pytest.raises(DataError, match=r"a\.boxes cannot be read"):
        box_finder(RegionsConfig(regions="boxes", boxes=tmp_path))("a.jpg", tmp_path / "a.jpg")


@pytest.mark.parametrize("line", ["a.jpg 1 2 3", "a.jpg 1 2 x 4", "a.jpg 5 2 3 4", "a.jpg 1 2 nan 4"])
def test_lines_that_are_no_box(tmp_path, line) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(f"ok.jpg 0 0 1 1\n{line}\n")
    with pytest.raises(DataError, match=r"boxes.txt:2: .* is no box"):
        read_boxes(path)
    with pytest.raises(DataError, match="cannot read the boxes"):
        read_boxes(tmp_path / "absent.txt")


def test_the_grid_covers_the_image(corners) -> None:
    parts = inside_each(corners, ALL, RegionsConfig(regions="rmac", levels=1))
    assert sorted(index for part in parts for index in part.tolist()) == [0, 1, 2, 3]
    assert inside_each(corners, ALL, RegionsConfig()) == []


class LeftHalf:
    """Finds the left half of any photo, surely, and the right half, hardly."""

    version = 3

    def __call__(self, photo):
        height, width = photo.shape[:2]
        boxes = [[0, 0, width / 2, height], [width / 2, 0, width, height]]
        return np.array(boxes, np.float32), np.array([0.9, 0.05], np.float32)


@pytest.fixture
def detectors(monkeypatch):
    wrong = type("Wrong", (), {"version": 1, "__call__": lambda self, photo: (np.zeros(4), np.zeros(1))})
    made = SimpleNamespace(LeftHalf=LeftHalf, Wrong=wrong, Unversioned=type("U", (), {}))
    monkeypatch.setitem(sys.modules, "made_detectors", made)


def test_a_detector(tmp_path, detectors, corners) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 20)).save(path)
    config = RegionsConfig(regions="detector", detector="made_detectors:LeftHalf")
    boxes = box_finder(config)("photo.png", path)
    np.testing.assert_array_equal(boxes, [[0, 0, 20, 20]])
    assert source_of_boxes(config) == {"detector": 3}
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # stored on its side: the left half that a viewer sees is the lower half
    turned.save(tmp_path / "turned.jpg", exif=exif)
    np.testing.assert_array_equal(
        box_finder(config)("turned.jpg", tmp_path / "turned.jpg"), [[0, 10, 40, 20]]
    )


def test_wrong_detectors(tmp_path, detectors) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (40, 20)).save(path)
    with pytest.raises(ConfigError, match="no box detector is called 'nowhere:X'"):
        box_finder(RegionsConfig(regions="detector", detector="nowhere:X"))
    with pytest.raises(PluginError, match="has no version"):
        box_finder(RegionsConfig(regions="detector", detector="made_detectors:Unversioned"))
    find = box_finder(RegionsConfig(regions="detector", detector="made_detectors:Wrong"))
    with pytest.raises(PluginError, match=r"gives boxes \(4,\) and scores \(1,\) for photo.png"):
        find("photo.png", path)


@pytest.mark.parametrize("options", [{"regions": "boxes"}, {"detector": "a:B"}, {"regions": "else"}])
def test_options_that_do_not_go_together(options) -> None:
    with pytest.raises(ValidationError):
        RegionsConfig(**options)
