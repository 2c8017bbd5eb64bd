"""Lists: names with spaces, round trips, and the text of every refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loc.errors import DataError
from loc.layouts.lists import (
    read_entries,
    read_pairs,
    read_poses,
    write_names,
    write_pairs,
    write_poses,
)
from loc.layouts.names import check_name, group_of, name_problem
from loc.types import Pose

IDENTITY = "1 0 0 0 0 0 0"
names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12)
usable = names.filter(lambda name: name_problem(name) is None)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    return path


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/abs/a.jpg", "absolute"),
        ("C:/a.jpg", "absolute"),
        ("../a.jpg", "leaves the image root"),
        ("a/../../b.jpg", "leaves the image root"),
        ("./a.jpg", "empty or '.' component"),
        ("a//b.jpg", "empty or '.' component"),
        ("a/", "empty or '.' component"),
        (" a.jpg", "begins or ends with a space"),
        ("#a.jpg", "begins with '#'"),
        ("a\nb.jpg", "control character"),
        ("a\udcff.jpg", "not valid UTF-8"),
        ("", "it is empty"),
    ],
)
def test_refused_names(name, problem):
    with pytest.raises(DataError, match=rf"\(queries\.txt line 3\) cannot be used: .*{problem}") as caught:
        check_name(name, where="queries.txt line 3")
    assert "relative to the image root" in caught.value.next_step


@pytest.mark.parametrize("name", ["a.jpg", "a b/c-d/é ü.JPG", "a..b/..c.jpg", "日本/1.png", "a\\b.jpg"])
def test_allowed_names(name):
    assert check_name(name, where="x") == name


def test_groups():
    assert group_of("query/day/nexus4/a.jpg") == "day"
    assert group_of("Night/a.jpg") == "night"
    assert group_of("daylight/nightly.jpg") == "all"


# --- image lists -----------------------------------------------------------------------------


def test_names_with_spaces_and_intrinsics(tmp_path):
    path = written(
        tmp_path,
        "# a comment\r\n\r\nmy photos/a  b.jpg OPENCV 640 480 500 501 320 240 .1 .2 0 0\r\n"
        "c d.jpg\nc d.jpg\n",
    )
    first, second = read_entries(path)
    assert (first.name, second.name) == ("my photos/a  b.jpg", "c d.jpg")
    assert first.camera.model == "OPENCV"
    assert first.camera.image_wh == (640, 480)
    assert first.camera.params.tolist() == [500, 501, 320, 240, 0.1, 0.2, 0, 0]
    assert first.camera.has_prior_focal_length
    assert second.camera is None


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert read_entries(written(tmp_path, "\ufeffa.jpg"))[0].name == "a.jpg"


def test_lists_by_glob(tmp_path):
    (tmp_path / "day_time.txt").write_text("d.jpg")
    (tmp_path / "night_time.txt").write_text("n.jpg\nd.jpg")
    assert [entry.name for entry in read_entries(tmp_path / "*_time.txt")] == ["d.jpg", "n.jpg"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg SIMPLE_RADIAL 640 480 500 320", "SIMPLE_RADIAL takes width, height and 4 .*, got 4"),
        ("a.jpg PINHOLE 640 480 500 500 320 240 0", r"PINHOLE takes .* \(6 numbers\), got 7"),
        ("a.jpg PINHOLE 640 480 500 500 320 x", "got words that are no numbers"),
        ("a.jpg PINHOLE 640 480 nan 500 320 240", "must be finite with positive focal"),
        ("a.jpg PINHOLE 640 480 -500 500 320 240", "must be finite with positive focal"),
        ("a.jpg PINHOLE 640.5 480 500 500 320 240", "must be whole numbers, got 640.5"),
        ("a.jpg PINHOLE -640 480 500 500 320 240", "size must be positive"),
        ("a.jpg PINHOLE inf 480 500 500 320 240", "must be whole numbers"),
        ("a.jpg SIMPLE_RADAL 640 480 500 320 240 0", "unknown camera model 'SIMPLE_RADAL'"),
        ("a.jpg 640 480 500 320 240 0", "6 numbers but no camera model"),
        ("../a.jpg PINHOLE 640 480 500 500 320 240", r"leaves the image root by '\.\.'"),
    ],
)
def test_refused_intrinsics_name_file_and_line(tmp_path, line, message):
    path = written(tmp_path, f"ok.jpg\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_entries(path)
    assert "list.txt line 2" in caught.value.message


def test_misspelt_model_gets_a_suggestion(tmp_path):
    with pytest.raises(DataError) as caught:
        read_entries(written(tmp_path, "a.jpg simple_radial 640 480 500 320 240 0"))
    assert caught.value.next_step == "did you mean SIMPLE_RADIAL?"


def test_two_intrinsics_of_one_image(tmp_path):
    path = written(tmp_path, "a.jpg PINHOLE 4 4 5 5 2 2\na.jpg PINHOLE 4 4 6 5 2 2")
    with pytest.raises(DataError, match=r"two different intrinsics: .*line 1 and .*line 2"):
        read_entries(path)


def test_lists_that_are_no_lists(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt does not exist"):
        read_entries(tmp_path / "gone.txt")
    with pytest.raises(DataError, match="is a folder, not a list"):
        read_entries(tmp_path)
    (tmp_path / "photo.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="not a text file in UTF-8"):
        read_entries(tmp_path / "photo.txt")
    assert read_entries(written(tmp_path, "# nothing\n\n")) == []


# --- poses -----------------------------------------------------------------------------------


def test_pose_line_is_read_from_the_right_and_in_wxyz(tmp_path):
    pose = read_poses(written(tmp_path, "a b 1 2.jpg 0 1 0 0 4 5 6"))["a b 1 2.jpg"]
    assert pose.quat_xyzw.tolist() == [1, 0, 0, 0]
    assert pose.translation.tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a.jpg {IDENTITY}\nb.jpg 1 0 0 0 nan 0 0", "line 2: not a pose"),
        ("a.jpg 0 0 0 0 1 2 3", "line 1: not a pose"),
        ("a.jpg 1 0 0 0 1 2", "line 1: expected 'name qw qx qy qz tx ty tz', got 'a.jpg 1 0 0 0 1 2'"),
        ("a.jpg 1 0 0 0 1 2 three", "line 1: expected"),
        (f"a.jpg {IDENTITY}\n\n# x\na.jpg {IDENTITY}", "line 4: 'a.jpg' has a pose already"),
        (f"/a.jpg {IDENTITY}", "line 1.* absolute"),
    ],
)
def test_refused_poses(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_poses(written(tmp_path, text))


finite = st.floats(-1e6, 1e6)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(usable, st.tuples(st.tuples(*[finite] * 4), st.tuples(*[finite] * 3)), max_size=4))
def test_poses_survive_a_round_trip(tmp_path_factory, table):
    poses = {n: Pose(np.array(q), np.array(t)) for n, (q, t) in table.items() if np.linalg.norm(q) > 1e-3}
    path = tmp_path_factory.mktemp("poses") / "poses.txt"
    write_poses(path, poses)
    back = read_poses(path)
    assert list(back) == sorted(poses)
    for name, pose in poses.items():
        np.testing.assert_allclose(back[name].quat_xyzw, pose.quat_xyzw, atol=1e-15)
        assert (back[name].translation == pose.translation).all()


# --- pairs -----------------------------------------------------------------------------------


def test_pairs_of_names_with_spaces(tmp_path):
    known = ["a b.jpg", "c.jpg", "d e/f g.jpg"]
    path = written(tmp_path, "a b.jpg c.jpg\nd e/f g.jpg a b.jpg\n\n# x\nc.jpg d e/f g.jpg")
    pairs = [("a b.jpg", "c.jpg"), ("d e/f g.jpg", "a b.jpg"), ("c.jpg", "d e/f g.jpg")]
    assert read_pairs(path, known) == pairs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg", "line 2: expected two image names, got 'a.jpg'"),
        ("a.jpg gone.jpg", "line 2: 'gone.jpg': no image of this scene has that name"),
        ("a.jpg b.jpg extra", "line 2: expected two image names"),
        ("x y z", "line 2: 'x y z' can be read as more than one pair"),
    ],
)
def test_refused_pairs(tmp_path, line, message):
    known = ["a.jpg", "b.jpg", "x", "y z", "x y", "z"]
    with pytest.raises(DataError, match=message):
        read_pairs(written(tmp_path, f"a.jpg b.jpg\n{line}"), known)


def test_pairs_without_known_names(tmp_path):
    assert read_pairs(written(tmp_path, "a b\nc d")) == [("a", "b"), ("c", "d")]
    with pytest.raises(DataError, match="put a tab between the two") as caught:
        read_pairs(written(tmp_path, "a b c"))
    assert "line 1" in caught.value.message
    assert read_pairs(written(tmp_path, "a b\tc d")) == [("a b", "c d")]
    with pytest.raises(DataError, match="absolute"):
        read_pairs(written(tmp_path, "/a b"))


@settings(max_examples=60, deadline=None)
@given(st.lists(usable, min_size=2, max_size=6, unique=True), st.data())
def test_pairs_survive_a_round_trip(tmp_path_factory, known, data):
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(known), st.sampled_from(known)), max_size=5))
    path = tmp_path_factory.mktemp("pairs") / "pairs.txt"
    write_pairs(path, pairs)
    assert read_pairs(path) == pairs
    assert read_pairs(path, known) == pairs


def test_written_lists_have_no_blank_line(tmp_path):
    write_pairs(tmp_path / "new" / "pairs.txt", [("q", "b"), ("q", "a")])
    assert (tmp_path / "new" / "pairs.txt").read_bytes() == b"q b\nq a"
    write_names(tmp_path / "empty.txt", [])
    assert read_entries(tmp_path / "empty.txt") == []
    assert not list(tmp_path.glob("**/*.partial"))
