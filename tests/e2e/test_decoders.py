"""Every kind of photo: it works, or it is skipped, counted and explained; no traceback, no hang."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bad_photos import BAD, ODD, TRICKS, encoded, image
from scenes import Cli

pytestmark = pytest.mark.usefixtures("bounded")


def extracted(cli: Cli, folder: Path) -> dict[str, str]:
    """Run the line up to the features; what it skipped, with the reasons."""
    photos = folder / "photos"
    (photos / "good.png").write_bytes(encoded("PNG", image(seed=9)))
    run = folder / "run"
    code = cli(
        "extract", "folder_sift", "-o", run, "--set", f"scene.images={photos}", "--workers", "1", "--json"
    )
    assert code == 0, cli.err
    assert "Traceback" not in cli.err
    record = json.loads((run / "run.json").read_text())
    skipped: dict[str, str] = {**record["scene"]["skipped"], **record["features"]["skipped"]}
    assert cli.json["skipped"] == skipped
    assert "good.png" in record["features"]["items"]
    assert set(record["features"]["items"]).isdisjoint(skipped)
    return skipped


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.mark.parametrize("name", ODD)
def test_odd_photos_work(cli: Cli, photos: Path, name: str) -> None:
    (photos / name).write_bytes(ODD[name]())
    assert extracted(cli, photos.parent) == {}


@pytest.mark.parametrize("name", BAD)
def test_bad_photos_are_skipped(cli: Cli, photos: Path, name: str) -> None:
    (photos / name).write_bytes(BAD[name]())
    skipped = extracted(cli, photos.parent)
    assert list(skipped) == [name]
    assert str(photos / name) in skipped[name]  # which file, in words
    assert "\n" not in skipped[name]


@pytest.mark.parametrize("name", TRICKS, ids=ascii)
def test_what_is_no_photo_is_skipped(cli: Cli, photos: Path, name: str) -> None:
    TRICKS[name](photos / name)
    assert [os.fsencode(each) for each in extracted(cli, photos.parent)] == [os.fsencode(name)]


def test_a_folder_called_like_a_photo_and_linked_folders_in_a_circle(cli: Cli, photos: Path) -> None:
    (photos / "folder.jpg").mkdir()
    (photos / "folder.jpg" / "inside.png").write_bytes(encoded("PNG"))
    (photos / "circle").symlink_to(photos)
    assert extracted(cli, photos.parent) == {}


def test_names_that_differ_in_case_or_in_unicode_composition_are_two_photos(cli: Cli, photos: Path) -> None:
    names = ["a.png", "A.png", "caf\u00e9.png", "cafe\u0301.png", 'it\'s "quoted" $HOME;.png']
    for name in names:
        (photos / name).write_bytes(encoded("PNG"))
    assert extracted(cli, photos.parent) == {}
    record = json.loads((photos.parent / "run" / "run.json").read_text())
    assert sorted(record["features"]["items"]) == sorted([*names, "good.png"])
