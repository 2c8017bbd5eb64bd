"""Places of photos, from ground truth and from lists."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from loc.errors import DataError
from loc.layouts.placed import DISTRACTORS, UNLABELLED, places_of_list, places_of_set
from loc.layouts.revisited import open_sets


@pytest.fixture
def root(tmp_path):
    """Two places and a photo of none; a query of the mill links two photos, another one a third."""
    names = ["mill_01", "mill_02", "mill_03", "big-church 7", "street", "mill_q", "mill_p", "big-church 9"]
    for name in names:
        (tmp_path / "set/jpg").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / f"set/jpg/{name}.jpg")
    gnd = [
        {"easy": [0], "hard": [1], "junk": []},
        {"easy": [1], "hard": [], "junk": [2]},
        {"easy": [3], "hard": [], "junk": []},
    ]
    truth = {"imlist": names[:5], "qimlist": names[5:], "gnd": gnd}
    (tmp_path / "set/gnd_set.json").write_text(json.dumps(truth))
    return tmp_path / "set"


def test_what_a_query_links_is_one_place(root):
    photos = places_of_set(open_sets(root)[0])
    assert photos.places == (*["mill"] * 3, "big-church", UNLABELLED, "mill", "mill", "big-church")
    assert photos.asked_only == (*[False] * 5, *[True] * 3)
    assert photos.ignored == {(6, 2)}
    assert [path.stem for path in photos.photos][3:6] == ["big-church 7", "street", "mill_q"]


def test_names_without_anything_in_common_still_name_a_place(root):
    truth = json.loads((root / "gnd_set.json").read_text())
    truth["gnd"][2]["easy"] = [4]
    (root / "gnd_set.json").write_text(json.dumps(truth))
    photos = places_of_set(open_sets(root)[0])
    assert photos.places[4] == photos.places[7] == "big-church 9"
    assert photos.places[3] == UNLABELLED


def test_distractors_come_last_and_show_nothing(root, tmp_path):
    photos = places_of_set(open_sets(root)[0])
    (tmp_path / "others").mkdir()
    with pytest.raises(DataError, match="has no photos"):
        photos.with_distractors(tmp_path / "others")
    Image.new("RGB", (8, 6)).save(tmp_path / "others/x.png")
    more = photos.with_distractors(tmp_path / "others")
    assert more.places == (*photos.places, DISTRACTORS)
    assert more.ignored == photos.ignored
    some = more.select([2, 6, 8])
    assert some.places == ("mill", "mill", DISTRACTORS)
    assert some.asked_only == (False, True, False)
    assert some.ignored == {(1, 0)}


def test_places_that_see_each_other_are_one(root):
    photos = places_of_set(open_sets(root)[0])
    one = photos.united(["mill", "big-church"])
    assert one.places == (*["mill+big-church"] * 4, UNLABELLED, *["mill+big-church"] * 3)
    assert one.ignored == photos.ignored
    for name in ("nowhere", UNLABELLED):
        with pytest.raises(DataError, match=r"has no place .*") as error:
            photos.united(["mill", name])
        assert error.value.next_step == "it has big-church, mill"


def test_a_list_names_places(root, tmp_path):
    path = tmp_path / "places.txt"
    path.write_text("# a comment\njpg/mill_01.jpg mill\njpg/big-church 7.jpg\tthe church\njpg/street.jpg -\n")
    photos = places_of_list(root, path)
    assert photos.places == ("mill", "the church", UNLABELLED)
    assert photos.photos[1] == root / "jpg/big-church 7.jpg"
    assert not any(photos.asked_only)
    for text, says in (
        ("jpg/mill_01.jpg\n", "line 1: expected 'name place'"),
        ("jpg/mill_01.jpg a\njpg/mill_01.jpg b\n", "line 2: .* has a place already"),
        ("jpg/none.jpg a\n", "has no photo 'jpg/none.jpg'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=says):
            places_of_list(root, path)
