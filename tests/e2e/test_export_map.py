"""A map goes out as COLMAP, PLY, CSV and nerfstudio's files; models of others come in."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scenes import Cli

from loc.colmap import pycolmap
from loc.pipeline import Run

pytestmark = pytest.mark.xdist_group("exchange")  # one run serves all


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_the_map_as_a_colmap_model(nested_run: Run, cli: Cli, tmp_path: Path, kind: str) -> None:
    assert cli("export", "colmap", nested_run.workdir, "-o", tmp_path / "m", "--format", kind, "--json") == 0
    model = pycolmap.Reconstruction(tmp_path / "m")
    assert (tmp_path / "m" / f"images.{kind}").is_file()
    assert cli.json == {
        "images": nested_run.bundle.stats["registered"],
        "points": nested_run.bundle.stats["points"],
        "observations": nested_run.bundle.stats["observations"],
    }
    for image in model.images.values():
        center = nested_run.bundle.poses[image.name].center_in_world
        np.testing.assert_allclose(image.projection_center(), center, atol=1e-9)
    assert cli("export", "colmap", nested_run.workdir, "-o", tmp_path / "m") == 3
    assert "--force" in cli.err


def test_the_points_as_ply(nested_run: Run, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "ply", nested_run.workdir, "-o", tmp_path / "points.ply", "--json") == 0
    points = nested_run.bundle.stats["points"]
    assert cli.json == {"points": points}
    assert f"element vertex {points}\n".encode() in (tmp_path / "points.ply").read_bytes()[:200]


def test_cameras_as_csv(nested_run: Run, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "csv", nested_run.workdir, "-o", tmp_path / "cameras.csv") == 0
    lines = (tmp_path / "cameras.csv").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert "camera centre in the world frame" in comments[0]
    rows = {row["name"]: row for row in csv.DictReader(lines[len(comments) :])}
    assert set(rows) == {*nested_run.bundle.poses, *nested_run.poses.localized}
    for name, pose in {**nested_run.bundle.poses, **nested_run.poses.localized}.items():
        row = rows[name]
        assert [float(row[axis]) for axis in "xyz"] == pose.center_in_world.tolist()
        assert [float(row[key]) for key in ("tx", "ty", "tz")] == pose.translation.tolist()
        assert row["role"] == ("query" if name in nested_run.poses.localized else "db")
        assert len(row["params"].split()) == 4
    assert cli("export", "csv", nested_run.bundle.folder, "-o", tmp_path / "map.csv", "--json") == 0
    assert cli.json == {"db": len(nested_run.bundle.poses), "queries": 0}


def test_nerfstudio(nested_run: Run, cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "nerf"
    assert cli("export", "nerfstudio", nested_run.workdir, "-o", target) == 0
    data = json.loads((target / "transforms.json").read_text())
    assert len(data["frames"]) == len(nested_run.bundle.poses)
    for frame in data["frames"]:
        path = target / frame["file_path"]
        assert not Path(frame["file_path"]).is_absolute()
        assert path.is_file()
        matrix = np.array(frame["transform_matrix"])
        center = nested_run.bundle.poses[f"db/{path.name}"].center_in_world
        np.testing.assert_allclose(matrix[:3, 3], center[[0, 2, 1]] * [1, 1, -1], atol=1e-12)
    assert data["camera_model"] == "OPENCV"
    assert (target / data["ply_file_path"]).is_file()
    assert cli("export", "nerfstudio", nested_run.workdir, "-o", tmp_path / "b", "--images", tmp_path) == 3
    assert f"images of the map are not under {tmp_path}" in cli.err
    assert cli("export", "nerfstudio", nested_run.bundle.folder, "-o", tmp_path / "b") == 3
    assert "does not say where its photos are" in cli.err
    root = nested_run.workdir.parent / "images"
    assert cli("export", "nerfstudio", nested_run.bundle.folder, "-o", tmp_path / "b", "--images", root) == 0


@pytest.mark.parametrize("what", ["hloc", "colmap", "ply", "csv", "nerfstudio"])
def test_no_export_into_the_run(nested_run: Run, cli: Cli, what: str) -> None:
    before = sorted(nested_run.workdir.rglob("*"))
    for target in (
        nested_run.workdir / "run.json",
        nested_run.workdir / "out",
        nested_run.workdir / "map" / "out",
    ):
        record = (nested_run.workdir / "run.json").read_bytes()
        assert cli("export", what, nested_run.workdir, "-o", target, "--force") == 3
        assert "is inside the run folder" in cli.err
        assert (nested_run.workdir / "run.json").read_bytes() == record
    assert sorted(nested_run.workdir.rglob("*")) == before


@pytest.mark.parametrize("what", ["ply", "csv"])
def test_force_replaces_only_the_same_kind(nested_run: Run, cli: Cli, tmp_path: Path, what: str) -> None:
    target = tmp_path / f"out.{what}"
    argv = ["export", what, nested_run.workdir, "-o", target]
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
    nested_run: Run, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(nested_run.workdir, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["config"]["scene"]["images"] = "elsewhere"
    record.pop("sha256", None)
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    argv = ["export", "nerfstudio", "run", "-o", "nerf"]
    assert cli(*argv) == 3
    assert "the photos are not where the run had them: scene.images: elsewhere does not exist" in cli.err
    assert "--images ROOT" in cli.err
    assert cli(*argv, "--images", nested_run.workdir.parent / "images") == 0, cli.err


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
