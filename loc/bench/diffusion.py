"""Diffusion: its graph, its queries, its memory, and how far its shortcuts agree with it."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from loc.bench.ratio import Ratio, Size
from loc.retrieval.diffusion import (
    ITERATIONS,
    Diffusion,
    Solver,
    conjugate_gradients,
    offline,
    query_signal,
    spectral,
)
from loc.retrieval.graph import Graph, mutual_graph
from loc.retrieval.regions import weighted_regions
from loc.retrieval.topk import top_k
from loc.types import Array

T = TypeVar("T")
_BLOCK = 256
_CLOCK_TICK_S = 1e-6
_RECALL_AT = 20
#: Spread around a place relative to that of places: two images of one place have a cosine of .5.
_SPREAD = 1.0


class _Case(NamedTuple):
    """Sizes: images, regions per image (1: global), dimension, neighbours, of a query, queries."""

    images: int
    regions: int
    dim: int
    k: int
    query_k: int
    queries: int

    @property
    def name(self) -> str:
        nodes = self.images * self.regions
        kind = "global" if self.regions == 1 else f"regional ({self.regions} each)"
        return f"{kind} {nodes} x {self.dim}, k {self.k}"


def diffusion(size: Size) -> Iterator[Ratio]:
    """Global diffusion on 5,000 x 2048 with 70 queries, and regional on 105,000 x 512; each measured once.

    Graphs are in single precision, as those of the pair generator.
    """
    few = _Case(300, 1, 32, 20, 10, 5) if size.quick else _Case(5000, 1, 2048, 50, 10, 70)
    vectors, queries = _descriptors(few)
    rows, graph, _ = _graph_rows(few, vectors)
    yield from rows
    yield _query_row(few, Diffusion(vectors, conjugate_gradients(graph), k=few.query_k), graph, queries)
    yield from _shortcuts(few, vectors, queries, graph, quick=size.quick)
    many = _Case(40, 5, 32, 20, 20, 2) if size.quick else _Case(5000, 21, 512, 200, 200, 10)
    vectors, queries = _descriptors(many)
    rows, graph, spent = _graph_rows(many, vectors)
    yield from rows
    owners = np.repeat(np.arange(many.images), many.regions)
    regions = weighted_regions(vectors, owners, many.images)
    whole = Diffusion(vectors, conjugate_gradients(graph), regions, k=many.query_k)
    yield _query_row(many, whole, graph, queries)
    yield _inverted_file_row(many, vectors, graph, spent)


def _graph_rows(case: _Case, vectors: Array) -> tuple[list[Ratio], Graph, float]:
    """Rows of time and memory, the graph, and its processor time."""
    searched, neighbours = _processor_seconds(lambda: top_k(vectors, vectors, case.k))
    joined, graph = _processor_seconds(lambda: mutual_graph(*neighbours, precision=np.float32))
    bare, _ = _processor_seconds(lambda: _product(vectors))
    spent = searched + joined
    what = f"{case.name}: processor time of the graph / of the bare matrix product"
    note = f"{spent:.1f} s of processor time, of which the exact search {searched:.1f} s"
    return [Ratio("diffusion", what, (spent / bare,), note=note), _memory_row(case, neighbours)], graph, spent


def _query_row(case: _Case, ranking: Diffusion, graph: Graph, queries: list[Array]) -> Ratio:
    def steps() -> None:
        values = np.ones(len(graph))
        for _ in range(ITERATIONS * len(queries)):
            graph.step(values)

    def rank() -> None:
        neighbours, similarities = ranking.neighbours(np.concatenate(queries))
        for top in range(0, len(neighbours), case.regions):
            own = slice(top, top + case.regions)
            ranking.scores_from(neighbours[own], similarities[own])

    spent, _ = _processor_seconds(rank)
    bare, _ = _processor_seconds(steps)
    what = (
        f"{case.name}: processor time of {len(queries)} queries / of their {ITERATIONS} graph products each"
    )
    note = f"{spent / len(queries):.3f} s of processor time each, {graph.weights.nnz // 2} edges"
    return Ratio("diffusion", what, (spent / bare,), note=note)


def _memory_row(case: _Case, neighbours: tuple[Array, Array]) -> Ratio:
    """Most memory that building the graph and a query take, in bytes of the neighbour lists."""
    tracemalloc.start()
    try:
        graph = mutual_graph(*neighbours, precision=np.float32)
        conjugate_gradients(graph)(np.array([0]), np.array([1.0]))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    lists = sum(each.nbytes for each in neighbours)
    what = f"{case.name}: peak memory of graph and query / bytes of the neighbour lists"
    note = f"{lists / 1e6:.0f} MB of lists; afterwards the graph takes {kept / 1e6:.0f} MB"
    return Ratio("diffusion", what, (peak / lists,), 4.0, ceiling=True, note=note)


def _inverted_file_row(case: _Case, vectors: Array, exact: Graph, exact_s: float) -> Ratio:
    """The same graph from neighbours by faiss's inverted file instead of exact search."""
    import faiss

    lists = max(1, round(len(vectors) ** 0.5))
    probes = max(1, lists // 16)

    def search() -> tuple[Array, Array]:
        quantizer = faiss.IndexFlatIP(case.dim)
        index = faiss.IndexIVFFlat(quantizer, case.dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        index.nprobe = probes
        similarities, neighbours = index.search(vectors, case.k)
        return neighbours, similarities

    spent, graph = _processor_seconds(lambda: mutual_graph(*search(), precision=np.float32))
    common = graph.weights.multiply(exact.weights).nnz / exact.weights.nnz
    what = f"{case.name}: processor time of the graph by an inverted file / by exact search"
    note = f"{spent:.1f} s with {lists} lists, {probes} looked into; it has {100 * common:.1f} % of the edges"
    return Ratio("diffusion", what, (spent / exact_s,), note=note)


def _shortcuts(
    case: _Case, vectors: Array, queries: list[Array], graph: Graph, *, quick: bool
) -> Iterator[Ratio]:
    rank, reach = (40, 60) if quick else (500, 1000)
    solvers: dict[str, Callable[[], Solver]] = {
        f"spectral, rank {rank}": lambda: spectral(graph, rank),
        f"offline, {reach} nearest": lambda: offline(graph, top_k(vectors, vectors, reach)[0]),
    }
    exact = Diffusion(vectors, conjugate_gradients(graph), k=case.query_k)
    best = [_best(exact, query) for query in queries]
    for name, make in solvers.items():
        spent, solver = _processor_seconds(make)
        short = Diffusion(vectors, solver, k=case.query_k)
        shared = [len(ids & _best(short, query)) / len(ids) for query, ids in zip(queries, best, strict=True)]
        yield Ratio(
            "diffusion",
            f"{case.name}: {name}: recall@{_RECALL_AT} against conjugate gradients",
            (float(np.mean(shared)),),
            note=f"{spent:.1f} s of processor time beforehand",
        )
        signals = [query_signal(*short.neighbours(query), case.query_k) for query in queries]
        by_short, by_exact = (_seconds_to_solve(each, signals) for each in (solver, exact.solver))
        what = f"{case.name}: {name}: processor time of solutions / by conjugate gradients"
        yield Ratio("diffusion", what, (by_short / by_exact,))


def _seconds_to_solve(solver: Solver, signals: list[tuple[Array, Array]]) -> float:
    return _processor_seconds(lambda: [solver(*signal) for signal in signals])[0]


def _best(ranking: Diffusion, query: Array) -> set[int]:
    return set(np.argsort(-ranking.scores(query), kind="stable")[:_RECALL_AT].tolist())


def _descriptors(case: _Case) -> tuple[Array, list[Array]]:
    """Unit vectors around places, some 40 images of each; queries are further images."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((max(2, case.images // 40), case.regions, case.dim), dtype=np.float32)

    def images(count: int) -> Array:
        rows = places[rng.integers(0, len(places), count)].reshape(count * case.regions, case.dim)
        rows += _SPREAD * rng.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return images(case.images), [images(1) for _ in range(case.queries)]


def _product(vectors: Array) -> None:
    for top in range(0, len(vectors), _BLOCK):
        for left in range(0, len(vectors), 24 * _BLOCK):
            np.matmul(vectors[top : top + _BLOCK], vectors[left : left + 24 * _BLOCK].T)


def _processor_seconds(call: Callable[[], T]) -> tuple[float, T]:
    """Processor time: what other programs do at the time hardly changes it."""
    started = time.process_time()
    made = call()
    return max(time.process_time() - started, _CLOCK_TICK_S), made
