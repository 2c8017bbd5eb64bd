"""Stage poses on synthetic truth: files, statuses, independence of workers; and reading them back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_map import Synthetic, synthesize

from loc.colmap import pose_from_colmap
from loc.config import LocalizeConfig
from loc.conventions import wxyz_from_xyzw
from loc.errors import StoreError
from loc.layouts.lists import read_poses
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.stages.artefacts import PairList
from loc.stages.localize import localize
from loc.stages.poses import Poses, result_from_json, result_to_json
from loc.types import Pose, Scene


class Line:
    """A synthetic map of all images but the first two, which are its queries."""

    def __init__(self, folder: Path) -> None:
        made = synthesize(folder, images=7, points=150)
        names = sorted(image.name for image in made.scene.images)
        self.truth = {
            image.name: pose_from_colmap(image.cam_from_world())
            for image in made.truth.images.values()
            if image.name in names[:2]
        }
        images = [
            replace(image, role="query", pose=None) if image.name in self.truth else image
            for image in made.scene.images
        ]
        self.made: Synthetic = replace(made, scene=replace(made.scene, images=tuple(images)))
        self.bundle: MapBundle = self.made.map()
        pairs = tuple(
            pair for pair in made.pairs.pairs if pair[0] in self.truth and pair[1] not in self.truth
        )
        self.pairs = PairList(folder / "pairs" / "query-000000000000", pairs)

    def run(
        self,
        workdir: Path,
        *,
        scene: Scene | None = None,
        pairs: PairList | None = None,
        skipped: dict[str, str] | None = None,
        workers: int = 1,
        **config: float,
    ) -> Poses:
        features = self.made.features
        if skipped:
            keys = {name: key for name, key in features.keys.items() if name not in skipped}
            features = replace(features, keys=keys, skipped=skipped)
        return localize(
            scene or self.made.scene,
            self.bundle,
            features,
            pairs or self.pairs,
            self.made.matches,
            config=LocalizeConfig(**config),
            workdir=workdir,
            runtime=Runtime(device="cpu", workers=workers),
        )


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(tmp_path_factory.mktemp("line"))


def test_queries_are_localized(line: Line, tmp_path: Path) -> None:
    poses = line.run(tmp_path)
    assert [result.name for result in poses.results] == sorted(line.truth)
    assert {result.status for result in poses.results} == {"ok"}
    for name, pose in poses.localized.items():
        error = np.linalg.norm(pose.center_in_world - line.truth[name].center_in_world)
        assert error < 0.02
    assert all(len(result.references) == 5 for result in poses.results)
    assert poses.folder.parent == tmp_path / "poses"


def test_the_pose_file_is_the_benchmarks(line: Line, tmp_path: Path) -> None:
    """``name qw qx qy qz tx ty tz``, cam_from_world, one line per localized query, single spaces."""
    poses = line.run(tmp_path)
    lines = (poses.folder / "poses.txt").read_text().split("\n")
    for text, (name, pose) in zip(lines, sorted(poses.localized.items()), strict=True):
        first, *numbers = text.split(" ")
        assert first == name
        expected = [*wxyz_from_xyzw(pose.quat_xyzw), *pose.translation]
        assert [float(number) for number in numbers] == expected
    assert read_poses(poses.folder / "poses.txt").keys() == line.truth.keys()


@pytest.mark.parametrize("workers", [2, 4])
def test_the_result_does_not_depend_on_workers(line: Line, tmp_path: Path, workers: int) -> None:
    alone, many = line.run(tmp_path / "1"), line.run(tmp_path / "n", workers=workers)
    assert alone.folder.name == many.folder.name
    assert (alone.folder / "poses.txt").read_bytes() == (many.folder / "poses.txt").read_bytes()
    assert without_seconds(alone) == without_seconds(many)


def test_a_query_alone_has_the_same_pose_as_among_others(line: Line, tmp_path: Path) -> None:
    name = max(line.truth)
    scene = line.made.scene
    few = replace(scene, images=tuple(i for i in scene.images if i.role == "db" or i.name == name))
    alone, both = line.run(tmp_path, scene=few), line.run(tmp_path)
    assert alone.folder != both.folder
    assert without_seconds(alone) == without_seconds(both)[1:]


def test_it_is_computed_once(line: Line, tmp_path: Path) -> None:
    first = line.run(tmp_path)
    written = (first.folder / "queries.jsonl").stat().st_mtime_ns
    again = line.run(tmp_path, workers=3)
    assert (again.folder / "queries.jsonl").stat().st_mtime_ns == written
    assert without_seconds(again) == without_seconds(first)
    other = line.run(tmp_path, min_inliers_ok=10_000)
    assert other.folder != first.folder
    assert {result.status for result in other.results} == {"doubtful"}
    assert other.localized.keys() == first.localized.keys()


def test_a_threshold_nobody_reaches_gives_no_pose(line: Line, tmp_path: Path) -> None:
    poses = line.run(tmp_path, min_inliers=10_000)
    assert {result.status for result in poses.results} == {"pnp_failed"}
    assert poses.localized == {}
    assert (poses.folder / "poses.txt").read_text() == ""


def test_without_pairs(line: Line, tmp_path: Path) -> None:
    name = min(line.truth)
    pairs = tuple(pair for pair in line.pairs.pairs if pair[0] != name)
    poses = line.run(tmp_path, pairs=replace(line.pairs, folder=Path("query-1"), pairs=pairs))
    assert [result.status for result in poses.results] == ["no_pairs", "ok"]
    assert name not in poses.localized


def test_unreadable_queries_have_a_row(line: Line, tmp_path: Path) -> None:
    """Known by the layout (header) or found by the extractor (pixels): both count."""
    scene = replace(
        line.made.scene, skipped={"a broken.jpg": "it is empty"}, skipped_queries=("a broken.jpg",)
    )
    name = max(line.truth)
    poses = line.run(tmp_path, scene=scene, skipped={name: f"{name} is truncated"})
    rows = {result.name: (result.status, result.reason) for result in poses.results}
    assert rows["a broken.jpg"] == ("unreadable", "it is empty")
    assert rows[name] == ("unreadable", f"{name} is truncated")
    assert len(rows) == 3
    assert len(poses.localized) == 1


def test_no_queries(line: Line, tmp_path: Path) -> None:
    poses = line.run(tmp_path, scene=replace(line.made.scene, images=line.made.scene.db))
    assert poses.results == ()
    assert (poses.folder / "queries.jsonl").read_text() == ""
    assert (poses.folder / "poses.txt").read_text() == ""


def test_references_keep_the_rank_of_retrieval_among_equals(line: Line, tmp_path: Path) -> None:
    """The reference that gave most matches is first; the map sees every point in every image here."""
    poses = line.run(tmp_path)
    counts = {}
    for pair in line.pairs.pairs:
        rows = line.bundle.index.point_rows(pair[1])
        counts[pair] = len(np.unique(rows[line.made.matches.get(pair).indices[:, 1]]))
    for result in poses.results:
        of_references = [counts[result.name, name] for name in result.references]
        assert of_references == sorted(of_references, reverse=True)


def test_results_survive_json(line: Line, tmp_path: Path) -> None:
    for result in line.run(tmp_path).results:
        row = json.loads(json.dumps(result_to_json(result), allow_nan=False))
        assert result_to_json(result_from_json(row)) == row
        back = result_from_json(row)
        assert back.inlier_xy.dtype == np.float32
        assert np.array_equal(back.inlier_xy, result.inlier_xy)
        assert isinstance(back.pose, Pose)


def test_damaged_results_say_what_to_do(line: Line, tmp_path: Path) -> None:
    poses = line.run(tmp_path)
    (poses.folder / "queries.jsonl").write_text('{"name": "half')
    cure = f"delete the folder {poses.folder} and run the command that made the run again"
    with pytest.raises(StoreError, match=r"queries\.jsonl is damaged: expected \d+ bytes, got 14") as caught:
        Poses.open(poses.folder)
    assert caught.value.next_step == cure
    (poses.folder / "manifest.json").unlink()  # copied by hand, without what it is compared with
    with pytest.raises(StoreError, match=r"queries\.jsonl cannot be read \(JSONDecodeError") as caught:
        Poses.open(poses.folder)
    assert caught.value.next_step == cure


def without_seconds(poses: Poses) -> list[dict[str, object]]:
    return [{**result_to_json(result), "seconds": None} for result in poses.results]
