"""Copies of one façade at distant places: clusters of references by covisibility, and what they decide."""

from __future__ import annotations

import numpy as np
import pytest

from loc.colmap import camera_to_colmap
from loc.config import LocalizeConfig
from loc.sfm.clusters import covisibility_clusters
from loc.sfm.index import PointIndex
from loc.sfm.locate import MatchedQuery, locate
from loc.types import Camera, Matches

CAMERA = Camera("PINHOLE", 1000, 800, np.array([900.0, 900.0, 500.0, 400.0]))
APART = np.array([500.0, 0.0, 30.0])  # from one copy to the next, world units
N = 120  # points of the façade


def index_of(seen: dict[str, list[int]], points: int) -> PointIndex:
    """Images whose keypoints see the given rows of points (-1: none)."""
    names = tuple(sorted(seen))
    rows = [np.array(seen[name], np.int32) for name in names]
    return PointIndex(
        names=names,
        offsets=np.concatenate([[0], np.cumsum([len(each) for each in rows])]),
        rows=np.concatenate(rows) if rows else np.zeros(0, np.int32),
        xyz=np.zeros((points, 3)),
        point_ids=np.arange(points, dtype=np.int64),
        track_lengths=np.full(points, 2, np.int32),
    )


def test_components_in_rank_order() -> None:
    seen = {"a": [0, 1], "b": [1, 2], "c": [5, -1], "d": [2, 7], "e": [-1], "f": [5, 6], "g": [6, 9]}
    index = index_of(seen, 10)
    assert covisibility_clusters(index, ["d", "c", "a", "e", "b"]) == [("d", "a", "b"), ("c",), ("e",)]
    assert covisibility_clusters(index, ["c", "g", "f"]) == [("c", "g", "f")]  # joined by the last
    assert covisibility_clusters(index, ["gone", "a"]) == [("gone",), ("a",)]
    assert covisibility_clusters(index, []) == []


@pytest.mark.parametrize("seed", range(5))
def test_components_agree_with_scipy(seed: int) -> None:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    names = [f"{i:02d}" for i in range(40)]
    seen = {name: rng.integers(-1, 200, 5).tolist() for name in names}
    clusters = covisibility_clusters(index_of(seen, 200), names)
    sees = np.zeros((40, 200), np.int8)
    for row, name in enumerate(names):
        sees[row, [point for point in seen[name] if point >= 0]] = 1
    count, label = connected_components(csr_array(sees @ sees.T))
    assert len(clusters) == count
    assert sorted(map(sorted, clusters)) == sorted(
        sorted(names[row] for row in np.flatnonzero(label == each)) for each in range(count)
    )


def town(copies: int, matched: list[int], *, seed: int = 0) -> tuple[PointIndex, MatchedQuery]:
    """``copies`` of one façade, two images each; the query stands before the first one.

    Args:
        matched: with how many points of each copy the query is matched.
    """
    rng = np.random.default_rng(seed)
    facade = rng.uniform([-3, -2, 8], [3, 2, 10], (N, 3))
    xy = camera_to_colmap(CAMERA).img_from_cam(facade) + rng.normal(0, 0.4, (N, 2))
    seen = {
        f"{copy}/{image}.jpg": list(range(copy * N, (copy + 1) * N))
        for copy in range(copies)
        for image in "ab"
    }
    index = index_of(seen, copies * N)
    index.xyz[:] = np.concatenate([facade + copy * APART for copy in range(copies)])
    pairs = []
    for copy, count in enumerate(matched):
        rows = np.arange(count)
        both = np.stack([rows, rows], axis=1).astype(np.int32)
        pairs += [(f"{copy}/{image}.jpg", Matches(both, np.ones(count, np.float32))) for image in "ab"]
    return index, MatchedQuery("q.jpg", CAMERA, xy.astype(np.float32), pairs)


def found(copies: int, matched: list[int], *, clustering: bool):
    index, query = town(copies, matched)
    return locate(index, query, LocalizeConfig(covisibility_clustering=clustering))


def test_two_copies_that_look_the_same_are_doubtful() -> None:
    """Nothing tells the two places apart. Without clusters one of them is `ok`."""
    blind = found(2, [110, 108], clustering=False)
    assert blind.status == "ok"
    assert blind.second_cluster_ratio == 0
    result = found(2, [110, 108], clustering=True)
    assert result.status == "doubtful"
    assert result.reason == "108 inliers at another place, near 1/a.jpg, against 110 here"
    assert result.second_cluster_ratio == pytest.approx(108 / 110)
    assert result.references == ("0/a.jpg", "0/b.jpg")
    assert np.linalg.norm(result.pose.center_in_world) < 0.1


def test_one_right_place_among_many_wrong_ones() -> None:
    """All matches together are 2 % right: no pose, or one that nobody can believe."""
    index, query = town(16, [40, *[0] * 15])
    rng = np.random.default_rng(1)
    pairs = [each for each in query.matched if len(each[1])]
    for copy in range(1, 16):
        both = np.stack([rng.integers(0, 1200, N), np.arange(N)], axis=1).astype(np.int32)
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        pairs.append((f"{copy}/a.jpg", Matches(both, np.ones(N, np.float32))))
    xy = np.concatenate([query.keypoints, rng.uniform([0, 0], [1000, 800], (1080, 2)).astype(np.float32)])
    query = MatchedQuery(query.name, CAMERA, xy, pairs)
    blind = locate(index, query, LocalizeConfig(covisibility_clustering=False))
    assert blind.status != "ok"
    result = locate(index, query, LocalizeConfig())
    assert (result.status, result.num_inliers, result.num_matches) == ("ok", 40, 40)
    assert np.linalg.norm(result.pose.center_in_world) < 0.1
    assert result.second_cluster_ratio < 0.3


def test_one_cluster_is_as_without() -> None:
    one, other = (found(1, [100], clustering=each) for each in (True, False))
    assert one.second_cluster_ratio == 0
    assert (one.status, one.num_inliers, one.references) == (
        other.status,
        other.num_inliers,
        other.references,
    )
    assert one.pose.to_json() == other.pose.to_json()


def test_two_clusters_of_one_place_confirm_each_other() -> None:
    """Two halves of a building that share no point of the map: the same pose twice is no doubt."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-3, -2, 6], [3, 2, 10], (N, 3))
    index = index_of({"left.jpg": list(range(60)), "right.jpg": list(range(60, N))}, N)
    index.xyz[:] = points
    xy = camera_to_colmap(CAMERA).img_from_cam(points) + rng.normal(0, 0.3, (N, 2))
    pairs = []
    for name, start in (("left.jpg", 0), ("right.jpg", 60)):
        both = np.stack([np.arange(start, start + 60), np.arange(60)], axis=1).astype(np.int32)
        pairs.append((name, Matches(both, np.ones(60, np.float32))))
    result = locate(index, MatchedQuery("q.jpg", CAMERA, xy.astype(np.float32), pairs), LocalizeConfig())
    assert result.status == "ok"
    assert result.second_cluster_ratio == 1.0


def test_a_rival_behind_a_cluster_of_the_same_place() -> None:
    """The façade in two components, and a copy of it elsewhere that is only third."""
    index, query = town(2, [110, 80])
    rows = index.rows.copy()
    rows[N : 2 * N] = np.arange(2 * N, 3 * N)  # 0/b sees points of its own, at the places of 0/a's
    index = PointIndex(
        names=index.names,
        offsets=index.offsets,
        rows=rows,
        xyz=np.concatenate([index.xyz, index.xyz[:N]]),
        point_ids=np.arange(3 * N, dtype=np.int64),
        track_lengths=np.full(3 * N, 2, np.int32),
    )
    result = locate(index, query, LocalizeConfig())
    assert result.second_cluster_ratio == 1.0
    assert (result.status, result.reason) == (
        "doubtful",
        "80 inliers at another place, near 1/a.jpg, against 110 here",
    )


def test_places_too_small_alone_are_tried_together() -> None:
    """No cluster has enough inliers, all matches together have."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-3, -2, 6], [3, 2, 10], (30, 3))
    index = index_of({f"{part}.jpg": list(range(10 * part, 10 * part + 10)) for part in range(3)}, 30)
    index.xyz[:] = points
    xy = camera_to_colmap(CAMERA).img_from_cam(points).astype(np.float32)
    pairs = [
        (
            f"{part}.jpg",
            Matches(
                np.stack([np.arange(10 * part, 10 * part + 10), np.arange(10)], 1).astype(np.int32),
                np.ones(10, np.float32),
            ),
        )
        for part in range(3)
    ]
    result = locate(index, MatchedQuery("q.jpg", CAMERA, xy, pairs), LocalizeConfig())
    assert (result.status, result.num_inliers, result.second_cluster_ratio) == ("ok", 30, 0.0)


def test_the_ratio_is_in_the_results_and_in_what_is_printed(tmp_path) -> None:
    from loc.cli.results import query_json
    from loc.stages.poses import result_from_json, result_to_json

    result = found(2, [110, 108], clustering=True)
    row = result_to_json(result)
    assert row["second_cluster_ratio"] == pytest.approx(108 / 110, abs=1e-6)
    assert result_from_json(row).second_cluster_ratio == row["second_cluster_ratio"]
    assert query_json(result)["second_cluster_ratio"] == result.second_cluster_ratio
    del row["second_cluster_ratio"]  # a file of an earlier version
    assert result_from_json(row).second_cluster_ratio == 0
