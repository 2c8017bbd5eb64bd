"""``loc match-pair`` on photos made here: counts, pictures, odd files."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from loc.cli.app import app
from loc.plugins.blocks import resolve_block
from loc.runtime.runtime import Runtime
from loc.stages.photopair import match_photos

SHIFT = 30


def texture(seed=0):
    rng = np.random.default_rng(seed)
    grain = cv2.resize(rng.integers(0, 255, (40, 60, 3), np.uint8), (480, 320), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(grain, (360, 240), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """a and b show one surface, b from ``SHIFT`` px further right; turned is b, stored on its side."""
    folder = tmp_path_factory.mktemp("photos")
    whole = texture()
    Image.fromarray(whole[:, : -2 * SHIFT]).save(folder / "a.png")
    b = Image.fromarray(whole[:, SHIFT:-SHIFT])
    b.save(folder / "b.png")
    exif = Image.Exif()
    exif[274] = 6
    b.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    b.convert("L").resize((600, 480)).save(folder / "grey.png")
    Image.fromarray(texture(5)).save(folder / "other.png")
    Image.new("RGB", (90, 60), "white").save(folder / "white.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, ["match-pair", *map(str, arguments), "--device", "cpu"])


def told(*arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout[result.stdout.index("{") :])


def test_counts_and_a_picture(photos, tmp_path):
    out = tmp_path / "new/matches.png"
    result = invoke(photos / "a.png", photos / "b.png", "--out", out, "--lines", 7)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    inliers = int(lines["inliers"].split()[0])
    assert inliers >= 30
    assert inliers <= int(lines["matches"])
    assert lines["picture"] == f"{out} (7 of {inliers} lines)"
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.height == 720


@pytest.mark.parametrize("check", ["affine", "homography", "fundamental", "none"])
def test_checks(photos, check):
    found = told(photos / "a.png", photos / "b.png", "--check", check)
    assert found["check"] == check
    assert found["inliers"] > 0.8 * found["matches"] > 30
    assert (found["inliers"] == found["matches"]) or check != "none"


def test_published_rerankings_and_their_options(photos):
    found = told(photos / "a.png", photos / "b.png", "--rerank", "example")
    assert (found["check"], found["inliers"] > 30) == ("affine", True)
    strict = told(photos / "a.png", photos / "b.png", "--rerank", "{use: d2r, max_distance: 0.05}")
    assert strict["matches"] < found["matches"]
    other = told(photos / "a.png", photos / "other.png", "--rerank", "example")
    assert other["inliers"] < 0.5 * found["inliers"]


def test_options_reach_the_extractor(photos):
    found = told(
        photos / "a.png", photos / "b.png", "--set", "features.max_keypoints=20", "--features", "sift"
    )
    assert found["keypoints"] == [20, 20]


@pytest.mark.parametrize("name", ["b.png", "turned.png"])
def test_matches_are_in_stored_pixels(photos, name):
    sift, nearest = resolve_block("features", "sift"), resolve_block("matcher", "nearest")
    pair = match_photos(
        (photos / "a.png", photos / name), sift, nearest, runtime=Runtime(device="cpu", workers=1)
    )
    first, second = (each[pair.inliers] for each in pair.matches)
    if name == "turned.png":  # stored x is upright y; stored y runs against upright x
        second = np.column_stack([300 - second[:, 1], second[:, 0]])
    np.testing.assert_allclose(np.median(first - second, axis=0), [SHIFT, 0], atol=0.2)


def test_photos_without_anything_to_match(photos, tmp_path):
    out = tmp_path / "none.webp"
    found = told(photos / "a.png", photos / "white.png", "--out", out)
    assert (found["matches"], found["inliers"], found["keypoints"][1]) == (0, 0, 0)
    with Image.open(out) as picture:
        assert picture.format == "WEBP"
    found = told(photos / "white.png", photos / "white.png", "--rerank", "d2r")
    assert found["inliers"] == 0
    said = invoke(photos / "a.png", photos / "other.png").stdout
    assert "may agree by chance" in said


def test_grey_and_other_sizes(photos, tmp_path):
    found = told(photos / "a.png", photos / "grey.png", "--keypoints", "-o", tmp_path / "grey.jpg")
    assert found["inliers"] > 20
    with Image.open(tmp_path / "grey.jpg") as picture:
        assert (picture.format, picture.mode) == ("JPEG", "RGB")


def test_one_photo_twice(photos):
    found = told(photos / "a.png", photos / "a.png")
    assert found["inliers"] == found["matches"] > 100


def test_photos_are_never_overwritten(photos, tmp_path):
    before = (photos / "a.png").read_bytes()
    os.link(photos / "a.png", tmp_path / "linked.png")
    (tmp_path / "symbolic.png").symlink_to(photos / "b.png")
    for out in (photos / "a.png", photos / "b.png", tmp_path / "linked.png", tmp_path / "symbolic.png"):
        result = invoke(photos / "a.png", photos / "b.png", "--out", out)
        assert result.exit_code == 2
        assert "is one of the photos" in result.output
    assert (photos / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (["--out", "matches.pdf"], 2, "is no picture"),
        (["--out", "."], 3, "is a folder"),
        (["--rerank", "fast"], 2, "rerank.use"),
        (["--rerank", "null"], 2, "--rerank is empty"),
        (["--rerank", "d2r", "--check", "affine"], 2, "matches and checks by itself"),
        (["--set", "map.max_error_px=3"], 2, "map.max_error_px changes nothing here"),
        (["--features", "shift"], 2, "shift"),
    ],
)
def test_wrong_options(photos, arguments, code, match):
    result = invoke(photos / "a.png", photos / "b.png", *arguments)
    assert result.exit_code == code
    assert match in result.output


def test_files_that_cannot_be_used(photos, tmp_path):
    result = invoke(photos / "a.png", photos / "broken.jpg")
    assert result.exit_code == 3
    assert "broken.jpg" in result.output
    assert invoke(photos / "a.png", tmp_path / "nowhere.png").exit_code == 3
    (tmp_path / "file").write_text("")
    result = invoke(photos / "a.png", photos / "b.png", "--out", tmp_path / "file/matches.png")
    assert result.exit_code == 3
    assert "cannot be a folder" in result.output
