"""Broken and hostile lists, models, masks and configs: a typed error with a next step."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_photos import encoded, image
from scenes import Cli, fails, small_scene

from loc.colmap import pycolmap

pytestmark = pytest.mark.usefixtures("bounded")

GOOD = "camera000001_frame000000.png"
CAMERA = "SIMPLE_RADIAL 1024 768 1280 512 384 0"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    small_scene(root)
    (root / "text").mkdir()
    pycolmap.Reconstruction(root / "model").write_text(root / "text")
    return root


def plan(cli: Cli, preset: str, tmp_path: Path, **scene: object) -> int:
    words = [word for name, value in scene.items() for word in ("--set", f"scene.{name}={value}")]
    return cli("plan", preset, "-o", tmp_path / "run", "--sample", "0", *words)


# ---- lists

LISTS: dict[str, tuple[str | bytes, str | None]] = {
    "dos line ends": (f"{GOOD} {CAMERA}\r\n", None),
    "old mac line ends": (f"{GOOD} {CAMERA}\r{GOOD} {CAMERA}\r", None),
    "byte order mark": ("\ufeff" + f"{GOOD}\n", None),
    "the same line twice": (f"{GOOD} {CAMERA}\n" * 2, None),
    "comments and blank lines": (f"# images\n\n   \n{GOOD}\n", None),
    "utf-16": (f"{GOOD}\n".encode("utf-16"), "UTF-8"),
    "latin-1": ("caf\xe9.png\n".encode("latin-1"), "UTF-8"),
    "binary": (np.random.default_rng(0).bytes(4000), "UTF-8"),
    "a nul": (f"{GOOD}\0\n", "control character"),
    "parent folder": (f"a/../../{GOOD}\n", "'..'"),
    "absolute": ("/etc/passwd\n", "absolute"),
    "drive of windows": ("C:/photos/a.png\n", "absolute"),
    "backslashes": (f"db\\{GOOD}\n", "db\\"),
    "in quotes": (f'"{GOOD}"\n', GOOD),
    "decomposed unicode": ("cafe\u0301.png\n", "cafe\u0301.png"),
    "nothing": ("", "there is no image in"),
    "comments only": ("# none\n", "there is no image in"),
    "a line of a megabyte": ("x" * 1_000_000 + "\n", "longer than a file's name"),
    "two intrinsics": (f"{GOOD} {CAMERA}\n{GOOD} {CAMERA}1\n", "two different intrinsics"),
    "too few parameters": (f"{GOOD} SIMPLE_RADIAL 1024 768 1280 512\n", "takes width, height and 4 param"),
    "too many parameters": (f"{GOOD} {CAMERA} 0 0\n", "takes width, height and 4 parameters"),
    "a word among numbers": (f"{GOOD} SIMPLE_RADIAL 1024 768 f 512 384 0\n", "no numbers"),
    "no model": (f"{GOOD} 1024 768 1280 512 384 0\n", "no camera model"),
    "model of the future": (f"{GOOD} {CAMERA.replace('RADIAL', 'RADICAL')}\n", "unknown camera model"),
    "infinite focal length": (f"{GOOD} SIMPLE_RADIAL 1024 768 inf 512 384 0\n", "finite"),
    "overflowing focal length": (f"{GOOD} SIMPLE_RADIAL 1024 768 1e999 512 384 0\n", "finite"),
    "negative focal length": (f"{GOOD} SIMPLE_RADIAL 1024 768 -1280 512 384 0\n", "positive focal"),
    "focal length zero": (f"{GOOD} SIMPLE_RADIAL 1024 768 0 512 384 0\n", "positive focal"),
    "nan distortion": (f"{GOOD} SIMPLE_RADIAL 1024 768 1280 512 384 nan\n", "finite"),
    "size zero": (f"{GOOD} SIMPLE_RADIAL 0 768 1280 512 384 0\n", "must be positive"),
    "negative size": (f"{GOOD} SIMPLE_RADIAL 1024 -768 1280 512 384 0\n", "must be positive"),
    "half a pixel": (f"{GOOD} SIMPLE_RADIAL 1024.5 768 1280 512 384 0\n", "whole numbers"),
    "size of a wall": (f"{GOOD} SIMPLE_RADIAL 1e18 1e18 1280 512 384 0\n", "1024 x 768"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_image_lists(cli: Cli, scene: Path, tmp_path: Path, kind: str) -> None:
    content, message = LISTS[kind]
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code = plan(cli, "hloc_sift", tmp_path, images=scene / "images", image_list=path)
    if message is None:
        assert code == 0, cli.err
    else:
        fails(cli, code, message)


@pytest.mark.parametrize("kind", ["a folder", "nothing", "a glob of nothing"])
def test_lists_that_are_none(cli: Cli, scene: Path, tmp_path: Path, kind: str) -> None:
    path = {"a folder": tmp_path, "nothing": tmp_path / "x.txt", "a glob of nothing": tmp_path / "*.txt"}[
        kind
    ]
    fails(cli, plan(cli, "hloc_sift", tmp_path, images=scene / "images", queries=path), str(path))


# ---- COLMAP models

Change = Callable[[Path], None]


def cut(name: str, share: float) -> Change:
    def change(model: Path) -> None:
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[: int(len(data) * share)])

    return change


def patch(name: str, at: int, new: bytes) -> Change:
    def change(model: Path) -> None:
        data = bytearray((model / name).read_bytes())
        data[at : at + len(new)] = new
        (model / name).write_bytes(data)

    return change


def replaced(name: str, old: bytes, new: bytes) -> Change:
    def change(model: Path) -> None:
        data = (model / name).read_bytes()
        assert old in data
        (model / name).write_bytes(data.replace(old, new, 1))

    return change


def gone(name: str) -> Change:
    return lambda model: (model / name).unlink()


ABSURD = struct.pack("<Q", 2**62)
#: Offsets: a count; of images.bin: 8 id, 12 quaternion, 44 translation, 68 camera id, 72 name.
BINARY: dict[str, tuple[Change, str]] = {
    **{f"no {name}": (gone(f"{name}.bin"), "not complete") for name in ("cameras", "images", "points3D")},
    **{
        f"{name} cut at {share}": (cut(f"{name}.bin", share), f"{name}.bin is truncated")
        for name in ("cameras", "images", "points3D", "rigs", "frames")
        for share in (0.0, 0.37, 0.93)
    },
    **{
        f"absurd count of {name}": (patch(f"{name}.bin", 0, ABSURD), f"{name}.bin is truncated")
        for name in ("cameras", "images", "points3D", "rigs", "frames")
    },
    "absurd count of 2-D points": (patch("images.bin", 72 + len(GOOD) + 1, ABSURD), "images.bin"),
    "absurd length of a track": (patch("points3D.bin", 8 + 8 + 24 + 3 + 8, ABSURD), "points3D.bin"),
    "absurd number of data": (patch("frames.bin", 8 + 8 + 56, b"\xff" * 4), "frames.bin"),
    "unknown camera model": (patch("cameras.bin", 12, struct.pack("<i", 77)), "cameras.bin"),
    "nan focal length": (patch("cameras.bin", 32, struct.pack("<d", np.nan)), "finite"),
    "negative focal length": (patch("cameras.bin", 32, struct.pack("<d", -5.0)), "positive focal"),
    "camera of no size": (patch("cameras.bin", 16, b"\0" * 16), "positive"),
    "camera that is missing": (patch("images.bin", 68, struct.pack("<I", 99)), "damaged"),
    "rig that is missing": (patch("frames.bin", 12, struct.pack("<I", 99)), "damaged"),
    "nan pose": (patch("frames.bin", 16, struct.pack("<d", np.nan)), GOOD),
    "quaternion of zeros": (patch("frames.bin", 16, b"\0" * 32), GOOD),
    "infinite translation": (patch("frames.bin", 48, struct.pack("<d", np.inf)), GOOD),
    "name with dots": (
        replaced("images.bin", b"camera000001_frame000000", b"../../../etc/cron.d/wxyz"),
        "'..'",
    ),
    "absolute name": (
        replaced("images.bin", b"camera000001_frame000000", b"/etc/cron.d/wxyz.1234567"),
        "absolute",
    ),
    "name not utf-8": (replaced("images.bin", b"camera000001_frame000000", b"\xff" * 24), "images.bin"),
    "name twice": (replaced("images.bin", b"frame000002", b"frame000000"), "two images called"),
    "track of a missing image": (patch("points3D.bin", 8 + 59, struct.pack("<I", 4242)), "damaged"),
    "garbage": (lambda model: (model / "images.bin").write_bytes(b"\x07" * 999) and None, "images.bin"),
}
TEXT: dict[str, tuple[Change, str]] = {
    "camera line cut": (replaced("cameras.txt", b" 512", b""), "damaged"),
    "images cut in a line": (cut("images.txt", 0.41), "damaged"),
    "word among numbers": (replaced("images.txt", b" 1 camera", b" one camera"), "damaged"),
    "unknown model": (replaced("cameras.txt", b"SIMPLE_RADIAL", b"SIMPLE_RADICAL"), "damaged"),
    "nan in a camera": (replaced("cameras.txt", b"1280", b"nan "), "damaged"),
    "points that are words": (
        lambda model: (model / "points3D.txt").write_text("a b c\n") and None,
        "damaged",
    ),
    "no images file": (gone("images.txt"), "not complete"),
}


@pytest.mark.parametrize("kind", BINARY)
def test_binary_models(cli: Cli, scene: Path, tmp_path: Path, kind: str) -> None:
    broken(cli, scene, tmp_path, "model", *BINARY[kind])


@pytest.mark.parametrize("kind", TEXT)
def test_text_models(cli: Cli, scene: Path, tmp_path: Path, kind: str) -> None:
    broken(cli, scene, tmp_path, "text", *TEXT[kind])


def broken(cli: Cli, scene: Path, tmp_path: Path, source: str, change: Change, message: str) -> None:
    shutil.copytree(scene / source, tmp_path / "model")
    assert plan(cli, "colmap_sift", tmp_path, images=scene / "images", model=tmp_path / "model") == 0, cli.err
    change(tmp_path / "model")
    fails(cli, plan(cli, "colmap_sift", tmp_path, images=scene / "images", model=tmp_path / "model"), message)


# ---- masks, ground truth

MASKS: dict[str, Callable[[], bytes]] = {
    "another size": lambda: encoded("PNG", image("L", (40, 30))),
    "of the rotated size": lambda: encoded("PNG", image("L", (72, 96))),
    "cut": lambda: encoded("PNG", image("L"))[:600],
    "empty": lambda: b"",
    "text": lambda: b"mask\n" * 99,
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks(cli: Cli, tmp_path: Path, kind: str) -> None:
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).write_bytes(encoded("PNG", image()))
    (tmp_path / "masks" / "a.png.png").write_bytes(MASKS[kind]())
    (tmp_path / "masks" / "b.png.png").write_bytes(encoded("PNG", image("L").point(lambda _: 0)))
    words = ["--set", f"scene.images={tmp_path / 'photos'}", "--set", f"scene.masks={tmp_path / 'masks'}"]
    code = cli("extract", "folder_sift", "-o", tmp_path / "run", *words, "--workers", "1", "--json")
    assert code == 0, cli.err
    assert list(cli.json["skipped"]) == ["a.png"]
    assert "a.png.png" in cli.json["skipped"]["a.png"]


TRUTH: dict[str, tuple[str, str]] = {
    "six numbers": ("{name} 1 0 0 0 1 2\n", "line 1"),
    "nan": ("{name} 1 0 0 0 nan 2 3\n", "line 1"),
    "infinite": ("{name} 1 0 0 0 inf 2 3\n", "line 1"),
    "quaternion of zeros": ("{name} 0 0 0 0 1 2 3\n", "line 1"),
    "twice": ("{name} 1 0 0 0 1 2 3\n" * 2, "has a pose already"),
    "absolute name": ("/a.png 1 0 0 0 1 2 3\n", "absolute"),
    "other names": ("other.png 1 0 0 0 1 2 3\n", "no name of"),
    "nothing": ("", "holds no poses"),
    "binary": ("\x00\x01\x02", "line 1"),
}


@pytest.mark.parametrize("kind", TRUTH)
def test_ground_truth(cli: Cli, scene: Path, tmp_path: Path, kind: str) -> None:
    content, message = TRUTH[kind]
    poses = scene / "ground_truth.txt"
    truth = tmp_path / "truth.txt"
    truth.write_text(content.format(name=poses.read_text().split()[0]))
    fails(cli, cli("eval", poses, truth), message)


# ---- configs

CONFIGS: dict[str, tuple[bytes, str]] = {
    "tab": (b"map:\n\tmode: auto\n", "is not YAML"),
    "open bracket": (b"pairs: [{use: auto\n", "is not YAML"),
    "python tag": (b"map: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    "own tag": (b"map: !include other.yaml\n", "is not YAML"),
    "billion laughs": (
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 108)),
        "alias",
    ),
    "laughs in a block": (
        b"features:\n  use: sift\n  resize_max: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"  %c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 106)),
        "alias",
    ),
    "itself": (b"&a\nmap: *a\n", "alias"),
    "deep": (b"map: " + b"[" * 5000, "is not YAML"),
    "list": (b"- map\n- pairs\n", "must hold a mapping"),
    "number": (b"7\n", "must hold a mapping"),
    "numbers as keys": (b"1: 2\n", "1"),
    "a list as key": (b"? [a, b]\n: 1\n", "unhashable key"),
    "null section": (b"map: null\n", "map"),
    "nan": (b"map: {max_error_px: .nan}\n", "map.max_error_px"),
    "infinite": (b"localize: {max_error_px: .inf}\n", "localize.max_error_px"),
    "text for a number": (b"map: {min_num_inliers: many}\n", "map.min_num_inliers"),
    "negative": (b"map: {min_num_inliers: -3}\n", "map.min_num_inliers"),
    "utf-16": ("map: {}\n".encode("utf-16"), "is not YAML"),
    "binary": (bytes(range(256)), "is not YAML"),
    "plug-in of a path": (b"features: {use: 'os:system'}\n", "os:system"),
    "plug-in that is missing": (b"features: {use: 'no.such.module:Class'}\n", "no.such.module"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs(cli: Cli, scene: Path, tmp_path: Path, kind: str) -> None:
    content, message = CONFIGS[kind]
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    code = cli(
        "plan", path, "-o", tmp_path / "run", "--sample", "0", "--set", f"scene.images={scene / 'images'}"
    )
    assert code in (2, 4), cli.err
    fails(cli, 2, message)
    assert len(cli.err) < 5000
