"""An inverted file of signatures: a query looks only at the lists of the words that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from loc.errors import ContractError
from loc.retrieval.asmk.aggregate import Signature
from loc.retrieval.asmk.kernel import (
    Kernel,
    as_words64,
    check_alike,
    code_similarities,
    differing_bits,
    hamming_similarities,
)

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Found:
    """Images that share a word with a query.

    Attributes:
        images: ``(m,)`` rows of the index, ascending; scores: ``(m,)``.
        entries: how many entries of lists were compared.
    """

    images: Int64[Array, " m"]
    scores: Float64[Array, " m"]
    entries: int


class InvertedFile:
    """Signatures of images, by word: for each word that occurs, its images and their codes.

    Memory is 4 bytes and a code per word of an image, and 8 bytes per word that occurs, however large the
    codebook is.
    """

    def __init__(self, signatures: Sequence[Signature]) -> None:
        """Index images by their place in ``signatures``.

        Raises:
            ContractError: signatures of different kinds.
        """
        for each in signatures:
            check_alike(signatures[0], each)
        self.counts = np.array([len(each) for each in signatures], np.int64)
        self._like = replace(signatures[0], words=np.zeros(0, np.int32)) if signatures else None
        if self._like is None:
            return
        words = np.concatenate([each.words for each in signatures])
        images = np.repeat(np.arange(len(signatures), dtype=np.int32), self.counts)
        order = np.argsort(words, kind="stable")  # within a list by image
        codes = np.concatenate([each.codes for each in signatures])[order]
        self._codes = as_words64(codes) if self._like.is_binary else codes
        self._images = images[order]
        self._words, starts = np.unique(words[order], return_index=True)
        self._starts = np.append(starts, len(words)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.counts)

    def search(self, query: Signature, kernel: Kernel) -> Found:
        """Scores of the images that share a word with ``query``, at the cost of the lists of its words.

        Raises:
            ContractError: the query is of another kind than the index.
        """
        if self._like is None:
            return Found(np.zeros(0, np.int64), np.zeros(0), 0)
        check_alike(self._like, query)
        at = np.searchsorted(self._words, query.words)
        known = at < len(self._words)
        known[known] = self._words[at[known]] == query.words[known]
        lists, rows = at[known], np.flatnonzero(known)
        starts, lengths = self._starts[lists], self._starts[lists + 1] - self._starts[lists]
        entries, asking = _ranges(starts, lengths), np.repeat(rows, lengths)
        if self._like.is_binary:
            differing = differing_bits(as_words64(query.codes)[asking], self._codes[entries])
            similarities = hamming_similarities(differing, query.dim)
        else:
            similarities = code_similarities(query.codes[asking], self._codes[entries], query.dim)
        images, place = np.unique(self._images[entries], return_inverse=True)
        scores = np.bincount(place, kernel.selected(similarities), minlength=len(images)).astype(np.float64)
        if kernel.normalize:
            scores /= np.sqrt(len(query) * self.counts[images])
        return Found(images.astype(np.int64), scores, len(entries))

    def hamming(self, code: UInt8[Array, "1 b"]) -> Int64[Array, " m"]:
        """Differing bits of one code with every code of the index, in the order of its lists."""
        return differing_bits(as_words64(code), self._codes)

    @property
    def nbytes(self) -> int:
        """Of what the index holds."""
        if self._like is None:
            return 0
        return int(self._codes.nbytes + self._images.nbytes + self._words.nbytes + self._starts.nbytes)


def _ranges(starts: Int64[Array, " m"], lengths: Int64[Array, " m"]) -> Int64[Array, " n"]:
    """``start, start + 1, …`` of every range, one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def encode(index: Signature, query: Signature) -> Array:
    """Both signatures of an image as ``(n,)`` uint8, the form in which a store keeps them.

    ``index`` is what is found, ``query`` what searches (more words by multiple assignment, no regions).
    """
    header = np.array([index.dim, index.is_binary, len(index), len(query)], "<i4")
    parts = [header, index.words.astype("<i4"), index.codes, query.words.astype("<i4"), query.codes]
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8).ravel() for part in parts])


def decode(row: Array) -> tuple[Signature, Signature]:
    """The ``(index, query)`` signatures of :func:`encode`.

    Raises:
        ContractError: bytes of anything else.
    """
    if row.dtype != np.uint8 or row.ndim != 1 or row.size < 16:
        raise ContractError(f"a row of {row.dtype} {row.shape} holds no signatures", "extract it again")
    row = np.ascontiguousarray(row)
    dim, binary, *counts = row[:16].view("<i4").tolist()
    kind, width = (np.dtype(np.uint8), -(-dim // 8)) if binary else (np.dtype("<f4"), dim)
    out, at = [], 16
    if dim < 0 or min(counts) < 0 or row.size != 16 + sum(counts) * (4 + width * kind.itemsize):
        raise ContractError(f"a row of {row.size} bytes holds no signatures", "extract it again")
    for count in counts:
        middle, end = at + 4 * count, at + count * (4 + width * kind.itemsize)
        words = row[at:middle].copy().view("<i4").astype(np.int32)
        codes = row[middle:end].copy().view(kind).reshape(count, width)
        out.append(Signature(words, codes, dim))
        at = end
    return out[0], out[1]
