"""Visual words: which are nearest to a descriptor, and how they are learned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from loc.errors import ContractError, DataError

Array = np.ndarray
#: Above this many words, k-means is of two levels: cost of the square root of the words instead of the words.
FLAT_WORDS = 2048
#: faiss rounds distances to float32: this many more are looked at again in float64, so that ties are ties.
_MARGIN = 8
_BLOCK = 4096


class Codebook:
    """Visual words, ``(k, d)`` float32."""

    def __init__(self, words: Float32[Array, "k d"]) -> None:
        """Take words.

        Raises:
            DataError: there is none, or one is not finite.
        """
        if words.ndim != 2 or not words.size or not np.isfinite(words).all():
            raise DataError(
                f"a codebook is an array (words, dimension) of finite numbers, got {words.shape}",
                "train it again",
            )
        self.words = np.ascontiguousarray(words, np.float32)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def dim(self) -> int:
        return int(self.words.shape[1])

    def nearest(self, descriptors: Float32[Array, "n d"], count: int = 1) -> Int64[Array, "n m"]:
        """The ``min(count, k)`` nearest words of every descriptor, nearest first, ties by number.

        Raises:
            ContractError: descriptors of another dimension than the words.
        """
        count = min(count, len(self))
        if not len(descriptors):
            return np.zeros((0, count), np.int64)
        if descriptors.shape[1] != self.dim:
            raise ContractError(
                f"the codebook has words of dimension {self.dim}, the descriptors {descriptors.shape[1]}",
                "use the features that the codebook was trained on, or train one on these",
            )
        out = np.empty((len(descriptors), count), np.int64)
        for top in range(0, len(descriptors), _BLOCK):
            rows = np.ascontiguousarray(descriptors[top : top + _BLOCK], np.float32)
            _, near = self._index.search(rows, min(count + _MARGIN, len(self)))
            near = np.sort(near, axis=1)
            distances = np.empty(near.shape)
            for column in range(near.shape[1]):
                offsets = rows.astype(np.float64) - self.words[near[:, column]]
                distances[:, column] = np.einsum("nd,nd->n", offsets, offsets)
            order = np.argsort(distances, axis=1, kind="stable")[:, :count]
            out[top : top + _BLOCK] = np.take_along_axis(near, order, axis=1)
        return out

    @cached_property
    def _index(self) -> Any:
        import faiss

        index = faiss.IndexFlatL2(self.dim)
        index.add(self.words)
        return index


def train_words(
    rows: Float32[Array, "n d"], count: int, *, iterations: int = 20, seed: int = 0
) -> Float32[Array, "k d"]:
    """At most ``count`` words by k-means; the distinct rows themselves if there are not more.

    More than 2,048 words are learned in two levels (Nistér and Stewénius, CVPR 2006): the square root of the
    number of cells, and in each cell words in proportion to its rows. The same rows and seed give the same
    words.

    Raises:
        DataError: no row.
    """
    if not len(rows):
        raise DataError("a codebook cannot be learned from no descriptor", "check that images have keypoints")
    rows = np.ascontiguousarray(rows, np.float32)
    if len(rows) <= 100 * count:
        distinct = np.unique(rows, axis=0)
        if len(distinct) <= count:
            return distinct
    if count <= FLAT_WORDS:
        return _kmeans(rows, count, iterations, seed)
    cells = _kmeans(rows, round(count**0.5), iterations, seed)
    cell_of = Codebook(cells).nearest(rows)[:, 0]
    sizes = np.bincount(cell_of, minlength=len(cells))
    words = []
    for cell, share in enumerate(_shares(sizes, count).tolist()):
        members = rows[cell_of == cell]
        if share:
            words.append(_kmeans(members, share, iterations, seed) if share < len(members) else members)
    return np.concatenate(words)


def _shares(sizes: Int64[Array, " c"], total: int) -> Int64[Array, " c"]:
    """``total`` divided in proportion to ``sizes``, by largest remainder; none above its size."""
    exact = sizes * (total / sizes.sum())
    shares = np.floor(exact).astype(np.int64)
    most = np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]
    shares[most] += 1
    return np.minimum(shares, sizes)


def _kmeans(rows: Float32[Array, "n d"], count: int, iterations: int, seed: int) -> Float32[Array, "k d"]:
    import faiss

    kmeans = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),  # the sample is bounded already
    )
    with _one_thread():  # the sums of several are added in an order of their own
        kmeans.train(np.ascontiguousarray(rows))
    return np.asarray(kmeans.centroids, np.float32).reshape(count, -1).copy()


@contextmanager
def _one_thread() -> Iterator[None]:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
