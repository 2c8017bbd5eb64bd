"""Stores: writing and reading features and matches, against plain h5py.

Both sides have the same arrays in memory and end with the same bytes in the file, so both turn
descriptors into columns as hloc has them, and both ends are on the disk (fsync); what is read lies
in the page cache. The plain side does not checksum, rename, index or check anything. For features
a second plain side is measured that need not even turn descriptors: it copies bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import h5py
import numpy as np

from loc.bench.ratio import Ratio, Size, Timed, speed_of
from loc.conventions import center_from_corner, corner_from_center
from loc.stores.features import FeatureStore
from loc.stores.files import sync
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import MAX_ITEMS, ItemKey
from loc.types import Array, LocalFeatures, Matches

GOAL = 0.7
_WRITE = "both synced; the store also sums (fletcher32), renames and indexes"
_READ = "both from the page cache; the store also verifies sums and checks values"
_BYTES = "the plain side copies bytes that lie in memory as in the file"
_GROUPS = "plain h5py as hloc does it, a group per pair"


def stores(size: Size) -> list[Ratio]:
    """Features of 256 images (4096 x 128 uint8), and 20,000 pairs with 200 matches each."""
    images, count = (8, 256) if size.quick else (256, 4096)
    photos = {ItemKey(f"{n:04d}.jpg", "0" * 16): _photo(count, n) for n in range(images)}
    pairs, count = (200, 20) if size.quick else (20_000, 200)
    matches = {_pair_key(n): _pair(count, n) for n in range(pairs)}
    with tempfile.TemporaryDirectory() as folder:
        return _features(Path(folder), photos, size) + _matches(Path(folder), matches, size)


def _features(root: Path, photos: dict[ItemKey, LocalFeatures], size: Size) -> list[Ratio]:
    in_file = {key.name: _as_in_file(each) for key, each in photos.items()}

    def write() -> None:
        with FeatureStore(_fresh(root / "ours"), {}).writer() as writer:
            for key, features in photos.items():
                writer.put(key, features)

    def write_plain() -> None:
        _write_groups(root / "plain", ((key.name, _as_in_file(each)) for key, each in photos.items()))

    def write_bytes() -> None:
        _write_groups(root / "plain", in_file.items())

    def read() -> None:
        store = FeatureStore(root / "ours")
        for key in photos:
            store.get(key)
        store.close()

    def read_plain() -> None:
        for arrays in _read_groups(root / "plain"):
            corner_from_center(arrays["keypoints"]), np.ascontiguousarray(arrays["descriptors"].T)

    def read_bytes() -> None:
        for _ in _read_groups(root / "plain"):
            pass

    rows = len(next(iter(photos.values())))
    what = f"features of {len(photos)} images ({rows} x 128 uint8): speed / of plain h5py"
    measured = (
        (f"write {what}", write, write_plain, GOAL, _WRITE),
        (f"read {what}", read, read_plain, GOAL, _READ),
        (f"write {what}, bytes only", write, write_bytes, None, _BYTES),
        (f"read {what}, bytes only", read, read_bytes, None, _BYTES),
    )
    return [_ratio(size, *each) for each in measured]


def _matches(root: Path, matches: dict[PairKey, Matches], size: Size) -> list[Ratio]:
    some = dict(list(matches.items())[: max(20, len(matches) // 40)])

    def write(items: dict[PairKey, Matches]) -> None:
        with MatchStore(_fresh(root / "matches"), {}).writer() as writer:
            for key, each in items.items():
                writer.put(key, each)

    def read(items: dict[PairKey, Matches]) -> None:
        store = MatchStore(root / "matches")
        for _ in store.items(items):
            pass
        store.close()

    def write_groups() -> None:
        named = (
            (f"{a.name}/{b.name}", {"matches": each.indices, "scores": each.scores})
            for (a, b), each in some.items()
        )
        _write_groups(root / "groups", named, per_file=len(some))

    def read_groups() -> None:
        with h5py.File(root / "groups" / "0000.h5", "r") as file:
            for a, b in some:
                group = file[a.name][b.name]
                group["matches"][()], group["scores"][()]

    columns = root / "columns"
    what = f"{len(matches)} pairs of {len(next(iter(matches.values())))} matches: speed / of plain h5py"
    few = what.replace(str(len(matches)), str(len(some)), 1)
    measured = (
        (f"write {what}", lambda: write(matches), lambda: _write_columns(columns, matches), GOAL, _WRITE),
        (f"read {what}", lambda: read(matches), lambda: _read_columns(columns), GOAL, _READ),
        (f"write {few}, groups", lambda: write(some), write_groups, None, _GROUPS),
        (f"read {few}, groups", lambda: read(some), read_groups, None, _GROUPS),
    )
    return [_ratio(size, *each) for each in measured]


def _ratio(size: Size, what: str, ours: Timed, plain: Timed, goal: float | None, note: str) -> Ratio:
    return Ratio("stores", what, speed_of(ours, plain, size.repeats), goal, note=note)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_groups(
    folder: Path, items: Iterable[tuple[str, dict[str, Array]]], *, per_file: int = MAX_ITEMS
) -> None:
    """A group per item, in files of as many items as a part of the store has; each file is synced."""
    _fresh(folder)
    waiting = iter(items)
    for number, first in enumerate(waiting):
        path = folder / f"{number:04d}.h5"
        with h5py.File(path, "w") as file:
            for name, arrays in (first, *islice(waiting, per_file - 1)):
                group = file.create_group(name)
                for field, array in arrays.items():
                    group.create_dataset(field, data=array)
        sync(path)


def _read_groups(folder: Path) -> Iterator[dict[str, Array]]:
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path, "r") as file:
            for group in file.values():
                yield {field: dataset[()] for field, dataset in group.items()}


def _write_columns(folder: Path, items: dict[PairKey, Matches]) -> None:
    images = sorted({image for key in items for image in key})
    number = {image: row for row, image in enumerate(images)}
    columns = {
        "images": np.frombuffer(json.dumps(images).encode(), np.uint8),
        "pairs": np.array([[number[a], number[b]] for a, b in items], np.int32),
        "offsets": np.cumsum([0, *(len(each) for each in items.values())], dtype=np.int64),
        "indices": np.concatenate([each.indices for each in items.values()]),
        "scores": np.concatenate([each.scores for each in items.values()]),
    }
    path = _fresh(folder) / "matches.h5"
    with h5py.File(path, "w") as file:
        for name, array in columns.items():
            file.create_dataset(name, data=array)
    sync(path)


def _read_columns(folder: Path) -> dict[tuple[str, str], tuple[Array, Array]]:
    with h5py.File(folder / "matches.h5", "r") as file:
        columns = {name: dataset[()] for name, dataset in file.items()}
    names = [name for name, _ in json.loads(columns["images"].tobytes())]
    indices, scores, offsets = columns["indices"], columns["scores"], columns["offsets"].tolist()
    return {
        (names[a], names[b]): (indices[start:stop], scores[start:stop])
        for (a, b), start, stop in zip(columns["pairs"].tolist(), offsets, offsets[1:], strict=False)
    }


def _photo(count: int, number: int) -> LocalFeatures:
    generator = np.random.default_rng(number)
    return LocalFeatures(
        generator.uniform(0, 1000, (count, 2)).astype(np.float32),
        generator.random(count).astype(np.float32),
        generator.integers(0, 256, (count, 128)).astype(np.uint8),
        image_wh=(1600, 1200),
    )


def _as_in_file(features: LocalFeatures) -> dict[str, Array]:
    return {
        "keypoints": center_from_corner(features.keypoints),
        "descriptors": np.ascontiguousarray(features.descriptors.T),
        "scores": features.scores,
        "image_size": np.array(features.image_wh, np.int64),
    }


def _pair_key(number: int) -> PairKey:
    names = f"{number // 200:04d}.jpg", f"q{number % 200:04d}.jpg"
    return PairKey(*(ItemKey(name, "0" * 16) for name in names))


def _pair(count: int, number: int) -> Matches:
    generator = np.random.default_rng(number)
    rows = np.arange(count) * 5 + generator.integers(0, 5, count)
    indices = np.column_stack([rows, generator.permutation(rows)]).astype(np.int32)
    return Matches(indices, generator.random(count).astype(np.float32))
