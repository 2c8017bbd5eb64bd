"""The files of an index: killed writers, damage, readers during compaction, bytes written."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loc.bench.index_kills import kill_campaign
from loc.config.index import IndexConfig
from loc.errors import StoreError
from loc.retrieval.index import VectorIndex
from loc.retrieval.indexing import files, kinds, snapshot
from loc.stores.files import host

DIM = 32


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base of 2,000 vectors in lists, and two changes."""
    config = IndexConfig(kind="ivf", lists=16)
    index = VectorIndex.create(tmp_path / "i", dim=DIM, descriptor="made", config=config)
    index.add([f"{number}" for number in range(2000)], unit(2000))
    index.compact()
    index.add(["late", "later"], unit(2, 1))
    index.remove(["3"])
    return tmp_path / "i"


def test_killed_writers_lose_nothing_that_was_done() -> None:
    """SIGKILL at random times at 10^5 vectors; ``loc bench index --kills N`` goes on for longer."""
    campaign = kill_campaign(3, vectors=100_000, seed=5)
    assert campaign.failures == []
    assert sum(campaign.kills.values()) == campaign.readers == 3
    assert campaign.calls > 0
    assert campaign.overhead < 64


def test_bytes_written_go_with_the_change(tmp_path: Path) -> None:
    index = VectorIndex.create(tmp_path / "i", dim=DIM, descriptor="made")
    index.add([f"{number:06d}" for number in range(50_000)], unit(50_000))
    index.compact()
    names = [f"new {number:03d}" for number in range(100)]
    before = _stamps(tmp_path)
    index.add(names, unit(100, 1))
    added = _written(tmp_path, before)
    assert 100 * DIM * 4 < added < 100 * DIM * 4 + 100 * 16 + 2000
    before = _stamps(tmp_path)
    index.remove(["000007"])
    assert _written(tmp_path, before) < 1500
    for number in range(30):  # what many changes before wrote is not written again
        index.add([f"more {number}"], unit(1, number))
    before = _stamps(tmp_path)
    index.add(["last"], unit(1, 99))
    assert _written(tmp_path, before) < DIM * 4 + 1500


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    every = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in every}


def _written(folder: Path, before: dict[Path, tuple[int, int]]) -> int:
    return sum(path.stat().st_size for path, stamp in _stamps(folder).items() if before.get(path) != stamp)


@pytest.mark.parametrize(
    "name", ["index.json", "base.json", "images.json", "base.faiss", "000001.change", "000002.change"]
)
@pytest.mark.parametrize("how", ["truncated", "flipped", "emptied", "removed", "grown"])
def test_damage_is_named_with_what_to_do(folder: Path, name: str, how: str) -> None:
    (path,) = [path for path in folder.rglob(name) if "generation-000000" not in path.parts]
    data = bytearray(path.read_bytes())
    if how == "removed":
        path.unlink()
    else:
        data[len(data) // 2] ^= 4
        made = {
            "truncated": data[: len(data) // 2],
            "flipped": data,
            "emptied": b"",
            "grown": data + b"x" * 40,
        }
        path.write_bytes(bytes(made[how]))
    with pytest.raises(StoreError) as caught:
        VectorIndex.open(folder)
    assert caught.value.next_step
    assert str(folder) in caught.value.message


def test_a_generation_that_is_gone_is_an_error(folder: Path) -> None:
    shutil.rmtree(folder / "generation-000001")
    with pytest.raises(StoreError, match=r"base.json is missing"):
        VectorIndex.open(folder)


def test_check_reads_what_open_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHECKED_BYTES", 1000)
    index = VectorIndex.open(folder)
    index.compact()  # its hashes of beginnings are of 1,000 bytes
    path = folder / "generation-000002" / "base.faiss"
    data = bytearray(path.read_bytes())
    VectorIndex.check(folder)
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    VectorIndex.open(folder)
    with pytest.raises(StoreError, match=r"base.faiss is damaged: its bytes do not match"):
        VectorIndex.check(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("format", 2), ("dim", "32"), ("changes", -1), ("config", {"kind": "x"}), ("head", 1)],
)
def test_a_pointer_that_says_what_cannot_be_is_refused(folder: Path, field: str, value: object) -> None:
    path = folder / "index.json"
    data = json.loads(path.read_text()) | {field: value}
    del data["sha256"]  # as if somebody had edited it
    path.write_text(json.dumps(data))
    with pytest.raises(StoreError):
        VectorIndex.open(folder)


def test_what_a_killed_call_left_does_not_count_and_goes(folder: Path) -> None:
    """A change or a generation that was written, but that ``index.json`` does not name yet."""
    changes = folder / "generation-000001" / "changes"
    shutil.copy(changes / "000001.change", changes / "000003.change")
    shutil.copytree(folder / "generation-000001", folder / "generation-000002")
    (folder / "generation-000003.partial").mkdir()
    dead = multiprocessing.get_context("spawn").Process(target=int)
    dead.start()
    dead.join()
    orphan = folder / f".index.json.{host()}-{dead.pid}.tmp"
    orphan.write_text("{")
    index = VectorIndex.open(folder)
    assert len(index) == 2001
    index.add(["x"], unit(1, 7))
    assert not orphan.exists()
    assert VectorIndex.open(folder).names == index.names
    index.compact()
    assert VectorIndex.open(folder).names == index.names
    left = sorted(path.name for path in folder.glob("generation-*"))
    assert left == ["generation-000001", "generation-000002"]  # the one before stays for its readers


def _read(folder: Path, opened: Event, compacted: Event, place: str) -> None:
    index = VectorIndex.open(folder)
    before = index.search(unit(20, 3), 10)
    opened.set()
    compacted.wait(60)
    after = index.search(unit(20, 3), 10)
    same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    Path(place).write_text("same" if same else "other")


def test_a_reader_in_another_process_survives_compactions(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    opened, compacted, said = context.Event(), context.Event(), tmp_path / "said"
    reader = context.Process(target=_read, args=(folder, opened, compacted, str(said)))
    reader.start()
    assert opened.wait(60)
    index = VectorIndex.open(folder)
    index.remove([f"{number}" for number in range(1000, 2000)])
    index.compact()
    index.compact()  # now even the generation that it reads from is deleted
    compacted.set()
    reader.join(60)
    assert said.read_text() == "same"


def test_opening_begins_anew_where_compactions_take_files_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two compactions between reading ``index.json`` and opening what it names, at any of the files."""
    plain, names = snapshot.hash_of, VectorIndex.open(folder).names
    compactor = VectorIndex.open(folder)

    def compacted_before(path: Path) -> dict[str, Any]:
        monkeypatch.setattr(snapshot, "hash_of", plain)
        compactor.compact()
        compactor.compact()
        return plain(path)

    monkeypatch.setattr(snapshot, "hash_of", compacted_before)
    assert VectorIndex.open(folder).names == names


def test_sizes_do_not_stumble_over_files_that_go(folder: Path) -> None:
    before = VectorIndex.open(folder).info()
    assert before["bytes_with_earlier_generation"] > before["bytes"] > 2000 * DIM * 4
    (folder / "going.tmp").symlink_to(folder / "gone")
    assert VectorIndex.open(folder).info() == before


def test_adding_to_a_mapped_base_leaves_its_file_alone(folder: Path) -> None:
    """faiss ends the process when a mapped index is added to."""
    path = folder / "generation-000001" / "base.faiss"
    before, index = path.read_bytes(), VectorIndex.open(folder)
    index.add(["x", "5"], unit(2, 9))
    index.remove(["7", "x"])
    assert path.read_bytes() == before
    assert index.search(unit(1), 1)[0].tolist() == [[0]]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say what is loaded")
def test_a_search_loads_the_lists_it_looks_into(tmp_path: Path) -> None:
    config = IndexConfig(kind="ivf", lists=64, probes=1)
    index = VectorIndex.create(tmp_path / "i", dim=DIM, descriptor="made", config=config)
    index.add([f"{number}" for number in range(60_000)], unit(60_000))
    index.compact()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        loaded, size = pool.apply(_loaded_bytes, (tmp_path / "i",))
    assert loaded < size / 2


def _loaded_bytes(folder: Path) -> tuple[int, int]:
    """Bytes of the base that this process has mapped into memory after a search, and how many there are."""
    path = folder / "generation-000001" / "base.faiss"
    index = VectorIndex.open(folder)
    index.search(unit(1), 5)
    loaded, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            loaded += 1024 * int(line.split()[1])
    return loaded, path.stat().st_size


def test_auto_takes_kinds_by_size() -> None:
    config = IndexConfig()
    assert kinds.choose(config, 0, 256) == "exact"
    assert kinds.choose(config, kinds.EXACT_VECTORS - 1, 256) == "exact"
    assert kinds.choose(config, kinds.EXACT_VECTORS, 256) == "ivf"
    assert kinds.choose(config, 10**6, 2048) == "ivf"
    assert kinds.choose(config, 10**7, 256) == "ivfpq"
    assert kinds.choose(IndexConfig(lists=2000), 60_000, 256) == "exact"  # too few for so many lists
    assert kinds.lists(config, 10**6) == 2048
    assert kinds.code_bytes(config, 40) == 10
    assert kinds.code_bytes(config, 256) == kinds.code_bytes(config, 2048) == 64
    assert kinds.code_bytes(config, 3) == 1
