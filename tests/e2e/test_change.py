"""What a change recomputes: the item and what depends on it, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scenes import small_scene

from loc.config import RunConfig
from loc.digest import run_digest
from loc.pipeline import Run, run
from loc.runtime.runtime import Runtime

HERE = Runtime(device="cpu", workers=1)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    root = tmp_path_factory.mktemp("change")
    config = small_scene(root / "scene")
    run(config, root / "run", runtime=HERE)
    return config, root


@pytest.fixture
def copy(scene: tuple[RunConfig, Path], tmp_path: Path) -> tuple[RunConfig, Path]:
    """A copy of photos and run that a test may change; every path of the config moves along."""
    config, root = scene
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    text = config.model_dump_json(by_alias=True).replace(str(root), str(tmp_path))
    return RunConfig.model_validate_json(text), tmp_path / "run"


def parts(folder: Path, kind: str) -> set[Path]:
    return set((folder / kind).glob("*/parts/*.h5"))


def maps(folder: Path) -> list[Path]:
    return sorted((folder / "map").glob("*/bundle.json"))


def computed(finished: Run) -> tuple[int, int]:
    assert finished.features is not None
    assert finished.matches is not None
    assert finished.query_matches is not None
    return finished.features.computed, finished.matches.computed + finished.query_matches.computed


def test_the_same_command_again_computes_nothing(copy: tuple[RunConfig, Path]) -> None:
    config, folder = copy
    before = run_digest(folder)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}
    again = run(config, folder, runtime=HERE)
    assert computed(again) == (0, 0)
    assert run_digest(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")} == files


def test_a_changed_photo_recomputes_itself_and_what_depends_on_it(copy: tuple[RunConfig, Path]) -> None:
    config, folder = copy
    before, features, matches = run_digest(folder), parts(folder, "features"), parts(folder, "matches")
    photo = sorted((folder.parent / "scene" / "images").iterdir())[0]
    Image.open(photo).save(photo, compress_level=1)  # other bytes under the same name
    run(config, folder, runtime=HERE)
    assert parts(folder, "features") >= features
    new = parts(folder, "features") - features
    assert [len(_items(path)) for path in new] == [1]
    # Eight photos, two of them queries: the photo is in five map pairs and two query pairs.
    assert sum(_pairs(path) for path in parts(folder, "matches") - matches) == 7
    after = run_digest(folder)
    assert {name for name in before if before[name] != after[name]} == {"features", "matches", "run"}
    assert len(maps(folder)) == 2  # made again, and the same, since the pixels are


def test_a_new_query_recomputes_nothing_of_the_map(copy: tuple[RunConfig, Path]) -> None:
    config, folder = copy
    maps = sorted((folder / "map").iterdir())
    stamps = [path.stat().st_mtime_ns for path in (folder / "map").rglob("*")]
    before = run_digest(folder)
    photos = sorted((folder.parent / "scene" / "images").iterdir())
    shutil.copy(photos[0], photos[0].with_name("a new query.png"))
    queries = Path(str(config.scene.queries))
    line = queries.read_text().splitlines()[0]
    queries.write_text(queries.read_text() + "a new query.png " + line.split(" ", 1)[1] + "\n")
    again = run(config, folder, runtime=HERE)
    assert sorted((folder / "map").iterdir()) == maps
    assert [path.stat().st_mtime_ns for path in (folder / "map").rglob("*")] == stamps
    assert again.features is not None
    assert again.features.computed == 1
    assert again.poses is not None
    assert "a new query.png" in again.poses.localized
    after = run_digest(folder)
    assert (after["map"], after["pairs_map"]) == (before["map"], before["pairs_map"])


@pytest.mark.parametrize(
    ("option", "value", "new"),
    [
        ("features.max_keypoints", 900, {"features", "matches", "map", "poses"}),
        ("matcher.ratio", 0.7, {"matches", "map", "poses"}),
        ("map.max_error_px", 3.0, {"map", "poses"}),
        ("localize.max_error_px", 6.0, {"poses"}),
    ],
)
def test_another_option_is_another_folder(
    copy: tuple[RunConfig, Path], option: str, value: Any, new: set[str]
) -> None:
    from loc.config import apply_overrides

    config, folder = copy
    before = {kind: set((folder / kind).iterdir()) for kind in ("features", "matches", "map", "poses")}
    changed = RunConfig.model_validate(
        apply_overrides(config.model_dump(mode="json", by_alias=True), {option: value})
    )
    run(changed, folder, runtime=HERE)
    for kind, folders in before.items():
        after = {path for path in (folder / kind).iterdir() if not path.name.startswith(".")}
        folders = {path for path in folders if not path.name.startswith(".")}
        assert after >= folders
        assert (len(after - folders) == 1) == (kind in new), kind


def test_moved_run_folder_still_localizes(copy: tuple[RunConfig, Path], tmp_path: Path) -> None:
    from loc.record import open_map
    from loc.stages.localize import Localizer

    _, folder = copy
    photo = sorted((folder.parent / "scene" / "images").iterdir())[1]
    moved = tmp_path / "elsewhere" / "run ü"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder)
    result = Localizer(open_map(moved), runtime=HERE).localize(photo)
    assert result.pose is not None


def _items(path: Path) -> list[str]:
    import h5py

    from loc.stores.parts import read_rows

    with h5py.File(path, "r", locking=False) as file:
        return [row[0] for row in read_rows(file)]


def _pairs(path: Path) -> int:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return int(file["pairs"].shape[0])


def test_a_run_that_ends_early_does_not_lose_the_map(copy: tuple[RunConfig, Path]) -> None:
    from loc.errors import MapError
    from loc.record import open_map

    config, folder = copy
    before = open_map(folder)
    run(config, folder, runtime=HERE, until="features")
    assert open_map(folder).folder == before.folder
    failing = config.model_copy(update={"map": config.map.model_copy(update={"min_num_inliers": 5000})})
    with pytest.raises(MapError):
        run(failing, folder, runtime=HERE)
    assert open_map(folder).folder == before.folder


def test_no_generator_for_queries_is_said_before_anything_is_computed(
    copy: tuple[RunConfig, Path], caplog: pytest.LogCaptureFixture
) -> None:
    from loc.config import ExhaustivePairs

    config, folder = copy
    found = run(
        config.model_copy(update={"pairs": (ExhaustivePairs(),)}), folder, runtime=HERE, until="poses"
    )
    why = "no generator of the `pairs` section is for: query or both"
    assert found.poses is not None
    assert {(each.status, each.reason) for each in found.poses.results} == {("no_pairs", why)}
    said = [record.getMessage() for record in caplog.records]
    warning = f"{why}: no query will be localized; add {{use: auto, for: query}}"
    assert said.index(warning) < said.index("stage features")


def test_a_map_with_a_flipped_bit_is_not_resumed_nor_shown(copy: tuple[RunConfig, Path]) -> None:
    from loc.errors import StoreError
    from loc.sfm.model import read_colors

    config, folder = copy
    points = next((folder / "map").glob("*/model/points3D.bin"))
    whole = bytearray(points.read_bytes())
    whole[len(whole) // 2] ^= 16
    points.write_bytes(whole)
    cure = f"delete the folder {points.parent.parent} and run the command that made the run again"
    for read in (lambda: run(config, folder, runtime=HERE, until="map"), lambda: read_colors(points.parent)):
        with pytest.raises(StoreError, match=r"points3D\.bin is damaged: its bytes do not match") as caught:
            read()
        assert caught.value.next_step == cure


def test_a_run_that_fails_leaves_the_finished_one_to_readers(
    copy: tuple[RunConfig, Path], caplog: pytest.LogCaptureFixture
) -> None:
    from loc.errors import MapError, StoreError
    from loc.record import read_record

    config, folder = copy
    before, record = run_digest(folder), read_record(folder)
    table = (folder / "scene" / "scene.json").read_bytes()
    fewer = config.scene.model_copy(update={"queries": None, "ground_truth": None})
    impossible = config.map.model_copy(update={"min_num_inliers": 5000})
    failing = config.model_copy(update={"scene": fewer, "map": impossible})
    for _ in range(2):
        with pytest.raises(MapError):
            run(failing, folder, runtime=HERE)
        assert run_digest(folder) == before
        assert read_record(folder) == record
        assert (folder / "scene" / "scene.json").read_bytes() == table
    assert f"the last run of {folder} stopped (MapError: 0 of 6 images produced 3-D points" in caplog.text
    part = sorted((folder / record["features"]["folder"] / "parts").glob("*.h5"))[0]
    whole = part.read_bytes()
    part.write_bytes(whole[:-500])
    with pytest.raises(StoreError, match="is damaged"):
        run(config, folder, runtime=HERE)
    with pytest.raises(StoreError, match="is damaged"):
        run_digest(folder)
    part.write_bytes(whole)
    run(config, folder, runtime=HERE)
    assert "last_finished" not in (folder / "run.json").read_text()
    assert run_digest(folder) == before


def test_a_run_that_stopped_before_its_first_artefact_has_no_digest(
    scene: tuple[RunConfig, Path], tmp_path: Path
) -> None:
    from loc.errors import ConfigError, StoreError

    failing = scene[0].model_copy(update={"features": {"use": "no_such_extractor"}})
    with pytest.raises(ConfigError):
        run(failing, tmp_path, runtime=HERE)
    with pytest.raises(StoreError, match=r"holds no artefact.*\n  run the command that made the run again"):
        run_digest(tmp_path)


def test_a_stage_that_is_none(copy: tuple[RunConfig, Path]) -> None:
    from loc.errors import ConfigError

    with pytest.raises(ConfigError, match="until='maps' is no stage\n  did you mean map"):
        run(*copy, runtime=HERE, until="maps")
