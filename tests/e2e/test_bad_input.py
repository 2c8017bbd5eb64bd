"""Bad input: a typed error with the next step, or a counted skip; never a traceback, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import SMALL, Cli, small_scene, write_photo

from loc.pipeline import run
from loc.runtime.runtime import Runtime

OPTIONS = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that make a map, with a run over them."""
    root = tmp_path_factory.mktemp("good")
    run(small_scene(root / "scene"), root / "run", runtime=Runtime(device="cpu", workers=1))
    return root


def bad_photos(folder: Path, good_photo: Path) -> dict[str, bytes]:
    """Files that are no usable photo, by name."""
    png = good_photo.read_bytes()
    jpeg = folder.parent / "whole.jpg"
    Image.open(good_photo).convert("RGB").save(jpeg)
    header = b"\x89PNG\r\n\x1a\n"
    ihdr = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    huge = header + struct.pack(">I", 13) + b"IHDR" + ihdr + struct.pack(">I", zlib.crc32(b"IHDR" + ihdr))
    return {
        "zero bytes.jpg": b"",
        "text.jpg": b"this is not a photo\n" * 40,
        "truncated.png": png[: len(png) // 2],
        "truncated.jpg": jpeg.read_bytes()[:-2000],
        "huge header.png": huge + png[33:],
    }


def odd_photos(folder: Path, good_photo: Path) -> None:
    """Photos in rare formats that must work like any other."""
    image = Image.open(good_photo).convert("RGB")
    image.convert("L").save(folder / "grey ü.png")
    image.convert("RGBA").save(folder / "rgba.png")
    image.convert("CMYK").save(folder / "sub-folder" / "cmyk.jpg")
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "sixteen bit.png")
    Image.new("RGB", (1, 1)).save(folder / "one pixel.png")


def test_bad_photos_are_skipped_and_counted_odd_ones_work(cli: Cli, good: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(good / "scene" / "images", photos)
    (photos / "sub-folder").mkdir()
    first = sorted(photos.glob("*.png"))[0]
    bad = bad_photos(photos, first)
    for name, data in bad.items():
        (photos / name).write_bytes(data)
    odd_photos(photos, first)
    assert cli("reconstruct", photos, "-o", tmp_path / "run", *OPTIONS, "--json") == 0, cli.err
    out = cli.json
    assert set(out["skipped"]) == set(bad)
    assert all(reason for reason in out["skipped"].values())
    assert out["images"] == 8 + 5 + len(bad)
    assert out["registered"] >= 7
    funnel = json.loads(next((tmp_path / "run" / "map").glob("*/funnel.json")).read_text())
    assert sum(funnel["steps"].values()) == out["images"]
    assert "Traceback" not in cli.err


def test_names_that_cannot_be_used_are_counted_to_the_end(cli: Cli, good: Path, tmp_path: Path) -> None:
    photos, queries = tmp_path / "photos", tmp_path / "queries"
    shutil.copytree(good / "scene" / "images", photos)
    queries.mkdir()
    first = sorted(photos.glob("*.png"))[0]
    shutil.copy(first, queries / "good.png")
    shutil.copy(first, photos / os.fsdecode(b"\xff\xfe bad.png"))
    shutil.copy(first, queries / os.fsdecode(b"\xff bad.png"))
    shutil.copy(first, queries / "two\nlines \x1b[31m.png")
    argv = ["reconstruct", photos, "-o", tmp_path / "run", "--queries", queries, *OPTIONS]
    assert cli(*argv) == 0, cli.err
    for name in (r"\udcff\udcfe bad.png", r"queries/\udcff bad.png", r"queries/two\nlines \x1b[31m.png"):
        assert f"skipped    {name}: its name cannot be used" in cli.out
    assert "\x1b" not in cli.out
    assert "2 unreadable" in cli.out
    assert cli("digest", tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no photo in"),
        ({"a.jpg": b"", "b.jpg": b"x"}, "at least 2"),
        ({"notes.txt": b"x"}, "there is no photo in"),
    ],
)
def test_folders_without_usable_photos(
    cli: Cli, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, data in files.items():
        (photos / name).write_bytes(data)
    code = cli("reconstruct", photos, "-o", tmp_path / "run")
    assert code in (3, 5)
    assert message in cli.err
    assert cli.err.count("\n") >= 2  # what happened, and what to do next


def test_photos_without_overlap_are_a_map_error(cli: Cli, tmp_path: Path) -> None:
    for seed in range(3):
        write_photo(tmp_path / "p" / f"{seed}.png", wh=(320, 240), seed=seed)
    assert cli("reconstruct", tmp_path / "p", "-o", tmp_path / "run") == 5
    assert "0 of 3 images produced 3-D points" in cli.err


def colmap_run(good: Path, tmp_path: Path, **scene: object) -> list[str]:
    settings = {
        "scene.images": good / "scene" / "images",
        "scene.model": good / "scene" / "model",
        "scene.queries": good / "scene" / "queries.txt",
        **scene,
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return ["localize", "colmap_sift", "-o", str(tmp_path / "run"), *OPTIONS, *words]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{name} SIMPLE_RADIAL 640 480 700 320 240 0\n", "640 x 480"),
        ("{name} PINHOLE 1024 768 nan 1 2 3\n", "line 1"),
        ("{name} PINHOLE 1024 768 1280 1280 512\n", "line 1: PINHOLE takes width, height and 4 parameters"),
        ("{name} PINHOEL 1024 768 1280 1280 512 384\n", "PINHOLE"),
        ("../../etc/passwd PINHOLE 1024 768 1280 1280 512 384\n", ".."),
        ("/etc/passwd PINHOLE 1024 768 1280 1280 512 384\n", "/etc/passwd"),
        ("missing.png PINHOLE 1024 768 1280 1280 512 384\n", "missing.png"),
    ],
)
def test_wrong_query_lists(cli: Cli, good: Path, tmp_path: Path, lines: str, message: str) -> None:
    name = (good / "scene" / "queries.txt").read_text().split()[0]
    queries = tmp_path / "queries.txt"
    queries.write_text(lines.format(name=name))
    assert cli(*colmap_run(good, tmp_path, **{"scene.queries": queries})) == 3
    assert message in cli.err
    assert "Traceback" not in cli.err


def test_intrinsics_of_the_rotated_size_say_so(cli: Cli, good: Path, tmp_path: Path) -> None:
    name = (good / "scene" / "queries.txt").read_text().split()[0]
    queries = tmp_path / "queries.txt"
    queries.write_text(f"{name} SIMPLE_RADIAL 768 1024 1280 384 512 0\n")
    assert cli(*colmap_run(good, tmp_path, **{"scene.queries": queries})) == 3
    assert "rotated" in cli.err


def test_a_model_whose_images_are_missing(cli: Cli, good: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli(*colmap_run(good, tmp_path, **{"scene.images": tmp_path / "empty"})) == 3
    assert "Traceback" not in cli.err
    assert "images" in cli.err


def test_a_model_that_is_none(cli: Cli, good: Path, tmp_path: Path) -> None:
    assert cli(*colmap_run(good, tmp_path, **{"scene.model": tmp_path})) == 3
    (tmp_path / "m").mkdir()
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        (tmp_path / "m" / name).write_bytes(b"\x07" * 40)
    assert cli(*colmap_run(good, tmp_path, **{"scene.model": tmp_path / "m"})) == 3
    assert "Traceback" not in cli.err


def test_a_corrupt_part_names_itself_and_the_rest_goes_on_after_deleting_it(
    cli: Cli, good: Path, tmp_path: Path
) -> None:
    from loc.config import RunConfig
    from loc.digest import run_digest

    folder = tmp_path / "run"
    shutil.copytree(good / "run", folder)
    record = json.loads((folder / "run.json").read_text())
    part = sorted((folder / record["features"]["folder"] / "parts").glob("*.h5"))[0]
    part.write_bytes(part.read_bytes()[:-500])
    config = tmp_path / "config.json"
    config.write_text(json.dumps(record["config"]))
    assert cli("run", config, "-o", folder) == 3
    assert str(part) in cli.err
    assert "delete this file and run the command that made the run again" in cli.err
    part.unlink()
    run(RunConfig.model_validate(record["config"]), folder, runtime=Runtime(device="cpu", workers=1))
    assert run_digest(folder) == run_digest(good / "run")


@pytest.mark.parametrize(("name", "kept"), [("model/points3D.bin", 0), ("index/xyz.npy", 100)])
def test_a_truncated_map_is_an_error(cli: Cli, good: Path, tmp_path: Path, name: str, kept: int) -> None:
    folder = tmp_path / "run"
    shutil.copytree(good / "run", folder)
    photo = sorted((good / "scene" / "images").iterdir())[0]
    file = next((folder / "map").glob(f"*/{name}"))
    file.write_bytes(file.read_bytes()[:kept])
    assert cli("localize-photo", photo, "--map", folder) == 3
    assert "Traceback" not in cli.err
    assert f"{file} is damaged" in cli.err
    assert "run the command that made the run again" in cli.err


def test_read_only_run_folder(cli: Cli, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the file system when the first folder is made (tests may run as root)."""
    from loc.stores import files

    def refused(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(files.Path, "mkdir", refused)
    photos = good / "scene" / "images"
    assert cli("reconstruct", photos, "-o", tmp_path / "locked" / "run") == 3
    assert "cannot write to" in cli.err
    assert "choose a folder you may write to with -o" in cli.err


def test_no_queries_is_ordinary(good: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("# none\n")
    config = small_scene(tmp_path / "scene", **{"scene.queries": str(queries), "scene.ground_truth": None})
    finished = run(config, tmp_path / "run", runtime=Runtime(device="cpu", workers=1))
    assert finished.poses is not None
    assert finished.poses.results == ()
    assert finished.report is not None
    assert (finished.report.folder / "index.html").is_file()


def test_an_output_that_is_a_file(cli: Cli, good: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert cli("reconstruct", good / "scene" / "images", "-o", tmp_path / "file") == 3
    assert "choose another folder with -o" in cli.err
    assert cli.err.count("DataError") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_matcher_that_cannot_match_the_features_says_so_before_any_work(
    cli: Cli, good: Path, tmp_path: Path
) -> None:
    photos, folder = good / "scene" / "images", tmp_path / "run"
    options = ("--set", f"scene.images={photos}", "--set", "matcher=lightglue")
    assert cli("match", "folder_sift", "-o", folder, *options) == 4
    assert "lightglue has no weights for the features of sift" in cli.err
    assert not (folder / "features").exists()
