"""Query expansion and database-side augmentation: descriptors averaged with their nearest neighbours.

Average query expansion: Chum et al., ICCV 2007; weights by similarity to the power alpha: Radenović et al.,
"Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019 (there alpha = 3, k = 50);
database side: Turcot and Lowe, ICCVW 2009; Arandjelović and Zisserman, CVPR 2012.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64
from scipy.sparse import csr_array

from loc.errors import DataError
from loc.retrieval.topk import top_k

Array = np.ndarray


def expand_queries(
    queries: Float32[Array, "q d"], database: Float32[Array, "n d"], k: int, *, alpha: float = 0.0
) -> Float32[Array, "q d"]:
    """Each query plus its ``k`` nearest database descriptors, weighted by similarity^alpha, L2-normalised.

    A query that failed drifts: what it found first is what it will find more of.

    Args:
        queries, database: unit norm, or zero (such a query stays zero).
        k: neighbours per query; more than there are is fine.
        alpha: 0 weights all neighbours 1 (average query expansion); else a neighbour of negative
            similarity weighs nothing.

    Raises:
        DataError: alpha is negative, or a descriptor is not finite.
    """
    _check(alpha)
    return _averaged(queries, database, *top_k(queries, database, k), alpha)


def augment_database(database: Float32[Array, "n d"], k: int, *, alpha: float = 0.0) -> Float32[Array, "n d"]:
    """Each descriptor plus its own ``k`` nearest others, as of :func:`expand_queries`.

    A descriptor is never its own neighbour: it is in the sum once, with weight 1.
    """
    _check(alpha)
    itself = np.repeat(np.arange(len(database))[:, None], 2, axis=1)
    return _averaged(database, database, *top_k(database, database, k, exclude=itself), alpha)


def _averaged(
    rows: Float32[Array, "q d"],
    database: Float32[Array, "n d"],
    neighbours: Int64[Array, "q m"],
    similarities: Float32[Array, "q m"],
    alpha: float,
) -> Float32[Array, "q d"]:
    found = neighbours >= 0
    weights = found.astype(np.float32)
    if alpha > 0:
        weights = np.where(found, np.maximum(similarities, 0), 0) ** np.float32(alpha)
    starts = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
    mixing = csr_array((weights[found], neighbours[found], starts), shape=(len(rows), len(database)))
    sums = rows + mixing @ database
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)


def _check(alpha: float) -> None:
    if not alpha >= 0:
        raise DataError(f"alpha must not be negative, got {alpha}", "0 averages; 3 is usual")
