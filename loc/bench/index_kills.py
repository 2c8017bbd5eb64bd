"""``loc bench index --kills``: a writer of an index is killed at random times; is every finished call there?

A child adds, replaces and removes images and compacts, as random numbers of a known seed have it, and says
after each call that it is done. SIGKILL ends it at a random time. The index must then hold the state after
the last call that was done, or after the one that was running, and search must equal comparing everything, to
the bit.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loc.config.index import IndexConfig
from loc.errors import ResourceError
from loc.retrieval.index import VectorIndex
from loc.types import Array

_DIM, _PER_CALL, _K, _QUERIES = 64, 200, 20, 20
_WORK = "import sys; from loc.bench.index_kills import work; work(*sys.argv[1:])"
_PATIENCE_S = 600.0
_COMPACT_EVERY = 40
State = dict[str, Array]


@dataclass
class Campaign:
    """What came of all kills; ``failures`` says what was lost, wrong or left.

    Attributes:
        vectors: how many the index held at first; calls keep it near that.
        kills: by what the writer was doing: ``between`` calls, in a ``change``, in a ``compaction``.
        calls: that were done.
        overhead: bytes written by calls that add, beyond the vectors, per image added.
        readers: indexes opened before a kill and searched before and after it, which had to give the same.
    """

    vectors: int
    kills: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    overhead: float = 0.0
    readers: int = 0
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "vectors": self.vectors,
            "kills": dict(sorted(self.kills.items())),
            "calls": self.calls,
            "bytes_beyond_vectors_per_image": round(self.overhead, 1),
            "readers": self.readers,
            "failures": self.failures,
        }

    def lines(self) -> list[str]:
        total = sum(self.kills.values())
        found = ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))
        return [
            f"{total} kills of a writer of about {self.vectors} vectors ({found}) during {self.calls} calls",
            f"{total - len(self.failures)} times whole and equal to exact search, {len(self.failures)} hurt",
            f"{self.readers} readers kept what they had opened; "
            f"{self.overhead:.0f} bytes written per image added beyond its vector",
            *self.failures,
        ]


def kill_campaign(kills: int, *, vectors: int = 100_000, seed: int = 0) -> Campaign:
    """Kill writers of one index ``kills`` times.

    Raises:
        ResourceError: a writer ends by itself.
    """
    root = Path(tempfile.mkdtemp(prefix="loc-index-kills-"))
    campaign, rng = Campaign(vectors), np.random.default_rng(seed)
    state = {f"first/{number}.jpg": row[None] for number, row in enumerate(_unit(rng, vectors))}
    exact = IndexConfig(kind="exact")
    index = VectorIndex.create(root / "index", dim=_DIM, descriptor="made", config=exact)
    index.add(list(state), np.concatenate(list(state.values())))
    index.compact()
    campaign.overhead = _overhead(root / "measured")
    asked, number = _unit(rng, _QUERIES), 0
    while sum(campaign.kills.values()) < kills:
        reader = VectorIndex.open(root / "index")
        before = reader.search(asked, _K)
        done = _killed(root / "index", number, float(rng.exponential(1.0)))
        campaign.kills[_left(root / "index")] += 1
        for each in range(number, done):
            _apply(state, _call(each, list(state)))
        campaign.calls += done - number
        found = VectorIndex.open(root / "index")
        call = _call(done, list(state))
        running = dict(state)
        _apply(running, call)
        # What a call replaced shows where its own vectors are looked for.
        probes = np.concatenate([asked, call[2][:5]])
        why = _wrong(found, state, probes)
        if why and not _wrong(found, running, probes):
            state, done, why = running, done + 1, ""
        number = done
        after = reader.search(asked, _K)
        campaign.readers += 1
        if not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
            why = why or "a reader found something else than before"
        if why:
            campaign.failures.append(f"call {number}: {why}")
            break
    if not campaign.failures:
        shutil.rmtree(root)
    return campaign


def work(folder: str, first: str) -> None:
    """What the child does until it is killed."""
    index, number = VectorIndex.open(Path(folder)), int(first)
    _say("ready")
    while True:
        what, names, vectors, counts = _call(number, index.names)
        if what == "add":
            index.add(names, vectors, counts)
        elif what == "remove":
            index.remove(names)
        else:
            index.compact()
        number += 1
        _say(str(number))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _call(number: int, names: list[str]) -> tuple[str, list[str], Array, list[int]]:
    """The call of this number on an index that holds these images: what, names, vectors, counts."""
    rng = np.random.default_rng([1, number])
    kind = number % 3
    none = np.zeros((0, _DIM), np.float32)
    # Compaction takes a hundred times as long as a change; as often as one it would take all kills.
    if number % _COMPACT_EVERY == _COMPACT_EVERY - 1:
        return "compact", [], none, []
    some = [
        names[place] for place in np.sort(rng.choice(len(names), min(len(names), _PER_CALL), replace=False))
    ]
    if kind == 1:
        return "remove", some, none, []
    if kind == 0:  # new ones, some with several vectors
        some = [f"call {number}/{place}.jpg" for place in range(_PER_CALL)]
    counts = rng.integers(0, 3, len(some)).tolist()
    return "add", some, _unit(rng, sum(counts)), counts


def _apply(state: State, call: tuple[str, list[str], Array, list[int]]) -> None:
    what, names, vectors, counts = call
    if what == "remove":
        for name in names:
            del state[name]
    elif what == "add":
        for name, rows in zip(names, np.split(vectors, np.cumsum(counts)[:-1]), strict=True):
            state[name] = rows


def _killed(folder: Path, first: int, delay_s: float) -> int:
    """Start a writer and kill it; the number of the first call that it did not say was done."""
    child = subprocess.Popen(
        [sys.executable, "-c", _WORK, str(folder), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if child.stdout is None:
        raise ResourceError("no pipe to the writer")
    killer = threading.Timer(_PATIENCE_S, child.kill)
    killer.start()
    try:
        ready = child.stdout.readline()
        killer.cancel()
        if ready.strip() == "ready":
            killer = threading.Timer(delay_s, child.kill)
            killer.start()
        said, errors = child.communicate()
    finally:
        killer.cancel()
        child.kill()
    if child.returncode >= 0 or ready.strip() != "ready":
        raise ResourceError(f"the writer ended by itself: {errors.strip()[-300:]}")
    lines = said.splitlines(keepends=True)
    return max([first, *(int(line) for line in lines if line.endswith("\n"))])


def _left(folder: Path) -> str:
    """What the writer was doing, by what it left."""
    info = VectorIndex.open(folder).info()
    newest = max(int(path.name[11:17]) for path in folder.glob("generation-*"))
    if newest > info["generation"] or any(folder.glob("*.partial")):
        return "compaction"
    changes = folder / f"generation-{info['generation']:06d}" / "changes"
    count = len(list(changes.glob("*"))) if changes.is_dir() else 0
    return "change" if count > info["changes"] or any(folder.glob("*.tmp")) else "between"


def _wrong(index: VectorIndex, state: State, queries: Array) -> str:
    """How names or search differ from those of a state; empty: not at all."""
    if index.names != list(state):
        return "names differ"
    rows = np.concatenate([*state.values(), np.zeros((0, _DIM), np.float32)])
    image = np.repeat(np.arange(len(state)), [len(each) for each in state.values()])
    products = (queries.astype(np.float64) @ rows.T.astype(np.float64)).astype(np.float32)
    order = np.argsort(-products, axis=1, kind="stable")[:, :_K]
    numbers, values = index.search(queries, _K)
    if not np.array_equal(numbers[:, : order.shape[1]], image[order]):
        return "search finds other images than comparing everything"
    if not np.array_equal(values[:, : order.shape[1]], np.take_along_axis(products, order, axis=1)):
        return "similarities differ from those of comparing everything"
    return ""


def _overhead(folder: Path) -> float:
    """Bytes of files written or replaced by a call that adds images, beyond their vectors, per image."""
    index = VectorIndex.create(folder, dim=_DIM, descriptor="made")
    rows = _unit(np.random.default_rng(2), _PER_CALL)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    index.add([f"{number:06d}.jpg" for number in range(_PER_CALL)], rows)
    after = [path for path in folder.rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in after if before.get(path) != path.stat().st_mtime_ns)
    return (written - rows.nbytes) / _PER_CALL


def _unit(rng: np.random.Generator, count: int) -> Array:
    rows = rng.standard_normal((count, _DIM), dtype=np.float32)
    out: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return out
