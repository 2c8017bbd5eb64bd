"""Photos: cut files are found without decoding the good ones; copies; what a missing name meant."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loc.doctor import photos
from loc.doctor.missing import did_you_mean
from loc.doctor.photos import copies, ends_well, look_at


def _photo(path: Path, seed: int = 0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.JPG"])
def test_a_cut_file_is_found(tmp_path, name):
    path = _photo(tmp_path / name)
    assert ends_well(path)
    data = path.read_bytes()
    for cut in (len(data) - 40, len(data) // 2):
        path.write_bytes(data[:cut])
        assert not ends_well(path)
        seen = look_at({name: path}, full=False)[name]
        assert "truncated" in seen.problem or "damaged" in seen.problem
    path.write_bytes(data + b"\0" * 100)  # some cameras fill a block
    assert ends_well(path)
    path.write_bytes(data + b"appended by an editor")  # legal; the end mark is not at the end
    assert look_at({name: path}, full=False)[name].problem == ""


def test_good_photos_are_not_decoded(tmp_path, monkeypatch):
    paths = {name: _photo(tmp_path / name) for name in ("a.jpg", "b.png", "c.bmp")}
    decoded = []
    monkeypatch.setattr(photos, "read_photo", lambda path, color: decoded.append(path.name))
    assert all(seen.wh == (80, 60) for seen in look_at(paths, full=False).values())
    assert decoded == []
    look_at(paths, full=True)
    assert sorted(decoded) == ["a.jpg", "b.png", "c.bmp"]


def test_damage_in_the_middle_is_found_by_full(tmp_path):
    path = _photo(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert look_at({"a.png": path}, full=False)["a.png"].problem == ""
    assert "damaged" in look_at({"a.png": path}, full=True)["a.png"].problem


def test_copies_have_the_same_bytes(tmp_path):
    one, two = _photo(tmp_path / "a.png", 1), _photo(tmp_path / "b.png", 2)
    (tmp_path / "c.png").write_bytes(one.read_bytes())
    same_size = bytearray(one.read_bytes())
    same_size[-20] ^= 1
    (tmp_path / "d.png").write_bytes(same_size)
    paths = {path.name: path for path in sorted(tmp_path.iterdir())}
    assert copies(paths) == [("a.png", "c.png")]
    assert copies({**paths, "gone.png": tmp_path / "gone.png"}) == [("a.png", "c.png")]
    assert two.is_file()


def test_special_and_empty_files_are_not_read(tmp_path):
    paths = {f"{name}.jpg": tmp_path / f"{name}.jpg" for name in "abcdef"}
    for name in "ab":
        os.mkfifo(paths[f"{name}.jpg"])
    for name in "cd":
        paths[f"{name}.jpg"].touch()
    paths["f.jpg"].symlink_to(paths["a.jpg"])
    code = (
        "import sys\nfrom pathlib import Path\nfrom loc.doctor.photos import copies, look_at\n"
        "paths = {Path(name).name: Path(name) for name in sys.argv[1:]}\n"
        "print(copies(paths), [look_at(paths, full=True)[name].problem for name in ('a.jpg', 'f.jpg')])"
    )
    # In a process of its own: opening a pipe waits for a writer.
    argv = [sys.executable, "-c", code, *map(str, paths.values())]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("[] [")
    assert done.stdout.count("is no file but a pipe, a socket or a device") == 2


@pytest.mark.parametrize(
    ("name", "photo", "root", "expected"),
    [
        ("db/1.jpg", "images/db/1.jpg", "data", "--set scene.images='data/images'"),
        ("images/db/1.jpg", "db/1.jpg", "data/images", "--set scene.images='data'"),
        ("photos/db/1.jpg", "db/1.jpg", "data", "the list has 'photos/' before the names"),
        ("db/1.jpg", "query/1.jpg", "data", "'query/1.jpg' has the same file name, in another folder"),
        ("db/1.jpg", "db/1.png", "data", "the photos end in '.png', the list in '.jpg'"),
        ("db/img_0001.jpg", "db/img_001.jpg", "data", "did you mean 'db/img_001.jpg'?"),
        ("db/1.jpg", "zebra.jpg", "data", "copy the photos there"),
        ("db/3.jpg", "db/13.jpg", "data", "copy the photos there"),
        ("db/img_0001.jpg", "db/img_0002.jpg", "data", "copy the photos there"),
    ],
)
def test_what_a_missing_name_meant(name, photo, root, expected):
    assert expected in did_you_mean([name], [photo], Path(root))


def test_no_photos_at_all():
    assert "copy the photos there" in did_you_mean(["a.jpg"], [], Path("data"))
