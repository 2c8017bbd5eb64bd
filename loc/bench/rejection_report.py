"""The outcome of calibrating a rejection: rates with intervals, tables by place, what is kept with a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import loc
from loc.bench.rejection import Asked, asked_of
from loc.config import Block
from loc.config.ranking import RerankConfig, suited_reranking
from loc.errors import DataError
from loc.layouts.placed import PlacedPhotos
from loc.metrics.decisions import Roc, brier_score, exact_interval, roc_curve
from loc.plugins.blocks import resolve_block
from loc.retrieval.calibration import Calibration, calibrate
from loc.retrieval.rejection import Rejection, rerank_name
from loc.runtime.runtime import Runtime
from loc.types import Array

#: False-accept rates at which the ROC curve is printed.
ROC_AT = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Rate:
    """A share of queries, with its exact 95 % interval for independent queries."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        return exact_interval(self.count, self.of)

    def __str__(self) -> str:
        if not self.of:
            return "–"
        low, high = self.interval
        return f"{self.count}/{self.of} {100 * self.count / self.of:.1f} % ({100 * low:.1f}–{100 * high:.1f})"

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "of": self.of, "interval": list(self.interval)}


@dataclass(frozen=True, eq=False)
class Outcome:
    """One combination of methods: what was asked, and its calibration or why there is none."""

    globals_name: str
    features_name: str
    rerank: str
    asked: Sequence[Asked]
    calibration: Calibration | None = None
    note: str = ""

    def rate(self, rows: Array) -> Rate:
        """Accepted ones among some queries, by models that have not seen their places."""
        accepted = self._known.accepted
        return Rate(int(accepted[rows].sum()), int(np.count_nonzero(rows)))

    @property
    def false_accepts(self) -> Rate:
        return self.rate(~self._known.labels)

    @property
    def true_accepts(self) -> Rate:
        return self.rate(self._known.labels)

    @property
    def right_first(self) -> Rate:
        """Queries whose place is present and whose best image shows it."""
        return Rate(sum(each.right for each in self.asked), sum(each.present for each in self.asked))

    @property
    def roc(self) -> Roc:
        return roc_curve(self._known.scores, self._known.labels)

    @property
    def brier(self) -> float:
        return brier_score(self._known.scores, self._known.labels)

    def kinds(self) -> dict[str, Rate]:
        """Accepted queries by what there was to find."""
        present = np.array([each.present for each in self.asked])
        labels = self._known.labels
        places = np.array([each.place for each in self.asked])
        nowhere = np.char.startswith(places, "(")
        return {
            "right best image": self.rate(labels),
            "wrong, place present": self.rate(present & ~labels),
            "wrong, place absent": self.rate(~present & ~nowhere),
            "wrong, photo of no place": self.rate(nowhere),
        }

    def by_place(self) -> dict[str, tuple[Rate, Rate]]:
        """Place → true accepts, false accepts, by the model that has not seen it."""
        places, labels = np.array([each.place for each in self.asked]), self._known.labels
        return {
            str(place): (self.rate((places == place) & labels), self.rate((places == place) & ~labels))
            for place in np.unique(places)
        }

    def of_queries(self, photos: PlacedPhotos) -> tuple[Rate, Rate]:
        """True and false accepts of the set's own queries alone."""
        own = np.array([photos.asked_only[each.photo] for each in self.asked])
        return self.rate(own & self._known.labels), self.rate(own & ~self._known.labels)

    def reliability(self) -> list[tuple[float, float, int, float]]:
        """Fifths of the range of scores: from, to, queries, share of right ones (classes balanced)."""
        known, rows = self._known, []
        share = np.where(known.labels, 0.5 / known.labels.sum(), 0.5 / (~known.labels).sum())
        for low in np.arange(5) / 5:
            inside = (known.scores >= low) & (known.scores < (low + 0.2 if low < 0.7 else 1.1))
            right = share[inside & known.labels].sum() / max(share[inside].sum(), 1e-300)
            rows.append((float(low), float(low + 0.2), int(inside.sum()), float(right)))
        return rows

    @property
    def _known(self) -> Calibration:
        if self.calibration is None:
            raise DataError(self.note)
        return self.calibration

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "globals": self.globals_name,
            "features": self.features_name,
            "rerank": self.rerank,
            "note": self.note,
        }
        if self.calibration is None:
            return data
        roc = self.roc
        return {
            **data,
            "auc": roc.auc,
            "brier": self.brier,
            "threshold": self.calibration.rejection.threshold,
            "false_accepts": self.false_accepts.to_json(),
            "true_accepts": self.true_accepts.to_json(),
            "kinds": {kind: rate.to_json() for kind, rate in self.kinds().items()},
            "places": {
                place: {"true_accepts": true.to_json(), "false_accepts": false.to_json()}
                for place, (true, false) in self.by_place().items()
            },
            "reliability": [list(row) for row in self.reliability()],
            "roc": [list(pair) for pair in zip(roc.false_rate.tolist(), roc.true_rate.tolist(), strict=True)],
            "rejection": self.calibration.rejection.to_json(),
        }

    def named(self, provenance: Mapping[str, Any]) -> Rejection:
        """The rejection as it is kept: with what it is for, where it is from, and what it is worth."""
        keypoints = [each.evidence.query_keypoints for each in self.asked]
        worth = {
            "loc": loc.__version__,
            "date": date.today().isoformat(),
            "max_false_accept": self._known.max_false_accept,
            "auc": round(self.roc.auc, 4),
            "false_accepts": str(self.false_accepts),
            "true_accepts": str(self.true_accepts),
            "query_keypoints": [int(each) for each in np.percentile(keypoints, [5, 95])],
        }
        return replace(
            self._known.rejection,
            globals_name=self.globals_name,
            features_name=self.features_name,
            rerank=self.rerank,
            provenance={**provenance, **worth},
        )


def outcomes(
    photos: PlacedPhotos,
    globals_blocks: Sequence[Block | str],
    features_blocks: Sequence[Block | str],
    config: RerankConfig | None,
    *,
    max_false_accept: float,
    per_place: int,
    workdir: Path,
    runtime: Runtime,
) -> Iterator[Outcome]:
    """Calibrations of all combinations as they are done; one that cannot be made says why.

    Args:
        config: None: the parameter set that suits the features.
    """
    for features in features_blocks:
        by = config or RerankConfig(use=suited_reranking(resolve_block("features", features).name))
        for globals_name, features_name, asked in asked_of(
            photos, globals_blocks, features, by, per_place=per_place, workdir=workdir, runtime=runtime
        ):
            outcome = Outcome(globals_name, features_name, rerank_name(by), asked)
            try:
                calibration = calibrate(
                    [each.evidence for each in asked],
                    [each.right for each in asked],
                    [each.place for each in asked],
                    answers=[each.answer for each in asked],
                    max_false_accept=max_false_accept,
                )
            except DataError as error:
                yield replace(outcome, note=error.message)
            else:
                yield replace(outcome, calibration=calibration)
