"""Every benchmark runs at its smallest size and says what it measured; none is judged by its time here."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from loc.bench import localize, retrieve, world
from loc.bench.ratio import Size, clocked
from loc.bench.suite import BENCHMARKS, measure
from loc.cli.app import app
from loc.colmap import pycolmap
from loc.config import LocalizeConfig
from loc.sfm.locate import locate

#: Ratios of each; matching is also measured on all threads where there are several, and in bf16 if native.
ROWS = {
    "startup": 2,
    "match": 10,
    "stores": 8,
    "localize": 2,
    "map": 2,
    "retrieve": 2,
    "diffusion": 11,
    "asmk": 4,
    "d2net": 5,
    "delf": 6,
}


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_a_benchmark_measures_what_it_promises(name: str, request, tmp_path, monkeypatch) -> None:
    if name == "match":  # LightGlue is of no use with random weights
        monkeypatch.setenv("LOC_WEIGHTS_DIR", str(request.getfixturevalue("public_weights")))
        monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    ratios = list(measure([name], Size(repeats=1, quick=True)))
    not_everywhere = ("threads", "speed of bf16", "inliers in bf16")
    rows = [each for each in ratios if not any(text in each.what for text in not_everywhere)]
    assert len(rows) == ROWS[name]
    assert len({ratio.what for ratio in ratios}) == len(ratios)
    for ratio in ratios:
        assert ratio.benchmark == name
        assert ratio.goal is None  # the goals are for the full sizes
        assert all(math.isfinite(value) and value > 0 for value in ratio.values)
        assert ratio.values


def test_shares_are_parts_of_a_whole() -> None:
    ratios = list(measure(["localize"], Size(repeats=2, quick=True)))
    assert all(0 < value < 1 and len(ratio.values) == 2 for ratio in ratios for value in ratio.values)


def test_the_estimator_that_is_timed_is_the_one_that_localizes() -> None:
    square = world.make_world(views=12, points=3000, clutter=50)
    query = localize._query(square, 11, 11, 0.5, 0.3)
    with clocked(pycolmap, "estimate_and_refine_absolute_pose") as estimator:
        result = locate(square.index(11), query, LocalizeConfig())
    assert estimator.calls >= 1
    assert result.status == "ok"
    truth = square.views[11].pose
    assert result.pose is not None
    assert np.linalg.norm(result.pose.center_in_world - truth.center_in_world) < 0.05


def test_too_little_memory_is_said_and_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve, "_free_bytes", lambda: 10**9)
    (ratio,) = measure(["retrieve"], Size())
    assert ratio.values == ()
    assert "needs 1.9 GB" in ratio.note


def test_the_command_prints_a_line_or_json() -> None:
    told = CliRunner().invoke(app, ["bench", "retrieve", "--quick", "--repeats", "1"])
    assert told.exit_code == 0
    assert told.stdout.startswith("retrieve ")
    assert "the best 50" in told.stdout
    data = CliRunner().invoke(app, ["bench", "retrieve", "--quick", "--repeats", "1", "--json"])
    rows = json.loads(data.stdout)
    assert {"benchmark", "what", "median", "min", "max", "repeats", "goal", "met", "note"} == set(rows[0])


def test_without_a_name_all_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def remember(names: list[str], size: Size) -> list[object]:
        asked.extend([*names, str(size.repeats)])
        return []

    monkeypatch.setattr("loc.bench.suite.measure", remember)
    assert CliRunner().invoke(app, ["bench", "--repeats", "2"]).exit_code == 0
    assert asked == [*BENCHMARKS, "2"]
