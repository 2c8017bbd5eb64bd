"""The index of descriptors: what each kind finds, how fast, and what it costs to make and to keep.

Times are processor times, so that they mean the same on a busy machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from loc.config.index import IndexConfig
from loc.errors import DataError
from loc.retrieval.index import VectorIndex
from loc.retrieval.indexing.files import FAISS
from loc.types import Array

K = 20
_QUERIES = 200
_BLOCK = 16_384
#: Vectors and dimensions of the rows of the table.
SIZES = (
    *((10**power, dim) for power in (4, 5, 6) for dim in (40, 256)),
    *((10**power, 2048) for power in (4, 5)),
)
QUICK = ((2_000, 16),)


@dataclass(frozen=True)
class Row:
    """One kind of index on one set of vectors.

    Attributes:
        recall: share of the exact 20 nearest among the 20 found.
        queries_per_s: of a batch of 200, per second of processor time.
        speed: of that batch / of exact search of the same vectors, in turn.
        over_faiss: processor time of that batch / of faiss alone on the same base; for exact: of
            ``IndexFlatIP`` in memory.
        searched_bytes: per vector, of what a search reads: vectors or codes with their ids.
        disk_bytes: per vector, of everything on disk but an earlier generation (names among it).
        train_s, add_s: processor time of compaction: learning, then filling lists; one thread.
    """

    data: str
    vectors: int
    dim: int
    kind: str
    recall: float
    queries_per_s: float
    speed: float
    over_faiss: float
    searched_bytes: float
    disk_bytes: float
    train_s: float
    add_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def synthetic(count: int, dim: int, path: Path) -> tuple[Array, Array]:
    """Unit vectors in clusters, mapped from ``path``, and 200 queries of the same clusters.

    A hundredth as many clusters as vectors, of sizes that fall as 1 / rank^0.5; within a cluster a vector is
    its centre plus noise of 0.8 times the centre's length; variances fall as 1 / dimension^0.5, as those of
    descriptors after PCA.
    """
    rng = np.random.default_rng(0)
    spread = np.arange(1, dim + 1, dtype=np.float32) ** -0.25
    clusters = max(10, count // 100)
    centres = rng.standard_normal((clusters, dim), dtype=np.float32) * spread
    weights = np.arange(1, clusters + 1) ** -0.5
    weights /= weights.sum()

    def some(number: int) -> Array:
        noise = rng.standard_normal((number, dim), dtype=np.float32) * (0.8 * spread)
        rows = centres[rng.choice(clusters, number, p=weights)] + noise
        out: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return out

    vectors: Array = np.lib.format.open_memmap(path, "w+", np.float32, (count, dim))
    for top in range(0, count, _BLOCK):
        vectors[top : top + _BLOCK] = some(min(_BLOCK, count - top))
    return vectors, some(_QUERIES)


def read_vectors(path: Path) -> Array:
    """Descriptors of a file, mapped: ``(n, d)``.

    Raises:
        DataError: it is no array of that shape.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "write it with numpy.save") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind != "f":
        raise DataError(f"{path} holds no (n, d) array of floating-point numbers", "write it with numpy.save")
    return found


def synthetic_rows(sizes: tuple[tuple[int, int], ...], *, repeats: int = 3) -> Iterator[Row]:
    """The table on vectors of :func:`synthetic`."""
    for count, dim in sizes:
        with tempfile.TemporaryDirectory(prefix="loc-index-") as folder:
            vectors, queries = synthetic(count, dim, Path(folder) / "vectors.npy")
            yield from rows_of("synthetic", vectors, queries, Path(folder), repeats=repeats)


def file_rows(path: Path, queries: Path | None, *, repeats: int = 3) -> Iterator[Row]:
    """The table on descriptors of a file; without a file of queries, 200 of them are taken out as such."""
    vectors = read_vectors(path)
    if queries is None:
        chosen = np.random.default_rng(0).permutation(len(vectors))
        asked, stored = vectors[np.sort(chosen[:_QUERIES])], vectors[np.sort(chosen[_QUERIES:])]
    else:
        asked, stored = np.asarray(read_vectors(queries)), vectors
    with tempfile.TemporaryDirectory(prefix="loc-index-") as folder:
        yield from rows_of(path.stem, stored, asked[:_QUERIES], Path(folder), repeats=repeats)


def rows_of(data: str, vectors: Array, queries: Array, folder: Path, *, repeats: int) -> Iterator[Row]:
    """One row for each kind that can be trained on so many vectors."""
    import faiss

    names = [f"{number}" for number in range(len(vectors))]
    flat = _built(folder / "exact", vectors, names, "exact")
    truth, _ = flat.search(queries, K)

    def search(index: VectorIndex, rescore: int | None = None) -> Callable[[], object]:
        return lambda: index.search(queries, K, rescore=rescore)

    def row(index: VectorIndex, kind: str, bare: Callable[[], object], rescore: int | None = None) -> Row:
        found, _ = index.search(queries, K, rescore=rescore)
        run, info = search(index, rescore), index.info()
        times = [(_processor_s(run), _processor_s(search(flat)), _processor_s(bare)) for _ in range(repeats)]
        return Row(
            data,
            len(vectors),
            vectors.shape[1],
            kind,
            _recall(found, truth),
            len(queries) / median(mine for mine, _, _ in times),
            median(exact / mine for mine, exact, _ in times),
            median(mine / alone for mine, _, alone in times),
            (info["code_bytes"] or 4 * vectors.shape[1]) + (0 if index is flat else 8),
            info["bytes"] / len(vectors),
            info["train_s"] or 0.0,
            info["add_s"] or 0.0,
        )

    whole = faiss.IndexFlatIP(vectors.shape[1])
    whole.add(np.asarray(vectors, np.float32))
    yield row(flat, "exact", lambda: whole.search(queries, K))
    del whole
    for kind in ("ivf", "ivfpq"):
        try:
            index = _built(folder / kind, vectors, names, kind)
        except DataError:  # too few vectors to train it
            continue
        info = index.info()
        described = f"{kind} {info['lists']}/{info['probes']}"
        bare = _bare(index, queries)
        if kind == "ivf":
            yield row(index, described, bare)
        else:
            yield row(index, f"{described} codes", bare, 0)
            yield row(index, f"{described} rescored", bare)


def _built(folder: Path, vectors: Array, names: list[str], kind: str) -> VectorIndex:
    config = IndexConfig.model_validate({"kind": kind})
    index = VectorIndex.create(folder, dim=vectors.shape[1], descriptor="loc bench index", config=config)
    index.add(names, vectors)
    index.compact()
    return index


def _bare(index: VectorIndex, queries: Array) -> Callable[[], object]:
    """The same search by faiss alone, on the file of the base."""
    import faiss

    path = next(index.folder.glob(f"generation-*/{FAISS}"))
    base = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    faiss.extract_index_ivf(base).nprobe = index.info()["probes"]
    return lambda: base.search(queries, K)


def _processor_s(call: Callable[[], object]) -> float:
    """Processor time: the clock says more about what else the machine does."""
    started = process_time()
    call()
    return max(process_time() - started, 1e-9)


def _recall(found: Array, truth: Array) -> float:
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
