"""Pairs: every generator, their union, and predictions that equal what is generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from loc.config import PairsConfig
from loc.errors import ConfigError, DataError
from loc.layouts.lists import read_pairs
from loc.layouts.reference import points_of_images
from loc.stages.covisibility import from_covisibility
from loc.stages.pair_generators import from_list, from_retrieval
from loc.stages.pairs import generate_pairs, make_pairs, needs_globals, predict_pairs, read_pair_list
from loc.types import Camera, ImageRecord, Scene

CAMERA = Camera("PINHOLE", 8, 6, np.array([5.0, 5, 4, 3]))


def scene_of(db, queries=(), **more) -> Scene:
    images = [ImageRecord(n, Path(n), "db", "c") for n in db]
    images += [ImageRecord(n, Path(n), "query", "c") for n in queries]
    return Scene(tuple(images), {"c": CAMERA}, **more)


def configs(*rows):
    return tuple(TypeAdapter(PairsConfig).validate_python(row) for row in rows)


def names_of(scene):
    return {image.name for image in scene.images}


def table(seed=0, dimension=4):
    """Descriptors that depend on the name alone."""

    def rows(names):
        out = [
            np.random.default_rng([seed, *name.encode()]).standard_normal(dimension).astype(np.float32)
            for name in names
        ]
        return (
            np.stack([row / np.linalg.norm(row) for row in out])
            if out
            else np.zeros((0, dimension), np.float32)
        )

    return rows


# --- retrieval -------------------------------------------------------------------------------


def test_retrieval_is_in_rank_order_and_by_query():
    db = np.array([[1, 0], [0.8, 0.6], [0, 1], [0, 0]], np.float32)
    queries = np.array([[0, 1], [1, 0], [0, 0]], np.float32)
    pairs = from_retrieval(["z", "a", "none"], ["d0", "d1", "d2", "zero"], queries, db, 2)
    assert pairs == [("a", "d0"), ("a", "d1"), ("z", "d2"), ("z", "d1")]
    few = from_retrieval(["a"], ["d0", "d1", "d2"], queries[1:2], db[:3], 9, min_similarity=0.5)
    assert few == [("a", "d0"), ("a", "d1")]
    assert from_retrieval([], [], db[:0], db[:0], 3) == []


def test_map_retrieval_never_pairs_an_image_with_itself():
    scene = scene_of(["a", "b", "c", "d"])
    pairs = generate_pairs("map", configs({"use": "retrieval", "k": 2}), scene, names_of(scene), table())
    assert all(first < second for first, second in pairs)
    assert pairs == sorted(set(pairs))
    assert {name for pair in pairs for name in pair} == {"a", "b", "c", "d"}
    everything = generate_pairs(
        "map", configs({"use": "retrieval", "k": 99}), scene, names_of(scene), table()
    )
    assert len(everything) == 6


def test_queries_retrieve_only_database_images():
    scene = scene_of(["a", "b", "c"], ["q1", "q2"])
    for config in ({"use": "retrieval", "k": 50}, {"use": "exhaustive", "for": "both"}):
        pairs = generate_pairs("query", configs(config), scene, names_of(scene), table())
        assert sorted(pairs) == [(q, d) for q in ("q1", "q2") for d in "abc"]
        for role in ("map", "query"):
            assert not any(
                second.startswith("q")
                for _, second in generate_pairs(role, configs(config), scene, names_of(scene), table())
            )


def test_retrieval_without_global_features():
    scene = scene_of(["a", "b"])
    with pytest.raises(ConfigError, match="need global features, and this run has none") as caught:
        generate_pairs("map", configs({"use": "retrieval"}), scene, names_of(scene), None)
    assert "globals: vlad" in caught.value.next_step


# --- union, roles, usable --------------------------------------------------------------------


def test_union_keeps_the_first_rank_and_repeats_nothing(tmp_path):
    scene = scene_of(["a", "b", "c"], ["q"])
    (tmp_path / "pairs.txt").write_text("q c\nq a")
    rows = (
        {"use": "list", "for": "query", "path": tmp_path / "pairs.txt"},
        {"use": "exhaustive", "for": "both"},
    )
    assert generate_pairs("query", configs(*rows), scene, names_of(scene), None) == [
        ("q", "c"),
        ("q", "a"),
        ("q", "b"),
    ]


def test_only_usable_images_are_paired():
    scene = scene_of(["a", "b", "c"], ["q", "r"])
    both = configs({"use": "exhaustive", "for": "both"})
    assert generate_pairs("map", both, scene, {"a", "c", "q"}, None) == [("a", "c")]
    assert generate_pairs("query", both, scene, {"a", "c", "q"}, None) == [("q", "a"), ("q", "c")]
    seen = []
    generate_pairs(
        "query",
        configs({"use": "retrieval"}),
        scene,
        {"a", "c", "q"},
        lambda n: (seen.append(n), table()(n))[1],
    )
    assert seen == [["a", "c"], ["q"]]


def test_roles():
    scene = scene_of(["a", "b"], ["q"])
    only_map = configs({"use": "exhaustive", "for": "map"})
    assert generate_pairs("query", only_map, scene, names_of(scene), None) == []
    assert predict_pairs("query", only_map, scene, names_of(scene)).count == 0


def test_nothing_flows():
    for scene in (scene_of([]), scene_of(["a"]), scene_of([], ["q"])):
        for use in ("exhaustive", "retrieval", "auto"):
            for role in ("map", "query"):
                config = configs({"use": use, "for": "both"})
                assert generate_pairs(role, config, scene, names_of(scene), table()) == []
                assert predict_pairs(role, config, scene, names_of(scene)).count == 0


def test_auto_is_exhaustive_below_and_retrieval_from_there_on():
    auto = configs({"use": "auto", "exhaustive_below": 4, "k": 1})
    few, many = scene_of("abc", "q"), scene_of("abcd", "q")
    assert not needs_globals(auto, few)
    assert len(generate_pairs("map", auto, few, names_of(few), None)) == 3
    assert needs_globals(auto, many)
    assert len(generate_pairs("query", auto, many, names_of(many), table())) == 1
    # what decides is the scene, not which photos could be read: a plan must know it beforehand
    assert len(generate_pairs("query", auto, many, {"a", "b", "q"}, table())) == 1


# --- list ------------------------------------------------------------------------------------


def test_list_for_both_roles(tmp_path):
    scene = scene_of(["a b", "c", "d"], ["q 1"], skipped={"bad": "empty"})
    path = tmp_path / "pairs.txt"
    path.write_text("d c\nq 1 d\na b q 1\nc c\nbad c\n")
    assert from_list(path, scene, "map", both=True) == [("c", "d")]
    assert from_list(path, scene, "query", both=True) == [("q 1", "d"), ("q 1", "a b")]


@pytest.mark.parametrize(
    ("line", "role", "both", "message"),
    [
        ("q r", "query", True, "two queries"),
        ("a b", "query", False, "two database images"),
        ("q a", "map", False, "a query and a database image"),
        ("a z", "map", False, "line 1: 'z': no image of this scene has that name"),
    ],
)
def test_refused_lists(tmp_path, line, role, both, message):
    (tmp_path / "pairs.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        from_list(tmp_path / "pairs.txt", scene_of(["a", "b"], ["q", "r"]), role, both=both)


# --- covisibility ----------------------------------------------------------------------------


def text_model(folder: Path, seen: dict[str, list[int]]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = ["# IMAGE_ID, …"]
    for number, (name, points) in enumerate(seen.items(), start=1):
        lines.append(f"{number} 1 0 0 0 0 0 0 1 {name}")
        lines.append(" ".join(f"1.5 2.5 {point}" for point in points))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_covisibility(tmp_path):
    seen = {"a b": [1, 2, 3, -1, 3], "c": [2, 3, -1], "d": [3], "e": [], "alone": [9], "q": [1, 2, 3]}
    model = text_model(tmp_path / "model", seen)
    assert from_covisibility(model, ["a b", "c", "d", "e", "alone", "gone"], 5) == [
        ("a b", "c"),
        ("a b", "d"),
        ("c", "d"),
    ]
    # one neighbour each: a b with c (2 points), d with a b (ties go to the smaller name)
    assert from_covisibility(model, ["a b", "c", "d"], 1) == [("a b", "c"), ("a b", "d")]
    assert from_covisibility(model, [], 5) == from_covisibility(model, ["e", "d"], 5) == []
    scene = scene_of(["a b", "c"], ["q"], model=model)
    found = generate_pairs("map", configs({"use": "covisibility"}), scene, names_of(scene), None)
    assert found == [("a b", "c")]


def test_covisibility_of_a_damaged_or_missing_model(tmp_path):
    with pytest.raises(DataError, match="there is no COLMAP model in"):
        points_of_images(tmp_path)
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 0 1 a\n1 2 x\n")
    with pytest.raises(DataError, match=r"images\.txt line 2 is damaged"):
        points_of_images(tmp_path)
    (tmp_path / "images.bin").write_bytes(b"\x05" + b"\0" * 30)
    with pytest.raises(DataError, match=r"images\.bin is damaged"):
        points_of_images(tmp_path)
    scene = scene_of(["a", "b"])
    with pytest.raises(ConfigError, match="need a reference model") as caught:
        generate_pairs("map", configs({"use": "covisibility"}), scene, names_of(scene), None)
    assert "scene.model" in caught.value.next_step


def test_points_of_images_agree_with_pycolmap(tmp_path, shared):
    from loc.colmap import pycolmap

    folder = shared / "data" / "kermit" / "gt_colmap"
    model = pycolmap.Reconstruction(folder)
    model.write_binary(tmp_path)
    text, binary = points_of_images(folder), points_of_images(tmp_path)
    assert sorted(text) == sorted(binary) == sorted(image.name for image in model.images.values())
    for image in model.images.values():
        expected = sorted(p.point3D_id for p in image.points2D if p.has_point3D())
        assert sorted(text[image.name].tolist()) == expected
        assert sorted(binary[image.name].tolist()) == expected


# --- predictions -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 7),
    q=st.integers(0, 3),
    rows=st.lists(
        st.sampled_from(
            [
                {"use": "exhaustive", "for": "map"},
                {"use": "exhaustive", "for": "query"},
                {"use": "retrieval", "k": 2},
                {"use": "retrieval", "k": 50},
                {"use": "retrieval", "k": 3, "min_similarity": 0.2, "for": "query"},
                {"use": "auto", "exhaustive_below": 4, "k": 3},
            ]
        ),
        max_size=3,
    ),
    lost=st.integers(0, 2),
)
def test_predictions_are_what_is_generated(n, q, rows, lost):
    scene = scene_of([f"d{i}" for i in range(n)], [f"q{i}" for i in range(q)])
    usable = set(sorted(names_of(scene))[lost:])
    for role in ("map", "query"):
        predicted = predict_pairs(role, configs(*rows), scene, usable)
        generated = len(generate_pairs(role, configs(*rows), scene, usable, table()))
        assert generated <= predicted.count
        if predicted.exact:
            assert generated == predicted.count


def test_predictions_that_are_exact(tmp_path):
    scene = scene_of("abcdef", "qr", model=text_model(tmp_path / "m", {"a": [1], "b": [1], "c": [2]}))
    (tmp_path / "pairs.txt").write_text("a b\nb a\nc d")
    listed = {"use": "list", "path": tmp_path / "pairs.txt"}
    expected = [
        ("map", [{"use": "exhaustive"}], 15),
        ("map", [listed], 2),
        ("map", [listed, {"use": "covisibility"}], 2),
        ("query", [{"use": "retrieval", "k": 4}], 8),
        ("query", [{"use": "exhaustive", "for": "both"}, {"use": "retrieval", "k": 4}], 12),
    ]
    for role, rows, count in expected:
        predicted = predict_pairs(role, configs(*rows), scene, names_of(scene))
        assert (predicted.count, predicted.exact) == (count, True)
    assert not predict_pairs("map", configs({"use": "retrieval", "k": 2}), scene, names_of(scene)).exact


# --- the product -----------------------------------------------------------------------------


class FakeFeatures:
    def __init__(self, names):
        self.keys = {name: (name, "0123") for name in names}


def made(tmp_path, role, scene, rows, among=None, names=None):
    from loc.runtime.runtime import Runtime

    return make_pairs(
        role,
        scene,
        FakeFeatures(names or names_of(scene)),
        None,
        config=configs(*rows),
        among=among,
        workdir=tmp_path,
        runtime=Runtime(device="cpu", workers=1),
    )


def test_product_keeps_rank_and_names_with_spaces(tmp_path):
    scene = scene_of(["a b", "c", "d"], ["q 1", "r"])
    (tmp_path / "pairs.txt").write_text("q 1\td\nq 1\ta b\nr\tc")
    rows = [{"use": "list", "for": "query", "path": tmp_path / "pairs.txt"}]
    pairs = made(tmp_path, "query", scene, rows)
    assert pairs.pairs == (("q 1", "a b"), ("q 1", "d"), ("r", "c"))
    assert pairs.ranked == {"q 1": ("d", "a b"), "r": ("c",)}
    assert pairs.folder.parent == tmp_path / "pairs"
    assert read_pair_list(pairs.folder) == pairs
    assert read_pairs(pairs.folder / "pairs.txt")[0] == ("q 1", "d")


def test_fingerprint_follows_content_not_paths(tmp_path):
    scene = scene_of(["a", "b", "c"], ["q"])
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("a b")
    other.write_text("a b")
    first = made(tmp_path, "map", scene, [{"use": "list", "path": one}])
    assert made(tmp_path, "map", scene, [{"use": "list", "path": other}]).folder == first.folder
    other.write_text("a c")
    second = made(tmp_path, "map", scene, [{"use": "list", "path": other}])
    assert second.folder != first.folder
    assert second.pairs == (("a", "c"),)
    exhaustive = [{"use": "exhaustive"}]
    whole = made(tmp_path, "map", scene, exhaustive)
    assert len(whole.pairs) == 3
    assert whole.ranked == {}
    assert made(tmp_path, "map", scene, exhaustive, names={"a", "b"}).pairs == (("a", "b"),)
    # a new query changes nothing of the map
    assert made(tmp_path, "map", scene_of(["a", "b", "c"], ["q", "r"]), exhaustive).folder == whole.folder


def test_among_restricts_what_queries_see(tmp_path):
    scene = scene_of(["a", "b", "c"], ["q"])
    rows = [{"use": "exhaustive", "for": "both"}]
    assert made(tmp_path, "query", scene, rows, among=["c", "a"]).pairs == (("q", "a"), ("q", "c"))
    assert made(tmp_path, "query", scene, rows, among=[]).pairs == ()
