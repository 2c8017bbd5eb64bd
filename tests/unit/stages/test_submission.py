"""The result file: names, counts, and everything a server would silently score as zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from loc.errors import ConfigError, SubmissionError
from loc.layouts.lists import read_poses
from loc.stages.submission import format_line, make_submission, name_rule, written_name
from loc.types import Camera, Pose, QueryResult

CAMERA = Camera("SIMPLE_PINHOLE", 640, 480, np.array([500.0, 320, 240]))
POSE = Pose(np.array([0.1, 0.2, 0.3, 0.9]), np.array([1.0, -2.0, 3.0]))
RNG = np.random.default_rng(0)
IN_CAMERA = RNG.uniform([-2, -1.5, 8], [2, 1.5, 12], (20, 3))
XYZ = (IN_CAMERA - POSE.translation) @ POSE.rotation
XY = 500 * IN_CAMERA[:, :2] / IN_CAMERA[:, 2:] + [320, 240]


class Index(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.point_ids)


def bundle(**poses: Pose) -> SimpleNamespace:
    index = Index(point_ids=np.arange(100, 120), xyz=XYZ)
    return SimpleNamespace(folder="map", index=index, poses=poses, localize={"max_error_px": 12.0})


def localized(name: str, pose: Pose = POSE) -> QueryResult:
    return QueryResult(
        name,
        "ok",
        pose=pose,
        camera=CAMERA,
        num_matches=20,
        num_inliers=20,
        inlier_xy=XY.astype(np.float32),
        inlier_points3d=np.arange(100, 120),
    )


def made(results, *, names="basename", groups=None, known=None, found=None):
    groups = {each.name: each.name.split("/")[1] for each in results} if groups is None else groups
    return make_submission(results, groups, found or bundle(), names=names, known_poses=known or {})


def moved(pose: Pose, by) -> Pose:
    return Pose(pose.quat_xyzw, pose.translation - pose.rotation @ np.array(by, float))


QUERIES = [
    localized("query/day/nexus4/b.jpg"),
    localized("query/day/nexus4/a.jpg"),
    QueryResult("query/night/nexus5x/c.jpg", "no_matches"),
    localized("query/night/nexus5x/d.jpg"),
]


def test_lines_counts_and_missing(tmp_path):
    submission = made(QUERIES)
    assert [line.split()[0] for line in submission.lines] == ["a.jpg", "b.jpg", "d.jpg"]
    day, night = submission.groups["day"], submission.groups["night"]
    assert (day.queries, day.submitted, day.missing) == (2, 2, ())
    assert (night.queries, night.submitted, night.missing) == (2, 1, ("query/night/nexus5x/c.jpg",))
    path = tmp_path / "new" / "Aachen_eval_sift.txt"
    submission.write(path)
    read = read_poses(path)
    assert sorted(read) == ["a.jpg", "b.jpg", "d.jpg"]
    np.testing.assert_allclose(read["a.jpg"].quat_xyzw, POSE.quat_xyzw, atol=1e-15)
    np.testing.assert_array_equal(read["a.jpg"].translation, POSE.translation)


def test_a_line_is_wxyz_and_translation():
    line = format_line("a.jpg", Pose(np.array([0.0, 0.0, 0.6, 0.8]), np.array([1.0, 2.0, 3.0])))
    assert line == "a.jpg 0.8 0.0 0.0 0.6 1.0 2.0 3.0"


def test_rules():
    assert name_rule(None, "aachen") == "basename"
    assert name_rule(None, "colmap") == "path"
    assert name_rule("camera", "aachen") == "camera"
    assert [written_name("a/rear/1.jpg", rule) for rule in ("basename", "camera", "path")] == [
        "1.jpg",
        "rear/1.jpg",
        "a/rear/1.jpg",
    ]
    with pytest.raises(ConfigError, match="'basenam' is no rule") as caught:
        name_rule("basenam", "aachen")
    assert "did you mean basename" in caught.value.next_step


def test_one_name_for_two_queries():
    twice = [localized("query/day/nexus4/a.jpg"), QueryResult("query/night/x/a.jpg", "no_matches")]
    with pytest.raises(SubmissionError, match=r"both be called 'a.jpg': 'query/day/nexus4/a.jpg' and"):
        made(twice)
    assert len(made(twice, names="path").lines) == 1


def test_a_space_in_a_name():
    with pytest.raises(SubmissionError, match=r"'a b.jpg' holds a space"):
        made([localized("query/day/a b.jpg")])
    without_pose = QueryResult("query/day/a b.jpg", "no_matches")  # it gets no line
    assert len(made([localized("query/day/c.jpg"), without_pose]).lines) == 1


def test_nothing_localized():
    with pytest.raises(SubmissionError, match="none of the 1 queries has a pose"):
        made([QueryResult("query/day/a.jpg", "pnp_failed")])


def test_centre_instead_of_translation_is_seen():
    wrong = localized("query/day/a.jpg", Pose(POSE.quat_xyzw, POSE.center_in_world))
    with pytest.raises(SubmissionError, match=r"inliers are .* px from their points"):
        made([wrong])
    turned = localized("query/day/a.jpg", POSE.inverse())
    with pytest.raises(SubmissionError, match=r"inliers are .* px from their points"):
        made([turned])


def test_poses_of_another_map_are_seen():
    other = replace(localized("query/day/a.jpg"), inlier_points3d=np.arange(200, 220))
    with pytest.raises(SubmissionError, match="points that the map map does not have"):
        made([other])


def test_a_map_in_a_frame_of_its_own():
    known = {f"{i}.jpg": moved(POSE, [10 * i, 0, 0]) for i in range(5)}
    made(QUERIES, known=known, found=bundle(**known))
    shifted = {name: moved(pose, [3, 0, 0]) for name, pose in known.items()}
    with pytest.raises(SubmissionError, match="not in the frame of the reference model") as caught:
        made(QUERIES, known=known, found=bundle(**shifted))
    assert "map.mode=triangulate" in caught.value.next_step


def test_notes_on_what_the_server_would_count_as_failed():
    from loc.cli.submit import _notes

    fallen = [QUERIES[0], replace(QUERIES[3], pose=None, status="pnp_failed")]
    assert _notes(made(fallen), Path("Aachen_eval_x.txt"), "aachen") == [
        "no night query has a pose: the server counts the whole condition as failed"
    ]
    notes = _notes(made(QUERIES[:1]), Path("poses.txt"), "aachen")
    assert notes[0] == "the run has no night queries: the server counts the whole condition as failed"
    assert notes[1].startswith("the benchmark wants the file name Aachen_eval_METHOD.txt")
    assert _notes(made(QUERIES[:1]), Path("poses.txt"), "colmap") == []
