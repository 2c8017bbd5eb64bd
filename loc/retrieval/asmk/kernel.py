"""How alike two images are by the visual words that they share (the selective match kernel)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, UInt8, UInt64

from loc.errors import ContractError
from loc.retrieval.asmk.aggregate import Signature

Array = np.ndarray
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


@dataclass(frozen=True)
class Kernel:
    """``sum over shared words of sign(u) |u|^alpha where u > tau``, u the similarity of the two codes.

    Attributes:
        normalize: divide by ``sqrt(words of one * words of the other)``; the published R-ASMK* does not.
    """

    alpha: float = 3.0
    tau: float = 0.0
    normalize: bool = True

    def selected(self, similarities: Float[Array, " m"]) -> Float64[Array, " m"]:
        """What each shared word adds."""
        values = similarities.astype(np.float64)
        return np.where(values > self.tau, np.sign(values) * np.abs(values) ** self.alpha, 0.0)

    def __call__(self, first: Signature, second: Signature) -> float:
        """Similarity of two images; -1 where one has no words.

        Raises:
            ContractError: signatures of different kinds.
        """
        check_alike(first, second)
        if not len(first) or not len(second):
            return -1.0
        _, mine, theirs = np.intersect1d(first.words, second.words, assume_unique=True, return_indices=True)
        similarities = code_similarities(first.codes[mine], second.codes[theirs], first.dim)
        total = float(self.selected(similarities).sum())
        return total / float(np.sqrt(len(first) * len(second))) if self.normalize else total


def check_alike(first: Signature, second: Signature) -> None:
    """Raise a :class:`ContractError` unless two signatures can be compared."""
    if first.is_binary != second.is_binary or first.dim != second.dim:
        one, other = ("binary" if each.is_binary else "real" for each in (first, second))
        raise ContractError(
            f"{one} signatures of dimension {first.dim} cannot be compared with {other} ones of {second.dim}",
            "aggregate both with the same codebook and options",
        )


def code_similarities(first: Array, second: Array, dim: int) -> Float[Array, " m"]:
    """Of row i with row i: dot products, or ``1 - 2 hamming / bits`` of packed signs.

    ``bits`` is ``bytes * min(dim, 8)``, as published: of a dimension that is no multiple of 8 and larger, the
    bits that fill the last byte count as equal.
    """
    if first.dtype == np.float32:
        return np.einsum("md,md->m", first, second)
    return hamming_similarities(differing_bits(_padded(first), _padded(second)), dim)


def hamming_similarities(differing: Array, dim: int) -> Float64[Array, " m"]:
    """Similarities in [-1, 1] from numbers of differing bits."""
    return 1.0 - 2.0 * differing / (-(-dim // 8) * min(dim, 8))


def as_words64(codes: UInt8[Array, "m b"]) -> UInt64[Array, "m c"]:
    """Packed signs with 64 bits to a number."""
    return np.ascontiguousarray(_padded(codes)).view(np.uint64)


def differing_bits(first: Array, second: Array) -> Array:
    """Hamming distances of rows of bits (popcount of the exclusive or)."""
    differing = first ^ second
    if hasattr(np, "bitwise_count"):  # NumPy 2
        bits: Array = np.bitwise_count(differing)
    else:
        bits = _BITS_OF_BYTE[differing.view(np.uint8)]
    return np.asarray(bits.sum(axis=-1, dtype=np.int64))


def _padded(codes: UInt8[Array, "m b"]) -> UInt8[Array, "m c"]:
    width = -(-codes.shape[1] // 8) * 8
    if width == codes.shape[1]:
        return codes
    out = np.zeros((len(codes), width), np.uint8)
    out[:, : codes.shape[1]] = codes
    return out
