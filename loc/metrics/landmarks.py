"""Google Landmarks v2: GAP of recognition and mAP@100 of retrieval (Weyand et al., CVPR 2020).

The definitions are those of the evaluation code in tensorflow/models, research/delf. Values are fractions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, median

from loc.errors import DataError

#: Image → (landmark, confidence).
Recognized = Mapping[str, tuple[int, float]]
#: Position of the first right image of a query that has none among its first 100.
NOT_FOUND = 101


def global_average_precision(
    predictions: Recognized, truth: Mapping[str, Collection[int]], *, only_landmarks: bool = False
) -> float:
    """GAP (micro-AP): precision at every right prediction, all images in one order of confidence.

    GAP = 1/M · sum over predictions of precision(i) · right(i), M the images with a landmark. Equal
    confidences are ordered by image, then landmark. An image without a landmark hurts by being in the order.

    Args:
        truth: image → its landmarks; empty: an image without one.
        only_landmarks: leave predictions of images without a landmark out.

    Raises:
        DataError: a prediction for an image that is not in ``truth``.

    >>> global_average_precision({"a": (7, 0.9), "b": (1, 1.0)}, {"a": {7}, "b": set()})
    0.5
    """
    _check_known(predictions, truth)
    with_landmark = sum(bool(landmarks) for landmarks in truth.values())
    order = sorted(predictions.items(), key=lambda item: (-item[1][1], item[0], item[1][0]))
    total = right = 0
    gap = 0.0
    for image, (landmark, _) in order:
        if only_landmarks and not truth[image]:
            continue
        total += 1
        if landmark in truth[image]:
            right += 1
            gap += right / total
    return gap / with_landmark if with_landmark else 0.0


def top1_accuracy(predictions: Recognized, truth: Mapping[str, Collection[int]]) -> float:
    """Share of the images with a landmark whose prediction is right; without a prediction: wrong."""
    _check_known(predictions, truth)
    asked = [image for image, landmarks in truth.items() if landmarks]
    right = sum(image in predictions and predictions[image][0] in truth[image] for image in asked)
    return right / len(asked) if asked else 0.0


def mean_average_precision(
    predictions: Mapping[str, Sequence[str]], truth: Mapping[str, Collection[str]], k: int = 100
) -> float:
    """mAP@k: mean over all queries of 1/min(m, k) · sum of precision(i) · right(i), i up to k.

    A repeated image keeps its rank and is never right again. A query without predictions counts 0.

    Raises:
        DataError: predictions for a query that is not in ``truth``.

    >>> mean_average_precision({"q": ["x", "a", "a", "b"]}, {"q": {"a", "b"}})
    0.5
    """
    _check_known(predictions, truth)
    total = 0.0
    for query, relevant in truth.items():
        credited = _credited(predictions.get(query, ())[:k], relevant)
        hits = 0
        for rank, right in enumerate(credited, 1):
            hits += right
            total += right * hits / rank / min(len(relevant), k)
    return total / len(truth) if truth else 0.0


def mean_precisions(
    predictions: Mapping[str, Sequence[str]],
    truth: Mapping[str, Collection[str]],
    ks: Sequence[int] = (1, 5, 10, 50, 100),
) -> tuple[float, ...]:
    """Mean precision at each k: divided by k even where a query has fewer predictions."""
    _check_known(predictions, truth)
    credited = [_credited(predictions.get(query, ()), relevant) for query, relevant in truth.items()]
    return tuple(fmean(sum(each[:k]) / k for each in credited) if credited else 0.0 for k in ks)


def first_hits(
    predictions: Mapping[str, Sequence[str]], truth: Mapping[str, Collection[str]]
) -> tuple[float, float]:
    """Mean and median position (from 1) of the first right image; ``NOT_FOUND``: none in the first 100."""
    _check_known(predictions, truth)
    positions = []
    for query, relevant in truth.items():
        credited = _credited(predictions.get(query, ())[: NOT_FOUND - 1], relevant)
        positions.append(credited.index(True) + 1 if True in credited else NOT_FOUND)
    return (fmean(positions), float(median(positions))) if positions else (0.0, 0.0)


def _credited(predicted: Sequence[str], relevant: Collection[str]) -> list[bool]:
    """Which of the predicted images are right and there for the first time."""
    seen: set[str] = set()
    out = []
    for image in predicted:
        out.append(image in relevant and image not in seen)
        seen.add(image)
    return out


def _check_known(predictions: Mapping[str, object], truth: Mapping[str, object]) -> None:
    unknown = sorted(set(predictions) - set(truth))
    if unknown:
        raise DataError(
            f"predictions for {len(unknown)} images that the solution does not have, e.g. {unknown[0]!r}",
            "give the predictions and the solution of the same split",
        )
