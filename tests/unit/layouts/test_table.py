"""The scene table, where intrinsics come from, and what is said of odd query lists and folders."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from loc.config import SceneConfig
from loc.errors import DataError
from loc.layouts import load_scene
from loc.layouts.table import scene_table


def photo(path: Path, *, focal_35mm: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if focal_35mm is not None:
        exif.get_ifd(0x8769)[0xA405] = focal_35mm
    Image.new("RGB", (80, 60), "gray").save(path, exif=exif)


def test_the_table_says_where_intrinsics_are_from(tmp_path: Path) -> None:
    root = tmp_path / "images"
    photo(root / "a.jpg", focal_35mm=35)
    photo(root / "b.jpg")
    photo(root / "q" / "c.jpg")
    (tmp_path / "list.txt").write_text("q/c.jpg PINHOLE 80 60 70 70 40 30")
    config = SceneConfig(images=root, queries=root / "q", intrinsics=tmp_path / "list.txt")
    table = scene_table(load_scene(config))
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    rows = {row["name"]: (row["role"], row["intrinsics"]) for row in table["images"]}
    assert rows == {"a.jpg": ("db", "exif"), "b.jpg": ("db", "guess"), "q/c.jpg": ("query", "given")}
    assert {row["camera_id"] for row in table["images"]} == table["cameras"].keys()
    assert (table["skipped"], table["ground_truth"]) == ({}, [])


def test_a_queries_folder_without_photos_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no photo in .*empty") as caught:
        load_scene(SceneConfig(images=tmp_path / "images", queries=tmp_path / "empty"))
    assert "leave scene.queries out" in caught.value.next_step


def test_names_in_both_lists_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / "images" / name)
    (tmp_path / "db.txt").write_text("a.jpg\nb.jpg")
    (tmp_path / "q.txt").write_text("b.jpg")
    config = SceneConfig(
        layout="hloc",
        images=tmp_path / "images",
        image_list=tmp_path / "db.txt",
        queries=tmp_path / "q.txt",
    )
    with caplog.at_level(logging.WARNING, logger="loc"):
        loaded = load_scene(config)
    assert [image.name for image in loaded.db] == ["a.jpg"]
    assert "1 images ('b.jpg')" in caplog.text
