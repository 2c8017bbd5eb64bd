"""A matcher that finds its own points walks the whole line: every command, kills, odd photos, odd options."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_oracle import DenseOracle, World, wall_world
from PIL import Image

from loc.colmap import camera_to_colmap, pose_to_colmap, pycolmap
from loc.config import RunConfig
from loc.digest import run_digest
from loc.errors import ConfigError, DataError, MapError
from loc.layouts.lists import write_poses
from loc.pipeline import Run, run
from loc.plugins.blocks import load_config
from loc.runtime.runtime import Runtime
from loc.stages.localize import Localizer
from loc.stores.correspondences import CorrespondenceStore
from loc.types import Camera, Correspondences

QUERIES = ("1.png", "4.png")
ONE = Runtime(device="cpu", workers=1)
TESTS = Path(__file__).resolve().parent.parent


class Blind(DenseOracle):
    """Finds nothing."""

    def _match(self, first: Any, second: Any) -> Correspondences:
        return Correspondences.empty()


def make_wall(folder: Path) -> World:
    """Photos (noise: only the oracle looks at them), a model of the poses, queries with their truth."""
    world = wall_world()
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    photos = {}
    for name in sorted(world.poses):
        small = rng.integers(0, 255, (24, 32), dtype=np.uint8)
        Image.fromarray(small).resize(world.wh, Image.Resampling.BILINEAR).save(folder / "images" / name)
        photos[name] = np.asarray(Image.open(folder / "images" / name))
    world.save(folder / "world.npz", photos)
    camera = Camera("PINHOLE", *world.wh, world.intrinsics[:4])
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera_to_colmap(camera, 1))
    for number, name in enumerate(sorted(set(world.poses) - set(QUERIES)), start=1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=number)
        model.add_image_with_trivial_frame(image, pose_to_colmap(world.poses[name]))
    (folder / "model").mkdir()
    model.write(folder / "model")
    params = " ".join(map(str, camera.params))
    lines = [f"{name} PINHOLE {camera.width} {camera.height} {params}\n" for name in QUERIES]
    (folder / "queries.txt").write_text("".join(lines))
    write_poses(folder / "truth.txt", {name: world.poses[name] for name in QUERIES})
    return world


def wall_config(folder: Path, **overrides: Any) -> RunConfig:
    scene = {
        "layout": "colmap",
        "images": str(folder / "images"),
        "model": str(folder / "model"),
        "queries": str(folder / "queries.txt"),
        "ground_truth": str(folder / "truth.txt"),
    }
    matcher = {"use": "dense_oracle:DenseOracle", "world": str(folder / "world.npz")}
    matcher |= {"grid_px": 32, "spacing_px": 24}
    return load_config({"scene": scene, "matcher": matcher, "map": {"mode": "triangulate"}}, overrides)


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wall")
    make_wall(folder)
    return folder


@pytest.fixture(scope="module")
def done(wall: Path) -> Run:
    return run(wall_config(wall), wall / "run", runtime=ONE)


@pytest.fixture(scope="module", autouse=True)
def digest(wall: Path, done: Run) -> dict[str, str]:
    """Of the run as it was first made: later tests go on in its folder with other options."""
    return run_digest(wall / "run")


def test_the_line(done: Run) -> None:
    assert done.bundle is not None
    assert done.poses is not None
    assert done.report is not None
    stats = done.bundle.stats
    assert stats["registered"] == 4
    assert stats["mean_track_length"] > 3
    assert stats["mean_reprojection_error_px"] < 0.6
    assert [result.status for result in done.poses.results] == ["ok", "ok"]
    assert done.report.metrics["groups"]["all"]["max_error"] < 0.01
    # Nobody read local features, so none were extracted.
    assert done.features is not None
    assert done.features.plugin.name == "photos"


def test_workers_and_a_second_run_change_nothing(
    wall: Path, done: Run, digest: dict[str, str], tmp_path: Path
) -> None:
    DenseOracle.asked.clear()
    again = run(wall_config(wall), wall / "run", runtime=ONE)
    assert again.poses is not None
    assert not DenseOracle.asked
    run(wall_config(wall), tmp_path / "run", runtime=Runtime(device="cpu", workers=3), until="poses")
    assert run_digest(tmp_path / "run") == digest


def test_a_query_recomputes_nothing_of_the_map(wall: Path, digest: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "wall"
    shutil.copytree(wall, folder)
    queries = (folder / "queries.txt").read_text().splitlines(keepends=True)
    (folder / "queries.txt").write_text(queries[0])
    first = run(wall_config(folder), folder / "one", runtime=ONE, until="poses")
    DenseOracle.asked.clear()
    (folder / "queries.txt").write_text("".join(queries))
    second = run(wall_config(folder), folder / "one", runtime=ONE, until="poses")
    assert first.bundle is not None
    assert second.bundle is not None
    assert first.bundle.folder == second.bundle.folder
    assert {query for query, _ in DenseOracle.asked} == {"4.png"}
    assert second.query_matches is not None
    keypoints = second.query_matches.keypoints
    assert len(keypoints.store) == 4 + 2  # the map's, the old query's, the new one's
    # And the query that was there has the pose it has in a run with both from the start.
    assert run_digest(folder / "one")["poses"] == digest["poses"]


def test_options_of_sharing_keep_the_correspondences(wall: Path, done: Run) -> None:
    DenseOracle.asked.clear()
    found = run(wall_config(wall, **{"matcher.max_keypoints": 100}), wall / "run", runtime=ONE, until="map")
    assert not DenseOracle.asked
    assert found.matches is not None
    assert done.matches is not None
    assert found.matches.store.folder != done.matches.store.folder
    assert max(found.matches.keypoints.count(name) for name in found.matches.keypoints.keys) == 100


def test_keypoints_depend_on_how_exact_the_matcher_is(
    wall: Path, done: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DenseOracle, "noise_px", 2.0, raising=False)
    DenseOracle.asked.clear()
    found = run(wall_config(wall), wall / "run", runtime=ONE, until="matches")
    assert not DenseOracle.asked
    assert found.matches is not None
    assert done.matches is not None
    assert found.matches.store.folder != done.matches.store.folder


def test_one_photo_as_in_a_run(wall: Path, done: Run) -> None:
    assert done.bundle is not None
    assert done.poses is not None
    localizer = Localizer(done.bundle.folder, runtime=ONE)
    camera = done.scene.camera_of(done.scene["1.png"])
    alone = localizer.localize(wall / "images" / "1.png", camera=camera)
    (in_run,) = (result for result in done.poses.results if result.name == "1.png")
    assert alone.status == "ok"
    assert alone.num_inliers == in_run.num_inliers
    assert alone.pose is not None
    assert in_run.pose is not None
    assert np.array_equal(alone.pose.translation, in_run.pose.translation)


def test_a_photo_of_the_map_that_changed_or_went(wall: Path, done: Run, tmp_path: Path) -> None:
    folder = tmp_path / "wall"
    shutil.copytree(wall, folder)
    assert done.bundle is not None
    map_folder = folder / "run" / done.bundle.folder.relative_to(done.workdir)
    photo = folder / "images" / "0.png"  # the run was moved together with its photos
    other = photo.read_bytes()
    Image.new("L", (640, 480)).save(photo)
    with pytest.raises(DataError, match=r"0\.png is not the photo 0\.png that the map was made of"):
        Localizer(map_folder, runtime=ONE).localize(folder / "images" / "1.png")
    photo.unlink()
    with pytest.raises(DataError, match=r"0\.png"):
        Localizer(map_folder, runtime=ONE).localize(folder / "images" / "1.png")
    photo.write_bytes(other)
    assert Localizer(map_folder, runtime=ONE).localize(folder / "images" / "1.png").status == "ok"


def test_nothing_found(wall: Path, tmp_path: Path) -> None:
    config = wall_config(wall, **{"matcher.use": f"{__name__}:Blind"})
    with pytest.raises(MapError, match="0 of 6 pairs had matches"):
        run(config, tmp_path / "run", runtime=ONE)


def test_odd_photos(wall: Path, tmp_path: Path) -> None:
    """A damaged photo and one of something else in the map, a damaged and a tiny query."""
    folder = tmp_path / "wall"
    shutil.copytree(wall, folder, ignore=shutil.ignore_patterns("run"))
    images = folder / "images"
    queries = (folder / "queries.txt").read_text().splitlines()
    with (folder / "queries.txt").open("a") as file:
        file.write(queries[0].replace("1.png", "bad.png") + "\n")
        file.write(queries[0].replace("1.png", "tiny.png").replace("640 480", "20 20") + "\n")
    (images / "bad.png").write_bytes((images / "1.png").read_bytes()[:3000])
    Image.new("L", (20, 20), 90).save(images / "tiny.png")
    (images / "5.png").write_bytes((images / "5.png").read_bytes()[:3000])
    found = run(wall_config(folder), folder / "run", runtime=ONE)
    assert found.bundle is not None
    assert found.bundle.registered == ("0.png", "2.png", "3.png")
    assert found.poses is not None
    status = {result.name: result.status for result in found.poses.results}
    assert status == {"1.png": "ok", "4.png": "ok", "bad.png": "unreadable", "tiny.png": "no_matches"}
    assert set(run_digest(folder / "run")) >= {"keypoints", "matches", "map", "poses"}


def test_a_query_without_pairs(wall: Path, done: Run, tmp_path: Path) -> None:
    listed = tmp_path / "pairs.txt"
    listed.write_text("1.png 0.png\n1.png 2.png\n")
    pairs = [{"use": "exhaustive", "for": "map"}, {"use": "list", "for": "query", "path": str(listed)}]
    found = run(wall_config(wall, pairs=pairs), wall / "run", runtime=ONE, until="poses")
    assert found.poses is not None
    assert [result.status for result in found.poses.results] == ["ok", "no_pairs"]


def test_features_for_retrieval_alone(wall: Path, done: Run) -> None:
    """With retrieval, globals describe images by features that the matcher does not read."""
    pairs = [{"use": "retrieval", "k": 3, "for": "both"}]
    options = {"pairs": pairs, "globals.words": 4, "features.max_keypoints": 200}
    DenseOracle.asked.clear()
    found = run(wall_config(wall, **options), wall / "run", runtime=ONE, until="poses")
    assert not DenseOracle.asked  # correspondences do not depend on features
    assert found.features is not None
    assert found.features.plugin.name == "sift"
    assert found.bundle is not None
    assert found.bundle.globals_folder is not None
    assert found.poses is not None
    assert [result.status for result in found.poses.results] == ["ok", "ok"]
    alone = Localizer(found.bundle.folder, runtime=ONE).localize(wall / "images" / "1.png")
    assert alone.status == "ok"


def test_the_card_of_loftr(cli: Any) -> None:
    assert cli("plugins", "loftr") == 0
    assert "weights not verified here" in cli.out
    assert "resize_max (int or None, default 840)" in cli.out
    assert "max_keypoints (int, default 8192)" in cli.out


def test_commands(wall: Path, done: Run, cli: Any, tmp_path: Path) -> None:
    run(wall_config(wall), wall / "run", runtime=ONE)
    config = tmp_path / "config.yaml"
    config.write_text(wall_config(wall).model_dump_json(by_alias=True))
    assert cli("plan", config, "-o", wall / "run", "--json") == 0
    why = {step["stage"]: step["why"] for step in cli.json}
    assert set(why.values()) == {"done"}, why
    assert cli("plan", config, "-o", tmp_path / "new", "--json") == 0
    (matches,) = (step for step in cli.json if step["stage"] == "matches")
    assert matches["items"] == 6 + 8
    assert matches["seconds"] > 0
    assert cli("digest", wall / "run", "--json") == 0
    assert cli("export", "hloc", wall / "run", "-o", tmp_path / "hloc") == 0
    assert (tmp_path / "hloc" / "matches.h5").is_file()
    assert cli("show", wall / "run", "--png", tmp_path / "map.png", "--width", 128, "--height", 96) == 0
    assert (tmp_path / "map.png").is_file()


def test_killed_while_corresponding(wall: Path, digest: dict[str, str], tmp_path: Path) -> None:
    """What was found before a SIGKILL is not asked for again, and the result is the same."""
    config = tmp_path / "config.json"
    config.write_text(wall_config(wall).model_dump_json(by_alias=True))
    script = (
        "import json, sys, time\n"
        "import loc.stores.parts as parts\n"
        "from loc.pipeline import run\n"
        "from loc.plugins.blocks import load_config\n"
        "from loc.runtime.runtime import Runtime\n"
        "from loc.stores.correspondences import CorrespondenceStore\n"
        "CorrespondenceStore.max_items = 2\n"
        "def progress(what, done, total):\n"
        "    print(what, done, flush=True)\n"
        "    if what.startswith('correspondences') and done == 4: time.sleep(60)\n"
        "data = json.load(open(sys.argv[1]))\n"
        "run(load_config(data), sys.argv[2], runtime=Runtime(device='cpu', workers=1, progress=progress))\n"
    )
    path = os.pathsep.join([str(TESTS), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(config), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("correspondences") and line.split()[-1] == "4":
            break
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (folder,) = (tmp_path / "run" / "correspondences").iterdir()
    survived = len(CorrespondenceStore(folder))
    assert 2 <= survived < 6
    DenseOracle.asked.clear()
    run(wall_config(wall), tmp_path / "run", runtime=ONE, until="poses")
    assert len(DenseOracle.asked) == 6 - survived + 8
    assert run_digest(tmp_path / "run") == digest


def test_killed_while_sharing(wall: Path, done: Run, digest: dict[str, str], tmp_path: Path) -> None:
    """Parts of the shared keypoints and matches are there: the rest is made to fit."""
    shutil.copytree(wall / "run", tmp_path / "run")
    assert done.matches is not None
    for store in (done.matches.keypoints.store, done.matches.store):
        parts = sorted((tmp_path / "run" / store.folder.relative_to(done.workdir)).glob("parts/*.h5"))
        parts[0].unlink()
    shutil.rmtree(tmp_path / "run" / "map")
    DenseOracle.asked.clear()
    run(wall_config(wall), tmp_path / "run", runtime=ONE, until="poses")
    assert not DenseOracle.asked
    assert run_digest(tmp_path / "run") == digest


def test_without_features(wall: Path, done: Run) -> None:
    found = run(wall_config(wall, features=None, globals=None), wall / "run", runtime=ONE, until="map")
    assert found.bundle is not None
    assert done.bundle is not None
    assert found.bundle.folder == done.bundle.folder
    with pytest.raises(ConfigError, match="features: null, but matcher nearest reads descriptors"):
        load_config({"features": None, "matcher": "nearest"})
    with pytest.raises(ConfigError, match="globals vlad describes an image by its local features"):
        load_config({"features": None, "matcher": "loftr"})
    with pytest.raises(ConfigError, match="did you mean max_keypoints"):
        load_config({"matcher": {"use": "loftr", "max_kpts": 3}})


def test_report_shows_points_where_they_are(wall: Path, done: Run) -> None:
    assert done.report is not None
    page = (done.report.folder / "index.html").read_text()
    assert "DenseOracle" in page
    assert json.loads((done.report.folder / "metrics.json").read_text())
