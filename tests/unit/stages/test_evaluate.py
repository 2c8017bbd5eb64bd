"""Errors of pose files, matching of names, denominators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loc.colmap import pose_to_colmap, pycolmap
from loc.errors import DataError
from loc.layouts.lists import write_poses
from loc.stages.evaluate import evaluate_files, match_names
from loc.types import Pose

TRUTH = {
    "query/day/a.jpg": Pose(np.array([0.0, 0, 0, 1]), np.array([0.0, 0, 0])),
    "query/day/b b.jpg": Pose(np.array([0.0, 0.6, 0, 0.8]), np.array([1.0, 2, 3])),
    "query/night/c.jpg": Pose(np.array([0.5, 0.5, 0.5, 0.5]), np.array([-4.0, 2, 3])),
    "query/night/d.jpg": Pose(np.array([1.0, 0.0, 0.0, 0.0]), np.array([7.0, 2, 3])),
}


def moved(pose: Pose, distance: float) -> Pose:
    """The camera ``distance`` further along its x axis."""
    return Pose(pose.quat_xyzw, pose.translation - [distance, 0, 0])


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    write_poses(tmp_path / "truth.txt", TRUTH)
    return tmp_path / "truth.txt"


def poses_file(folder: Path, poses: dict[str, Pose]) -> Path:
    write_poses(folder / "poses.txt", poses)
    return folder / "poses.txt"


def test_every_query_of_the_ground_truth_counts(tmp_path: Path, truth: Path) -> None:
    found = {
        "query/day/a.jpg": TRUTH["query/day/a.jpg"],
        "query/day/b b.jpg": moved(TRUTH["query/day/b b.jpg"], 0.4),
        "query/night/c.jpg": moved(TRUTH["query/night/c.jpg"], 100.0),
    }
    summary = evaluate_files(poses_file(tmp_path, found), truth)
    groups = summary["groups"]
    assert list(groups) == ["all", "day", "night"]
    assert list(groups["all"]["recall"].values()) == [0.25, 0.5, 0.5]
    assert list(groups["day"]["recall"].values()) == [0.5, 1.0, 1.0]
    assert list(groups["night"]["recall"].values()) == [0.0, 0.0, 0.0]
    assert (groups["all"]["queries"], groups["all"]["localized"]) == (4, 3)
    assert groups["all"]["max_error"] == pytest.approx(100)
    assert summary["thresholds"] == [[0.25, 2.0], [0.5, 5.0], [5.0, 10.0]]
    assert (summary["queries"], summary["poses"], summary["unknown"]) == (4, 3, 0)
    rows = {row["name"]: row for row in summary["per_query"]}
    assert list(rows) == sorted(TRUTH)
    assert rows["query/day/b b.jpg"]["error"] == pytest.approx(0.4)
    assert rows["query/night/d.jpg"]["localized"] is False
    assert rows["query/night/d.jpg"]["error"] is None


def test_thresholds_and_groups_of_ones_own(tmp_path: Path, truth: Path) -> None:
    found = {name: moved(pose, 0.4) for name, pose in TRUTH.items()}
    poses = poses_file(tmp_path, found)
    summary = evaluate_files(poses, truth, [(0.3, 1.0), (0.5, 1.0)], lambda name: name[-5])
    assert list(summary["groups"]) == ["all", "a", "b", "c", "d"]
    assert list(summary["groups"]["c"]["recall"].values()) == [0.0, 1.0]


def test_no_pose_at_all(tmp_path: Path, truth: Path) -> None:
    summary = evaluate_files(poses_file(tmp_path, {}), truth)
    assert set(summary["groups"]["all"]["recall"].values()) == {0.0}
    assert summary["groups"]["all"]["median_error"] is None


def test_a_model_is_a_ground_truth(tmp_path: Path) -> None:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="PINHOLE", width=10, height=10, params=[9, 9, 5, 5], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for number, (name, pose) in enumerate(TRUTH.items(), start=1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=number)
        model.add_image_with_trivial_frame(image, pose_to_colmap(pose))
    (tmp_path / "model").mkdir()
    model.write_binary(tmp_path / "model")
    summary = evaluate_files(poses_file(tmp_path, TRUTH), tmp_path / "model")
    assert set(summary["groups"]["all"]["recall"].values()) == {1.0}


def test_basenames_are_matched_where_no_name_is_equal(tmp_path: Path, truth: Path) -> None:
    found = {Path(name).name: pose for name, pose in TRUTH.items()}
    summary = evaluate_files(poses_file(tmp_path, found), truth)
    assert summary["groups"]["all"]["localized"] == 4
    assert summary["groups"]["night"]["max_error"] == pytest.approx(0, abs=1e-12)


def test_one_equal_name_turns_basenames_off() -> None:
    found = {"query/day/a.jpg": TRUTH["query/day/a.jpg"], "c.jpg": TRUTH["query/night/c.jpg"]}
    assert list(match_names(found, TRUTH)) == ["query/day/a.jpg"]


def test_ambiguous_basenames_are_an_error(tmp_path: Path, truth: Path) -> None:
    pose = TRUTH["query/day/a.jpg"]
    poses = poses_file(tmp_path, {"x/a.jpg": pose, "y/a.jpg": pose})
    with pytest.raises(DataError, match=r"ambiguous: 'x/a.jpg' and 'y/a.jpg' \(.*poses.txt\)") as caught:
        evaluate_files(poses, truth)
    assert caught.value.next_step == "write the same names in both files"
    with pytest.raises(DataError, match=r"ambiguous: 'x/a.jpg' and 'y/a.jpg'"):
        match_names({"a.jpg": pose}, {"x/a.jpg": pose, "y/a.jpg": pose})


def test_names_of_another_scene_are_an_error(tmp_path: Path, truth: Path) -> None:
    poses = poses_file(tmp_path, {"other.jpg": TRUTH["query/day/a.jpg"]})
    with pytest.raises(DataError, match=r"no name of .* is in .*: 'other.jpg' against 'query/day/a.jpg'"):
        evaluate_files(poses, truth)


def test_an_empty_ground_truth_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match=r"empty\.txt holds no poses"):
        evaluate_files(poses_file(tmp_path, TRUTH), tmp_path / "empty.txt")
