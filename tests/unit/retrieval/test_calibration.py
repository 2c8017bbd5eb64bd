"""Calibration leaving places out: nothing of a place helps to judge it."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import DataError
from loc.retrieval.calibration import best_threshold, calibrate
from loc.retrieval.rejection import Evidence

PLACES = ("church", "door", "fountain", "mill", "(distractors)")


def made(seed=0, per_place=24, overlap=8.0):
    """Queries of some places: half of them right, with more inliers and similarity; distractors never."""
    random = np.random.default_rng(seed)
    evidence, labels, groups = [], [], []
    for place in PLACES:
        for row in range(per_place):
            right = row % 2 == 0 and not place.startswith("(")
            inliers = max(0, round(random.normal(45 if right else 20, overlap)))
            similarity = random.normal(0.4 if right else 0.2, 0.1)
            evidence.append(Evidence(similarity, similarity / 2, inliers, inliers // 2, 1000))
            labels.append(right)
            groups.append(place)
    return evidence, labels, groups


def test_the_labels_of_a_place_change_nothing_of_its_scores():
    evidence, labels, groups = made()
    before = calibrate(evidence, labels, groups, max_false_accept=0.1)
    own = np.array(groups) == "door"
    turned = [label != mine for label, mine in zip(labels, own.tolist(), strict=True)]
    after = calibrate(evidence, turned, groups, max_false_accept=0.1)
    np.testing.assert_allclose(after.scores[own], before.scores[own], rtol=1e-6)
    np.testing.assert_array_equal(after.accepted[own], before.accepted[own])
    assert np.abs(after.scores[~own] - before.scores[~own]).max() > 0.01  # the others do see them


def test_a_place_that_is_left_out_is_out_as_an_answer_too():
    evidence, labels, groups = made()
    answers = list(groups)
    own = np.array(groups) == "door"
    mistaken = [row for row, group in enumerate(groups) if group == "mill" and not labels[row]]
    for row in mistaken:  # queries of the mill answered with the door
        answers[row] = "door"
    before = calibrate(evidence, labels, groups, answers=answers, max_false_accept=0.1)
    changed = list(evidence)
    for row in mistaken:
        changed[row] = Evidence(0.9, 0.9, 500, 400, 1000)
    after = calibrate(changed, labels, groups, answers=answers, max_false_accept=0.1)
    np.testing.assert_allclose(after.scores[own], before.scores[own], rtol=1e-6)


def test_right_and_wrong_are_told_apart_and_the_scores_are_probabilities():
    found = calibrate(*made(), max_false_accept=0.1)
    labels = np.array(found.labels)
    assert found.accepted[labels].mean() > 0.9
    assert found.accepted[~labels].mean() < 0.1
    assert found.scores[labels].mean() > 0.8 > 0.3 > found.scores[~labels].mean()


@pytest.mark.parametrize("most", [0.05, 0.2])
def test_the_rate_of_false_accepts_on_places_left_out_is_what_was_asked_for(most):
    rates = []
    for seed in range(6):
        evidence, labels, groups = made(seed, overlap=14.0)
        found = calibrate(evidence, labels, groups, max_false_accept=most)
        rates.append(found.accepted[~np.array(labels)].mean())
    assert np.mean(rates) <= most
    assert found.accepted[np.array(labels)].mean() > 0.4


def test_the_order_of_queries_does_not_matter():
    evidence, labels, groups = made()
    order = np.random.default_rng(1).permutation(len(labels))
    one = calibrate(evidence, labels, groups, max_false_accept=0.1)
    other = calibrate(
        [evidence[row] for row in order],
        [labels[row] for row in order],
        [groups[row] for row in order],
        max_false_accept=0.1,
    )
    np.testing.assert_allclose(other.scores, one.scores[order], rtol=1e-5)
    np.testing.assert_allclose(other.rejection.weights, one.rejection.weights, rtol=1e-4)


def test_many_photos_of_one_place_weigh_as_much_as_few_of_another():
    evidence, labels, groups = made()
    copies = [row for row, group in enumerate(groups) if group == "door"] * 9
    more = calibrate(
        evidence + [evidence[row] for row in copies],
        labels + [labels[row] for row in copies],
        groups + [groups[row] for row in copies],
        max_false_accept=0.1,
    )
    once = calibrate(evidence, labels, groups, max_false_accept=0.1)
    np.testing.assert_allclose(more.rejection.weights, once.rejection.weights, rtol=1e-4)


def test_thresholds_by_hand():
    wrong, right = np.linspace(0.01, 0.40, 40), np.array([0.35, 0.385, 0.9])
    scores, labels = np.append(wrong, right), np.append(np.zeros(40, bool), np.ones(3, bool))
    # (k + 1) / 41 <= 0.1: three of the wrong may lie above; of 0.37 … 0.40 the first loses least.
    assert best_threshold(scores, labels, 0.1) == pytest.approx((0.38 + 0.385) / 2, abs=0.006)
    assert (wrong > best_threshold(scores, labels, 0.1)).sum() <= 3
    # With none allowed above, what is right below 0.40 is lost.
    assert best_threshold(scores, labels, 0.025) == pytest.approx((0.40 + 0.9) / 2)


def test_too_little_to_calibrate_on_is_said():
    evidence, labels, groups = made()
    with pytest.raises(DataError, match=r"at most 0\.1% are accepted: 999 are needed"):
        calibrate(evidence, labels, groups, max_false_accept=0.001)
    two = [row for row, group in enumerate(groups) if group in PLACES[:2]]
    with pytest.raises(DataError, match=r"at least three places .* got 2"):
        calibrate(
            [evidence[row] for row in two],
            [labels[row] for row in two],
            [groups[row] for row in two],
            max_false_accept=0.1,
        )
    with pytest.raises(DataError, match="no query has a right best image"):
        calibrate(evidence, [False] * len(labels), groups, max_false_accept=0.1)
    with pytest.raises(DataError, match="no query has a wrong best image"):
        calibrate(evidence, [True] * len(labels), groups, max_false_accept=0.1)
    with pytest.raises(DataError, match="false-accept rate of 1 is none"):
        calibrate(evidence, labels, groups, max_false_accept=1.0)
