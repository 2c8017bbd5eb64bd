"""A run goes out in the formats of others, and comes back as the same run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from scenes import Cli, small_scene, write_photo

from loc.colmap import pycolmap
from loc.digest import run_digest
from loc.layouts.lists import read_poses
from loc.pipeline import Run, run
from loc.runtime.runtime import Runtime

pytestmark = pytest.mark.xdist_group("exchange")  # one run serves all

FAST = {
    "globals.words": 8,
    "pairs": [{"use": "retrieval", "k": 4, "for": "both"}],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Run:
    """A run whose image names nest."""
    folder = tmp_path_factory.mktemp("exchange")
    config = small_scene(folder / "scene", **FAST)
    scene = config.scene
    for old in (folder / "scene" / "images").iterdir():
        (folder / "images" / "db").mkdir(parents=True, exist_ok=True)
        shutil.move(old, folder / "images" / "db" / old.name)
    model = pycolmap.Reconstruction(scene.model)
    for image in model.images.values():
        image.name = f"db/{image.name}"
    model.write(scene.model)
    for path in (scene.queries, scene.ground_truth):
        lines = path.read_text().splitlines()
        path.write_text("".join(f"db/{line}\n" for line in lines))
    update = {"images": folder / "images"}
    config = config.model_copy(update={"scene": scene.model_copy(update=update)})
    return run(config, folder / "run", runtime=Runtime(device="cpu", workers=1), until="poses")


@pytest.fixture(scope="module")
def exported(made: Run) -> Path:
    target = made.workdir.parent / "hloc"
    assert _main("export", "hloc", made.workdir, "-o", target) == 0
    return target


def _main(*argv: object) -> int:
    from loc.cli import main

    try:
        main([str(item) for item in argv])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


# ---- hloc's readers, by what hloc documents of its files


def _list_h5_names(path: Path) -> list[str]:
    names = set()
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda _, item: names.add(item.parent.name.strip("/")) if isinstance(item, h5py.Dataset) else None
        )
    return sorted(names)


def _get_matches(file: h5py.File, name0: str, name1: str) -> tuple[np.ndarray, np.ndarray]:
    key, reverse = "/".join(name.replace("/", "-") for name in (name0, name1)), False
    if key not in file:
        key, reverse = "/".join(name.replace("/", "-") for name in (name1, name0)), True
    matches, scores = file[key]["matches0"][()], file[key]["matching_scores0"][()]
    rows = np.where(matches != -1)[0]
    indices = np.stack([rows, matches[rows]], -1)
    return (indices[:, ::-1] if reverse else indices), scores[rows]


def test_hloc_reads_the_features(made: Run, exported: Path) -> None:
    assert _list_h5_names(exported / "features.h5") == sorted(made.features.keys)
    with h5py.File(exported / "features.h5", "r") as file:
        for name in made.features.keys:
            ours, theirs = made.features.get(name), file[name]
            assert theirs["keypoints"].dtype == np.float32
            np.testing.assert_array_equal(theirs["keypoints"][()] + np.float32(0.5), ours.keypoints)
            assert theirs["descriptors"].shape == (128, len(ours))
            assert theirs["descriptors"].dtype == np.float16
            norms = np.linalg.norm(theirs["descriptors"][()].astype(np.float32), axis=0)
            assert (np.abs(norms - 1) < 0.05).all()
            np.testing.assert_array_equal(theirs["scores"][()], ours.scores)
            assert tuple(theirs["image_size"][()]) == ours.image_wh


def test_hloc_reads_the_global_descriptors(made: Run, exported: Path) -> None:
    names = _list_h5_names(exported / "global-feats.h5")
    assert names == sorted(made.features.keys)
    with h5py.File(exported / "global-feats.h5", "r") as file:
        matrix = np.stack([file[name]["global_descriptor"][()] for name in names])
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_hloc_reads_the_matches(made: Run, exported: Path) -> None:
    with h5py.File(exported / "matches.h5", "r") as file:
        for stage in (made.matches, made.query_matches):
            for pair in stage.keys:
                ours = stage.get(pair)
                indices, scores = _get_matches(file, *pair)
                np.testing.assert_array_equal(indices, ours.indices)
                np.testing.assert_array_equal(scores, ours.scores)
                turned, _ = _get_matches(file, *pair[::-1])
                np.testing.assert_array_equal(turned[:, ::-1], ours.indices)


def test_the_texts(made: Run, exported: Path) -> None:
    for role, stage in (("map", made.matches), ("query", made.query_matches)):
        text = (exported / f"pairs-{role}.txt").read_text()
        assert not text.endswith("\n")
        assert {tuple(line.split(" ")) for line in text.split("\n")} == set(stage.keys)
    found = read_poses(exported / "results.txt")
    assert {name.rpartition("/")[2] for name in made.poses.localized} == set(found)
    queries = (exported / "queries_with_intrinsics.txt").read_text().splitlines()
    assert [len(line.split()) for line in queries] == [8] * len(made.scene.queries)
    assert (exported / "db.txt").read_text().splitlines() == [image.name for image in made.scene.db]
    model = pycolmap.Reconstruction(exported / "sfm")
    assert model.num_points3D() == made.bundle.stats["points"]


def test_what_comes_back_is_the_same_run(made: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    """Features, descriptors, matches, map and poses: equal to the bit, without an extractor."""
    argv = ["import", "hloc", "--features", exported / "features.h5", "--name", "ours"]
    argv += ["--globals", exported / "global-feats.h5", "--matches", exported / "matches.h5"]
    argv += ["--images", made.workdir.parent / "images", "--model", made.scene.model]
    argv += ["--queries", exported / "queries_with_intrinsics.txt", "-o", tmp_path / "run", "--json"]
    assert cli(*argv) == 0
    count = len(made.matches.keys) + len(made.query_matches.keys)
    assert cli.json["counts"] == {"features": 8, "globals": 8, "matches": count, "pairs": count}
    assert cli.json["notes"] == []
    assert cli(*argv) == 0  # the same again changes nothing
    assert cli("localize", tmp_path / "run" / "imported.yaml", "-o", tmp_path / "run") == 0, cli.err
    before, after = run_digest(made.workdir), run_digest(tmp_path / "run")
    for artefact in ("features", "matches", "map", "poses", "pairs_map", "pairs_query"):
        assert after[artefact] == before[artefact], artefact
    again = tmp_path / "again"
    assert cli("export", "hloc", tmp_path / "run", "-o", again) == 0
    for name in ("features.h5", "matches.h5"):
        one, other = _contents(again / name), _contents(exported / name)
        assert set(one) == set(other)
        for key, values in one.items():
            # Orientations are degrees in the files and radians in memory.
            tolerance = 1e-4 if key.endswith("/oris") else 0
            np.testing.assert_allclose(values, other[key], rtol=0, atol=tolerance, err_msg=key)


def test_an_image_that_is_not_registered(made: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    """The map of a run seldom has every image: what is not in it, and its pairs, are left out by name."""
    model = pycolmap.Reconstruction(exported / "sfm")
    gone = next(image for image in model.images.values() if image.name == made.scene.db[1].name)
    model.deregister_frame(gone.frame_id)
    (tmp_path / "sfm").mkdir()
    model.write(tmp_path / "sfm")
    argv = ["import", "hloc", "--images", made.workdir.parent / "images", "--model", tmp_path / "sfm"]
    for option, name in (
        ("features", "features.h5"),
        ("globals", "global-feats.h5"),
        ("matches", "matches.h5"),
    ):
        argv += [f"--{option}", exported / name]
    argv += ["--queries", exported / "queries_with_intrinsics.txt"]
    lists = ["--image-list", exported / "db.txt", "--pairs", exported / "pairs-map.txt"]
    lists += ["--pairs", exported / "pairs-query.txt"]
    pairs = [*made.matches.keys, *made.query_matches.keys]
    dropped = sum(gone.name in pair for pair in pairs)
    assert dropped
    for number, more in enumerate(([], lists)):
        run_folder = tmp_path / f"run{number}"
        assert cli(*argv, *more, "-o", run_folder, "--json") == 0, cli.err
        assert cli.json["counts"]["pairs"] == len(pairs) - dropped
        notes = cli.json["notes"]
        assert f"{dropped} pairs have an image that is neither query nor database: left out" in notes
        if more:
            listed = f"1 images of {exported / 'db.txt'} are not in the model: left out: {gone.name}"
            assert listed in notes
            names = (run_folder / "imported" / "db.txt").read_text().splitlines()
            assert names == [image.name for image in made.scene.db if image.name != gone.name]
        assert cli("map", run_folder / "imported.yaml", "-o", run_folder) == 0, cli.err
    assert run_digest(tmp_path / "run0")["map"] == run_digest(tmp_path / "run1")["map"]
    (tmp_path / "other.txt").write_text(f"{gone.name}\n")
    assert cli(*argv, "--image-list", tmp_path / "other.txt", "-o", tmp_path / "none") == 3
    assert f"no image of {tmp_path / 'other.txt'} is in the model" in cli.err
    assert not (tmp_path / "none").exists()


def _contents(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_keypoints_and_matches_are_enough(made: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    """What dense matchers give: no descriptors, scores called `score`, no sizes; the map is the same."""
    with h5py.File(exported / "features.h5", "r") as file, h5py.File(tmp_path / "dense.h5", "w") as dense:
        for name in made.features.keys:
            dense[f"{name}/keypoints"] = file[name]["keypoints"][()]
            dense[f"{name}/score"] = file[name]["scores"][()]
    argv = ["import", "hloc", "--features", tmp_path / "dense.h5", "-o", tmp_path / "run"]
    argv += ["--images", made.workdir.parent / "images", "--model", made.scene.model]
    argv += ["--queries", exported / "queries_with_intrinsics.txt"]
    assert cli(*argv) == 3
    assert "8 images of" in cli.err
    assert "keypoints without descriptors\n  give their matches too" in cli.err
    assert cli(*argv, "--matches", exported / "matches.h5") == 0
    assert cli("map", tmp_path / "run" / "imported.yaml", "-o", tmp_path / "run") == 0, cli.err
    assert run_digest(tmp_path / "run")["map"] == run_digest(made.workdir)["map"]


def test_a_pair_list_selects(made: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    first, second, third, *_ = sorted(image.name for image in made.scene.db)
    (tmp_path / "pairs.txt").write_text(f"{second} {first}\n{third} {first}\n{third} gone.png\n")
    argv = ["import", "hloc", "--features", exported / "features.h5", "-o", tmp_path / "run"]
    argv += ["--images", made.workdir.parent / "images", "--matches"]
    with h5py.File(exported / "matches.h5", "r") as file, h5py.File(tmp_path / "one.h5", "w") as one:
        key = "/".join(name.replace("/", "-") for name in (first, second))
        file.copy(key, one.require_group(key.partition("/")[0]))
    assert cli(*argv, tmp_path / "one.h5", "--pairs", tmp_path / "pairs.txt") == 0
    assert f"1 listed pairs have no matches in the files, e.g. '{first}' '{third}'" in cli.out
    assert (tmp_path / "run" / "imported" / "pairs.txt").read_text() == f"{first} {second}"
    assert cli(*argv, exported / "matches.h5", "--name", "features") == 3
    assert "imported.yaml exists and says something else" in cli.err
    assert cli(*argv, exported / "matches.h5", "--name", "features", "--force") == 0
    assert (
        cli(
            *argv, exported / "matches.h5", "--matches", exported / "matches.h5", "--name", "twice", "--force"
        )
        == 3
    )
    assert "are twice in the files" in cli.err


def test_other_features_under_the_same_name_are_refused(
    made: Run, exported: Path, cli: Cli, tmp_path: Path
) -> None:
    images = made.workdir.parent / "images"
    argv = ["import", "hloc", "--images", images, "-o", tmp_path / "run", "--name", "x", "--features"]
    assert cli(*argv, exported / "features.h5") == 0
    shutil.copyfile(exported / "features.h5", tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "a") as file:
        name = sorted(made.features.keys)[0]
        file[name]["keypoints"][0, 0] += 1
    assert cli(*argv, tmp_path / "other.h5") == 3
    assert f"holds other features of {name!r} already" in cli.err
    assert "--name NAME" in cli.err


def test_what_is_missing_is_named(made: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    first, second, *_ = sorted(made.features.keys)
    shutil.copytree(made.workdir.parent / "images", tmp_path / "images")
    (tmp_path / "images" / first).unlink()
    write_photo(tmp_path / "images" / "new.png")
    with h5py.File(exported / "features.h5", "r") as file, h5py.File(tmp_path / "half.h5", "w") as half:
        for name in made.features.keys:
            file.copy(name, half.require_group(name.rpartition("/")[0]))
            keypoints = half[name]["keypoints"][()].astype(np.float16)
            del half[name]["keypoints"]
            half[name]["keypoints"] = keypoints
    argv = ["import", "hloc", "--features", tmp_path / "half.h5", "--images", tmp_path / "images"]
    assert cli(*argv, "-o", tmp_path / "run", "--matches", exported / "matches.h5") == 0
    assert f"1 images of half.h5 are not under {tmp_path / 'images'}: {first}" in cli.out
    assert f"1 images under {tmp_path / 'images'} have no features in the import: new.png" in cli.out
    assert "keypoints of 7 images are float16: they are rounded, by up to 0.25 px" in cli.out
    assert "matched pairs are of images that were not imported: left out" in cli.out
    config = yaml.safe_load((tmp_path / "run" / "imported.yaml").read_text())
    assert config["features"] == {"use": "imported", "name": "half"}
    go_on = ("-o", tmp_path / "run", "--workers", "1")
    assert cli("map", tmp_path / "run" / "imported.yaml", *go_on) == 0, cli.err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["features"]["skipped"] == {
        "new.png": "no features of this photo, as it is now, were imported under the name half"
    }
    assert second in record["features"]["items"]
    config["pairs"] = [{"use": "exhaustive"}]  # pairs that were not imported
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(config))
    assert cli("match", tmp_path / "other.yaml", *go_on) == 3
    assert "asks for pairs of which no matches were imported under the name matches" in cli.err
    assert cli("match", tmp_path / "other.yaml", *go_on, "--set", "matcher=nearest") == 0
    photo = tmp_path / "images" / "new.png"
    assert cli("localize-photo", photo, "--map", tmp_path / "run") == 3
    assert "no features of this photo" in cli.err


def test_import_of_wrong_files(made: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    images = made.workdir.parent / "images"
    argv = ["import", "hloc", "-o", tmp_path / "run", "--images"]
    for root, file, message in (
        (images, exported / "matches.h5", "matches.h5 holds no keypoints"),
        (images, exported / "db.txt", "db.txt is damaged or no HDF5 file"),
        (images / "db", exported / "features.h5", "none of the 8 images"),
        (images.parent, exported / "features.h5", "images/db/"),
        (tmp_path / "gone", exported / "features.h5", "is not a folder"),
    ):
        assert cli(*argv, root, "--features", file) == 3
        assert message in cli.err
        assert "Traceback" not in cli.err
    data = (exported / "features.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    assert cli(*argv, images, "--features", tmp_path / "cut.h5") == 3
    assert "cut.h5 is damaged" in cli.err
    assert not (tmp_path / "run" / "imported.yaml").exists()


def test_names_that_hloc_cannot_tell_apart(cli: Cli, tmp_path: Path) -> None:
    for seed, name in enumerate(("a/b.png", "a-b.png", "c.png")):
        write_photo(tmp_path / "photos" / name, seed=seed)
    overrides = ["--set", f"scene.images={tmp_path / 'photos'}", "--workers", "1"]
    assert cli("match", "folder_sift", "-o", tmp_path / "run", *overrides) == 0, cli.err
    assert cli("export", "hloc", tmp_path / "run", "-o", tmp_path / "out") == 3
    assert "'a-b.png' and 'a/b.png' are one name in hloc's matches file" in cli.err
    assert not (tmp_path / "out").exists()
    assert cli("export", "hloc", tmp_path / "run", "-o", tmp_path / "out", "--no-matches") == 0
    assert _list_h5_names(tmp_path / "out" / "features.h5") == ["a-b.png", "a/b.png", "c.png"]


# ---- the map


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_the_map_as_a_colmap_model(made: Run, cli: Cli, tmp_path: Path, kind: str) -> None:
    assert cli("export", "colmap", made.workdir, "-o", tmp_path / "m", "--format", kind, "--json") == 0
    model = pycolmap.Reconstruction(tmp_path / "m")
    assert (tmp_path / "m" / f"images.{kind}").is_file()
    assert cli.json == {
        "images": made.bundle.stats["registered"],
        "points": made.bundle.stats["points"],
        "observations": made.bundle.stats["observations"],
    }
    for image in model.images.values():
        center = made.bundle.poses[image.name].center_in_world
        np.testing.assert_allclose(image.projection_center(), center, atol=1e-9)
    assert cli("export", "colmap", made.workdir, "-o", tmp_path / "m") == 3
    assert "--force" in cli.err


def test_the_points_as_ply(made: Run, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "ply", made.workdir, "-o", tmp_path / "points.ply", "--json") == 0
    points = made.bundle.stats["points"]
    assert cli.json == {"points": points}
    assert f"element vertex {points}\n".encode() in (tmp_path / "points.ply").read_bytes()[:200]


def test_cameras_as_csv(made: Run, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "csv", made.workdir, "-o", tmp_path / "cameras.csv") == 0
    lines = (tmp_path / "cameras.csv").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert "camera centre in the world frame" in comments[0]
    rows = {row["name"]: row for row in csv.DictReader(lines[len(comments) :])}
    assert set(rows) == {*made.bundle.poses, *made.poses.localized}
    for name, pose in {**made.bundle.poses, **made.poses.localized}.items():
        row = rows[name]
        assert [float(row[axis]) for axis in "xyz"] == pose.center_in_world.tolist()
        assert [float(row[key]) for key in ("tx", "ty", "tz")] == pose.translation.tolist()
        assert row["role"] == ("query" if name in made.poses.localized else "db")
        assert len(row["params"].split()) == 4
    assert cli("export", "csv", made.bundle.folder, "-o", tmp_path / "map.csv", "--json") == 0
    assert cli.json == {"db": len(made.bundle.poses), "queries": 0}


def test_nerfstudio(made: Run, cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "nerf"
    assert cli("export", "nerfstudio", made.workdir, "-o", target) == 0
    data = json.loads((target / "transforms.json").read_text())
    assert len(data["frames"]) == len(made.bundle.poses)
    for frame in data["frames"]:
        path = target / frame["file_path"]
        assert not Path(frame["file_path"]).is_absolute()
        assert path.is_file()
        matrix = np.array(frame["transform_matrix"])
        center = made.bundle.poses[f"db/{path.name}"].center_in_world
        np.testing.assert_allclose(matrix[:3, 3], center[[0, 2, 1]] * [1, 1, -1], atol=1e-12)
    assert data["camera_model"] == "OPENCV"
    assert (target / data["ply_file_path"]).is_file()
    assert cli("export", "nerfstudio", made.workdir, "-o", tmp_path / "b", "--images", tmp_path) == 3
    assert f"images of the map are not under {tmp_path}" in cli.err
    assert cli("export", "nerfstudio", made.bundle.folder, "-o", tmp_path / "b") == 3
    assert "does not say where its photos are" in cli.err
    root = made.workdir.parent / "images"
    assert cli("export", "nerfstudio", made.bundle.folder, "-o", tmp_path / "b", "--images", root) == 0


@pytest.mark.parametrize("what", ["hloc", "colmap", "ply", "csv", "nerfstudio"])
def test_no_export_into_the_run(made: Run, cli: Cli, what: str) -> None:
    before = sorted(made.workdir.rglob("*"))
    for target in (made.workdir / "run.json", made.workdir / "out", made.workdir / "map" / "out"):
        record = (made.workdir / "run.json").read_bytes()
        assert cli("export", what, made.workdir, "-o", target, "--force") == 3
        assert "is inside the run folder" in cli.err
        assert (made.workdir / "run.json").read_bytes() == record
    assert sorted(made.workdir.rglob("*")) == before


@pytest.mark.parametrize("what", ["ply", "csv"])
def test_force_replaces_only_the_same_kind(made: Run, cli: Cli, tmp_path: Path, what: str) -> None:
    target = tmp_path / f"out.{what}"
    argv = ["export", what, made.workdir, "-o", target]
    assert cli(*argv) == 0
    assert cli(*argv) == 3
    before = target.read_bytes()
    assert cli(*argv, "--force") == 0, cli.err
    assert target.read_bytes() == before
    target.write_text("name,x,y,z\nprecious,1,2,3\n")
    assert cli(*argv, "--force") == 3
    assert "is no former export of this kind: it is not replaced" in cli.err
    assert "precious" in target.read_text()


def test_nerfstudio_of_a_run_that_was_copied(
    made: Run, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made.workdir, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["config"]["scene"]["images"] = "elsewhere"
    record.pop("sha256", None)
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    argv = ["export", "nerfstudio", "run", "-o", "nerf"]
    assert cli(*argv) == 3
    assert "the photos are not where the run had them: scene.images: elsewhere does not exist" in cli.err
    assert "--images ROOT" in cli.err
    assert cli(*argv, "--images", made.workdir.parent / "images") == 0, cli.err


def test_models_of_bundler_and_nvm(cli: Cli, shared: Path, tmp_path: Path) -> None:
    """Aachen's own files: both give one model, which `scene.model` takes."""
    folder = shared / "data" / "aachen_lists" / "format_sample"
    stem, images = folder / "3D-models" / "aachen_cvpr2018_db", folder / "images_upright"
    (tmp_path / "k.txt").write_text("db/4446.jpg RADIAL 1200 1600 1557 600 800 0 0\n")
    bundler = [f"{stem}.out", "--list", f"{stem}.list.txt"]
    assert cli("import", "bundler", *bundler, "--images", images, "-o", tmp_path / "b", "--json") == 0
    assert (cli.json["images"], cli.json["points"], cli.json["observations"]) == (3, 5, 27)
    # A cut-down sample: its tracks are of other images.
    assert cli.json["notes"][0].startswith("no point projects into its images")
    assert cli.json["median_reprojection_error_px"] is None
    assert cli("import", "bundler", *bundler, "--images", images, "-o", tmp_path / "b", "--force") == 0
    assert "None" not in cli.out
    argv = ["--images", images, "--intrinsics", tmp_path / "k.txt", "-o", tmp_path / "n"]
    assert cli("import", "nvm", f"{stem}.nvm", *argv) == 0
    assert f"--set scene.model={tmp_path / 'n'}" in cli.out
    one, other = (pycolmap.Reconstruction(tmp_path / name) for name in "bn")
    assert {image.name for image in one.images.values()} == {image.name for image in other.images.values()}
    argv = ["--set", f"scene.images={images}", "--set", f"scene.model={tmp_path / 'n'}"]
    assert cli("doctor", "colmap_sift", *argv, "--no-environment") == 0, cli.out
    assert "a run would use 3 database images" in cli.out
    (tmp_path / "cut.nvm").write_bytes(stem.with_suffix(".nvm").read_bytes()[:900])
    assert cli("import", "nvm", tmp_path / "cut.nvm", "--images", images, "-o", tmp_path / "x") == 3
    assert "cut.nvm" in cli.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("what", ["hloc", "colmap", "ply", "csv", "nerfstudio"])
def test_exports_of_what_is_no_run(cli: Cli, tmp_path: Path, what: str) -> None:
    assert cli("export", what, tmp_path, "-o", tmp_path / "out") == 3
    assert "is not a run folder" in cli.err
    assert not (tmp_path / "out").exists()


def test_a_full_disk(made: Run, exported: Path, cli: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    """HDF5 ends the process on a full disk, so the space is asked for before."""
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert cli("export", "hloc", made.workdir, "-o", tmp_path / "out") == 1
    assert "MB are needed, 0.1 MB are free\n  free some space" in cli.err
    assert list(tmp_path.iterdir()) == []
    images = made.workdir.parent / "images"
    argv = [
        "import",
        "hloc",
        "--features",
        exported / "features.h5",
        "--images",
        images,
        "-o",
        tmp_path / "run",
    ]
    assert cli(*argv) == 1
    assert "no space left on the disk" in cli.err
    monkeypatch.undo()
    assert cli(*argv) == 0


def test_help(cli: Cli) -> None:
    for argv in (["export"], ["import"], ["export", "hloc"], ["import", "hloc"], ["import", "bundler"]):
        assert cli(*argv, "--help") == 0
        assert "Usage: loc" in cli.out
