"""Retrieval: exact search in 100,000 global descriptors, against the matrix product alone."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np

from loc.bench.ratio import Ratio, Size, speed_of
from loc.retrieval.topk import BLOCK_BYTES, top_k
from loc.types import Array

_K = 50
_ROWS, _COLUMNS = 256, 6144
_SPEED = "both float32 by NumPy; ours also checks for NaN, sorts, and breaks ties by index"


def retrieve(size: Size) -> list[Ratio]:
    """The 50 best of 100,000 x 4096 for 1,000 queries: speed, and working memory in block budgets."""
    queries, database, dim = (50, 4000, 256) if size.quick else (1000, 100_000, 4096)
    what = f"{queries} queries in {database} x {dim}, the best {_K}"
    needed = 4 * dim * (database + queries) + 4 * BLOCK_BYTES
    free = _free_bytes()
    if free is not None and free < needed:
        note = f"not measured: needs {needed / 1e9:.1f} GB of free memory, there are {free / 1e9:.1f}"
        return [Ratio("retrieve", f"{what}: speed / of the bare matrix product", (), note=note)]
    asked, stored = _unit_rows(queries, dim, 0), _unit_rows(database, dim, 1)
    buffer = np.empty((_ROWS, _COLUMNS), np.float32)
    speed = speed_of(lambda: top_k(asked, stored, _K), lambda: _product(asked, stored, buffer), size.repeats)
    peak = _peak_bytes(asked, stored)
    result = queries * _K * (np.dtype(np.int64).itemsize + np.dtype(np.float32).itemsize)
    memory = f"{what}: peak memory beyond inputs and result / block budget ({BLOCK_BYTES >> 20} MiB)"
    return [
        Ratio("retrieve", f"{what}: speed / of the bare matrix product", speed, note=_SPEED),
        Ratio("retrieve", memory, ((peak - result) / BLOCK_BYTES,), 1.0, ceiling=True),
    ]


def _product(queries: Array, database: Array, buffer: Array) -> None:
    for top in range(0, len(queries), _ROWS):
        for left in range(0, len(database), _COLUMNS):
            a, b = queries[top : top + _ROWS], database[left : left + _COLUMNS]
            np.matmul(a, b.T, out=buffer[: len(a), : len(b)])


def _peak_bytes(queries: Array, database: Array) -> int:
    """Most memory that NumPy holds at once during a search."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        top_k(queries, database, _K)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _unit_rows(count: int, dim: int, seed: int) -> Array:
    """Random unit vectors, made a block at a time: at no moment is there a second copy."""
    generator = np.random.default_rng(seed)
    out = np.empty((count, dim), np.float32)
    for top in range(0, count, 1024):
        block = out[top : top + 1024]
        generator.standard_normal(dtype=np.float32, out=block)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return out


def _free_bytes() -> int | None:
    """Memory that can be had now, caches included, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None
