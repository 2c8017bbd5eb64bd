"""What layouts know besides the pixels: positions and times from EXIF, rough poses of queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loc.config import SceneConfig
from loc.errors import DataError
from loc.layouts import load_scene
from loc.layouts.table import scene_table


def photo(path: Path, *, latitude: float | None = None, taken: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if latitude is not None:
        exif.get_ifd(0x8825).update({1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (6.0, 30.0, 0.0)})
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    Image.new("RGB", (80, 60), "gray").save(path, exif=exif)


@pytest.fixture
def root(tmp_path) -> Path:
    photo(tmp_path / "images" / "a.jpg", latitude=50.0, taken="2026:11:21 17:43:53")
    photo(tmp_path / "images" / "b.jpg")
    photo(tmp_path / "images" / "query" / "c.jpg", latitude=51.0)
    photo(tmp_path / "images" / "query" / "d.jpg")
    return tmp_path


def test_positions_times_and_priors_are_in_the_scene_and_its_table(root):
    (root / "priors.txt").write_text("c.jpg 1 0 0 0 1 2 3\n")
    images = root / "images"
    scene = load_scene(SceneConfig(images=images, queries=images / "query", priors=root / "priors.txt"))
    assert (scene["a.jpg"].gps.latitude_deg, scene["a.jpg"].gps.longitude_deg) == (50.0, 6.5)
    assert scene["a.jpg"].timestamp_s == 1795283033.0
    assert (scene["b.jpg"].gps, scene["b.jpg"].timestamp_s) == (None, None)
    np.testing.assert_array_equal(scene["query/c.jpg"].pose_prior.translation, [1, 2, 3])
    assert scene["query/d.jpg"].pose_prior is None
    assert scene["query/c.jpg"].pose is None  # a prior is not a known pose
    assert scene.ground_truth == {}
    rows = {row["name"]: row for row in scene_table(scene)["images"]}
    assert rows["query/c.jpg"]["gps"] == [51.0, 6.5, None]
    assert rows["query/c.jpg"]["pose_prior"]["translation"] == [1, 2, 3]
    assert rows["b.jpg"]["gps"] is None


def test_priors_of_no_query(root):
    (root / "priors.txt").write_text("x.jpg 1 0 0 0 1 2 3\n")
    images = root / "images"
    with pytest.raises(DataError, match=r"no query has a pose in the priors .*'x.jpg'"):
        load_scene(SceneConfig(images=images, queries=images / "query", priors=root / "priors.txt"))
