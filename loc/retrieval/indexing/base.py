"""The immutable bulk of an index: all vectors (exact), in lists (ivf), or as codes in lists (ivfpq).

faiss files are opened memory-mapped and never written to again: ``add`` to a mapped index ends the process,
``remove_ids`` raises. What is dead is left out while searching, by a selector: fetching more neighbours and
dropping the dead ones would lose recall where all near ones were removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from loc.config.index import IndexConfig
from loc.errors import StoreError
from loc.retrieval.indexing import kinds
from loc.retrieval.indexing.changes import map_rows
from loc.retrieval.indexing.exact import Block, best, similarities
from loc.retrieval.indexing.files import (
    BASE,
    FAISS,
    IMAGES,
    VECTORS,
    check_file,
    cure,
    damaged,
    hash_of,
)
from loc.stores.files import read_json, read_sealed, require_space, sync, write_json, write_sealed

Array = np.ndarray
#: Gives the rows of a slice of the vectors to build from.
Rows = Callable[[Array], Array]
_ROWS = 16_384
#: On 30,000 clustered vectors of 40 dimensions 10 iterations of OPQ and 25 of k-means take twice as long
#: and find no more neighbours (recall@20 of the codes 0.531, these 0.530).
_OPQ_ITERATIONS, _PQ_ITERATIONS, _TRAIN_PER_VALUE = 5, 10, 64
#: The rotation keeps at most so many dimensions: its cost grows with their cube.
_ROTATED = 512


class Base:
    """The base of one generation, open for reading.

    Attributes:
        kind: ``exact``, ``ivf`` or ``ivfpq``.
        rows: number of vectors, numbered from 0.
        names, counts: images and how many of the vectors are each one's, in order.
        blocks: the vectors themselves, to be searched exactly: of kind exact; else none.
        about: what ``base.json`` says.
    """

    def __init__(self, root: Path, folder: Path, dim: int, *, whole: bool = False) -> None:
        self.about = read_sealed(folder / BASE, cure=cure(root))
        try:
            self.kind, self.rows = str(self.about["kind"]), int(self.about["rows"])
            for name, expected in sorted(self.about["files"].items()):
                check_file(root, folder / name, expected, whole=whole)
            images = read_json(folder / IMAGES, cure=cure(root))
            self.names, self.counts = list(images["names"]), list(images["counts"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(root, folder / BASE, f"what it says cannot be read ({error})") from error
        if sum(self.counts) != self.rows or len(self.counts) != len(self.names):
            raise damaged(root, folder / IMAGES, "names, counts and vectors do not fit together")
        self._vectors: Array | None = None
        if self.kind != "ivf":
            self._vectors = map_rows(folder / VECTORS, self.rows, dim)
        self.blocks = [Block(0, self._vectors)] if self._vectors is not None and self.kind == "exact" else []
        self._faiss: Any = None
        if self.kind != "exact":
            self._faiss = _open_faiss(root, folder / FAISS, self.rows, dim)

    def search(
        self,
        queries: Array,
        k: int,
        *,
        probes: int,
        rescore: int,
        alive: Array,
        slots: Array,
    ) -> tuple[Array, Array]:
        """Neighbours among the vectors that :attr:`blocks` does not hold, as :func:`exact.nearest`."""
        if self._faiss is None or not k:
            return np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
        wanted = min(k * max(1, rescore) if self._vectors is not None else k, self.rows)
        values, rows = self._faiss.search(queries, wanted, params=self._parameters(probes, alive))
        values[rows < 0] = -np.inf
        if rescore and self._vectors is not None:
            values = similarities(queries, [Block(0, self._vectors)], rows)
        return best(rows, values, min(k, self.rows), slots)

    def read(self, rows: Array) -> Array:
        """Vectors ``(n, d)`` of rows."""
        if self._vectors is not None:
            return np.asarray(self._vectors[rows])
        faiss = _library()

        index = faiss.extract_index_ivf(self._faiss)
        index.make_direct_map()  # once; later calls find it made
        return np.asarray(index.reconstruct_batch(rows))

    def _parameters(self, probes: int, alive: Array) -> Any:
        faiss = _library()

        index = faiss.extract_index_ivf(self._faiss)
        mine = alive[: self.rows]
        chosen: dict[str, Any] = {}
        if not mine.all():
            chosen["sel"] = faiss.IDSelectorBitmap(np.packbits(mine, bitorder="little"))
        parameters = faiss.SearchParametersIVF(nprobe=min(index.nlist, probes), **chosen)
        if self._faiss is index or not isinstance(self._faiss, faiss.IndexPreTransform):
            return parameters
        return faiss.SearchParametersPreTransform(index_params=parameters)


def build(
    folder: Path,
    config: IndexConfig,
    dim: int,
    read: Rows,
    *,
    names: Sequence[str],
    counts: Sequence[int],
) -> None:
    """Write the files of a base into ``folder``.

    Args:
        read: vectors of a range of rows, in order of ``names``; asked for a block at a time.

    Raises:
        DataError: too few vectors for an explicit kind, or codes that do not fit the dimension.
    """
    count = int(sum(counts))
    kind = kinds.choose(config, count, dim)
    about: dict[str, Any] = {"kind": kind, "rows": count, "images": len(names)}
    require_space(folder, 2 * count * dim * 4)
    write_json(folder / IMAGES, {"names": list(names), "counts": [int(each) for each in counts]})
    written = [IMAGES]
    if kind != "ivf":
        with (folder / VECTORS).open("wb") as file:
            for rows in _blocks(count):
                file.write(np.ascontiguousarray(read(rows), "<f4").tobytes())
        written.append(VECTORS)
    if kind != "exact":
        about.update(_build_faiss(folder / FAISS, kind, config, dim, read, count))
        written.append(FAISS)
    for name in written:
        sync(folder / name)
    about["files"] = {name: hash_of(folder / name) for name in written}
    write_sealed(folder / BASE, about)
    sync(folder)


def _build_faiss(
    path: Path, kind: kinds.Kind, config: IndexConfig, dim: int, read: Rows, count: int
) -> dict[str, Any]:
    faiss = _library()
    cells = kinds.lists(config, count)
    sizes: dict[str, Any] = {"lists": cells}
    if kind == "ivfpq":
        sizes.update(code_bytes=kinds.code_bytes(config, dim), opq=config.opq)
    index = _untrained(kind, config, cells, dim)
    sample = np.sort(
        np.random.default_rng(0).choice(count, kinds.training_vectors(config, kind, count), replace=False)
    )
    faiss.extract_index_ivf(index).cp.max_points_per_centroid = len(sample)  # it is the sample already
    with _one_thread():
        started = process_time()
        index.train(np.concatenate([read(sample[rows]) for rows in _blocks(len(sample))]))
        trained = process_time()
        for rows in _blocks(count):
            index.add(read(rows))
    faiss.write_index(index, os.fspath(path))
    seconds = {"train_s": round(trained - started, 3), "add_s": round(process_time() - trained, 3)}
    return {**sizes, **seconds, "trained_on": len(sample)}


def _untrained(kind: kinds.Kind, config: IndexConfig, cells: int, dim: int) -> Any:
    faiss = _library()
    if kind == "ivf":
        return faiss.index_factory(dim, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    parts = kinds.code_bytes(config, dim)
    kept = min(dim, max(parts, _ROTATED - _ROTATED % parts))
    rotated = f"OPQ{parts}_{kept}," if config.opq else ""
    # np: no polysemous codes, whose close values differ by few bits. Nothing here uses that, and it takes
    # longer than all other training.
    index = faiss.index_factory(dim, f"{rotated}IVF{cells},PQ{parts}np", faiss.METRIC_INNER_PRODUCT)
    clustering = faiss.downcast_index(faiss.extract_index_ivf(index)).pq.cp
    clustering.max_points_per_centroid, clustering.niter = _TRAIN_PER_VALUE, _PQ_ITERATIONS
    if config.opq:
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        rotation.niter, rotation.niter_pq_0 = _OPQ_ITERATIONS, _OPQ_ITERATIONS
        rotation.max_train_points = 256 * _TRAIN_PER_VALUE
    return index


def _blocks(count: int) -> Iterator[Array]:
    for top in range(0, count, _ROWS):
        yield np.arange(top, min(top + _ROWS, count))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same vectors give the same base: sums of several threads depend on how work was divided."""
    faiss = _library()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _library() -> Any:
    import faiss  # its stubs lack the forms of constructors that Python has

    return faiss


def _open_faiss(root: Path, path: Path, rows: int, dim: int) -> Any:
    faiss = _library()
    try:
        index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise StoreError(
            f"{path} cannot be opened by faiss {faiss.__version__}: {error}", cure(root)
        ) from error
    if (index.ntotal, index.d) != (rows, dim):
        raise damaged(root, path, f"{index.ntotal} vectors of {index.d} dimensions, not {rows} of {dim}")
    return index
