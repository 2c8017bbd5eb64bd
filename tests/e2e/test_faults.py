"""It cannot be hurt: kills, full and read-only disks, damaged artefacts, two runs at once, clocks set back.

Each is an error with the next step, or the undisturbed result; and what was finished before stays.
``LOC_FAULT_SEEDS=40 pytest tests/e2e/test_faults.py`` damages every artefact forty times instead of once.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from bad_photos import encoded, image
from scenes import Cli

from loc.bench.faults import STAGES, kill_campaign, make_scene
from loc.config import RunConfig
from loc.digest import run_digest
from loc.pipeline import run
from loc.plugins.blocks import load_config
from loc.runtime.runtime import Runtime
from loc.sfm.database import map_bytes
from loc.stores.features import FeatureStore
from loc.stores.matches import MatchStore

HERE = Runtime(device="cpu", workers=1)
SEEDS = range(int(os.environ.get("LOC_FAULT_SEEDS", "1")))


@dataclass(frozen=True)
class Made:
    """A finished run, which tests copy, and the config that made it."""

    config_file: Path
    folder: Path
    digest: dict[str, str]
    localized: str = ""

    @property
    def config(self) -> RunConfig:
        return load_config(self.config_file)

    def copy(self, target: Path, *, without: tuple[str, ...] = ()) -> Path:
        shutil.copytree(self.folder, target)
        for name in without:
            shutil.rmtree(target / name)
        return target

    def command(self, folder: Path) -> list[str]:
        return [
            "run",
            str(self.config_file),
            "-o",
            str(folder),
            "--device",
            "cpu",
            "--workers",
            "1",
            "--json",
        ]

    def localize_photo(self, folder: Path) -> list[str]:
        photo = sorted((self.config_file.parent / "images").iterdir())[1]
        return ["localize-photo", str(photo), "--map", str(folder), "--json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("faults")
    file = make_scene(root / "scene", frames=8, points=150)
    run(load_config(file), root / "run", runtime=HERE)
    return Made(file, root / "run", run_digest(root / "run"))


@pytest.fixture(scope="module")
def _localized() -> dict[Path, str]:
    return {}


@pytest.fixture
def made(cli: Cli, finished: Made, _localized: dict[Path, str]) -> Made:
    """The finished run, with what it says of a photo (asked once)."""
    if not _localized:
        assert cli(*finished.localize_photo(finished.folder)) == 0, cli.err
        _localized[finished.folder] = _results(cli.out)
    return replace(finished, localized=_localized[finished.folder])


def advised(cli: Cli, code: int, *, expected: tuple[int, ...] = (3,)) -> None:
    assert code in expected, cli.err
    assert "Traceback" not in cli.err
    assert "this is a bug" not in cli.err
    assert re.search(r"\n  .*\b(run|give|choose|free|delete)\b", cli.err), cli.err


def test_kills_over_the_whole_run() -> None:
    campaign = kill_campaign(4, seed=1)
    assert campaign.failures == []
    assert len(campaign.kills) == 4
    assert campaign.equal == campaign.runs >= 1
    assert {kill.stage for kill in campaign.kills} <= set(STAGES)


# ---- damaged artefacts

ARTEFACTS = [
    "features/*/parts/*.h5",
    "features/*/store.json",
    "fits/*/state.npz",
    "fits/*/manifest.json",
    "globals/*/parts/*.h5",
    "globals/*/store.json",
    "matches/*/parts/*.h5",
    "pairs/map-*/pairs.txt",
    "pairs/query-*/pairs.txt",
    "pairs/map-*/manifest.json",
    "map/*/manifest.json",
    "map/*/bundle.json",
    "map/*/stats.json",
    "map/*/funnel.json",
    "map/*/database.db",
    *(f"map/*/model/{name}.bin" for name in ("cameras", "images", "points3D", "rigs", "frames")),
    *(f"map/*/index/{name}.npy" for name in ("offsets", "rows", "xyz", "point_ids", "track_lengths")),
    "map/*/index/names.json",
    "poses/*/poses.txt",
    "poses/*/queries.jsonl",
    "poses/*/manifest.json",
    "report/*/metrics.json",
    "report/*/index.html",
    "scene/scene.json",
    "run.json",
]


def damaged(data: bytes, seed: int) -> bytes:
    """One bit flipped, or the rest cut off, at a random place."""
    rng = np.random.default_rng([seed, len(data)])
    at = int(rng.integers(len(data)))
    if (seed + len(data)) % 2:
        return data[:at]
    return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]


@pytest.mark.parametrize("pattern", ARTEFACTS)
def test_damaged_artefacts_are_noticed(cli: Cli, made: Made, tmp_path: Path, pattern: str) -> None:
    """Every command that reads the file says what to delete, or comes to the undisturbed result."""
    folder = made.copy(tmp_path / "run")
    path = sorted(folder.glob(pattern))[0]
    whole = path.read_bytes()
    for seed in SEEDS:
        path.write_bytes(damaged(whole, seed))
        if not pattern.startswith(("matches", "pairs", "poses", "report", "scene")):
            if cli(*made.localize_photo(folder)) == 0:
                assert _results(cli.out) == made.localized
            else:
                advised(cli, 3)
        for command in (made.command(folder), ["digest", str(folder)]):
            if cli(*command) != 0:
                advised(cli, 3)
                _follow_advice(cli.err, folder)
                assert cli(*made.command(folder)) == 0, cli.err
        assert run_digest(folder) == made.digest


def _results(out: str) -> str:
    """Without what is never the same twice: seconds, and the last digits of a covariance."""
    return re.sub(r'"(seconds|covariance)": (\{[^}]*\}|\[[^"]*\])', "", out)


def _follow_advice(said: str, folder: Path) -> None:
    """Delete what the error says: a file or a folder of the run, named in its message or its next step."""
    names = re.findall(re.escape(str(folder)) + r"/[^\s:]+", said.splitlines()[-1]) or re.findall(
        re.escape(str(folder)) + r"/\S+\.h5", said
    )
    target = Path(names[0])
    assert folder in target.parents
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()


# ---- full and read-only disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, leave: int) -> Path:
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * (shutil.disk_usage(disk).free - leave))
    return ballast


ORDER = ("features", "fits", "globals", "pairs", "matches", "map", "poses", "report")


@pytest.mark.parametrize(
    ("stage", "leave"),
    [
        ("features", 0),
        ("fits", 8_192),
        ("globals", 8_192),
        ("pairs", 4_096),
        ("matches", 12_288),
        ("map", 50_000),
        ("map", 1_000_000),
        ("poses", 8_192),
        ("report", 16_384),
    ],
)
def test_a_full_disk(cli: Cli, made: Made, small_disk: Path, stage: str, leave: int) -> None:
    folder = made.copy(small_disk / "run", without=ORDER[ORDER.index(stage) :])
    kept = {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.log"
    }
    ballast = fill(small_disk, leave=leave)
    code = cli(*made.command(folder))
    assert "no space left on the disk" in cli.err
    advised(cli, code, expected=(1,))
    for path in (path for path in kept if path.parent not in (folder, folder / "scene")):
        assert path.read_bytes() == kept[path]
    ballast.unlink()
    assert cli(*made.command(folder)) == 0, cli.err
    assert run_digest(folder) == made.digest
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".partial")]


def test_the_space_a_map_asks_for_is_enough(made: Made) -> None:
    items, pairs = (next(made.folder.glob(f"{kind}/*")) for kind in ("features", "matches"))
    features, matches = FeatureStore(items), MatchStore(pairs)
    bound = map_bytes(map(features.count, features.keys()), map(matches.count, matches.keys()))
    files = [path for path in made.folder.glob("map/*/**/*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < bound


def test_a_full_disk_during_export(cli: Cli, made: Made, small_disk: Path) -> None:
    target = small_disk / "export"
    assert cli("export", "colmap", made.folder, "-o", target) == 0, cli.err
    former = {path.name: path.read_bytes() for path in target.iterdir()}
    size = sum(len(data) for data in former.values())
    for leave in (0, size // 2, size - 4_096):
        ballast = fill(small_disk, leave=leave)
        advised(cli, cli("export", "colmap", made.folder, "-o", target, "--force"), expected=(1,))
        assert {path.name: path.read_bytes() for path in target.iterdir()} == former
        ballast.unlink()
    assert cli("export", "colmap", made.folder, "-o", target, "--force") == 0, cli.err


def test_an_export_of_a_damaged_map(cli: Cli, made: Made, tmp_path: Path) -> None:
    folder = made.copy(tmp_path / "run")
    path = next(folder.glob("map/*/model/points3D.bin"))
    path.write_bytes(damaged(path.read_bytes(), 1))
    advised(cli, cli("export", "colmap", folder, "-o", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_read_only_run_folder_is_read_and_not_written(cli: Cli, made: Made, small_disk: Path) -> None:
    folder = made.copy(small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (made.command(folder), made.command(small_disk / "new")):
        advised(cli, cli(*command))
        assert "cannot write to" in cli.err
    assert run_digest(folder) == made.digest
    assert cli(*made.localize_photo(folder)) == 0, cli.err
    assert _results(cli.out) == made.localized
    assert cli("plan", made.config_file, "-o", folder, "--sample", "0") == 0, cli.err
    assert "not started" not in cli.out


# ---- queries that are nowhere, and one that is a photo of the map


def test_queries_that_are_nowhere_have_no_pose(cli: Cli, made: Made, tmp_path: Path) -> None:
    known = sorted((made.config_file.parent / "images").iterdir())[0]
    shutil.copy(known, tmp_path / "0 the same photo.png")
    for name, data in {
        "1 elsewhere.jpg": encoded("JPEG", image(wh=(640, 480), seed=5)),
        "2 flat.png": encoded("PNG", image(wh=(640, 480)).point(lambda _: 127)),
        "3 one pixel.png": encoded("PNG", image(wh=(1, 1))),
        "4 no photo.jpg": b"no photo",
    }.items():
        (tmp_path / name).write_bytes(data)
    assert cli("localize-photo", *sorted(tmp_path.iterdir()), "--map", made.folder, "--json") == 0, cli.err
    same, *others = cli.json
    assert same["status"] == "ok"
    assert [each["cam_from_world"] for each in others] == [None] * 4
    assert {each["status"] for each in others[:3]} <= {"no_pairs", "no_matches", "pnp_failed"}
    assert others[3]["status"] == "unreadable"
    assert all(each["reason"] for each in others)


# ---- two at once, clocks


def test_two_runs_at_once_on_one_folder_come_to_one_result(made: Made, tmp_path: Path) -> None:
    code = "from loc.cli import main; import sys; main(sys.argv[1:])"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, *made.command(tmp_path / "run")], stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert run_digest(tmp_path / "run") == made.digest
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".tmp", ".partial")]


@pytest.mark.parametrize("years", [-30, 30])
def test_a_clock_that_was_set(cli: Cli, made: Made, tmp_path: Path, years: int) -> None:
    """Nothing is decided by the time of a file: content counts."""
    folder = made.copy(tmp_path / "run")
    moment = time.time() + years * 365 * 86_400
    for path in [*folder.rglob("*"), *(made.config_file.parent / "images").iterdir()]:
        os.utime(path, (moment, moment))
    parts = {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}
    products = {path: path.read_bytes() for path in folder.rglob("manifest.json")}
    assert cli(*made.command(folder)) == 0, cli.err
    assert run_digest(folder) == made.digest
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")} == parts
    assert {path: path.read_bytes() for path in folder.rglob("manifest.json")} == products


def test_a_clock_that_runs_backwards(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = itertools.count(2e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(backwards))
    folder = made.copy(tmp_path / "run", without=("pairs", "matches", "map", "poses", "report"))
    run(made.config, folder, runtime=HERE)
    assert run_digest(folder) == made.digest
