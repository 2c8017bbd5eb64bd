"""`.d2-net` files: as D2-Net's authors write them, and as an attacker would."""

from __future__ import annotations

import io
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from loc.errors import DataError
from loc.exchange.d2net_files import read_d2net, write_d2net
from loc.types import LocalFeatures

WH = (64, 48)


def _features(n: int = 5, dtype: str = "float16", dim: int = 512, scales: bool = True) -> LocalFeatures:
    random = np.random.default_rng(n)
    return LocalFeatures(
        keypoints=(random.random((n, 2)) * WH).astype(np.float32),
        scores=random.random(n).astype(np.float32) * 300,
        descriptors=(random.random((n, dim)) * (255 if dtype == "uint8" else 0.06)).astype(dtype),
        image_wh=WH,
        scales=random.choice([2.0, 1.0, 0.5], n).astype(np.float32) if scales else None,
    )


def _npz(path: Path, compressed: bool = False, **changed) -> Path:
    """A file as the authors' script makes it, with some arrays changed or (None) left out."""
    random = np.random.default_rng(0)
    arrays = {
        "keypoints": random.random((5, 3)).astype(np.float32) * 40,
        "scores": random.random(5).astype(np.float32),
        "descriptors": np.asfortranarray(random.random((5, 512)).astype(np.float32)),
    } | changed
    with path.open("wb") as file:
        save = np.savez_compressed if compressed else np.savez
        save(file, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip_is_exact(tmp_path, n, dtype) -> None:
    features = _features(n, dtype)
    write_d2net(tmp_path / "ä b.jpg.d2-net", features)
    with np.load(tmp_path / "ä b.jpg.d2-net", allow_pickle=False) as file:
        assert sorted(file) == ["descriptors", "keypoints", "scores"]
        assert {name: file[name].dtype for name in file} == dict.fromkeys(file, np.float32)
        assert file["keypoints"].shape == (n, 3)
        np.testing.assert_array_equal(file["keypoints"][:, :2], features.keypoints - np.float32(0.5))
        np.testing.assert_array_equal(file["keypoints"][:, 2], features.scales)
    again = read_d2net(tmp_path / "ä b.jpg.d2-net", WH)
    np.testing.assert_allclose(again.keypoints, features.keypoints, atol=4e-6)
    for name in ("scores", "scales", "descriptors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(features, name))
    write_d2net(tmp_path / "again", again)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "ä b.jpg.d2-net").read_bytes()


def test_the_third_column_counts_px_of_the_network(tmp_path) -> None:
    features = _features()
    write_d2net(tmp_path / "f", features, shrunk=2.5)
    np.testing.assert_allclose(np.load(tmp_path / "f")["keypoints"][:, 2], features.scales / 2.5)
    write_d2net(tmp_path / "f", _features(scales=False))
    assert (np.load(tmp_path / "f")["keypoints"][:, 2] == 1).all()


def test_sift_descriptors_become_unit_floats(tmp_path) -> None:
    features = _features(dtype="uint8", dim=128)
    write_d2net(tmp_path / "f", features)
    np.testing.assert_array_equal(read_d2net(tmp_path / "f", WH).descriptors * 512, features.descriptors)


def test_other_layouts_of_the_same_numbers(tmp_path) -> None:
    """Column-major descriptors (a transposed tensor), big-endian doubles, two columns, deflated."""
    plain = read_d2net(_npz(tmp_path / "a"), WH)
    random = np.random.default_rng(0)
    keypoints = random.random((5, 3)).astype(np.float32) * 40
    for number, changed in enumerate(
        (
            {"keypoints": keypoints.astype(">f8")},
            {"keypoints": keypoints[:, :2]},
            {"extra": np.array(["not", "read"])},
            {"compressed": True},
        )
    ):
        other = read_d2net(_npz(tmp_path / str(number), **changed), WH)
        np.testing.assert_array_equal(other.keypoints, plain.keypoints)
        np.testing.assert_array_equal(other.descriptors, plain.descriptors)
        assert other.descriptors.flags.c_contiguous


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scores": None}, "has no scores; it has: keypoints.npy, descriptors.npy"),
        ({"keypoints": np.zeros((5, 4), np.float32)}, r"keypoints of .* are \(5, 4\), expected \(n, 3\)"),
        ({"keypoints": np.zeros(15, np.float32)}, r"keypoints of .* are \(15,\)"),
        ({"scores": np.zeros(4, np.float32)}, r"scores of .* are \(4,\), expected \(5,\)"),
        ({"descriptors": np.zeros((512, 5), np.float32)}, r"descriptors of .* are \(512, 5\)"),
        ({"descriptors": np.zeros((5, 512), np.int8)}, "int8, expected floats"),
        ({"scores": np.array([1.0, np.nan, 1, 1, 1], np.float32)}, "scores of .* NaN or infinity"),
        ({"keypoints": np.full((5, 3), 90, np.float32)}, r"at \(90.0, 90.0\), outside the photo of 64 x 48"),
        ({"scores": np.zeros(5, [("a", "f4")])}, "expected floats"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, changed, said) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_d2net(_npz(tmp_path / "f", **changed), WH)
    assert caught.value.next_step


class _Evil:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_no_code_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.empty(5, object)
    objects[:] = _Evil()
    for path in (_npz(tmp_path / "f", scores=objects), tmp_path / "g"):
        if path.name == "g":
            path.write_bytes(pickle.dumps(_Evil()))
        with pytest.raises(DataError, match=r"expected floats|damaged or no \.d2-net file"):
            read_d2net(path, WH)
    assert not (tmp_path / "ran").exists()


def test_a_bomb_is_not_inflated(tmp_path) -> None:
    path = tmp_path / "bomb"
    _npz(path, compressed=True, descriptors=np.zeros((5, 2_000_000), np.float32))
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match="would inflate from"):
        read_d2net(path, WH)


def _with_header(path: Path, header: str, data: bytes = b"") -> Path:
    array = io.BytesIO()
    array.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("keypoints", "scores", "descriptors"):
            archive.writestr(f"{name}.npy", array.getvalue())
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (4, 3), }",
        "(" * 5000,
        "__import__('os').system('touch ran')",
        "",
    ],
)
def test_headers_that_lie(tmp_path, header, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        read_d2net(_with_header(tmp_path / "f", header, bytes(12)), WH)
    assert not (tmp_path / "ran").exists()


def test_damaged_files(tmp_path) -> None:
    data = _npz(tmp_path / "whole").read_bytes()
    random = np.random.default_rng(1)
    for number in range(200):
        broken = bytearray(data[: random.integers(1, len(data))] if number % 2 else data)
        for at in random.integers(0, len(broken), 3):
            broken[at] ^= 1 << random.integers(8)
        (tmp_path / "f").write_bytes(bytes(broken))
        with suppress(DataError):  # and nothing else; a flipped bit may lie where nobody looks
            read_d2net(tmp_path / "f", WH)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(DataError, match="damaged or no"):
            read_d2net(path, WH)
