"""The index on disk: what it finds after adds, removals, compaction, and what it refuses."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loc.config.index import IndexConfig
from loc.errors import DataError, StoreError
from loc.retrieval.index import VectorIndex

DIM = 16


def unit(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(folder: Path, kind: str = "exact", **options: Any) -> VectorIndex:
    return VectorIndex.create(folder, dim=DIM, descriptor="made", config=IndexConfig(kind=kind, **options))


def truth(state: dict[str, np.ndarray], queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Search by comparing everything: images in order, equal similarities by place."""
    rows = np.concatenate(list(state.values()))
    image = np.repeat(np.arange(len(state)), [len(each) for each in state.values()])
    values = (queries.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return image[order], np.take_along_axis(values, order, axis=1)


def same(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_search_is_exact_through_adds_removals_replacements_and_compaction(tmp_path: Path) -> None:
    index, state, queries = make(tmp_path / "i"), {}, unit(30, 99)
    rng = np.random.default_rng(3)
    for step in range(30):
        if step % 3 == 1:
            gone = sorted(rng.choice(list(state), 7, replace=False).tolist())
            index.remove(gone)
            for name in gone:
                del state[name]
        else:
            names = [f"Ünïcode ✓/{number}" for number in rng.choice(60, 15, replace=False)]
            counts = rng.integers(0, 4, 15).tolist()
            rows = unit(sum(counts), step)
            index.add(names, rows, counts)
            for name, each in zip(names, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
                state[name] = each
        if step % 11 == 10:
            index.compact()
        for seen in (index, VectorIndex.open(tmp_path / "i", descriptor="made")):
            assert seen.names == list(state)
            assert seen.vectors == sum(map(len, state.values()))
            assert same(seen.search(queries, 9), truth(state, queries, 9))


def test_equal_similarities_are_ordered_by_image_wherever_they_lie(tmp_path: Path) -> None:
    index, row = make(tmp_path / "i"), unit(1)
    index.add([f"{number}" for number in range(300)], np.repeat(row, 300, axis=0))
    index.compact()
    index.add(["5"], row)  # now at the end of the rows, still the sixth image
    index.add(["new"], row)
    index.remove(["0"])
    numbers, values = index.search(row, 10)
    assert numbers[0].tolist() == list(range(10))
    assert len(set(values[0].tolist())) == 1
    assert index.search(row, 300)[0][0].tolist() == list(range(300))


def test_queries_alone_and_in_a_batch_find_the_same_to_the_bit(tmp_path: Path) -> None:
    index, queries = make(tmp_path / "i"), unit(70, 5)
    index.add([f"{number}" for number in range(3000)], unit(3000, 6))
    numbers, values = index.search(queries, 20)
    for row in range(70):
        one = index.search(queries[row : row + 1], 20)
        assert same(one, (numbers[row : row + 1], values[row : row + 1]))


@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_approximate_kinds_leave_out_the_dead_without_losing_the_living(tmp_path: Path, kind: str) -> None:
    index = make(tmp_path / "i", kind, lists=8, probes=8, code_bytes=4, opq=False, rescore=1000)
    count = 4_000 if kind == "ivf" else 12_500  # codes need 9984 to learn from
    rows, names = unit(count), [f"{number}" for number in range(count)]
    index.add(names, rows)
    index.compact()
    assert index.info()["kind"] == kind
    state = {name: row[None] for name, row in zip(names, rows, strict=True)}
    query = unit(1, 7)
    near = [names[number] for number in truth(state, query, 2000)[0][0]]
    index.remove(near)  # all neighbours that fetching a few more would have found
    index.add(["late"], unit(1, 8))
    state = {name: row for name, row in state.items() if name not in set(near)} | {"late": unit(1, 8)}
    for seen in (index, VectorIndex.open(tmp_path / "i")):
        found, values = seen.search(query, 20)
        expected, exact = truth(state, query, 20)
        assert np.array_equal(found, expected)  # all lists are looked into, all codes compared exactly
        assert np.allclose(values, exact, atol=1e-6)
    index.compact()
    assert index.info()["dead_vectors"] == index.info()["delta_vectors"] == 0
    assert index.names == list(state)
    assert np.array_equal(index.search(query, 20)[0], expected)


def test_the_same_vectors_give_the_same_results(tmp_path: Path) -> None:
    found = []
    for place in ("a", "b"):
        index = make(tmp_path / place, "ivf")
        index.add([f"{number}" for number in range(4000)], unit(4000))
        index.compact()
        found.append(index.search(unit(50, 1), 10))
    assert same(*found)


def test_more_probes_find_more(tmp_path: Path) -> None:
    index = make(tmp_path / "i", "ivf", lists=64, probes=1)
    rows, names = unit(5000), [f"{number}" for number in range(5000)]
    index.add(names, rows)
    index.compact()
    queries = unit(50, 1)
    expected = truth({name: row[None] for name, row in zip(names, rows, strict=True)}, queries, 10)[0]

    def recall(probes: int | None) -> float:
        found = index.search(queries, 10, probes=probes)[0]
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(expected, found, strict=True)]))

    assert recall(None) < recall(16) < recall(10**6) == 1.0


def test_votes_count_neighbours_per_image(tmp_path: Path) -> None:
    index, rows = make(tmp_path / "i"), unit(12)
    index.add(["a", "none", "b"], rows, [6, 0, 6])
    assert index.vote(rows[7:11], 5, neighbours=1) == [(2, 4.0)]
    assert index.vote(rows[[0, 7]], 5, neighbours=1) == [(0, 1.0), (2, 1.0)]
    assert sorted(index.vote(rows, 5, neighbours=12)) == [(0, 72.0), (2, 72.0)]  # every vector of each
    assert index.vote(np.zeros((3, DIM), np.float32), 5) == []
    assert index.vote(rows, 0) == []


def test_empty_is_ordinary(tmp_path: Path) -> None:
    index = make(tmp_path / "i", "auto")
    assert (len(index), index.names, index.vectors, "a" in index) == (0, [], 0, False)
    numbers, values = index.search(unit(3), 4)
    assert numbers.tolist() == [[-1] * 4] * 3
    assert np.isneginf(values).all()
    assert index.search(unit(3), 0)[0].shape == (3, 0)
    assert index.search(unit(0), 4)[0].shape == (0, 4)
    index.add([], unit(0))
    index.remove([])
    index.compact()
    index.add(["blank", "seen"], np.concatenate([np.zeros((1, DIM), np.float32), unit(1)]))
    assert index.names == ["blank", "seen"]
    assert index.search(unit(1), 3)[0].tolist() == [[1, -1, -1]]
    assert index.search(np.zeros((1, DIM), np.float32), 2)[0].tolist() == [[-1, -1]]
    index.remove(["blank", "seen"])
    index.compact()
    assert index.search(unit(1), 1)[0].tolist() == [[-1]]


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    index, names = make(tmp_path / "i"), ["\udcfc.jpg", 'a"\n\\b', "日本/é", "e\u0301"]
    index.add(names, unit(4))
    assert VectorIndex.open(tmp_path / "i").names == names
    index.compact()
    assert VectorIndex.open(tmp_path / "i").names == names


def test_vectors_may_lie_in_a_file(tmp_path: Path) -> None:
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float16, (9000, DIM))
    rows[:] = unit(9000)
    index = make(tmp_path / "i")
    index.add([f"{number}" for number in range(9000)], np.load(tmp_path / "rows.npy", mmap_mode="r"))
    assert index.search(unit(9000)[8999:], 1)[0].tolist() == [[8999]]


@pytest.mark.parametrize(
    ("names", "rows", "counts", "says"),
    [
        (["a", "b", "a"], unit(3), None, "1 names are given twice: 'a'"),
        (["a", ""], unit(2), None, "not empty"),
        (["a", "b"], unit(3), None, "2 names with 2 vectors, but 3 were given"),
        (["a", "b"], unit(3), [3], "as many counts"),
        (["a", "b"], unit(3), [4, -1], "none negative"),
        (["a"], unit(1, dim=8), None, r"shape \(1, 8\), the index holds vectors of 16 dimensions"),
        (["a"], unit(1)[0], [16], r"shape \(16,\)"),
        (["a", "b"], unit(2) * np.float32(3), None, "row 0 of vectors has norm 3: unit norm"),
        (["a"], np.full((1, DIM), np.nan, np.float32), None, "row 0 of vectors holds NaN"),
    ],
)
def test_what_cannot_be_added_is_refused_and_nothing_is(
    tmp_path: Path, names: list[str], rows: np.ndarray, counts: list[int] | None, says: str
) -> None:
    index = make(tmp_path / "i")
    index.add(["there"], unit(1))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=says):
        index.add(names, rows, counts)
    assert sorted(tmp_path.rglob("*")) == before
    assert VectorIndex.open(tmp_path / "i").names == ["there"] == index.names


def test_a_bad_row_late_in_a_long_call_is_named(tmp_path: Path) -> None:
    index, rows = make(tmp_path / "i"), unit(5000)
    rows[4500, 3] = np.inf
    with pytest.raises(DataError, match="row 4500 of vectors holds NaN or infinity"):
        index.add([f"{number}" for number in range(5000)], rows)
    assert len(VectorIndex.open(tmp_path / "i")) == 0


def test_other_refusals(tmp_path: Path) -> None:
    index = make(tmp_path / "i")
    index.add(["a"], unit(1))
    with pytest.raises(DataError, match=r"2 of 3 images are not in .*: 'x', 'y'"):
        index.remove(["x", "a", "y"])
    assert "a" in index
    with pytest.raises(DataError, match="given twice"):
        index.remove(["a", "a"])
    with pytest.raises(DataError, match="k must not be negative"):
        index.search(unit(1), -1)
    with pytest.raises(DataError, match="row 0 of queries has norm 2"):
        index.search(unit(1) * np.float32(2), 1)
    with pytest.raises(DataError, match="16 dimensions"):
        index.search(unit(1, dim=4), 1)
    with pytest.raises(DataError, match="holds an index already"):
        make(tmp_path / "i")
    with pytest.raises(StoreError, match="holds vectors of made, not of other"):
        VectorIndex.open(tmp_path / "i", descriptor="other")
    with pytest.raises(StoreError, match="holds no index"):
        VectorIndex.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="code_bytes 5 does not divide the 16 dimensions"):
        make(tmp_path / "j", "ivfpq", code_bytes=5)


@pytest.mark.parametrize(("kind", "needed"), [("ivf", "390"), ("ivfpq", "9984")])
def test_too_few_vectors_for_an_explicit_kind(tmp_path: Path, kind: str, needed: str) -> None:
    index = make(tmp_path / "i", kind, lists=10)
    index.add([f"{number}" for number in range(100)], unit(100))
    with pytest.raises(DataError, match=f"100 vectors are too few to train .* {kind}: it needs {needed}"):
        index.compact()
    assert len(VectorIndex.open(tmp_path / "i")) == len(index) == 100
    assert index.search(unit(1), 5)[0].shape == (1, 5)


def test_writers_of_several_processes_wait_for_each_other(tmp_path: Path) -> None:
    make(tmp_path / "i")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path / "i", each)) for each in range(2)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
        assert each.exitcode == 0
    found = VectorIndex.open(tmp_path / "i")
    assert sorted(found.names) == sorted(f"{writer}/{number}" for writer in range(2) for number in range(20))
    for writer in range(2):
        place = found.names.index(f"{writer}/19")
        assert found.search(unit(1, 100 * writer + 19), 1)[0].tolist() == [[place]]


def _write(folder: Path, writer: int) -> None:
    index = VectorIndex.open(folder)
    for number in range(20):
        index.add([f"{writer}/{number}"], unit(1, 100 * writer + number))
        if number == 10:
            index.compact()


def test_a_stale_writer_begins_from_what_is_there(tmp_path: Path) -> None:
    first, second = make(tmp_path / "i"), VectorIndex.open(tmp_path / "i")
    first.add(["a", "b"], unit(2))
    second.add(["c"], unit(1, 5))
    second.compact()
    first.remove(["c"])
    assert first.names == VectorIndex.open(tmp_path / "i").names == ["a", "b"]
    with pytest.raises(DataError, match="not in"):
        second.remove(["c"])
