"""MAT-files: what SciPy writes is read as SciPy reads it, and no change of a file does harm."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from loc.errors import DataError
from loc.weights.mat_file import Unread, read_mat


def structs():
    entry = np.dtype([("easy", object), ("hard", object), ("bbx", object)])
    out = np.zeros((1, 2), entry)
    out[0, 0] = np.array([[1.0, 3.0]]), np.zeros((0, 0)), np.array([[1.5, 2, 30, 40]])
    out[0, 1] = np.uint8([[2]]), np.int64([[70000]]), np.zeros((0, 0))
    return out


CONTENT = {
    "gnd": structs(),
    "imlist": np.array([["all_souls_000001", "ü", "日本"]], object),
    "one": {"bbx": np.arange(6.0).reshape(2, 3)},
    "name": "query",
    "rows": np.array(["ab", "c"]),
    "flag": True,
}


def same(ours, theirs):
    """Whether they agree, once one-element arrays are bare as SciPy simplifies them."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, str):
        return ours == str(theirs).rstrip()
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours.size == np.size(theirs) and np.array_equal(ours.ravel(), np.ravel(theirs))


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_scipy_writes(tmp_path, compressed):
    path = tmp_path / "gnd_x.mat"
    savemat(path, CONTENT, do_compression=compressed)
    ours = read_mat(path)
    theirs = {key: value for key, value in loadmat(path, simplify_cells=True).items() if key in CONTENT}
    assert ours.keys() == CONTENT.keys()
    assert same(ours, theirs)
    np.testing.assert_array_equal(ours["one"]["bbx"], CONTENT["one"]["bbx"])
    assert ours["rows"] == ["ab", "c"]


def test_networks(tmp_path):
    """Cells of structs with cells of arrays of four axes, single or double, as MatConvNet writes."""
    kernels = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    for dtype, compressed in ((np.float32, True), (np.float64, False)):
        weights = np.empty((1, 2), object)
        weights[0, :] = [kernels.astype(dtype), np.zeros((5, 1), dtype)]
        layers = np.empty((1, 2), object)
        layers[0, :] = [{"type": "conv", "weights": weights}, {"type": "relu", "weights": np.zeros((0, 0))}]
        savemat(tmp_path / "x.mat", {"net": {"layers": layers}}, do_compression=compressed)
        first, second = read_mat(tmp_path / "x.mat")["net"]["layers"]
        assert first["weights"][0].dtype == dtype
        np.testing.assert_array_equal(first["weights"][0], kernels.astype(dtype))
        assert first["weights"][1].shape == (5, 1)
        assert second["weights"].size == 0


def test_other_classes_are_passed_over(tmp_path):
    path = tmp_path / "x.mat"
    savemat(path, {"a": np.array([1j]), "b": csc_array(np.eye(3)), "c": {"d": np.array([[1j, 2]]), "e": 3.0}})
    found = read_mat(path)
    assert (found["a"], found["b"], found["c"]["d"]) == (Unread(6), Unread(5), Unread(6))
    assert found["c"]["e"].item() == 3
    assert read_mat(written(path, matrix(17, b"", short(1, b"mcos"))))["mcos"] == Unread(17)


def test_structs_without_fields(tmp_path):
    savemat(tmp_path / "x.mat", {"opts": {}})
    assert read_mat(tmp_path / "x.mat") == {"opts": {}}


def element(kind, body):
    padding = 0 if kind == 15 else -len(body) % 8
    return np.uint32([kind, len(body)]).tobytes() + body + bytes(padding)


def short(kind, body):
    return np.uint16([kind, len(body)]).tobytes() + body.ljust(4, b"\0")


def matrix(number, shape, *members):
    flags = element(6, np.uint32([number, 0]).tobytes())
    return element(14, flags + shape + b"".join(members))


def dims(*shape):
    return element(5, np.int32(shape).tobytes())


def written(path, body, *, compressed=False):
    body = element(15, zlib.compress(body)) if compressed else body
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + body)
    return path


NAME = short(1, b"x")
WIDTH = short(5, np.int32([8]).tobytes())


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (matrix(1, dims(1, 2**28), NAME), "announces 268435456 members"),
        (matrix(1, dims(1, 2**12), NAME, element(14, b"") * 2**12), "more than 1024 arrays"),
        (element(14, b"") * 2**12, "more than 1024 arrays"),
        (matrix(6, dims(*[1] * 10**6), NAME), "4000000 bytes of kind 5"),
        (matrix(2, dims(1, 1), NAME, WIDTH, element(1, b"a" * 8 * 10**5)), "names of its fields"),
        (matrix(2, dims(1, 2**12), NAME, WIDTH, element(1, b""), bytes(2**15)), "more than 1024 arrays"),
        (matrix(4, dims(2**12, 1), NAME, element(1, b"a" * 2**12)), "more than 1024 arrays and lines"),
        (element(1, b"a" * 8), "variable of kind 1"),
        (matrix(6, dims(1, 2), NAME, element(99, bytes(16))), "numbers of kind 99"),
        (matrix(6, dims(2**31 - 1, 2**31 - 1, 0), NAME, element(9, bytes(8))), "no usable MAT-file"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_files_that_would_fill_memory(tmp_path, body, match, compressed, monkeypatch):
    """Each asks for more than there is, or for hundreds of bytes with every eight."""
    monkeypatch.setattr("loc.weights.mat_file._MOST_VALUES", 1024)
    with pytest.raises(DataError, match=match):
        read_mat(written(tmp_path / "x.mat", body, compressed=compressed))


def test_size(tmp_path):
    path = written(tmp_path / "x.mat", b"\x0e\0\0\0\xff\xff\xff\xff")
    with pytest.raises(DataError, match="a variable is longer than the file"):
        read_mat(path)
    for compressed, match in ((False, "it is larger than 8 MiB"), (True, "its content is larger than 8 MiB")):
        written(path, matrix(6, dims(1, 2**21), NAME, element(9, bytes(2**24))), compressed=compressed)
        with pytest.raises(DataError, match=match):
            read_mat(path, max_bytes=2**23)
        assert read_mat(path, max_bytes=2**25)["x"].shape == (1, 2**21)


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_is_that_of_the_content(tmp_path, compressed):
    path = tmp_path / "x.mat"
    savemat(path, {"x": np.random.default_rng(0).normal(size=2**21)}, do_compression=compressed)
    tracemalloc.start()
    try:
        assert read_mat(path)["x"].nbytes == 2**24
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.4 * 2**24


def test_damage_is_an_error(tmp_path):
    """Bytes changed at random; with SciPy's reader one in some thousand ended the process."""
    path = tmp_path / "x.mat"
    rng = random.Random(0)
    refused = 0
    for compressed in (False, True):
        savemat(path, CONTENT, do_compression=compressed)
        whole = path.read_bytes()
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(rng.choice((1, 1, 3))):
                data[rng.randrange(124, len(data))] = rng.randrange(256)
            path.write_bytes(data if rng.random() < 0.8 else data[: rng.randrange(len(data))])
            try:
                read_mat(path)
            except DataError:
                refused += 1
    assert refused > 200


def test_versions(tmp_path):
    path = tmp_path / "x.mat"
    for data, match in (
        (b"", "lacks the header"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "save it with -v7"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=match):
            read_mat(path)
