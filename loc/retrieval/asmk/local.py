"""Local descriptors made ready for visual words: unit norm, PCA, unit norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped

from loc.errors import ContractError
from loc.types import LocalFeatures

Array = np.ndarray
_SPECTRUM_FLOOR = 1e-2
_DIFFERENT = "fit on the features of one extractor and config"


@dataclass(frozen=True, eq=False)
class LocalSpace:
    """Centre ``(d,)`` and projection ``(d, e)`` of unit descriptors."""

    center: Float32[Array, " d"]
    projection: Float32[Array, "d e"]

    def __call__(self, rows: Float32[Array, "n _"]) -> Float32[Array, "n e"]:
        """Unit rows from unit rows.

        Raises:
            ContractError: rows of another dimension.
        """
        if rows.shape[1] != len(self.center):
            raise ContractError(
                f"fitted on descriptors of dimension {len(self.center)}, got {rows.shape[1]}",
                "fit and apply it on the same features",
            )
        return unit_rows((rows - self.center) @ self.projection)


def learned_space(rows: Float32[Array, "n d"], dim: int | None) -> LocalSpace:
    """PCA to ``min(dim, d)`` values, half whitened (eigenvalues to the power -1/4); None: as they are."""
    width = rows.shape[1]
    if dim is None:
        return LocalSpace(np.zeros(width, np.float32), np.eye(width, dtype=np.float32))
    center = rows.mean(axis=0, dtype=np.float64)
    deviation = rows - center
    values, vectors = np.linalg.eigh(deviation.T @ deviation / len(rows))
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    if values.sum() <= 0:  # one descriptor, or all the same
        return LocalSpace(np.zeros(width, np.float32), np.eye(width, dtype=np.float32)[:, :dim])
    scale = (np.maximum(values, 0) + _SPECTRUM_FLOOR * values.mean()) ** -0.25
    return LocalSpace(center.astype(np.float32), (vectors * scale).astype(np.float32))


def sampled(
    inputs: Iterable[LocalFeatures], most: int, *, best: int | None, seed: int
) -> Float32[Array, "n d"]:
    """At most ``most`` unit descriptors of all images, a uniform random sample, in one pass.

    Args:
        best: keypoints per image, by score; None takes all.

    Raises:
        ContractError: descriptors of several dimensions.
    """
    rng = np.random.default_rng(seed)
    rows, keys = np.zeros((0, 0), np.float32), np.zeros(0)
    waiting: list[Array] = []

    def merged() -> tuple[Array, Array]:
        new = np.concatenate([rows, *waiting]) if len(rows) else np.concatenate(waiting)
        marks = np.concatenate([keys, rng.random(len(new) - len(keys))])
        kept = np.sort(np.argsort(marks, kind="stable")[:most])
        return new[kept], marks[kept]

    for features in inputs:
        chosen = np.argsort(-features.scores, kind="stable")[:best]
        if not len(chosen):
            continue
        waiting.append(unit_rows(features.descriptors[chosen]))
        dims = {waiting[0].shape[1], waiting[-1].shape[1], *([rows.shape[1]] if len(rows) else [])}
        if len(dims) > 1:
            raise ContractError(f"images have descriptors of dimensions {sorted(dims)}", _DIFFERENT)
        if sum(map(len, waiting)) > most:
            rows, keys = merged()
            waiting = []
    return merged()[0] if waiting else rows


def unit_rows(rows: Shaped[Array, "n d"]) -> Float32[Array, "n d"]:
    """Float32 rows of unit norm; zeros stay zeros."""
    values = rows.astype(np.float32)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
