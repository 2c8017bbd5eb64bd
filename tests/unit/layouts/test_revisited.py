"""Ground truth of retrieval sets: the same from JSON, pickle and .mat, and nothing else gets in."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from loc.errors import DataError
from loc.layouts.plain_pickle import read_plain_pickle
from loc.layouts.revisited import find_truth, open_sets, photo_finder, read_truth

GOOD = {
    "imlist": ["a", "b", "c"],
    "qimlist": ["q"],
    "gnd": [{"bbx": [1.0, 2.0, 30.5, 40.0], "easy": [2, 0], "hard": [], "junk": [1]}],
}


def plain(truth):
    labels = [{name: ids.tolist() for name, ids in each.items()} for each in truth.labels]
    return truth.images, truth.queries, truth.boxes, labels


def test_released_pickle_and_json_agree(shared):
    folder = shared / "data/revisited_gnd"
    truth = read_truth(folder / "gnd_roxford5k.pkl")
    assert plain(truth) == plain(read_truth(folder / "gnd_roxford5k.json"))
    assert (len(truth.images), len(truth.queries)) == (4993, 70)
    assert truth.revisited
    means = [np.mean([len(each[label]) for each in truth.labels]) for label in ("easy", "hard", "junk")]
    assert means == pytest.approx([43.27, 35.67, 19.37], abs=0.005)
    assert sum(not len(each["easy"]) for each in truth.labels) == 2
    assert plain(read_truth(shared / "data/retrieval_mini/gnd_mini.pkl")) == plain(
        read_truth(shared / "data/retrieval_mini/gnd_mini.json")
    )


def test_mat_counts_from_one(shared):
    truth = read_truth(shared / "fixtures/delf/metrics_files/gnd_tiny.mat")
    case = json.loads((shared / "fixtures/delf/metrics.json").read_text())["revisited"]
    assert len(truth.images) == case["num_index"]
    for box, labels, entry in zip(truth.boxes, truth.labels, case["gnd"], strict=True):
        assert box == pytest.approx(entry["bbx"])
        assert {name: ids.tolist() for name, ids in labels.items()} == {
            name: entry[name] for name in ("easy", "hard", "junk")
        }


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_pickles_of_numpy(tmp_path, protocol):
    entry = {
        "ok": np.array([2, 0], np.int64),
        "junk": np.array([], np.int64),
        "bbx": np.array([1.5, 2, 3, 4]),
    }
    data = {"imlist": np.array(["a", "b", "c"]), "qimlist": ["q"], "gnd": np.array([entry], object)}
    (tmp_path / "gnd_x.pkl").write_bytes(pickle.dumps(data, protocol))
    truth = read_truth(tmp_path / "gnd_x.pkl")
    assert plain(truth) == (
        ("a", "b", "c"),
        ("q",),
        ((1.5, 2.0, 3.0, 4.0),),
        [{"junk": [], "ok": [0, 2]}],
    )
    assert not truth.revisited


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_plain_data_survives_unchanged(tmp_path, protocol):
    data = {"a": [1, 2.5, "ü", b"\xff\x00", None, True], "b": ({1, 2}, frozenset({3})), "c": np.float32(1.5)}
    arrays = [np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.eye(3)[:, :2]), np.zeros((0, 4))]
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps([data, arrays], protocol))
    got, got_arrays = read_plain_pickle(path)
    assert got == data
    for ours, theirs in zip(got_arrays, arrays, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


class Attack:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Attack(os.system, "touch hacked"), "posix.system|nt.system"),
        (Attack(eval, "1 + 1"), "eval"),
        (Attack(getattr, [], "append"), "getattr"),
        (Path("x"), "pathlib"),
        (np.ma.masked_array([1]), "numpy.ma"),
        (np.dtype("f4"), "a bare dtype"),
        (np.zeros(2, [("a", "i4")]), "not plain data"),
        ({(1, 2): 3}, "a tuple as a key is not plain data"),
        (np.zeros, "numpy"),
        (set, "type is not plain data here"),
    ],
)
def test_pickles_that_run_something_are_refused(tmp_path, value, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "gnd_bad.pkl"
    path.write_bytes(pickle.dumps({"gnd": [value]}, 2))
    with pytest.raises(DataError, match=named):
        read_truth(path)
    assert [each.name for each in tmp_path.iterdir()] == ["gnd_bad.pkl"]


def test_array_of_addresses_is_refused(tmp_path):
    """Bytes that claim to be an array of objects: NumPy would take them for pointers."""

    class Forged:
        def __reduce__(self):
            state = (1, (1,), np.dtype("O"), False, b"\x41" * 8)
            return np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), state

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Forged(), 2))
    with pytest.raises(DataError, match="not plain data"):
        read_plain_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps(GOOD)[:-20],
        b"\x80\x02]r\xff\xff\xff\x7f.",  # numbers its one list 2147483647: 16 GiB for the memo
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a text of 2 GiB
        b"(lp0\n" * 20000 + b".",
        b"\x80\x02}" + b")" + b"\x85" * 1000000 + b"K\x01s.",  # a key whose hash takes all of the stack
        b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s.",  # a key whose hash takes 2^60 steps
        b"\x80\x04\x8f(" + b")" + b"2\x86" * 60 + b"\x90.",
        b"\x80\x05\x96\x00\x00\x00\x00\x04\x00\x00\x00abc.",  # 16 GiB of bytes
        b"\x80\x04cnumpy.core.numeric\n_frombuffer\n\x8a\x05\x00\x00\x00\x00\x10NNN(t\x86R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb.",  # state of a function
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.",
        b"\x80\x02]q\x00h\x00a.",  # a list in itself
    ],
)
def test_damaged_pickles(tmp_path, data):
    path = tmp_path / "gnd_bad.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"no pickle of plain data|no usable ground truth"):
        read_truth(path)


def test_a_python_without_its_own_unpickler(tmp_path, monkeypatch):
    """It is private: without it pickles are refused, and the rest is read."""
    for suffix, data in ((".pkl", pickle.dumps(GOOD)), (".json", json.dumps(GOOD).encode())):
        (tmp_path / f"gnd_x{suffix}").write_bytes(data)
    monkeypatch.delattr(pickle, "_Unpickler")
    with pytest.raises(DataError, match=r"has no unpickler .*\n.*use a .json or .mat file"):
        read_truth(tmp_path / "gnd_x.pkl")
    assert read_truth(tmp_path / "gnd_x.json").queries == ("q",)


def test_one_text_asked_for_as_many_arrays(tmp_path, monkeypatch):
    """Each small request in the file would make a large array."""
    monkeypatch.setattr("loc.layouts.plain_pickle._MAX_BYTES", 2**20)
    head = b"\x80\x02cnumpy.core.multiarray\nscalar\nq\x00"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85Rq\x01"
    text = b"X\x00\x80\x00\x00" + b"a" * 2**15 + b"q\x02"
    path = tmp_path / "x.pkl"
    path.write_bytes(head + dtype + text + b"h\x00h\x01h\x02\x86R" * 20 + b".")
    assert read_plain_pickle(path) == ord("a")
    path.write_bytes(head + dtype + text + b"h\x00h\x01h\x02\x86R" * 40 + b".")
    with pytest.raises(DataError, match="arrays take more than 1 MiB"):
        read_plain_pickle(path)


def test_arrays_of_lists_of_one_length(tmp_path):
    array = np.empty(2, object)
    array[:] = [[1, 2], np.array([3, 4])], np.array([5, 6])
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(array, 2))
    found = read_plain_pickle(tmp_path / "x.pkl")
    assert found.shape == (2,)
    assert [found[0][0], found[0][1].tolist(), found[1].tolist()] == [[1, 2], [3, 4], [5, 6]]


def test_lists_that_double_forty_times_stay_small(tmp_path):
    nested = [0]
    for _ in range(40):
        nested = [nested, nested]
    path = tmp_path / "gnd_bad.pkl"
    for data in (nested, {**GOOD, "gnd": [{"easy": nested}]}):
        path.write_bytes(pickle.dumps(data))
        with pytest.raises(DataError, match="no usable ground truth"):
            read_truth(path)


def changed(**entry):
    return {**GOOD, "gnd": [{**GOOD["gnd"][0], **entry}]}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([], "lacks imlist"),
        ({**GOOD, "imlist": []}, "it has 0 database images and 1 queries"),
        ({**GOOD, "qimlist": [], "gnd": []}, "it has 3 database images and 0 queries"),
        ({**GOOD, "gnd": []}, "1 queries, and gnd of 0"),
        ({**GOOD, "gnd": [{"bbx": None}]}, "query q has no labels"),
        ({**GOOD, "imlist": ["a", 1, "c"]}, "no name"),
        ({**GOOD, "imlist": ["a", "c", "c"]}, r"imlist names c twice \(1 such names\)"),
        (changed(easy=[3]), "easy of query q has ids outside of 0 to 2"),
        (changed(junk=[-1]), "outside"),
        (changed(hard=[0.5]), "outside"),
        (changed(hard=["a"]), "outside"),
        (changed(easy=[[0], [1]]), "outside"),
        (changed(bbx=[1, 2, 3]), "no box"),
        (changed(bbx=[5, 2, 3, 4]), "no box"),
        (changed(bbx=[1, 2, float("nan"), 4]), "no box"),
    ],
)
def test_wrong_content(tmp_path, data, match):
    for path, write in ((tmp_path / "gnd.json", json.dumps), (tmp_path / "gnd.pkl", pickle.dumps)):
        content = write(data)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=match):
            read_truth(path)


def test_missing_and_unreadable_files(tmp_path):
    for suffix in ("json", "pkl", "mat"):
        with pytest.raises(DataError, match="cannot read"):
            read_truth(tmp_path / f"gnd.{suffix}")
        (tmp_path / f"gnd.{suffix}").write_bytes(b"\x00\x01 nonsense" * 20)
        with pytest.raises(DataError, match=r"no usable (ground truth|MAT-file)|no pickle of plain data"):
            read_truth(tmp_path / f"gnd.{suffix}")
    with pytest.raises(DataError, match="is no ground truth"):
        read_truth(tmp_path / "gnd.txt")


def test_json_of_windows_editors(tmp_path):
    (tmp_path / "gnd.json").write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_truth(tmp_path / "gnd.json").images == ("a", "b", "c")


def test_no_box_is_the_whole_photo(tmp_path):
    for box in (None, []):
        (tmp_path / "gnd.json").write_text(json.dumps(changed(bbx=box)))
        assert read_truth(tmp_path / "gnd.json").boxes == (None,)


def test_finding_the_ground_truth(tmp_path):
    assert find_truth(tmp_path) is None
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=re.escape("no ground truth (gnd_*.json")):
            open_sets(folder)
    (tmp_path / "gnd_x.pkl").write_bytes(pickle.dumps(GOOD))
    assert find_truth(tmp_path).name == "gnd_x.pkl"
    (tmp_path / "gnd_x.json").write_text(json.dumps(GOOD))
    assert find_truth(tmp_path).name == "gnd_x.json"
    (tmp_path / "gnd_y.json").write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match=r"several ground truths: gnd_x\.json, gnd_y\.json"):
        find_truth(tmp_path)


def test_text_files_of_the_classic_sets(tmp_path):
    for name in ("all_souls_000001", "all_souls_000002", "all_souls_000003", "radcliffe_000004"):
        (tmp_path / "jpg" / name).with_suffix(".jpg").parent.mkdir(exist_ok=True)
        (tmp_path / "jpg" / f"{name}.jpg").touch()
    lists = tmp_path / "gt_files"
    lists.mkdir()
    (lists / "all_souls_1_query.txt").write_text("oxc1_all_souls_000002 1.5 2 30 40\n")
    (lists / "all_souls_1_good.txt").write_text("all_souls_000003\n")
    (lists / "all_souls_1_ok.txt").write_text("all_souls_000002\n")
    (lists / "all_souls_1_junk.txt").write_text("all_souls_000001\n")
    truth = read_truth(find_truth(tmp_path))
    assert truth.queries == ("all_souls_000002",)
    assert truth.boxes == ((1.5, 2.0, 30.0, 40.0),)
    assert plain(truth)[3] == [{"ok": [1, 2], "junk": [0]}]
    assert not truth.revisited
    (lists / "all_souls_1_good.txt").write_text("all_souls_9\n")
    with pytest.raises(DataError, match="no such photo"):
        read_truth(lists)
    (lists / "all_souls_1_ok.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*all_souls_1_ok\.txt"):
        read_truth(lists)


def test_sets_and_distractors(tmp_path):
    for name in ("second", "first"):
        (tmp_path / name / "jpg").mkdir(parents=True)
        (tmp_path / name / "gnd_x.json").write_text(json.dumps(GOOD))
        for photo in ("a", "b", "c", "q"):
            (tmp_path / name / f"jpg/{photo}.jpg").touch()
    (tmp_path / "distractors").mkdir()
    (tmp_path / "distractors/z.jpg").touch()
    found = open_sets(tmp_path, tmp_path / "distractors")
    assert [each.name for each in found] == ["first", "second"]
    assert [path.name for path in found[0].database] == ["a.jpg", "b.jpg", "c.jpg", "z.jpg"]
    assert [path.name for path in open_sets(tmp_path / "second")[0].queries] == ["q.jpg"]
    (tmp_path / "first/jpg/b.jpg").unlink()
    with pytest.raises(DataError, match="has no photo b"):
        open_sets(tmp_path)


def test_photos_are_found_in_folders_by_landmark(tmp_path):
    (tmp_path / "jpg/defense").mkdir(parents=True)
    (tmp_path / "jpg/defense/paris_defense_000605.jpg").touch()
    (tmp_path / "jpg/b.JPG").touch()
    find = photo_finder(tmp_path)
    assert find("paris_defense_000605").parent.name == "defense"
    assert find("defense/paris_defense_000605.jpg").name == "paris_defense_000605.jpg"
    assert find("b").name == "b.JPG"
    for name in ("c", "c" * 400, "c\0", "c\ud800", "..", ""):
        with pytest.raises(DataError, match="has no photo"):
            find(name)
