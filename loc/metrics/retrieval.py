"""How good rankings of images are: average precision with images that do not count, as benchmarks define it.

Revisited Oxford and Paris (Radenović et al., CVPR 2018; evaluation of github.com/filipradenovic/revisitop),
the classic Oxford5k and Paris6k (Philbin et al., CVPR 2007 and 2008), and INSTRE as Iscen et al. (CVPR 2017)
evaluate it. All values are fractions in [0, 1]; tables print them times 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from loc.errors import ConfigError, DataError

Array = np.ndarray
#: Label of the ground truth → ids of database images.
Labels = Mapping[str, Int64[Array, " l"]]

#: Protocol → (labels that are right, labels that do not count). INSTRE has `ok` alone.
PROTOCOLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
    "classic": (("ok",), ("junk",)),
}
REVISITED = ("easy", "medium", "hard")


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is right for one query, and what does not count: ids of database images, disjoint.

    An image that the ground truth calls both counts as right.
    """

    positives: Int64[Array, " p"]
    ignored: Int64[Array, " i"]


@dataclass(frozen=True, eq=False)
class RetrievalScores:
    """Means over the queries that have a right image, and the values of each query.

    Attributes:
        mean_ap: mean average precision (mAP).
        mean_precision, mean_recall: at each of ``ks`` (mP@k, mR@k).
        ap: ``(q,)``, NaN where a query has no right image in this protocol: it is in no mean.
        precision, recall: ``(q, len(ks))``, NaN likewise.
        num_queries: those that count.
    """

    ks: tuple[int, ...]
    ap: Float64[Array, " q"]
    precision: Float64[Array, "q k"]
    recall: Float64[Array, "q k"]

    @property
    def num_queries(self) -> int:
        return int(np.count_nonzero(np.isfinite(self.ap)))

    @property
    def mean_ap(self) -> float:
        return _mean(self.ap)

    @property
    def mean_precision(self) -> tuple[float, ...]:
        return tuple(_mean(column) for column in self.precision.T)

    @property
    def mean_recall(self) -> tuple[float, ...]:
        return tuple(_mean(column) for column in self.recall.T)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: fractions, None where no query counts."""

        def plain(value: float) -> float | None:
            return value if np.isfinite(value) else None

        return {
            "mAP": plain(self.mean_ap),
            **{f"mP@{k}": plain(value) for k, value in zip(self.ks, self.mean_precision, strict=True)},
            **{f"mR@{k}": plain(value) for k, value in zip(self.ks, self.mean_recall, strict=True)},
            "AP": [plain(float(value)) for value in self.ap],
            "queries": self.num_queries,
        }


def judge(labels: Labels, protocol: str) -> Judgement:
    """What a protocol makes of the labels of one query; of a label that is not there, there are no images.

    Raises:
        ConfigError: an unknown protocol.
        DataError: the ground truth has none of the protocol's labels (Revisited and classic are mixed up).
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"no protocol is called {protocol!r}", f"there are: {', '.join(PROTOCOLS)}")
    right, without = PROTOCOLS[protocol]
    if not any(label in labels for label in {*right, *without} - {"junk"}):
        raise DataError(
            f"the ground truth has the labels {', '.join(sorted(labels))}, and {protocol} needs {right[0]}",
            "classic Oxford, Paris and INSTRE have `ok`; the revisited sets `easy` and `hard`",
        )
    none = np.zeros(0, np.int64)
    positives = np.unique(np.concatenate([labels.get(label, none) for label in right]))
    ignored = np.unique(np.concatenate([labels.get(label, none) for label in without]))
    return Judgement(positives, np.setdiff1d(ignored, positives))


def positive_ranks(ranking: Int64[Array, " n"], judgement: Judgement) -> Int64[Array, " p"]:
    """Zero-based ranks of the right images, ascending, once those that do not count are taken out.

    Args:
        ranking: ids of database images, best first; may end early. Negative ids fill its end.

    Raises:
        DataError: an id is there twice.
    """
    ranking = ranking[ranking >= 0]
    if len(np.unique(ranking)) != len(ranking):
        raise DataError("a ranking names a database image twice", "rank each image once, best first")
    counted = ranking[~np.isin(ranking, judgement.ignored)]
    return np.flatnonzero(np.isin(counted, judgement.positives)).astype(np.int64)


def average_precision(ranks: Int64[Array, " p"], num_positives: int) -> float:
    """Area under the precision-recall curve by trapezoids; right images that were not found add nothing.

    Args:
        ranks: zero-based, ascending, of the right images that were found.
        num_positives: how many there are to find, at least 1.

    >>> average_precision(np.array([0, 1]), 2), average_precision(np.array([1]), 1)
    (1.0, 0.25)
    """
    found = np.arange(len(ranks))
    before = np.divide(found, ranks, out=np.ones(len(ranks)), where=ranks > 0)
    after = (found + 1) / (ranks + 1)
    return float(np.sum(before + after) / 2 / num_positives)


def precision_at(ranks: Int64[Array, " p"], k: int) -> float:
    """Share of right images among the first ``k``, or up to the last right one if that comes earlier.

    >>> precision_at(np.array([0, 2, 3]), 10), precision_at(np.array([0, 7]), 10)
    (0.75, 0.25)
    """
    if not len(ranks):
        return 0.0
    k = min(k, int(ranks[-1]) + 1)
    return float(np.count_nonzero(ranks < k) / k)


def recall_at(ranks: Int64[Array, " p"], k: int, num_positives: int) -> float:
    """Share of the right images that are among the first ``k``."""
    return float(np.count_nonzero(ranks < k) / num_positives)


def score_rankings(
    rankings: Sequence[Int64[Array, "_"]], judgements: Sequence[Judgement], ks: Sequence[int] = (1, 5, 10)
) -> RetrievalScores:
    """Average precision, precision and recall of one ranking per query.

    Args:
        rankings: per query, ids of database images, best first.
        judgements: per query, from :func:`judge`.

    Raises:
        DataError: their numbers differ, or a ranking names an image twice.
    """
    if len(rankings) != len(judgements):
        raise DataError(f"{len(rankings)} rankings, but ground truth of {len(judgements)} queries")
    ap = np.full(len(rankings), np.nan)
    precision, recall = np.full((2, len(rankings), len(ks)), np.nan)
    for row, (ranking, judgement) in enumerate(zip(rankings, judgements, strict=True)):
        count = len(judgement.positives)
        if count:
            ranks = positive_ranks(np.asarray(ranking, np.int64), judgement)
            ap[row] = average_precision(ranks, count)
            precision[row] = [precision_at(ranks, k) for k in ks]
            recall[row] = [recall_at(ranks, k, count) for k in ks]
    return RetrievalScores(tuple(ks), ap, precision, recall)


def _mean(values: Float64[Array, " q"]) -> float:
    counted = values[np.isfinite(values)]
    return float(counted.mean()) if len(counted) else float("nan")
