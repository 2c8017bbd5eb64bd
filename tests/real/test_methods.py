"""One real pair by day and night for every method of ``loc bench methods``, judged by annotated points."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from loc.bench.methods import METHODS, PAIRS, RESULT, Settings, compare
from loc.errors import LocError
from loc.runtime.runtime import Runtime

PAIR = "WGLBS/warsaw"
#: At 480 px: learned methods 3 to 5 px, R2D2 (of whose pyramid little is left) 15, SIFT 69.
NEAR_PX, WRONG_PX = 20.0, 40.0


@pytest.fixture(scope="module")
def one_pair(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose set of pairs holds one of them."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(shared / "data" / PAIRS / PAIR, root / PAIRS / PAIR)
    with (shared / "data" / PAIRS / "pairs.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row["pair"] == PAIR]
        with (root / PAIRS / "pairs.csv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, reader.fieldnames or [])
            writer.writeheader()
            writer.writerows(rows)
    return root


@pytest.mark.parametrize("name", METHODS)
def test_by_day_and_by_night(
    name: str,
    one_pair: Path,
    shared: Path,
    public_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[[str], None],
) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", f"{shared / 'weights'}:{public_weights}")
    monkeypatch.setenv("LOC_OFFLINE", "1")
    monkeypatch.setenv("LOC_ACCEPT_LICENSE", "1")
    failures: list[LocError] = []
    settings = Settings(one_pair, one_pair / "cache", long_side=480)
    (result,) = compare(
        [PAIRS],
        [name],
        settings,
        runtime=Runtime(device="cpu", workers=1),
        failed=lambda _set, _method, error: failures.append(error),
    )
    assert not failures
    (row,) = result.data["pairs"]
    say(f"{PAIR} at 480 px, {name}: {row['median_px']} px, {row['inliers']} of {row['matches']} matches")
    assert (result.folder / RESULT).is_file()
    assert row["inliers"] >= 8
    if name == "sift":  # it finds an epipolar geometry here, but another one
        assert row["median_px"] > WRONG_PX
    else:
        assert row["median_px"] < NEAR_PX
