"""Matching: the matcher and its stage, against the matrix products and top-2 that they cannot avoid."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from loc.bench.lightglue import lightglue
from loc.bench.ratio import Ratio, Size, speed_of
from loc.plugins.blocks import resolve_block
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features, Pair
from loc.stages.match import Preparer, match_pairs
from loc.stores.features import FeatureStore
from loc.stores.parts import ItemKey
from loc.types import Array, LocalFeatures

GOAL = 0.6
_PAIRS = 50
#: Images of which the pairs are made: 11 have 55 pairs.
_IMAGES = 11
#: Rows of a product of the bare version: with this many it is fastest (512 to 4096 were tried).
_BLOCK = 1024
_IMAGE_WH = (1600, 1200)
_MATCHER = "one thread; also converts descriptors, looks from both sides, tests and sorts"
_STAGE = "one thread; also reads and checks features, checks, writes and syncs matches"
_THREADS = "low where other processes compute: each parallel step waits for the slowest core"


def match(size: Size, photos: Sequence[Path] = (), *, device: str = "cpu") -> Iterator[Ratio]:
    """`nearest` on 50 pairs of 4096 x 128 uint8 (SIFT) and of 2048 x 512 float16 descriptors, and LightGlue.

    Args:
        photos: folders of photos for LightGlue; see :func:`loc.bench.lightglue.lightglue`.
        device: of LightGlue and of `nearest` in batches; all else is measured on the CPU.
    """
    yield from _measured(4096, 128, np.uint8, size)
    yield from _measured(2048, 512, np.float16, size)
    threads = torch_threads(1)
    try:
        yield _batches(size, device)
        yield from lightglue(size, photos, device=device)
    finally:
        torch_threads(threads)


def torch_threads(count: int) -> int:
    """Set torch's number of threads; returns what it was."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


def _batches(size: Size, device: str) -> Ratio:
    """Small pairs together against the same pairs alone."""
    count = 50 if size.quick else 250
    images = [_features(count, 128, np.uint8, number) for number in range(_IMAGES)]
    runs = []
    for batch in (64, "never"):
        matcher = resolve_block("matcher", {"use": "nearest", "batch": batch}).build(device=device)
        prepared = [matcher.prepare(features) for features in images]
        runs.append(partial(matcher, list(combinations(prepared, 2))))
    what = f"55 pairs of {count} x 128 uint8, {device}: speed of nearest in batches / of pairs alone"
    return Ratio(
        "match", what, speed_of(runs[0], runs[1], size.repeats), note="`batch: auto` batches on a GPU only"
    )


def _measured(count: int, dim: int, dtype: type, size: Size) -> list[Ratio]:
    import torch

    if size.quick:
        count //= 16
    images = {f"{number:02d}.jpg": _features(count, dim, dtype, number) for number in range(_IMAGES)}
    pairs = [(a, b) for a in sorted(images) for b in sorted(images) if a < b]
    pairs = pairs[: 10 if size.quick else _PAIRS]
    plugin = resolve_block("matcher", "nearest")
    floats = {name: torch.tensor(each.descriptors).float() for name, each in images.items()}

    def matcher() -> None:
        preparer = Preparer(plugin, device="cpu")
        prepared = {name: preparer.prepared(name, features) for name, features in images.items()}
        preparer.match([(prepared[a], prepared[b]) for a, b in pairs])

    def bare() -> None:
        _bare(floats, pairs, both=False)

    def both() -> None:
        _bare(floats, pairs, both=True)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, both wait for whoever else computes on this machine
    try:
        with tempfile.TemporaryDirectory() as folder:
            stage = _Stage(Path(folder), images, pairs, plugin)
            of_matcher = speed_of(matcher, bare, size.repeats)
            of_both = speed_of(matcher, both, size.repeats)
            of_stage = speed_of(stage.run, bare, size.repeats)
        torch.set_num_threads(threads)
        of_threads = speed_of(matcher, bare, size.repeats) if threads > 1 else ()
    finally:
        torch.set_num_threads(threads)
    speed = f"{len(pairs)} pairs of {count} x {dim} {np.dtype(dtype).name}: speed of the"
    all_threads = f"{speed} matcher / of GEMM + top-2 per row, {threads} threads"
    out = [
        Ratio("match", f"{speed} matcher / of blocked GEMM + top-2 per row", of_matcher, GOAL, note=_MATCHER),
        Ratio("match", f"{speed} matcher / of blocked GEMM + top-2 per row and column", of_both),
        Ratio("match", f"{speed} stage / of blocked GEMM + top-2 per row", of_stage, GOAL, note=_STAGE),
    ]
    return [*out, Ratio("match", all_threads, of_threads, GOAL, note=_THREADS)] if threads > 1 else out


class _Stage:
    """The stage *matches* on a store of features; its own store is emptied before every run."""

    def __init__(
        self, folder: Path, images: dict[str, LocalFeatures], pairs: list[Pair], plugin: Any
    ) -> None:
        self._folder, self._pairs, self._plugin = folder, pairs, plugin
        self._keys = {name: ItemKey(name, "0" * 16) for name in images}
        with self._open().writer() as writer:
            for name, features in images.items():
                writer.put(self._keys[name], features)

    def _open(self) -> FeatureStore:
        return FeatureStore(self._folder / "features", {"benchmark": "match"})

    def run(self) -> None:
        shutil.rmtree(self._folder / "matches", ignore_errors=True)
        features = Features(self._open(), self._keys, {}, resolve_block("features", "sift"))
        runtime = Runtime(device="cpu", workers=1)
        match_pairs(features, self._pairs, plugin=self._plugin, workdir=self._folder, runtime=runtime)
        features.store.close()


def _bare(floats: dict[str, Any], pairs: list[Pair], *, both: bool) -> None:
    """What anyone would write first: products in blocks into one buffer, and torch's top-2."""
    import torch

    some = next(iter(floats.values()))
    buffer = torch.empty(min(_BLOCK, len(some)), len(some))
    for a, b in pairs:
        first, second = floats[a], floats[b]
        for top in range(0, len(first), _BLOCK):
            tile = buffer[: len(first[top : top + _BLOCK])]
            torch.mm(first[top : top + _BLOCK], second.T, out=tile)
            tile.topk(2, dim=1)
            if both:
                tile.topk(2, dim=0)


def _features(count: int, dim: int, dtype: type, number: int) -> LocalFeatures:
    """Descriptors of one image: three in four near those of all others, so that there are matches."""
    shared, own = np.random.default_rng(0), np.random.default_rng(1 + number)
    common = shared.standard_normal((count, dim))
    common[: count // 4] = own.standard_normal((count // 4, dim))
    rows = (common + 0.4 * own.standard_normal((count, dim)))[own.permutation(count)]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    xy = own.uniform(0, 1200, (count, 2)).astype(np.float32)
    return LocalFeatures(xy, np.ones(count, np.float32), _descriptors(unit, dtype), _IMAGE_WH)


def _descriptors(unit: Array, dtype: type) -> Array:
    if dtype != np.uint8:
        return np.asarray(unit, dtype)
    positive = np.abs(unit)  # like SIFT's: no negative entries, 512 times a unit vector
    return np.asarray(np.minimum(np.round(512 * positive), 255), np.uint8)
