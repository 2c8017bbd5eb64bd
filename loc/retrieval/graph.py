"""The mutual k-nearest-neighbour graph of descriptors, on which diffusion runs; it is sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import DTypeLike
from scipy.sparse import csr_array

from loc.errors import DataError
from loc.retrieval.topk import top_k

Array = np.ndarray
#: Exponent of similarities in Iscen et al., CVPR 2017.
GAMMA = 3.0


@dataclass(frozen=True, eq=False)
class Graph:
    """A symmetric graph without loops.

    Attributes:
        weights: ``(n, n)`` sparse W, float64, or float32: 1.8 times as fast, since a product is bound by the
            bytes it reads. Solutions then differ by some 1e-6 of their norm.
        scale: ``(n,)`` degree^(-1/2), zero for a node without edges.
    """

    weights: Any
    scale: Float64[Array, " n"]

    def __len__(self) -> int:
        return len(self.scale)

    def step(self, values: Float64[Array, " n"]) -> Float64[Array, " n"]:
        """S x with S = D^(-1/2) W D^(-1/2), whose eigenvalues lie in [-1, 1]."""
        scaled = (self.scale * values).astype(self.weights.dtype, copy=False)  # else SciPy converts all of W
        out: Float64[Array, " n"] = self.scale * (self.weights @ scaled)
        return out

    def part(self, nodes: Int64[Array, " m"]) -> Graph:
        """The graph between some of its nodes, with degrees of its own."""
        return _scaled(self.weights[nodes][:, nodes])

    def block(self, nodes: Int64[Array, " m"]) -> Graph:
        """Rows and columns of S for some of its nodes: the degrees stay those of the whole graph."""
        return Graph(self.weights[nodes][:, nodes], self.scale[nodes])


def knn_graph(
    vectors: Float32[Array, "n d"], k: int, *, gamma: float = GAMMA, precision: DTypeLike = np.float64
) -> Graph:
    """The graph of descriptors, by exact search (the largest part of its cost: n² d products, in blocks).

    Args:
        vectors: unit norm, or zero: without edges.
        k: neighbours per node, the node itself among them as in the published code; may exceed n.
        gamma, precision: see :func:`mutual_graph`.
    """
    return mutual_graph(*top_k(vectors, vectors, k), gamma=gamma, precision=precision)


def mutual_graph(
    neighbours: Int64[Array, "n k"],
    similarities: Float32[Array, "n k"],
    *,
    gamma: float = GAMMA,
    precision: DTypeLike = np.float64,
) -> Graph:
    """An edge where each of two nodes is among the other's neighbours; weight max(similarity, 0)^gamma.

    Args:
        neighbours: from any search, exact or not; -1 where a node has fewer, each at most once per row.
        similarities: dot products.
        precision: of the weights, float64 or float32.

    Raises:
        DataError: a neighbour that is no node.
    """
    count = len(neighbours)
    if neighbours.size and not -1 <= neighbours.min() <= neighbours.max() < count:
        raise DataError(f"neighbours are numbers of nodes, 0 to {count - 1}, or -1")
    counted = (neighbours >= 0) & (similarities > 0) & (neighbours != np.arange(count)[:, None])
    starts = np.concatenate([[0], np.cumsum(counted.sum(axis=1))])
    integer = np.int32 if max(count, starts[-1]) < 2**31 else np.int64  # SciPy keeps what it is given
    directed = csr_array(
        (
            similarities[counted],
            neighbours[counted].astype(integer),
            starts.astype(integer),
        ),
        shape=(count, count),
    )
    directed.sort_indices()
    # An edge that one side lacks is zero there. Where both have it, their products may differ by rounding.
    both = directed.minimum(directed.T.tocsr())
    both.eliminate_zeros()
    both = both.astype(precision)
    both.data **= gamma
    return _scaled(both)


def _scaled(weights: Any) -> Graph:
    degrees = np.asarray(weights.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.zeros(len(degrees))
    np.divide(1, np.sqrt(degrees), out=scale, where=degrees > 0)
    return Graph(weights, scale)
