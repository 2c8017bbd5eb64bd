"""Fitting :class:`loc.retrieval.rejection.Rejection` to photos whose places are known, tested on others.

Everything is measured on places that the model has not seen: each place in turn is left out of the fit *and*
of the choice of the threshold, and then scored. Within a fit the threshold is chosen by the scores of inner
left-out places likewise, so no photo ever helps to judge its own place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from loc.errors import DataError
from loc.retrieval.rejection import SIGNS, Evidence, Rejection, logistic

Array = np.ndarray
#: Weight of the squared norm of the standardised weights, relative to the mean loss of a query.
RIDGE = 0.01
#: Range of log(1 + query_keypoints) below which it gets no weight: it would hold for other counts by chance.
_LEAST_RANGE = float(np.log(2))


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted model, and what it makes of places that were left out.

    Attributes:
        rejection: fitted on all places, its threshold chosen by ``scores``.
        scores: ``(n,)`` of each query by the model that has not seen its place.
        accepted: ``(n,)`` by that model's own threshold.
        labels: ``(n,)`` whether the best image was right.
        groups: the place of each query.
        max_false_accept: what thresholds were chosen for.
    """

    rejection: Rejection
    scores: Float64[Array, " n"]
    accepted: Bool[Array, " n"]
    labels: Bool[Array, " n"]
    groups: tuple[str, ...]
    max_false_accept: float


@dataclass(frozen=True, eq=False)
class _Queries:
    """Rows of evidence: ``values (n, v)``, with the place asked for and that of the best image."""

    values: Float64[Array, "n v"]
    labels: Bool[Array, " n"]
    groups: Array
    answers: Array

    def __getitem__(self, rows: Array) -> _Queries:
        return _Queries(self.values[rows], self.labels[rows], self.groups[rows], self.answers[rows])

    def without(self, place: str) -> _Queries:
        """Those that have nothing to do with a place: neither asked from there nor answered with it."""
        return self[(self.groups != place) & (self.answers != place)]


def calibrate(
    evidence: Sequence[Evidence],
    labels: Sequence[bool],
    groups: Sequence[str],
    *,
    max_false_accept: float,
    answers: Sequence[str] | None = None,
) -> Calibration:
    """Fit a rejection to queries, and score each by a model that has not seen its place.

    Args:
        evidence: of each query's best image.
        labels: whether that image shows the query's place; accepting another is a false accept.
        groups: place of each query; a set of photos of no known place is a group too.
        max_false_accept: largest share of wrong best images that may be accepted, in (0, 1).
        answers: place of each best image: with it a place that is left out is also out of the fits as an
            answer to queries from elsewhere.

    Raises:
        DataError: fewer than three places, right or wrong answers missing without one of them, or too few
            wrong ones to choose a threshold for ``max_false_accept`` by.
    """
    queries = _Queries(
        np.array([each.values() for each in evidence], np.float64).reshape(len(evidence), len(SIGNS)),
        np.array(labels, bool),
        np.array(groups, str),
        np.array(groups if answers is None else answers, str),
    )
    _check(queries, max_false_accept)
    scores, accepted = np.zeros(len(labels)), np.zeros(len(labels), bool)
    for place in sorted(set(groups)):
        others, own = queries.without(place), queries.groups == place
        model = _fit(others, best_threshold(_held_out(others), others.labels, max_false_accept))
        scores[own] = _scores(model, queries.values[own])
        accepted[own] = scores[own] > model.threshold
    rejection = _fit(queries, best_threshold(scores, queries.labels, max_false_accept))
    return Calibration(rejection, scores, accepted, queries.labels, tuple(groups), max_false_accept)


def best_threshold(scores: Float64[Array, " n"], labels: Bool[Array, " n"], max_false_accept: float) -> float:
    """The threshold that tells right from wrong best where at most a share of the wrong is accepted.

    Of ``m`` wrong ones, the ``k`` that lie above it satisfy ``(k + 1) / (m + 1) <= max_false_accept``: then
    the next wrong one, if it comes from where these do, is accepted with at most that probability (the
    quantile of split conformal prediction). Of such thresholds that counts above which there is the largest
    share of right less share of wrong ones, in the middle of its gap.

    Raises:
        DataError: too few wrong ones for any ``k``.
    """
    wrong, right = np.sort(scores[~labels]), scores[labels]
    allowed = int(np.floor(max_false_accept * (len(wrong) + 1) + 1e-9)) - 1
    if allowed < 0:
        needed = int(np.ceil(1 / max_false_accept - 1 - 1e-9))
        raise DataError(
            f"{len(wrong)} queries without a right answer cannot show that at most {max_false_accept:.1%} "
            f"are accepted: {needed} are needed",
            "add distractors (--distractors), or allow more with --max-false-accept",
        )
    levels = np.unique(np.append(scores, [0.0, 1.0]))
    lowest = wrong[len(wrong) - 1 - allowed]
    at = levels[(levels >= lowest) & (levels < 1.0)]
    if not len(at):
        return 1.0
    gain = [np.mean(right > level) - np.mean(wrong > level) for level in at]
    best = at[int(np.argmax(gain))]
    above = levels[levels > best][0]
    return float((best + above) / 2)


def _held_out(queries: _Queries) -> Float64[Array, " n"]:
    """Scores by models that have not seen the place of a query."""
    scores = np.zeros(len(queries.labels))
    for place in np.unique(queries.groups):
        own = queries.groups == place
        scores[own] = _scores(_fit(queries.without(place), 0.5), queries.values[own])
    return scores


def _scores(model: Rejection, values: Float64[Array, "n v"]) -> Float64[Array, " n"]:
    return logistic(model.intercept + values @ np.array(model.weights))


def _fit(queries: _Queries, threshold: float) -> Rejection:
    """Logistic regression with a ridge and weights of given signs; convex, so there is one solution.

    Right and wrong answers weigh the same, and so does each place among the right and among the wrong: twelve
    photos of a door are no twelve places.
    """
    from scipy.optimize import minimize

    share = _shares(queries)
    center = share @ queries.values
    scale = np.sqrt(share @ (queries.values - center) ** 2)
    scale[scale < 1e-9] = 1.0
    rows = np.hstack([(queries.values - center) / scale, np.ones((len(queries.labels), 1))])
    signs = np.where(queries.labels, 1.0, -1.0)

    def loss(weights: Array) -> tuple[float, Array]:
        signed = signs * (rows @ weights)
        ridge = RIDGE * np.append(weights[:-1], 0.0)
        slope = -share * signs * logistic(-signed)
        value = share @ np.logaddexp(0.0, -signed) + 0.5 * ridge @ weights
        return float(value), slope @ rows + ridge

    bounds: list[tuple[float | None, float | None]]
    bounds = [(0.0, None) if sign > 0 else (None, 0.0) for sign in SIGNS] + [(None, None)]
    if np.ptp(queries.values[:, -1]) < _LEAST_RANGE:
        bounds[len(SIGNS) - 1] = (0.0, 0.0)
    start = np.zeros(rows.shape[1])
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
    found[:-1][np.abs(found[:-1]) < 1e-9] = 0.0
    weights = found[:-1] / scale
    return Rejection(tuple(weights.tolist()), float(found[-1] - weights @ center), threshold)


def _shares(queries: _Queries) -> Float64[Array, " n"]:
    """Weight of each query; those of the right sum to a half, and those of the wrong."""
    shares = np.zeros(len(queries.labels))
    for label in (False, True):
        of_label = queries.labels == label
        places, counts = np.unique(queries.groups[of_label], return_counts=True)
        size = dict(zip(places.tolist(), counts.tolist(), strict=True))
        shares[of_label] = [0.5 / len(places) / size[group] for group in queries.groups[of_label].tolist()]
    return shares


def _check(queries: _Queries, max_false_accept: float) -> None:
    if not 0 < max_false_accept < 1:
        raise DataError(f"a false-accept rate of {max_false_accept:g} is none", "give one between 0 and 1")
    places = np.unique(queries.groups)
    if len(places) < 3:
        raise DataError(
            "at least three places are needed (one to leave out of a fit, one out of its threshold), "
            f"got {len(places)}",
            "give photos of more places",
        )
    for place in places:
        for inner in np.setdiff1d(places, [place]):
            kinds = queries.without(place).without(inner).labels
            if kinds.all() or not kinds.any():
                what = "wrong" if kinds.all() else "right"
                raise DataError(
                    f"without {place} and {inner} no query has a {what} best image",
                    "give photos of more places, several of each, and distractors",
                )
