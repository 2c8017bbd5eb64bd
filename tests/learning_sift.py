"""An extractor that learns from the database images: SIFT less the mean descriptor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from loc.extractors.sift import Sift
from loc.plugins.protocols import Arrays
from loc.types import LocalFeatures


class LearningSift(Sift):
    needs_fit = True
    mean: np.ndarray | None = None

    def fit(self, inputs: Iterable[LocalFeatures]) -> Arrays:
        rows = np.concatenate([features.descriptors for features in inputs])
        return {
            "mean": rows.mean(axis=0, dtype=np.float64).astype(np.float32),
            "count": np.asarray(len(rows)),
        }

    def load_state(self, state: Arrays) -> None:
        self.mean = state["mean"]

    def __call__(self, images: np.ndarray) -> list[LocalFeatures]:
        found = super().__call__(images)
        return found if self.mean is None else [self._centred(features) for features in found]

    def _centred(self, features: LocalFeatures) -> LocalFeatures:
        rows = features.descriptors.astype(np.float32) - self.mean
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return replace(features, descriptors=rows / np.maximum(norms, 1e-6))
