"""Google Landmarks v2: scores of a file of predictions, by split."""

from __future__ import annotations

from pathlib import Path

from loc.errors import ConfigError
from loc.layouts.landmarks import (
    SPLITS,
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

_PRECISION_AT = (1, 10, 100)


def score_predictions(task: str, solution: Path, predictions: Path) -> dict[str, dict[str, float]]:
    """Scores (fractions) by split, the public one first; ignored images are in none.

    Raises:
        ConfigError: no such task.
        DataError: a file is missing or wrong, or predicts for images that the solution does not have.
    """
    if task not in ("recognition", "retrieval"):
        raise ConfigError(f"no task is called {task!r}", "there are: recognition, retrieval")
    score = _recognition if task == "recognition" else _retrieval
    return {split: score(solution, predictions, split) for split in SPLITS[:2]}


def _recognition(solution: Path, predictions: Path, split: str) -> dict[str, float]:
    truth = read_recognition_solution(solution)
    found = read_recognition_predictions(predictions, truth, split)
    return {
        "GAP": global_average_precision(found, truth[split]),
        "top-1": top1_accuracy(found, truth[split]),
        "images": len(truth[split]),
        "predictions": len(found),
    }


def _retrieval(solution: Path, predictions: Path, split: str) -> dict[str, float]:
    truth = read_retrieval_solution(solution)
    found = read_retrieval_predictions(predictions, truth, split)
    precisions = mean_precisions(found, truth[split], _PRECISION_AT)
    return {
        "mAP@100": mean_average_precision(found, truth[split]),
        **{f"P@{k}": value for k, value in zip(_PRECISION_AT, precisions, strict=True)},
        "first hit": first_hits(found, truth[split])[0],
        "queries": len(truth[split]),
        "predictions": len(found),
    }
