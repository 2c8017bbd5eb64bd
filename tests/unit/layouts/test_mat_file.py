"""MAT-files: what SciPy writes is read as SciPy reads it, and no change of a file does harm."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from loc.errors import DataError
from loc.layouts.mat_file import read_mat


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


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.array([1j]), "x is no cell array"),
        (csc_array(np.eye(3)), "x is no cell array"),
    ],
)
def test_other_things_are_refused(tmp_path, value, match):
    savemat(tmp_path / "x.mat", {"x": value})
    with pytest.raises(DataError, match=match):
        read_mat(tmp_path / "x.mat")


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
