"""A run goes out in the formats of others, and comes back as the same run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from scenes import Cli, write_photo

from loc.colmap import pycolmap
from loc.digest import run_digest
from loc.layouts.lists import read_poses
from loc.pipeline import Run

pytestmark = pytest.mark.xdist_group("exchange")  # one run serves all


@pytest.fixture(scope="module")
def exported(nested_run: Run) -> Path:
    target = nested_run.workdir.parent / "hloc"
    assert _main("export", "hloc", nested_run.workdir, "-o", target) == 0
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


def test_hloc_reads_the_features(nested_run: Run, exported: Path) -> None:
    assert _list_h5_names(exported / "features.h5") == sorted(nested_run.features.keys)
    with h5py.File(exported / "features.h5", "r") as file:
        for name in nested_run.features.keys:
            ours, theirs = nested_run.features.get(name), file[name]
            assert theirs["keypoints"].dtype == np.float32
            np.testing.assert_array_equal(theirs["keypoints"][()] + np.float32(0.5), ours.keypoints)
            assert theirs["descriptors"].shape == (128, len(ours))
            assert theirs["descriptors"].dtype == np.float16
            norms = np.linalg.norm(theirs["descriptors"][()].astype(np.float32), axis=0)
            assert (np.abs(norms - 1) < 0.05).all()
            np.testing.assert_array_equal(theirs["scores"][()], ours.scores)
            assert tuple(theirs["image_size"][()]) == ours.image_wh


def test_hloc_reads_the_global_descriptors(nested_run: Run, exported: Path) -> None:
    names = _list_h5_names(exported / "global-feats.h5")
    assert names == sorted(nested_run.features.keys)
    with h5py.File(exported / "global-feats.h5", "r") as file:
        matrix = np.stack([file[name]["global_descriptor"][()] for name in names])
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_hloc_reads_the_matches(nested_run: Run, exported: Path) -> None:
    with h5py.File(exported / "matches.h5", "r") as file:
        for stage in (nested_run.matches, nested_run.query_matches):
            for pair in stage.keys:
                ours = stage.get(pair)
                indices, scores = _get_matches(file, *pair)
                np.testing.assert_array_equal(indices, ours.indices)
                np.testing.assert_array_equal(scores, ours.scores)
                turned, _ = _get_matches(file, *pair[::-1])
                np.testing.assert_array_equal(turned[:, ::-1], ours.indices)


def test_the_texts(nested_run: Run, exported: Path) -> None:
    for role, stage in (("map", nested_run.matches), ("query", nested_run.query_matches)):
        text = (exported / f"pairs-{role}.txt").read_text()
        assert not text.endswith("\n")
        assert {tuple(line.split(" ")) for line in text.split("\n")} == set(stage.keys)
    found = read_poses(exported / "results.txt")
    assert {name.rpartition("/")[2] for name in nested_run.poses.localized} == set(found)
    queries = (exported / "queries_with_intrinsics.txt").read_text().splitlines()
    assert [len(line.split()) for line in queries] == [8] * len(nested_run.scene.queries)
    assert (exported / "db.txt").read_text().splitlines() == [image.name for image in nested_run.scene.db]
    model = pycolmap.Reconstruction(exported / "sfm")
    assert model.num_points3D() == nested_run.bundle.stats["points"]


def test_what_comes_back_is_the_same_run(nested_run: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    """Features, descriptors, matches, map and poses: equal to the bit, without an extractor."""
    argv = ["import", "hloc", "--features", exported / "features.h5", "--name", "ours"]
    argv += ["--globals", exported / "global-feats.h5", "--matches", exported / "matches.h5"]
    argv += ["--images", nested_run.workdir.parent / "images", "--model", nested_run.scene.model]
    argv += ["--queries", exported / "queries_with_intrinsics.txt", "-o", tmp_path / "run", "--json"]
    assert cli(*argv) == 0
    count = len(nested_run.matches.keys) + len(nested_run.query_matches.keys)
    assert cli.json["counts"] == {"features": 8, "globals": 8, "matches": count, "pairs": count}
    assert cli.json["notes"] == []
    assert cli(*argv) == 0  # the same again changes nothing
    assert cli("localize", tmp_path / "run" / "imported.yaml", "-o", tmp_path / "run") == 0, cli.err
    before, after = run_digest(nested_run.workdir), run_digest(tmp_path / "run")
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


def test_an_image_that_is_not_registered(nested_run: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    """The map of a run seldom has every image: what is not in it, and its pairs, are left out by name."""
    model = pycolmap.Reconstruction(exported / "sfm")
    gone = next(image for image in model.images.values() if image.name == nested_run.scene.db[1].name)
    model.deregister_frame(gone.frame_id)
    (tmp_path / "sfm").mkdir()
    model.write(tmp_path / "sfm")
    argv = ["import", "hloc", "--images", nested_run.workdir.parent / "images", "--model", tmp_path / "sfm"]
    for option, name in (
        ("features", "features.h5"),
        ("globals", "global-feats.h5"),
        ("matches", "matches.h5"),
    ):
        argv += [f"--{option}", exported / name]
    argv += ["--queries", exported / "queries_with_intrinsics.txt"]
    lists = ["--image-list", exported / "db.txt", "--pairs", exported / "pairs-map.txt"]
    lists += ["--pairs", exported / "pairs-query.txt"]
    pairs = [*nested_run.matches.keys, *nested_run.query_matches.keys]
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
            assert names == [image.name for image in nested_run.scene.db if image.name != gone.name]
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


def test_keypoints_and_matches_are_enough(nested_run: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    """What dense matchers give: no descriptors, scores called `score`, no sizes; the map is the same."""
    with h5py.File(exported / "features.h5", "r") as file, h5py.File(tmp_path / "dense.h5", "w") as dense:
        for name in nested_run.features.keys:
            dense[f"{name}/keypoints"] = file[name]["keypoints"][()]
            dense[f"{name}/score"] = file[name]["scores"][()]
    argv = ["import", "hloc", "--features", tmp_path / "dense.h5", "-o", tmp_path / "run"]
    argv += ["--images", nested_run.workdir.parent / "images", "--model", nested_run.scene.model]
    argv += ["--queries", exported / "queries_with_intrinsics.txt"]
    assert cli(*argv) == 3
    assert "8 images of" in cli.err
    assert "keypoints without descriptors\n  give their matches too" in cli.err
    assert cli(*argv, "--matches", exported / "matches.h5") == 0
    assert cli("map", tmp_path / "run" / "imported.yaml", "-o", tmp_path / "run") == 0, cli.err
    assert run_digest(tmp_path / "run")["map"] == run_digest(nested_run.workdir)["map"]


def test_a_pair_list_selects(nested_run: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    first, second, third, *_ = sorted(image.name for image in nested_run.scene.db)
    (tmp_path / "pairs.txt").write_text(f"{second} {first}\n{third} {first}\n{third} gone.png\n")
    argv = ["import", "hloc", "--features", exported / "features.h5", "-o", tmp_path / "run"]
    argv += ["--images", nested_run.workdir.parent / "images", "--matches"]
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
    nested_run: Run, exported: Path, cli: Cli, tmp_path: Path
) -> None:
    images = nested_run.workdir.parent / "images"
    argv = ["import", "hloc", "--images", images, "-o", tmp_path / "run", "--name", "x", "--features"]
    assert cli(*argv, exported / "features.h5") == 0
    shutil.copyfile(exported / "features.h5", tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "a") as file:
        name = sorted(nested_run.features.keys)[0]
        file[name]["keypoints"][0, 0] += 1
    assert cli(*argv, tmp_path / "other.h5") == 3
    assert f"holds other features of {name!r} already" in cli.err
    assert "--name NAME" in cli.err


def test_what_is_missing_is_named(nested_run: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    first, second, *_ = sorted(nested_run.features.keys)
    shutil.copytree(nested_run.workdir.parent / "images", tmp_path / "images")
    (tmp_path / "images" / first).unlink()
    write_photo(tmp_path / "images" / "new.png")
    with h5py.File(exported / "features.h5", "r") as file, h5py.File(tmp_path / "half.h5", "w") as half:
        for name in nested_run.features.keys:
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


def test_import_of_wrong_files(nested_run: Run, exported: Path, cli: Cli, tmp_path: Path) -> None:
    images = nested_run.workdir.parent / "images"
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


def test_a_full_disk(nested_run: Run, exported: Path, cli: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    """HDF5 ends the process on a full disk, so the space is asked for before."""
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert cli("export", "hloc", nested_run.workdir, "-o", tmp_path / "out") == 1
    assert "MB are needed, 0.1 MB are free\n  free some space" in cli.err
    assert list(tmp_path.iterdir()) == []
    images = nested_run.workdir.parent / "images"
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
