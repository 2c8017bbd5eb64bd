"""The stage map on scenes with known truth: accuracy, determinism, the funnel, every error."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_map import Synthetic, synthesize

from loc.colmap import pycolmap
from loc.errors import MapError
from loc.sfm import mapper
from loc.sfm.bundle import MapBundle
from loc.sfm.funnel import read_funnel, step_counts
from loc.stores.matches import MatchStore
from loc.stores.parts import ItemKey
from loc.types import Matches, Pose

TASKS = {
    "triangulate": {"mode": "triangulate"},
    "incremental": {"mode": "reconstruct", "mapper": "incremental"},
    "global": {"mode": "reconstruct", "mapper": "global"},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Synthetic:
    return synthesize(tmp_path_factory.mktemp("scene"))


def _centers(poses: dict[str, Pose], names: list[str]) -> np.ndarray:
    return np.array([poses[name].center_in_world for name in names])


def _aligned_error(bundle: MapBundle, scene: Synthetic) -> float:
    """Largest distance of camera centres after a similarity, in units of the scene's extent."""
    names = list(bundle.registered)
    found = _centers(bundle.poses, names)
    true = np.array([scene.scene[name].pose.center_in_world for name in names])
    sim = pycolmap.estimate_sim3d(found, true)
    moved = sim.scale * found @ sim.rotation.matrix().T + sim.translation
    return float(np.linalg.norm(moved - true, axis=1).max() / np.ptp(true, axis=0).max())


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_map_agrees_with_the_truth(scene, tmp_path, task):
    bundle = scene.map(tmp_path, **TASKS[task])
    stats = bundle.stats
    assert stats["task"] == task
    assert stats["images"] == stats["registered"] == 6
    assert 195 <= stats["points"] <= 210
    assert stats["observations"] >= 0.97 * 6 * 200
    assert stats["mean_track_length"] == pytest.approx(stats["observations"] / stats["points"], abs=1e-3)
    assert 0.3 < stats["mean_reprojection_error_px"] < 0.8
    assert _aligned_error(bundle, scene) < 0.01
    made = sorted(path.name for path in bundle.folder.iterdir() if path.is_dir() or path.suffix != ".json")
    assert made == ["colmap.log", "database.db", "index", "model"]


def test_auto_triangulates_when_every_pose_is_known(scene, tmp_path):
    assert scene.map(tmp_path).stats["task"] == "triangulate"
    assert scene.without_poses().map(tmp_path).stats["task"] == "incremental"


def test_triangulation_keeps_poses_and_intrinsics(scene, tmp_path):
    bundle = scene.map(tmp_path)
    for image in scene.scene.db:
        np.testing.assert_allclose(bundle.poses[image.name].translation, image.pose.translation, atol=1e-9)
    np.testing.assert_array_equal(bundle.cameras["camera"].params, scene.scene.cameras["camera"].params)


@pytest.mark.parametrize("mapper_name", ["incremental", "global"])
def test_an_unknown_focal_length_is_refined_and_then_known(tmp_path, mapper_name):
    scene = synthesize(tmp_path, points=400, has_prior_focal_length=False).without_poses()
    camera = scene.scene.cameras["camera"]
    guess = replace(camera, params=camera.params * [1.1, 1, 1, 0])
    scene = replace(scene, scene=replace(scene.scene, cameras={"camera": guess}))
    refined = scene.map(mapper=mapper_name).cameras["camera"]
    assert refined.focal_px == pytest.approx(camera.focal_px, rel=0.02)
    assert refined.has_prior_focal_length
    kept = scene.map(mapper=mapper_name, refine_intrinsics="never").cameras["camera"]
    assert kept.focal_px == guess.focal_px
    assert not kept.has_prior_focal_length


# ---- determinism

_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from synthetic_map import synthesize
scene = synthesize(Path(sys.argv[2]), images={images}, points={points})
for config in {configs}:
    bundle = scene.map(workers=int(sys.argv[3]), **config)
    print(bundle.folder.name, bundle.stats["observations"], bundle.stats["digest"])
"""


def _digests(folder: Path, workers: int, **values) -> list[list[str]]:
    environment = dict(os.environ, PYTHONHASHSEED=str(workers))
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(**values), str(tests), str(folder), str(workers)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    return [line.split() for line in done.stdout.splitlines()]


def test_maps_are_equal_for_any_number_of_workers_and_in_any_process(tmp_path):
    values = {"images": 5, "points": 150, "configs": list(TASKS.values())}
    runs = [_digests(tmp_path / str(workers), workers, **values) for workers in (1, 2, 4)]
    assert len(runs[0]) == 3
    assert len({digest for *_, digest in runs[0]}) == 3
    assert runs[0] == runs[1] == runs[2]


def test_a_map_with_fifty_thousand_residuals_is_equal(tmp_path):
    # COLMAP's bundle adjustment goes to several threads from 50,000 residuals on, and then varies.
    configs = [TASKS["incremental"], TASKS["triangulate"]]
    values = {"images": 10, "points": 2600, "configs": configs}
    first, second = (_digests(tmp_path / str(workers), workers, **values) for workers in (1, 2))
    assert all(2 * int(observations) >= 50_000 for _, observations, _ in first)
    assert first == second


def test_not_deterministic_is_recorded_and_still_a_map(scene, tmp_path):
    bundle = scene.map(tmp_path, deterministic=False)
    assert bundle.stats["deterministic"] is False
    assert bundle.stats["points"] >= 195
    assert bundle.folder != scene.map(tmp_path).folder


def test_the_folder_follows_what_changes_the_numbers(scene, tmp_path):
    first = scene.map(tmp_path).folder
    assert scene.map(tmp_path, timeout_s=1000).folder == first
    assert scene.map(tmp_path, max_error_px=3.0).folder != first
    fewer = replace(scene, pairs=replace(scene.pairs, pairs=scene.pairs.pairs[:-1]))
    assert fewer.map(tmp_path).folder != first


# ---- the funnel


def _with_matches(scene: Synthetic, folder: Path, change) -> Synthetic:
    """The scene with every pair's matches passed through ``change(first, second, indices)``."""
    store = MatchStore(folder / "matches" / "changed", {"changed": True})
    with store.writer() as writer:
        for pair in scene.pairs.pairs:
            indices = change(*pair, scene.matches.get(pair).indices)
            writer.put(scene.matches.keys[pair], Matches(indices, np.ones(len(indices), np.float32)))
    return replace(scene, matches=replace(scene.matches, store=store))


def test_the_funnel_says_where_an_image_fell(scene, tmp_path):
    sky, wrong, *_ = names = sorted(scene.features.keys)

    def change(first: str, second: str, indices: np.ndarray) -> np.ndarray:
        if sky in (first, second):
            return indices[:9]
        if wrong in (first, second):
            shuffled = np.random.default_rng(0).permutation(indices[:60, 1])
            return np.column_stack([indices[:60, 0], shuffled]).astype(np.int32)
        return indices

    skipped = replace(scene.scene, skipped={"broken.jpg": "not a photo", "query.jpg": "empty"})
    skipped = replace(skipped, skipped_queries=("query.jpg",))
    changed = replace(_with_matches(scene, tmp_path, change), scene=skipped)
    bundle = changed.map(tmp_path)
    rows, pairs = read_funnel(bundle.folder / "funnel.json")
    steps = {row.name: row.step for row in rows}
    assert steps == {
        "broken.jpg": "unreadable",
        sky: "matches",
        wrong: "verification",
        **dict.fromkeys(names[2:], "registered"),
    }
    assert sum(step_counts(rows).values()) == len(rows) == bundle.stats["images"] == 7
    assert pairs == {"listed": 15, "matched": 15, "verified": 6}
    assert set(bundle.poses) == set(names[2:])  # a known pose without points is not registered
    assert [row.points for row in rows if row.step == "registered"] == [
        int((bundle.index.point_rows(name) >= 0).sum()) for name in names[2:]
    ]


def test_the_largest_model_is_taken_and_the_others_are_reported(tmp_path):
    scene = synthesize(tmp_path, images=7)
    names = sorted(scene.features.keys)
    small = names[:3]

    def change(first: str, second: str, indices: np.ndarray) -> np.ndarray:
        return indices if (first in small) == (second in small) else indices[:0]

    bundle = _with_matches(scene, tmp_path, change).without_poses().map()
    assert bundle.registered == tuple(names[3:])
    assert [model["registered"] for model in bundle.stats["other_models"]] == [3]
    assert bundle.stats["other_models"][0]["points"] > 150
    rows, _ = read_funnel(bundle.folder / "funnel.json")
    assert [row.step for row in rows] == ["registration"] * 3 + ["registered"] * 4
    assert rows[0].reason == "it belongs to another model, of 3 images, that did not connect"


# ---- errors


def _partial(workdir: Path) -> Path:
    return next((workdir / "map").glob("*.partial"))


def test_fewer_than_two_images(scene, tmp_path):
    name = sorted(scene.features.keys)[0]
    features = replace(
        scene.features,
        keys={name: scene.features.keys[name]},
        skipped={image.name: "zero bytes" for image in scene.scene.db if image.name != name},
    )
    changed = replace(scene, features=features, matches=replace(scene.matches, keypoints=features))
    with pytest.raises(MapError) as error:
        changed.map(tmp_path)
    assert str(error.value) == (
        "a map needs at least 2 database images with features, got 1 of 6\n"
        "  camera000001_frame000001.png: zero bytes"
    )


def test_no_pairs(scene, tmp_path):
    with pytest.raises(MapError) as error:
        replace(scene, pairs=replace(scene.pairs, pairs=())).map(tmp_path)
    assert str(error.value) == (
        f"there are no pairs among the 6 database images ({scene.pairs.folder})\n"
        "  check the `pairs` section of the config: one generator must be for: map or both"
    )


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"mode": "triangulate"}, "map.mode is triangulate"),
        ({"mode": "reconstruct", "verification": "known_poses"}, "map.verification is known_poses"),
    ],
)
def test_poses_that_are_needed_and_missing(scene, tmp_path, config, why):
    images = tuple(
        replace(image, pose=image.pose if number else None) for number, image in enumerate(scene.scene.images)
    )
    with pytest.raises(MapError) as error:
        replace(scene, scene=replace(scene.scene, images=images)).map(tmp_path, **config)
    assert str(error.value) == (
        f"{why}, but 1 of 6 database images have no known pose: {images[0].name}\n"
        "  set map.mode=reconstruct and map.verification=two_view, or give a model with these images"
    )


def test_no_matches(scene, tmp_path):
    empty = _with_matches(scene, tmp_path, lambda first, second, indices: indices[:0])
    with pytest.raises(MapError) as error:
        empty.map(tmp_path)
    assert str(error.value) == (
        "0 of 6 images produced 3-D points; 0 of 15 pairs had matches\n"
        "  check that the photos overlap, or loosen the matcher's thresholds; "
        f"details: {_partial(tmp_path)}/funnel.json"
    )
    rows, _ = read_funnel(_partial(tmp_path) / "funnel.json")
    assert step_counts(rows)["matches"] == 6


@pytest.mark.parametrize(
    ("task", "check"),
    [
        ("triangulate", "the reference poses and the features use the same images"),
        ("incremental", "the photos overlap"),
    ],
)
def test_nothing_passes_verification(scene, tmp_path, task, check):
    generator = np.random.default_rng(0)

    def shuffled(first: str, second: str, indices: np.ndarray) -> np.ndarray:
        return np.column_stack([indices[:20, 0], generator.permutation(indices[:20, 1])]).astype(np.int32)

    with pytest.raises(MapError) as error:
        _with_matches(scene, tmp_path, shuffled).map(tmp_path, **TASKS[task])
    assert str(error.value) == (
        "0 of 6 images produced 3-D points; 15 pairs had matches, 0 passed verification\n"
        f"  check that {check}; details: {_partial(tmp_path)}/funnel.json"
    )


def test_verified_pairs_that_give_no_model(tmp_path):
    scene = synthesize(tmp_path, images=2).without_poses()  # two images, a model needs three
    with pytest.raises(MapError) as error:
        scene.map()
    assert str(error.value) == (
        "0 of 2 images produced 3-D points; 1 pairs passed verification, but no model could be started\n"
        "  add photos with more overlap and some baseline, or try map.mapper=global; "
        f"details: {_partial(tmp_path)}/colmap.log"
    )


def test_verified_pairs_that_give_no_points(scene, tmp_path):
    same = scene.scene.db[0].pose
    rotated = tuple(
        replace(image, pose=Pose(same.quat_xyzw, same.translation)) for image in scene.scene.images
    )  # all cameras at one place: nothing can be triangulated

    def identical(first: str, second: str, indices: np.ndarray) -> np.ndarray:
        rows = np.arange(100, dtype=np.int32)
        return np.column_stack([rows, rows])

    changed = _with_matches(scene, tmp_path, identical)
    keypoints = replace(changed.features, store=_OneForAll(changed.features.store))
    changed = replace(
        changed,
        scene=replace(scene.scene, images=rotated),
        features=keypoints,
        matches=replace(changed.matches, keypoints=keypoints),
    )
    with pytest.raises(
        MapError, match="but no point could be triangulated\n  check that the reference poses"
    ):
        changed.map(tmp_path)


class _OneForAll:
    """A store that gives every image the keypoints of the first."""

    def __init__(self, store) -> None:
        self._store, self.folder = store, store.folder

    def _first(self) -> ItemKey:
        return self._store.keys()[0]

    def keypoints(self, key: ItemKey) -> np.ndarray:
        return self._store.keypoints(self._first())

    def count(self, key: ItemKey) -> int:
        return self._store.count(self._first())


def test_an_abort_of_the_mapper_leaves_no_map_and_the_next_run_makes_it(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(mapper, "command", lambda request: [sys.executable, "-c", "import os; os.abort()"])
    with pytest.raises(
        MapError, match=r"triangulation was ended by SIGABRT after .*\n.*details: .*colmap\.log"
    ):
        scene.map(tmp_path)
    assert not list((tmp_path / "map").glob("*/manifest.json"))
    assert json.loads((_partial(tmp_path) / "funnel.json").read_text())["pairs"]["verified"] == 15
    monkeypatch.undo()
    assert scene.map(tmp_path).stats["points"] >= 195


def test_a_hanging_mapper_is_stopped(scene, tmp_path, monkeypatch):
    code = "import time; time.sleep(60)"
    monkeypatch.setattr(mapper, "command", lambda request: [sys.executable, "-c", code])
    with pytest.raises(
        MapError, match=r"triangulation did not finish within map\.timeout_s = 0\.5 s\n  raise"
    ):
        scene.map(tmp_path, timeout_s=0.5)
