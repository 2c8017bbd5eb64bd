"""Which kind of base suits how many vectors, and its sizes where the config leaves them open."""

from __future__ import annotations

import math
from typing import Literal

from loc.config.index import IndexConfig
from loc.errors import DataError

Kind = Literal["exact", "ivf", "ivfpq"]
#: Below, comparing all vectors is fast enough, and there is nothing to train.
EXACT_VECTORS = 50_000
#: Above, in bytes of float32, vectors are better left on disk and their codes searched.
IVF_BYTES = 8 * 2**30
#: Vectors per cell, or per value of a code, that k-means needs at least; faiss warns below.
_LEAST = 39
_CODE_VALUES = 256
_TRAIN_PER_LIST = 40


def choose(config: IndexConfig, count: int, dim: int) -> Kind:
    """The kind of a base of ``count`` vectors.

    Raises:
        DataError: an explicit kind cannot be trained on so few vectors.
    """
    if config.kind == "auto":
        if count < EXACT_VECTORS or count < least(config, "ivf", count):
            return "exact"
        if count * dim * 4 <= IVF_BYTES or count < least(config, "ivfpq", count):
            return "ivf"
        return "ivfpq"
    if config.kind != "exact" and count < least(config, config.kind, count):
        raise DataError(
            f"{count} vectors are too few to train an index of kind {config.kind}: "
            f"it needs {least(config, config.kind, count)}",
            "use kind exact or auto, or fewer lists",
        )
    return config.kind


def least(config: IndexConfig, kind: Kind, count: int) -> int:
    """How many vectors training needs."""
    coarse = _LEAST * lists(config, count)
    return {"exact": 0, "ivf": coarse, "ivfpq": max(coarse, _LEAST * _CODE_VALUES)}[kind]


def lists(config: IndexConfig, count: int) -> int:
    """Cells for ``count`` vectors: the power of two nearest to twice the square root."""
    if config.lists is not None:
        return config.lists
    power = round(math.log2(2 * math.sqrt(max(count, 1))))
    return max(1, min(1 << power, count // _LEAST))


def probes(config: IndexConfig, cells: int) -> int:
    return min(cells, config.probes or max(16, cells // 32))


def training_vectors(config: IndexConfig, kind: Kind, count: int) -> int:
    wanted = config.train or _TRAIN_PER_LIST * max(lists(config, count), _CODE_VALUES)
    return min(count, max(wanted, least(config, kind, count)))


def code_bytes(config: IndexConfig, dim: int) -> int:
    """Parts that a vector is divided into, one byte each.

    Raises:
        DataError: the configured number does not divide the dimension.
    """
    if config.code_bytes is None:
        most = max(1, min(64, dim // 4))
        return max(parts for parts in range(1, most + 1) if dim % parts == 0)
    if dim % config.code_bytes:
        raise DataError(
            f"code_bytes {config.code_bytes} does not divide the {dim} dimensions of the vectors",
            f"use one of {', '.join(str(parts) for parts in range(1, dim + 1) if dim % parts == 0)}",
        )
    return config.code_bytes
