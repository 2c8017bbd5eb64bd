"""Several descriptors per image: which image each belongs to, how they are weighted, how they become few."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64, Int64

from loc.errors import DataError

Array = np.ndarray
_EM_ITERATIONS = 30
#: Least variance of the mixture, relative to unit vectors: equal vectors must not divide by zero.
_LEAST_VARIANCE = 1e-8


@dataclass(frozen=True, eq=False)
class Regions:
    """Vectors of images.

    Attributes:
        image_of: ``(m,)`` number of the image of each vector, ascending.
        weights: ``(m,)`` of each vector in its image's score.
        count: of images, those without a vector included.
    """

    image_of: Int64[Array, " m"]
    weights: Float64[Array, " m"]
    count: int

    def __post_init__(self) -> None:
        inside = not len(self.image_of) or 0 <= self.image_of[0] <= self.image_of[-1] < self.count
        if not inside or (np.diff(self.image_of) < 0).any():
            raise DataError(f"image_of must ascend within 0 to {self.count - 1}", "sort regions by image")

    def pooled(self, values: Float64[Array, " m"]) -> Float64[Array, " n"]:
        """Weighted sum per image."""
        return np.bincount(self.image_of, self.weights * values, minlength=self.count)

    def nodes_of(self, images: Int64[Array, " t"]) -> Int64[Array, " s"]:
        """Numbers of the vectors of some images, ascending."""
        wanted = np.zeros(self.count, bool)
        wanted[images] = True
        return np.flatnonzero(wanted[self.image_of]).astype(np.int64)


def regions_of_rows(
    rows: Float32[Array, "n d"], size: int
) -> tuple[Float32[Array, "m e"], Int64[Array, " m"]]:
    """The vectors of rows that hold ``size`` of them each, one after another: L2-normalised, zeros left out.

    Returns:
        The vectors and their images (numbers of rows), ascending.

    Raises:
        DataError: rows cannot be divided so.
    """
    if size < 1 or rows.shape[1] % size:
        raise DataError(f"rows of {rows.shape[1]} values do not hold {size} vectors each")
    vectors = rows.reshape(len(rows) * size, -1)
    norms = np.linalg.norm(vectors, axis=1)
    there = np.flatnonzero(norms > 0)
    return vectors[there] / norms[there, None], there // size


def pooled_rows(rows: Float32[Array, "n d"], size: int) -> Float32[Array, "n e"]:
    """One vector per row: the L2-normalised sum of its ``size`` normalised vectors, as in R-MAC."""
    if size == 1:
        return rows
    vectors, owners = regions_of_rows(rows, size)
    out = np.zeros((len(rows), rows.shape[1] // size), np.float32)
    np.add.at(out, owners, vectors)
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    return np.divide(out, norms, out=out, where=norms > 0)


def weighted_regions(
    vectors: Float32[Array, "m d"], image_of: Int64[Array, " m"], count: int, *, damping: float = 1.0
) -> Regions:
    """Weights by generalised max-pooling, per image (V V^T + damping I)^(-1) 1: repeated regions weigh less.

    Murray and Perronnin, CVPR 2014; as used by Iscen et al., CVPR 2017, with a damping of 1.
    """
    regions = Regions(image_of, np.ones(len(image_of)), count)
    weights = np.ones(len(image_of))
    for part in _parts(image_of):
        rows = vectors[part].astype(np.float64)
        weights[part] = np.linalg.solve(rows @ rows.T + damping * np.eye(len(rows)), np.ones(len(rows)))
    return Regions(regions.image_of, weights, count)


def reduced_regions(
    vectors: Float32[Array, "m d"], image_of: Int64[Array, " m"], size: int
) -> tuple[Float32[Array, "s d"], Int64[Array, " s"]]:
    """At most ``size`` vectors per image: the L2-normalised means of a Gaussian mixture of its regions.

    Iscen et al., CVPR 2017: 5 instead of 21. The Gaussians are spherical and of one variance, since an image
    has fewer vectors than they have dimensions; expectation-maximisation starts from vectors far apart.

    Returns:
        The vectors and their images.
    """
    if size < 1:
        raise DataError(f"an image needs at least 1 region, got {size}")
    kept, owners = [vectors[:0]], [image_of[:0]]
    for part in _parts(image_of):
        rows = vectors[part]
        kept.append(rows if len(rows) <= size else _mixture_means(rows, size))
        owners.append(np.repeat(image_of[part.start], len(kept[-1])))
    return np.concatenate(kept), np.concatenate(owners)


def _mixture_means(rows: Float32[Array, "m d"], size: int) -> Float32[Array, "s d"]:
    data = rows.astype(np.float64)
    means = data[_far_apart(data, size)]
    shares = np.full(size, 1 / size)
    variance = max(float(data.var(axis=0).mean()), _LEAST_VARIANCE)
    for _ in range(_EM_ITERATIONS):
        squared = np.square(data[:, None] - means).sum(axis=2)
        logits = np.log(shares) - squared / (2 * variance)
        parts = np.exp(logits - logits.max(axis=1, keepdims=True))
        parts /= parts.sum(axis=1, keepdims=True)
        mass = parts.sum(axis=0) + np.finfo(float).tiny
        means = parts.T @ data / mass[:, None]
        shares = mass / mass.sum()
        variance = max(float((parts * squared).sum() / data.size), _LEAST_VARIANCE)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.divide(means, norms, out=np.zeros_like(means), where=norms > 0).astype(np.float32)


def _far_apart(data: Float64[Array, "m d"], size: int) -> list[int]:
    """Rows: the one nearest to the mean, then always the one farthest from those chosen."""
    chosen = [int(np.argmin(np.square(data - data.mean(axis=0)).sum(axis=1)))]
    distance = np.square(data - data[chosen[0]]).sum(axis=1)
    while len(chosen) < size:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.square(data - data[chosen[-1]]).sum(axis=1))
    return chosen


def _parts(image_of: Int64[Array, " m"]) -> list[slice]:
    """The stretches of equal images."""
    borders = np.flatnonzero(np.diff(image_of)) + 1
    edges = [0, *borders.tolist(), len(image_of)]
    return [slice(start, stop) for start, stop in pairwise(edges) if start < stop]
