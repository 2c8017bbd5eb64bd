"""The command line: what it imports, prints and exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scenes import SMALL, Cli, small_scene, write_photo

HEAVY = ("torch", "pycolmap", "cv2", "h5py", "numpy", "pydantic", "PIL", "faiss", "matplotlib")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom loc.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "reconstruct" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_import_loc_imports_nothing_heavy() -> None:
    code = f"import sys, loc\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", ["run", "plan", "extract", "match", "map", "localize", "eval", "plugins", "index", "retrieve"]
)
def test_every_command_has_help(cli: Cli, command: str) -> None:
    assert cli(command, "--help") == 0
    assert "Usage: loc" in cli.out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["run"], 2, "Missing argument"),
        (["nonsense"], 2, "No such command"),
        (["run", "missing.yaml", "-o", "x"], 2, "ConfigError: no config missing.yaml"),
        (["reconstruct", "missing", "-o", "x"], 3, "DataError: "),
        (["digest", "missing"], 3, "is not a run folder"),
        (["localize-photo", "a.jpg", "--map", "missing"], 3, "is not a run folder"),
        (["plugins", "sfit"], 2, "did you mean sift?"),
        (["run", "folder_sift", "-o", "x", "--set", "map.maper=1"], 2, "did you mean mapper"),
        (["run", "folder_sift", "-o", "x", "--set", "novalue"], 2, "SECTION.OPTION=VALUE"),
        (["run", "folder_sift", "-o", "x", "--set", "features=a.b:C"], 4, "cannot import a.b:C"),
        (["eval", "missing", "missing", "--threshold", "a"], 2, "POSITION,DEGREES"),
        (["eval", "missing", "missing", "--threshold", "nan,2"], 2, "two finite numbers"),
        (["eval", "missing", "missing", "--threshold=-1,2"], 2, "two finite numbers"),
        (["holdout", "m", "i", "-o", "x", "--every", "3", "--queries", "q"], 2, "give one of the two"),
    ],
)
def test_mistakes_exit_with_their_code(
    cli: Cli, argv: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(*argv) == code
    assert message in cli.err
    assert "Traceback" not in cli.err
    assert list(tmp_path.iterdir()) == []


def test_device_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    write_photo(tmp_path / "p" / "a.png")
    write_photo(tmp_path / "p" / "b.png", seed=1)
    assert cli("reconstruct", tmp_path / "p", "-o", tmp_path / "r", "--device", "cuda:9") == 2
    assert "device 'cuda:9' cannot be used" in cli.err


def test_plugins_lists_what_is_registered(cli: Cli) -> None:
    assert cli("plugins", "--json") == 0
    assert {item["name"] for item in cli.json["extractors"]} >= {"sift"}
    assert cli("plugins", "sift") == 0
    assert "max_keypoints" in cli.out
    assert "resize_max" in cli.out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the small scene through the pipeline."""
    from loc.pipeline import run
    from loc.runtime.runtime import Runtime

    root = tmp_path_factory.mktemp("cli")
    run(small_scene(root / "scene"), root / "run", runtime=Runtime(device="cpu", workers=1))
    return root


def test_run_folder_says_what_it_holds(finished: Path) -> None:
    record = json.loads((finished / "run" / "run.json").read_text())
    for name in ("map", "poses", "report", "pairs_map", "pairs_query", "matches"):
        assert (finished / "run" / record[name]).is_dir(), name
    scene = json.loads((finished / "run" / "scene" / "scene.json").read_text())
    assert len(scene["images"]) == 8
    log = (finished / "run" / "run.log").read_text()
    assert "pycolmap" in log
    assert "finished" in log
    page = (finished / "run" / record["report"] / "index.html").read_text()
    assert "<html" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_poses_are_in_benchmark_format_and_eval_reads_them(cli: Cli, finished: Path) -> None:
    record = json.loads((finished / "run" / "run.json").read_text())
    poses = finished / "run" / record["poses"] / "poses.txt"
    lines = poses.read_text().splitlines()
    assert lines
    assert all(len(line.split()) == 8 for line in lines)
    truth = finished / "scene" / "ground_truth.txt"
    assert cli("eval", poses, truth, "--threshold", "0.5,5", "--json") == 0
    group = cli.json["groups"]["all"]
    assert group["queries"] == len(truth.read_text().splitlines())
    assert group["localized"] == len(lines)
    assert group["recall"] == {next(iter(group["recall"])): len(lines) / group["queries"]}
    truth_only_half = finished / "half.txt"
    truth_only_half.write_text("\n".join(lines[:1]) + "\n")
    assert cli("eval", truth_only_half, truth, "--json") == 0
    assert cli.json["groups"]["all"]["localized"] == 1  # every query stays in the denominator
    assert cli.json["groups"]["all"]["queries"] == group["queries"]


def test_eval_writes_a_page_and_notes_unknown_poses(cli: Cli, finished: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.txt"
    truth.write_text("<b>a.jpg 1 0 0 0 0 0 0\nb.jpg 1 0 0 0 0 0 0\n")
    poses = tmp_path / "poses.txt"
    poses.write_text("<b>a.jpg 1 0 0 0 0 0 0.1\nelse.jpg 1 0 0 0 0 0 0\n")
    assert cli("eval", poses, truth, "--html", tmp_path / "new" / "eval.html") == 0
    assert "note: 1 of 2 poses are not in the ground truth" in cli.out
    page = (tmp_path / "new" / "eval.html").read_text()
    assert "&lt;b&gt;a.jpg</td>" in page
    assert "<b>a.jpg" not in page
    assert "b.jpg</td>" in page
    assert "50.0<i>%</i>" in page
    assert "1 of 2 poses are not in the ground truth" in page.replace("\u2009", " ")
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert cli("eval", poses, truth, "--json") == 0
    assert [(row["name"], row["localized"]) for row in cli.json["per_query"]] == [
        ("<b>a.jpg", True),
        ("b.jpg", False),
    ]


def test_localize_photo_fails_when_no_photo_can_be_read(cli: Cli, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    assert cli("localize-photo", tmp_path / "broken.jpg", "--map", finished / "run") == 3
    assert "unreadable" in cli.out
    photo = sorted((finished / "scene" / "images").iterdir())[1]
    assert cli("localize-photo", tmp_path / "broken.jpg", photo, "--map", finished / "run") == 0


def test_holdout_reads_names_from_a_list_of_poses(cli: Cli, finished: Path, tmp_path: Path) -> None:
    from loc.holdout import _as_names
    from loc.sfm.model import read_model

    model, images = finished / "scene" / "model", finished / "scene" / "images"
    names = sorted(read_model(model).images)
    every = tmp_path / "all.txt"
    every.write_text("".join(f"{name} 1 0 0 0 0 0 0\n" for name in names))
    assert _as_names(every, tmp_path / "run").read_text().split() == names
    assert cli("holdout", model, images, "-o", tmp_path / "run", "--queries", every) == 3
    assert "leave images for the map" in cli.err
    plain = tmp_path / "plain.txt"
    plain.write_text("a.jpg\n")
    assert _as_names(plain, tmp_path / "run") == plain


def test_plugins_config_lists_every_option(cli: Cli) -> None:
    from loc.config import RunConfig

    assert cli("plugins", "config") == 0
    assert "  mapper ('incremental' or 'global', default incremental)" in cli.out
    assert cli("plugins", "config", "--json") == 0
    sections = {title.split(":")[0] for title in cli.json}
    assert sections == set(RunConfig.model_fields)
    assert cli.json["localize"]["max_error_px"]["default"] == 12.0
    assert "for" in cli.json["pairs: - use: retrieval"]


def test_localize_photo_writes_nothing(cli: Cli, finished: Path) -> None:
    def listing() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (finished / "run").rglob("*")}

    before = listing()
    photo = sorted((finished / "scene" / "images").iterdir())[1]
    assert cli("localize-photo", photo, "--map", finished / "run", "--json") == 0
    (result,) = cli.json
    assert result["status"] in ("ok", "doubtful")
    assert result["cam_from_world"] is not None
    assert listing() == before


def test_digest_prints_a_hash_per_artefact(cli: Cli, finished: Path) -> None:
    assert cli("digest", finished / "run", "--json") == 0
    assert set(cli.json) >= {"features", "matches", "map", "poses", "run"}


def test_plan_predicts_the_run(cli: Cli, finished: Path, tmp_path: Path) -> None:
    """Items and pairs are those of the run, bytes within 20 %; then: done, and what differs."""
    config = tmp_path / "config.json"
    record = json.loads((finished / "run" / "run.json").read_text())
    config.write_text(json.dumps(record["config"]))
    assert cli("plan", config, "-o", tmp_path / "new", "--json") == 0
    steps = {step["stage"]: step for step in cli.json}
    assert not (tmp_path / "new").exists()
    assert steps["features"]["items"] == 8
    assert steps["features"]["done"] == 0
    pairs = [
        (finished / "run" / record[f"pairs_{role}"] / "pairs.txt").read_text().splitlines()
        for role in ("map", "query")
    ]
    assert [steps["pairs map"]["items"], steps["pairs query"]["items"]] == [len(each) for each in pairs]
    assert steps["matches"]["items"] == sum(map(len, pairs))
    for stage in ("features", "matches", "map"):
        actual = sum(p.stat().st_size for p in (finished / "run" / stage).rglob("*") if p.is_file())
        assert abs(steps[stage]["nbytes"] - actual) <= 0.2 * actual, stage

    assert cli("plan", config, "-o", finished / "run", "--json", "--sample", 0) == 0
    steps = {step["stage"]: step for step in cli.json}
    assert (steps["features"]["why"], steps["matches"]["why"]) == ("done", "done")
    for stage, step in steps.items():
        assert (step["why"], step["done"]) == ("done", step["items"]), stage
    argv = ["plan", config, "-o", finished / "run", "--sample", 0, "--json"]
    assert cli(*argv, "--set", "map.mode=reconstruct", "--set", "map.mapper=global") == 0
    changed = {step["stage"]: step for step in cli.json}
    assert changed["pairs map"]["why"] == changed["matches"]["why"] == "done"
    assert changed["map"]["why"].startswith("missing: ")
    assert "mapper incremental → global" in changed["map"]["why"]
    assert changed["map"]["seconds"] > 0
    assert changed["poses"]["why"] == "not started"
    assert cli(*argv, "--set", "localize.max_error_px=7") == 0
    assert cli.json[-1]["why"] == "missing: localize.max_error_px 12.0 → 7.0"
    assert cli(*argv, "--set", "features.max_keypoints=1500", "--set", "matcher.ratio=0.5") == 0
    assert f"missing: max_keypoints {SMALL['features.max_keypoints']} → 1500" == cli.json[0]["why"]
    assert cli(*argv, "--set", "matcher.ratio=0.5") == 0
    assert {step["stage"]: step["why"] for step in cli.json}["matches"].startswith("missing: ratio ")
