"""Pairs by sequence, by known poses and by GPS: orders, limits, earth, unions, predictions, mistakes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from loc.config import PairsConfig
from loc.errors import ConfigError, DataError
from loc.stages.nearby import local_meters, nearest_gps, nearest_poses
from loc.stages.pairs import generate_pairs, needs_globals, pair_fields, predict_pairs
from loc.stages.sequences import natural_key, neighbours
from loc.types import Camera, GpsPosition, ImageRecord, Pose, Scene

CAMERA = Camera("PINHOLE", 8, 6, np.array([5.0, 5, 4, 3]))
AACHEN = GpsPosition(50.775, 6.084)


def record(name: str, role: str = "db", **more) -> ImageRecord:
    return ImageRecord(name, Path(name), role, "c", **more)


def scene_of(*images: ImageRecord) -> Scene:
    return Scene(images, {"c": CAMERA})


def configs(*rows):
    return tuple(TypeAdapter(PairsConfig).validate_python(row) for row in rows)


def pairs_of(scene: Scene, role: str, *rows, descriptors=None):
    return generate_pairs(role, configs(*rows), scene, {image.name for image in scene.images}, descriptors)


def looking(center, yaw_deg: float = 0.0) -> Pose:
    """A camera at ``center`` that looks along z, turned about y."""
    half = np.radians(yaw_deg) / 2
    turned = Pose(np.array([0.0, np.sin(half), 0.0, np.cos(half)]), np.zeros(3))
    return Pose(turned.quat_xyzw, -turned.rotation @ np.array(center, float))


def north_of(position: GpsPosition, meters: float) -> GpsPosition:
    return GpsPosition(position.latitude_deg + meters / 111_250.0, position.longitude_deg)


# --- sequential ------------------------------------------------------------------------------


def test_overlap_within_folders_in_natural_order():
    scene = scene_of(
        *[record(f"{side}/f{number}.jpg") for side in ("left", "right") for number in (1, 2, 10)]
    )
    assert pairs_of(scene, "map", {"use": "sequential", "overlap": 1}) == [
        ("left/f1.jpg", "left/f2.jpg"),
        ("left/f10.jpg", "left/f2.jpg"),
        ("right/f1.jpg", "right/f2.jpg"),
        ("right/f10.jpg", "right/f2.jpg"),
    ]
    assert len(pairs_of(scene, "map", {"use": "sequential", "overlap": 9})) == 6


def test_quadratic_overlap():
    names = [f"{i:02d}" for i in range(20)]
    steps = {int(b) - int(a) for a, b in neighbours(names, 4, quadratic=True)}
    assert steps == {1, 2, 3, 4, 8}
    assert neighbours([], 3) == neighbours(["a"], 3, quadratic=True) == []


def test_natural_order():
    names = ["IMG_2.jpg", "IMG_10.jpg", "IMG_010.jpg", "a1b2", "a1b10", "1", "02"]
    assert sorted(names, key=natural_key) == [
        "1",
        "02",
        "IMG_2.jpg",
        "IMG_010.jpg",
        "IMG_10.jpg",
        "a1b2",
        "a1b10",
    ]


def test_order_by_time(caplog):
    images = [record(name, timestamp_s=time) for name, time in (("a", 30.0), ("b", 10.0), ("c", 20.0))]
    rows = {"use": "sequential", "overlap": 1, "order": "timestamp"}
    assert pairs_of(scene_of(*images), "map", rows) == [("a", "c"), ("b", "c")]
    images.append(record("d"))
    with caplog.at_level(logging.WARNING, "loc"):
        assert pairs_of(scene_of(*images), "map", rows) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert "1 of 4 images of the folder . have no time" in caplog.text


def ring(names):
    """Descriptors on a circle: the last images of a round are near the first."""
    numbers = np.array([int(name[:2]) for name in names], float)
    angle = 2 * np.pi * numbers / 12
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_loop_closure_joins_the_ends():
    scene = scene_of(*[record(f"{i:02d}.jpg") for i in range(12)])
    rows = {"use": "sequential", "overlap": 2, "loop_closure": 6, "loop_closure_k": 2}
    plain = pairs_of(scene, "map", {"use": "sequential", "overlap": 2})
    closed = pairs_of(scene, "map", rows, descriptors=ring)
    # Every sixth image: 00 and 06. What they retrieve is not in their own overlap.
    assert sorted(set(closed) - set(plain)) == [
        ("00.jpg", "10.jpg"),
        ("00.jpg", "11.jpg"),
        ("03.jpg", "06.jpg"),
        ("06.jpg", "09.jpg"),
    ]
    assert needs_globals(configs(rows), scene)
    assert not needs_globals(configs({"use": "sequential"}), scene)
    with pytest.raises(ConfigError, match="need global features"):
        pairs_of(scene, "map", rows)


# --- poses -----------------------------------------------------------------------------------


def test_nearest_poses_that_look_the_same_way():
    database = {
        "near": looking([1, 0, 0]),
        "nearer, turned": looking([0.5, 0, 0], yaw_deg=90),
        "far": looking([40, 0, 0], yaw_deg=10),
        "too far": looking([60, 0, 0]),
    }
    asking = {"q": looking([0, 0, 0])}

    def found(k=9, max_distance=50.0, max_angle_deg=45.0):
        pairs = nearest_poses(asking, database, k, max_distance=max_distance, max_angle_deg=max_angle_deg)
        return [name for _, name in pairs]

    assert found() == ["near", "far"]
    assert found(k=1) == ["near"]
    assert found(max_angle_deg=100) == ["nearer, turned", "near", "far"]
    assert found(max_distance=None) == ["near", "far", "too far"]
    assert found(max_angle_deg=9.9) == ["near"]
    assert found(max_angle_deg=10.1) == ["near", "far"]


def test_ties_by_name_and_many_images():
    poses = {f"{i:03d}": looking([i % 10, i // 10, 0]) for i in range(200)}
    pairs = nearest_poses(poses, poses, 4, max_distance=None, max_angle_deg=180)
    assert len(pairs) == 800
    assert [name for asked, name in pairs if asked == "055"] == ["045", "054", "056", "065"]
    assert all(a != b for a, b in pairs)


def test_map_pairs_by_pose_and_queries_by_priors(caplog):
    images = [record(f"{i}", pose=looking([3 * i, 0, 0])) for i in range(4)] + [record("unknown")]
    queries = [record("q1", "query", pose_prior=looking([6.4, 0, 0])), record("q2", "query")]
    scene = scene_of(*images, *queries)
    rows = {"use": "poses", "k": 1, "for": "both"}
    assert pairs_of(scene, "map", rows) == [("0", "1"), ("1", "2"), ("2", "3")]
    with caplog.at_level(logging.WARNING, "loc"):
        assert pairs_of(scene, "query", {**rows, "k": 2}) == [("q1", "2"), ("q1", "3")]
    assert "1 of 2 images have no prior pose" in caplog.text
    with pytest.raises(ConfigError, match="rough poses of the queries") as caught:
        pairs_of(scene_of(*images, record("q", "query")), "query", rows)
    assert "scene.priors" in caught.value.next_step
    with pytest.raises(ConfigError, match="need database images with known poses"):
        pairs_of(scene_of(record("a"), record("b")), "map", rows)


def test_the_fingerprint_follows_the_poses():
    def inputs(*poses, prior=0.0):
        images = [record(str(i), pose=looking([x, 0, 0])) for i, x in enumerate(poses)]
        scene = scene_of(*images, record("q", "query", pose_prior=looking([prior, 0, 0])))
        features = type(
            "Features", (), {"keys": {image.name: (image.name, "content") for image in scene.images}}
        )
        return [
            pair_fields(role, scene, features, None, config=configs({"use": "poses", "for": "both"}))[
                "inputs"
            ]
            for role in ("map", "query")
        ]

    assert inputs(0, 1) == inputs(0, 1)
    assert inputs(0, 1)[0] != inputs(0, 2)[0]
    assert inputs(0, 1)[0] == inputs(0, 1, prior=5.0)[0]  # the map does not depend on a query
    assert inputs(0, 1)[1] != inputs(0, 1, prior=5.0)[1]


# --- GPS -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "east", "north"),
    [
        # A second of arc on WGS84: N cos φ east, M = a (1 - e²) / (1 - e² sin² φ)^1.5 north.
        ((0.0, 0.0), 30.9221, 30.7151),
        ((50.0, 6.0), 19.9155, 30.8970),
        ((-33.0, -179.9999), 25.9597, 30.8066),
    ],
)
def test_a_second_of_arc_in_metres(position, east, north):
    origin, step = GpsPosition(*position), 1 / 3600
    moved = [
        GpsPosition(origin.latitude_deg, origin.longitude_deg + step),
        GpsPosition(origin.latitude_deg + step, origin.longitude_deg),
        GpsPosition(origin.latitude_deg, origin.longitude_deg, 120.0),
    ]
    local = local_meters(moved, origin)
    np.testing.assert_allclose(local[0], [east, 0, 0], atol=2e-3)
    np.testing.assert_allclose(local[1], [0, north, 0], atol=2e-3)
    np.testing.assert_allclose(local[2], [0, 0, 0], atol=1e-6)
    up = local_meters(moved, GpsPosition(*position, 20.0), use_altitude=True)
    np.testing.assert_allclose(up[2], [0, 0, 100], atol=1e-6)


def test_distances_hold_far_from_the_origin_and_across_the_date_line():
    far = {"a": GpsPosition(-40.0, 179.9999), "b": GpsPosition(-40.0, -179.9999), "0": AACHEN}
    assert nearest_gps({"a": far["a"]}, far, 9, max_distance_m=18) == [("a", "b")]
    assert nearest_gps({"a": far["a"]}, far, 9, max_distance_m=16) == []


def test_map_and_query_pairs_within_reach(caplog):
    images = [record(f"{i}", gps=north_of(AACHEN, 30.0 * i)) for i in range(4)] + [record("none")]
    queries = [record("q", "query", gps=north_of(AACHEN, 50.0)), record("q none", "query")]
    scene = scene_of(*images, *queries)
    rows = {"use": "gps", "max_distance_m": 35}
    with caplog.at_level(logging.WARNING, "loc"):
        assert pairs_of(scene, "map", rows) == [("0", "1"), ("1", "2"), ("2", "3")]
        assert pairs_of(scene, "query", rows) == [("q", "2"), ("q", "1")]
    assert "1 of 5 images have no GPS position and are in no pair by it, e.g. none" in caplog.text
    assert "1 of 2 images have no GPS position and are in no pair by it, e.g. q none" in caplog.text
    united = pairs_of(scene, "query", rows, {"use": "exhaustive", "for": "query"})
    assert united[:2] == [("q", "2"), ("q", "1")]
    assert len(united) == 10
    with pytest.raises(DataError, match="none of the 2 database photos has a GPS position"):
        pairs_of(scene_of(record("a"), record("b"), *queries), "query", rows)


def test_altitude_only_where_asked_for():
    images = [
        record("low", gps=GpsPosition(50.0, 6.0, 0.0)),
        record("high", gps=GpsPosition(50.0, 6.0, 500.0)),
    ]
    rows = {"use": "gps", "for": "map"}
    assert pairs_of(scene_of(*images), "map", rows) == [("high", "low")]
    assert pairs_of(scene_of(*images), "map", {**rows, "use_altitude": True}) == []


# --- predictions and mistakes ----------------------------------------------------------------

ROWS = [
    {"use": "sequential", "overlap": 2},
    {"use": "sequential", "overlap": 2, "quadratic": True},
    {"use": "sequential", "overlap": 1, "loop_closure": 2, "loop_closure_k": 2},
    {"use": "poses", "k": 2, "for": "both"},
    {"use": "gps", "k": 3, "max_distance_m": 70},
    {"use": "retrieval", "k": 2},
]


@given(n=st.integers(0, 9), q=st.integers(0, 3), rows=st.lists(st.sampled_from(ROWS), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_predictions_bound_what_is_generated(n, q, rows):
    near = [north_of(AACHEN, 25.0 * i) for i in range(12)]
    images = [record(f"{i:02d}.jpg", pose=looking([i, 0, 0]), gps=near[i]) for i in range(n)]
    images += [record(f"{i:02d}q", "query", pose_prior=looking([i, 1, 0]), gps=near[i]) for i in range(q)]
    scene = scene_of(*images)
    usable = {image.name for image in images}
    for role in ("map", "query"):
        predicted = predict_pairs(role, configs(*rows), scene, usable)
        generated = generate_pairs(role, configs(*rows), scene, usable, ring)
        assert len(generated) <= predicted.count
        if predicted.exact:
            assert len(generated) == predicted.count
        needs = any(row["use"] == "retrieval" or "loop_closure" in row for row in rows)
        assert predicted.exact or needs


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"use": "sequental"}, "did you mean sequential"),
        ({"use": "sequential", "overlp": 3}, "did you mean overlap"),
        ({"use": "poses", "max_angle": 3}, "did you mean max_angle_deg"),
        ({"use": "gps", "max_distance": 3}, "did you mean max_distance_m"),
        ({"use": "gps", "max_distance_m": 0}, "greater than 0"),
        ({"use": "sequential", "for": "query"}, "input should be 'map'"),
        ({"overlap": 3}, "`use:` is missing"),
    ],
)
def test_mistakes_in_the_config(row, message):
    from loc.plugins.blocks import load_config

    with pytest.raises(ConfigError) as caught:
        load_config({"pairs": [row]})
    assert message in str(caught.value)
