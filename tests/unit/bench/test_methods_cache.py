"""Results are kept: nothing is computed twice, a changed setting is computed anew beside the old."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from loc.bench import methods
from loc.bench.methods import PAIRS, RESULT, Method, Result, Settings, compare
from loc.cli.app import app
from loc.errors import ConfigError, DataError, LocError, MapError
from loc.runtime.runtime import Runtime


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of one pair by day and night: the same wall, brighter and darker, two steps to the side."""
    folder = tmp_path / "root" / PAIRS
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "day.png"), wall)
    cv2.imwrite(str(folder / "night.png"), np.roll(wall // 2, 9, axis=1))
    points = rng.uniform(20, 220, (20, 2))
    np.savetxt(folder / "points.txt", np.hstack([points, points + np.array([9, 0])]))
    (folder / "pairs.csv").write_text(
        "pair,image1,image2,corrs_file,tags\nwall,day.png,night.png,points.txt,day-night(image2 is night)\n"
    )
    return folder.parent


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which methods were computed, in order."""
    calls: list[str] = []
    original = methods._measured

    def note(name: str, method: Method, *rest: Any) -> dict[str, Any]:
        calls.append(f"{name} {method.name}")
        return original(name, method, *rest)

    monkeypatch.setattr(methods, "_measured", note)
    return calls


def results(settings: Settings, *names: str, sets: tuple[str, ...] = (PAIRS,)) -> list[Result]:
    def refuse(_set: str, _method: str, error: LocError) -> None:
        raise error

    runtime = Runtime(device="cpu", workers=1)
    return list(compare(sets, names or ("sift",), settings, runtime=runtime, failed=refuse))


def test_a_table_is_rebuilt_without_computing(root: Path, tmp_path: Path, measured: list[str]) -> None:
    settings = Settings(root, tmp_path / "cache")
    (first,), (second,) = results(settings), results(settings)
    assert first == second
    assert measured == [f"{PAIRS} sift"]
    assert first.data["pairs"][0]["matches"] > 50
    assert first.data["seconds"]["processor"] > 0
    assert not first.data["resumed"]


def test_an_interrupted_bench_goes_on_where_it_was(
    root: Path, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(root, tmp_path / "cache")
    names = ("sift", "sift+nearest")

    def interrupt(*_args: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    results(settings, names[0])
    with monkeypatch.context() as patch:
        patch.setattr(methods, "measure_pairs", interrupt)
        with pytest.raises(KeyboardInterrupt):
            results(settings, *names)
    assert [each.method for each in results(settings, *names)] == list(names)
    assert measured == [f"{PAIRS} sift", f"{PAIRS} sift+nearest", f"{PAIRS} sift+nearest"]


def test_what_changes_the_numbers_is_computed_anew_beside_the_old(
    root: Path, tmp_path: Path, measured: list[str]
) -> None:
    before = results(Settings(root, tmp_path / "cache"))[0]
    smaller = results(Settings(root, tmp_path / "cache", long_side=200))[0]
    assert smaller.folder != before.folder
    (root / PAIRS / "day.png").write_bytes((root / PAIRS / "day.png").read_bytes() + b" ")
    other = results(Settings(root, tmp_path / "cache"))[0]
    assert len({before.folder, smaller.folder, other.folder}) == 3
    assert all((each.folder / RESULT).is_file() for each in (before, smaller, other))
    # Of the town and of LightGlue alone.
    results(Settings(root, tmp_path / "cache", lightglue_keypoints=50, town_size="small", town_neighbours=3))
    assert len(measured) == 3


def test_moved_folders_change_nothing(root: Path, tmp_path: Path, measured: list[str]) -> None:
    results(Settings(root, tmp_path / "cache"))
    root.rename(tmp_path / "elsewhere")
    (tmp_path / "cache").rename(tmp_path / "kept")
    results(Settings(tmp_path / "elsewhere", tmp_path / "kept"))
    assert len(measured) == 1


def test_a_method_that_cannot_map_has_that_as_its_result(
    root: Path, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_map(*_args: Any, **_options: Any) -> None:
        raise MapError("0 of 8 images produced 3-D points")

    monkeypatch.setattr(methods, "measure_pairs", no_map)
    settings = Settings(root, tmp_path / "cache")
    assert results(settings)[0].data["failed"] == "0 of 8 images produced 3-D points"
    results(settings)
    assert len(measured) == 1


@pytest.mark.parametrize("name", ["superpoint", "superpoint+nearest", "dog_hardnet"])
def test_weights_that_nobody_checked_are_in_no_table(
    name: str, root: Path, tmp_path: Path, measured: list[str]
) -> None:
    with pytest.raises(ConfigError, match="weights not verified here") as caught:
        results(Settings(root, tmp_path / "cache"), "sift", name)
    assert "disk+lightglue" in str(caught.value)
    assert measured == []


def test_d2net_is_compared_with_the_weights_that_were_checked(tmp_path: Path) -> None:
    method = Method.named("d2net_ms", Settings(tmp_path, tmp_path))
    assert method.features["weights"] == "ots"
    assert [file.name for file in method.plugins()[0].weights] == ["d2_ots.pth"]


@pytest.mark.parametrize("name", methods.METHODS)
def test_settings_reach_the_blocks(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "delf_ots":  # which of its weights are verified depends on what is at hand
        monkeypatch.setenv("LOC_WEIGHTS_DIR", str(request.getfixturevalue("shared") / "weights"))
    method = Method.named(name, Settings(tmp_path, tmp_path, long_side=321, lightglue_keypoints=77))
    extractor, matcher = method.plugins()
    assert extractor.stage_options["resize_max"] == 321
    if "lightglue" in name:
        assert extractor.config.max_keypoints == matcher.config.max_keypoints == 77


@pytest.mark.parametrize(
    ("sets", "names", "text"),
    [
        ((PAIRS,), ("sfit",), "did you mean sift"),
        (("wxbz",), ("sift",), "did you mean wxbs"),
        ((PAIRS,), ("sift+lightglue",), "no weights for the features of sift"),
    ],
)
def test_a_wrong_name_is_said_before_anything_is_computed(
    sets: tuple[str, ...], names: tuple[str, ...], text: str, root: Path, tmp_path: Path, measured: list[str]
) -> None:
    with pytest.raises(LocError, match=text):
        results(Settings(root, tmp_path / "cache"), "sift", *names, sets=sets)
    assert measured == []


def test_a_set_that_is_not_here_stops_no_other(root: Path, tmp_path: Path) -> None:
    failures: list[tuple[str, str, LocError]] = []
    found = compare(
        ["kermit", PAIRS],
        ["sift"],
        Settings(root, tmp_path / "cache"),
        runtime=Runtime(device="cpu", workers=1),
        failed=lambda *what: failures.append(what),
    )
    assert [result.set for result in found] == [PAIRS]
    ((name, method, error),) = failures
    assert (name, method) == ("kermit", "sift")
    assert isinstance(error, DataError)
    assert "--root" in str(error)


def test_the_command(root: Path, tmp_path: Path) -> None:
    argv = ["bench", "methods", "--root", str(root), "--sets", PAIRS, "--methods", "sift", "--workers", "1"]
    argv += ["--cache", str(tmp_path / "cache")]
    told = CliRunner().invoke(app, [*argv, "--pictures", str(tmp_path / "pictures")])
    assert told.exit_code == 0, told.output
    assert "within 12 px" in told.stdout
    # Both photos (640 x 480) at the height of a drawing, a gap between them.
    assert cv2.imread(str(tmp_path / "pictures" / "wall-sift.png")).shape == (720, 960 + 8 + 960, 3)
    in_markdown = CliRunner().invoke(app, [*argv, "--markdown"])
    assert "| sift |" in in_markdown.stdout
    (row,) = json.loads(CliRunner().invoke(app, [*argv, "--json"]).stdout)
    assert (row["set"], row["method"], len(row["pairs"])) == (PAIRS, "sift", 1)
    missing = CliRunner().invoke(app, [*argv[:3], "/nowhere", *argv[4:]])
    assert missing.exit_code == 3
    assert "--root" in missing.stderr
