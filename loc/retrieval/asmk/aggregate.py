"""Residuals of local descriptors to visual words, summed by word: VLAD and ASMK, of images and of regions.

Tolias et al., "To aggregate or not to aggregate", ICCV 2013 (ASMK, ASMK*); Teichmann et al.,
"Detect-to-Retrieve", CVPR 2019 (R-VLAD, R-ASMK, R-ASMK*), in the form of tensorflow/models
research/delf/delf/python/feature_aggregation_extractor.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from loc.retrieval.asmk.words import Codebook

Array = np.ndarray
#: Least squared norm by which a vector is divided.
_LEAST_SQUARE = 1e-12
#: A word whose sum is shorter says nothing: its residuals cancelled.
_LEAST_NORM = 1e-6


@dataclass(frozen=True, eq=False)
class Residuals:
    """Sums of residuals of the words that an image (or region) has.

    Attributes:
        words: ``(w,)`` ascending; sums: ``(w, d)`` one per word.
        dense_words: words of the whole codebook.
    """

    words: Int32[Array, " w"]
    sums: Float64[Array, "w d"]
    dense_words: int

    def dense(self) -> Float32[Array, " kd"]:
        """All words one after another, zeros for those that are not there."""
        out = np.zeros((self.dense_words, self.sums.shape[1]), np.float32)
        out[self.words] = self.sums
        return out.ravel()

    def normalized(self) -> Residuals:
        """Divided by the norm of the whole."""
        return Residuals(self.words, self.sums / _norm(np.square(self.sums).sum()), self.dense_words)


@dataclass(frozen=True, eq=False)
class Signature:
    """What an image is in an index: a vector for each of its visual words.

    Attributes:
        words: ``(w,)`` ascending.
        codes: ``(w, d)`` float32 of unit norm, or ``(w, ceil(d / 8))`` uint8 with their signs, one bit each.
        dim: d.
    """

    words: Int32[Array, " w"]
    codes: Array
    dim: int

    def __len__(self) -> int:
        return len(self.words)

    @property
    def is_binary(self) -> bool:
        return self.codes.dtype == np.uint8

    def signs(self) -> Signature:
        """The binary form (ASMK*): 1 where a value is above zero."""
        return Signature(self.words, packed_signs(self.codes), self.dim)


def residuals(descriptors: Float32[Array, "n d"], codebook: Codebook, *, assignments: int = 1) -> Residuals:
    """Sum by word of ``descriptor - word``, each descriptor at its ``assignments`` nearest words."""
    near = codebook.nearest(descriptors, assignments)
    row, word = np.repeat(np.arange(len(near)), near.shape[1]), near.ravel()
    order = np.argsort(word, kind="stable")
    row, word = row[order], word[order]
    words, starts = np.unique(word, return_index=True)
    sums = np.zeros((0, codebook.dim))
    if len(words):
        offsets = descriptors[row].astype(np.float64) - codebook.words[word]
        sums = np.add.reduceat(offsets, starts, axis=0)
    return Residuals(words.astype(np.int32), sums, len(codebook))


def mean_of_regions(
    regions: Sequence[Float32[Array, "_ d"]], codebook: Codebook, *, assignments: int = 1
) -> Residuals:
    """Mean over regions of their normalised residuals (R-VLAD without its last norm); empty ones count.

    Args:
        regions: descriptors of each; those of the whole image are usually the first.
    """
    parts = [residuals(rows, codebook, assignments=assignments).normalized() for rows in regions]
    words = np.unique(np.concatenate([np.zeros(0, np.int32), *(part.words for part in parts)]))
    sums = np.zeros((len(words), codebook.dim))
    for part in parts:
        sums[np.searchsorted(words, part.words)] += part.sums
    return Residuals(words.astype(np.int32), sums / max(1, len(parts)), len(codebook))


def signature(found: Residuals) -> Signature:
    """Each word's sum at unit norm (ASMK, R-ASMK); words whose residuals cancelled are left out."""
    norms = np.linalg.norm(found.sums, axis=1)
    kept = norms > _LEAST_NORM
    codes = found.sums[kept] / norms[kept, None]
    return Signature(found.words[kept], codes.astype(np.float32), found.sums.shape[1])


def packed_signs(values: Float32[Array, "w d"]) -> UInt8[Array, "w b"]:
    """A bit per value, 1 above zero, first value in the highest bit of the first byte."""
    return np.packbits(values > 0, axis=1)


def _norm(square: float) -> float:
    return float(np.sqrt(max(float(square), _LEAST_SQUARE)))
