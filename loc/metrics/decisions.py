"""How good decisions by a score are: ROC curve, calibration of probabilities, intervals of rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from loc.errors import DataError

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Roc:
    """Rates at every threshold, from the strictest (both 0) to none (both 1).

    Attributes:
        thresholds: ``(t,)`` descending; scores of at least it count as yes; the first is infinite.
        false_rate, true_rate: ``(t,)`` share of the wrong and of the right that count as yes.
    """

    thresholds: Float64[Array, " t"]
    false_rate: Float64[Array, " t"]
    true_rate: Float64[Array, " t"]

    @property
    def auc(self) -> float:
        """Area under the curve: how often a right one scores above a wrong one, ties counting half."""
        widths, means = np.diff(self.false_rate), (self.true_rate[1:] + self.true_rate[:-1]) / 2
        return float(widths @ means)

    def true_rate_at(self, false_rate: float) -> float:
        """The largest share of the right where at most a share of the wrong counts as yes."""
        return float(self.true_rate[self.false_rate <= false_rate + 1e-12].max())


def roc_curve(scores: Float64[Array, " n"], labels: Bool[Array, " n"]) -> Roc:
    """The ROC curve of scores; equal scores are one step.

    Raises:
        DataError: there are no right ones, or no wrong ones.

    >>> roc_curve(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])).auc
    0.75
    """
    if labels.all() or not labels.any():
        raise DataError("a ROC curve needs right and wrong ones", "give photos with and without a match")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    right, wrong = np.cumsum(labels[order])[ends], np.cumsum(~labels[order])[ends]
    return Roc(
        np.concatenate([[np.inf], scores[order][ends]]),
        np.concatenate([[0.0], wrong / wrong[-1]]),
        np.concatenate([[0.0], right / right[-1]]),
    )


def brier_score(scores: Float64[Array, " n"], labels: Bool[Array, " n"]) -> float:
    """Mean squared error of probabilities, right and wrong ones weighing the same; 0.25 is what 0.5 gets.

    >>> brier_score(np.array([0.5, 0.5, 0.5]), np.array([True, True, False]))
    0.25
    """
    errors = (scores - labels) ** 2
    return float((errors[labels].mean() + errors[~labels].mean()) / 2)


def exact_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate, for independent trials; (0, 1) without any.

    >>> [round(bound, 3) for bound in exact_interval(0, 30)]
    [0.0, 0.116]
    """
    from scipy.stats import binomtest

    if trials == 0:
        return 0.0, 1.0
    found = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)
