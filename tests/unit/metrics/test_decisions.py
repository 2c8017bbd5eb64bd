"""ROC curves, Brier scores and intervals against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import DataError
from loc.metrics.decisions import brier_score, exact_interval, roc_curve


def test_the_area_is_the_share_of_pairs_in_order():
    random = np.random.default_rng(0)
    labels = random.random(60) < 0.4
    scores = np.round(random.random(60) + 0.3 * labels, 1)  # many ties
    pairs = scores[labels][:, None] - scores[~labels][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert roc_curve(scores, labels).auc == pytest.approx(expected)


def test_every_point_of_the_curve_is_what_its_threshold_gives():
    random = np.random.default_rng(1)
    labels, scores = random.random(40) < 0.5, np.round(random.random(40), 1)
    roc = roc_curve(scores, labels)
    for threshold, false, true in zip(roc.thresholds, roc.false_rate, roc.true_rate, strict=True):
        assert false == pytest.approx((scores[~labels] >= threshold).mean())
        assert true == pytest.approx((scores[labels] >= threshold).mean())
    assert (roc.false_rate[0], roc.true_rate[0], roc.false_rate[-1], roc.true_rate[-1]) == (0, 0, 1, 1)


def test_the_best_rate_within_a_limit():
    roc = roc_curve(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False]))
    assert [roc.true_rate_at(rate) for rate in (0.0, 0.49, 0.5, 1.0)] == [0.5, 0.5, 1.0, 1.0]


def test_a_curve_needs_both_kinds():
    for labels in (np.ones(3, bool), np.zeros(3, bool)):
        with pytest.raises(DataError, match="right and wrong"):
            roc_curve(np.ones(3), labels)


def test_brier_score_balances_the_classes():
    scores, labels = np.array([1.0, 0.0, 0.0, 0.0, 1.0]), np.array([True, False, False, False, False])
    assert brier_score(scores, labels) == pytest.approx((0 + 0.25) / 2)


def test_exact_intervals():
    assert exact_interval(0, 0) == (0, 1)
    low, high = exact_interval(0, 30)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 30))  # by hand: (1 - p)^30 = 0.025
    assert exact_interval(30, 30) == pytest.approx((1 - high, 1))
    low, high = exact_interval(5, 10)
    assert low == pytest.approx(1 - high)
