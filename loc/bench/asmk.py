"""ASMK* at the size of the published codebook: what a query costs, and what it does not depend on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from loc.bench.ratio import Ratio, Size
from loc.retrieval.asmk.aggregate import Signature
from loc.retrieval.asmk.inverted import InvertedFile
from loc.retrieval.asmk.kernel import Kernel

#: Bits of a code.
_DIM = 128
_QUERIES = 20


def asmk(size: Size) -> Iterator[Ratio]:
    """Queries of an inverted file of 65,536 words and 10,000 images with 800 words each, made at random."""
    words, images, per_image = (1024, 100, 30) if size.quick else (65_536, 10_000, 800)
    rng = np.random.default_rng(0)
    queries = [_signature(rng, words, per_image) for _ in range(_QUERIES)]
    few = [Signature(each.words[::4], each.codes[::4], _DIM) for each in queries]
    whole = InvertedFile([_signature(rng, words, per_image) for _ in range(images)])
    name = f"{words} words, {images} images"
    note = f"{_entries(whole, queries):.0f} of {images * per_image} entries compared, "
    note += f"{whole.nbytes / images:.0f} B an image"
    yield _ratio(
        f"{name}: a query / one code with every code of the index",
        size,
        _search(whole, queries),
        _scan(whole, queries),
        note,
    )
    note = f"{_entries(whole, few):.0f} entries compared instead of {_entries(whole, queries):.0f}"
    yield _ratio(
        f"{name}: a query of a quarter of the words / of all",
        size,
        _search(whole, few),
        _search(whole, queries),
        note,
    )
    tenth = InvertedFile([_signature(rng, words, per_image) for _ in range(images // 10)])
    yield _ratio(
        f"{name}: a query among a tenth of the images / among all",
        size,
        _search(tenth, queries),
        _search(whole, queries),
        f"{_entries(tenth, queries):.0f} entries compared",
    )
    coarse_words = max(per_image, words // 16)
    coarse = InvertedFile([_signature(rng, coarse_words, per_image) for _ in range(images)])
    asked = [_signature(rng, coarse_words, per_image) for _ in range(_QUERIES)]
    yield _ratio(
        f"{name}: a query / one with {coarse_words} words",
        size,
        _search(whole, queries),
        _search(coarse, asked),
        f"{_entries(coarse, asked):.0f} entries compared with {coarse_words} words",
    )


def _signature(rng: np.random.Generator, words: int, count: int) -> Signature:
    chosen = np.sort(rng.choice(words, count, replace=False)).astype(np.int32)
    return Signature(chosen, rng.integers(0, 256, (count, _DIM // 8), dtype=np.uint8), _DIM)


def _entries(index: InvertedFile, queries: list[Signature]) -> float:
    return float(np.mean([index.search(query, Kernel()).entries for query in queries]))


def _search(index: InvertedFile, queries: list[Signature]) -> Callable[[], object]:
    return lambda: [index.search(query, Kernel()) for query in queries]


def _scan(index: InvertedFile, queries: list[Signature]) -> Callable[[], object]:
    """One code of each query with all codes: what a search without lists would do for each of its words."""
    return lambda: [index.hamming(query.codes[:1]) for query in queries]


def _ratio(what: str, size: Size, one: Callable[[], object], other: Callable[[], object], note: str) -> Ratio:
    pairs = [(_processor_s(one), _processor_s(other)) for _ in range(1 if size.quick else size.repeats)]
    each_ms = 1000 * float(np.median([first for first, _ in pairs])) / _QUERIES
    ratios = tuple(first / max(second, 1e-9) for first, second in pairs)
    return Ratio("asmk", what, ratios, note=f"{each_ms:.2f} ms of processor time a query; {note}")


def _processor_s(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started
