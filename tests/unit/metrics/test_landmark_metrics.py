"""GAP and mAP@100 against the worked cases, through the CSV readers."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from loc.bench.gldv2 import score_predictions
from loc.cli.app import app
from loc.errors import ConfigError, DataError
from loc.layouts.landmarks import (
    read_recognition_predictions,
    read_recognition_solution,
    read_retrieval_predictions,
    read_retrieval_solution,
)
from loc.metrics.landmarks import (
    first_hits,
    global_average_precision,
    mean_average_precision,
    mean_precisions,
    top1_accuracy,
)


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures/delf"


@pytest.mark.parametrize("split", ["Public", "Private"])
def test_recognition_case(folder, split):
    expected = json.loads((folder / "metrics.json").read_text())["gld"]["recognition"][split]
    solution = read_recognition_solution(folder / "metrics_files/recognition_solution.csv")
    found = read_recognition_predictions(
        folder / "metrics_files/recognition_predictions.csv", solution, split
    )
    truth = solution[split]
    assert len(truth) == expected["num_test_images"]
    assert sum(map(bool, truth.values())) == expected["num_with_ground_truth"]
    assert len(found) == expected["num_predictions"]
    assert global_average_precision(found, truth) == pytest.approx(expected["GAP"], abs=1e-12)
    only = global_average_precision(found, truth, only_landmarks=True)
    assert only == pytest.approx(expected["GAP_ignore_non_gt"], abs=1e-12)
    assert top1_accuracy(found, truth) == pytest.approx(expected["top1_accuracy"], abs=1e-12)


@pytest.mark.parametrize("split", ["Public", "Private"])
def test_retrieval_case(folder, split):
    expected = json.loads((folder / "metrics.json").read_text())["gld"]["retrieval"][split]
    solution = read_retrieval_solution(folder / "metrics_files/retrieval_solution.csv")
    found = read_retrieval_predictions(folder / "metrics_files/retrieval_predictions.csv", solution, split)
    truth = solution[split]
    assert (len(truth), len(found)) == (expected["num_queries"], expected["num_predicted"])
    assert mean_average_precision(found, truth) == pytest.approx(expected["mAP@100"], abs=1e-12)
    assert mean_average_precision(found, truth, 10) == pytest.approx(expected["mAP@10"], abs=1e-12)
    precisions = expected["mean_precision@[1,5,10,50,100]"]
    assert mean_precisions(found, truth) == pytest.approx(precisions, abs=1e-12)
    positions = (expected["mean_position"], expected["median_position"])
    assert first_hits(found, truth) == pytest.approx(positions, abs=1e-12)


def test_cases_of_the_sheet():
    assert global_average_precision({"q": (1, 0.9)}, {"q": {1}}) == 1
    truth = {"q": {1}, "distractor": set()}
    assert global_average_precision({"q": (1, 0.9), "distractor": (5, 1.0)}, truth) == 0.5
    assert global_average_precision({"q": (1, 0.9), "distractor": (5, 0.1)}, truth) == 1
    assert global_average_precision({}, {}) == mean_average_precision({}, {}) == 0


def test_predictions_for_unknown_queries_are_refused():
    with pytest.raises(DataError, match=r"predictions for 1 images that the solution does not have.*'x'"):
        mean_average_precision({"x": ["a"]}, {"q": {"a"}})
    with pytest.raises(DataError, match="does not have"):
        global_average_precision({"x": (1, 1.0)}, {"q": {1}})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("id,l\na,1 0.5\na,2 0.5\n", "a is there twice"),
        ("id,l\na,1\n", "expected one landmark and its confidence"),
        ("id,l\na,one 0.5\n", "'one' is no landmark"),
        ("id,l\na,1 high\n", "'high' is no confidence"),
        ("id,l\na,1 nan\n", "NaN"),
        ("id,l\na,1 0.5,x\n", "is not id,list"),
    ],
)
def test_bad_predictions(tmp_path, text, match):
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        read_recognition_predictions(path, {"Public": {"a": frozenset({1})}}, "Public")


def test_bad_solutions(tmp_path):
    path = tmp_path / "solution.csv"
    with pytest.raises(DataError, match="cannot read"):
        read_retrieval_solution(path)
    path.write_text("id,images,Usage\nq,a b,Secret\n")
    with pytest.raises(DataError, match="is not id,list,Public"):
        read_retrieval_solution(path)


def test_command(folder, tmp_path):
    files = [
        word
        for kind in ("solution", "predictions")
        for word in (f"--{kind}", str(folder / f"metrics_files/retrieval_{kind}.csv"))
    ]
    result = CliRunner().invoke(app, ["bench", "gldv2", "retrieval", *files])
    assert result.exit_code == 0, result.output
    assert "Public   0.3661" in result.output
    files = [word.replace("retrieval_", "recognition_") for word in files]
    found = json.loads(CliRunner().invoke(app, ["bench", "gldv2", "recognition", *files, "--json"]).output)
    assert found["Private"]["GAP"] == pytest.approx(0.3296428571428572)
    with pytest.raises(ConfigError, match="no task is called 'both'"):
        score_predictions("both", tmp_path, tmp_path)
