"""Which rows of an index belong to which image, and which of them still count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Array = np.ndarray


class Growing:
    """A one-dimensional array to append to: capacity doubles, so that many small changes stay cheap."""

    def __init__(self, dtype: type) -> None:
        self._data: Array = np.zeros(1024, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> Array:
        return self._data[: self._count]

    def extend(self, values: Array) -> None:
        needed = self._count + len(values)
        if needed > len(self._data):
            grown = np.zeros(max(needed, 2 * len(self._data)), self._data.dtype)
            grown[: self._count] = self.values
            self._data = grown
        self._data[self._count : needed] = values
        self._count = needed


class Contents:
    """Names of images and rows of vectors, in the order in which they came.

    Every image has a slot: the place of its first insertion, kept when it is replaced. Rows are numbered
    through base and changes; those of an image follow one another. A row whose image was removed or replaced
    is dead: it stays where it is until compaction.
    """

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self._slot_of_row, self._alive = Growing(np.int64), Growing(np.bool_)
        self._first, self._count = Growing(np.int64), Growing(np.int64)
        self.live_rows = 0
        self._numbers: Array | None = None

    @property
    def rows(self) -> int:
        """Rows ever added, dead ones among them."""
        return len(self._alive)

    @property
    def alive(self) -> Array:
        """``(rows,)`` bool."""
        return self._alive.values

    @property
    def slot_of_row(self) -> Array:
        """``(rows,)`` int64: equal similarities are ordered by it, then by row."""
        return self._slot_of_row.values

    def put(self, names: Sequence[str], counts: Sequence[int]) -> None:
        """Add images, whose rows are the next ones; the rows that a name had before die."""
        slots = np.empty(len(names), np.int64)
        new = len(self._first)
        for place, name in enumerate(names):
            slot = self.slots.get(name)
            if slot is None:
                slot = self.slots[name] = new
                new += 1
            else:
                self._kill(slot)
            slots[place] = slot
        sizes = np.asarray(counts, np.int64)
        added = np.zeros(new - len(self._first), np.int64)
        self._first.extend(added)
        self._count.extend(added)
        self._first.values[slots] = self.rows + np.cumsum(sizes) - sizes
        self._count.values[slots] = sizes
        self._slot_of_row.extend(np.repeat(slots, sizes))
        self._alive.extend(np.ones(int(sizes.sum()), np.bool_))
        self.live_rows += int(sizes.sum())
        self._numbers = None

    def drop(self, names: Iterable[str]) -> None:
        """Remove images that are there."""
        for name in names:
            self._kill(self.slots.pop(name))
        self._numbers = None

    def _kill(self, slot: int) -> None:
        first, count = int(self._first.values[slot]), int(self._count.values[slot])
        self._alive.values[first : first + count] = False
        self.live_rows -= count

    def image_of(self, rows: Array) -> Array:
        """Numbers of the images of live rows, in the order of ``slots``; -1 for row -1."""
        if self._numbers is None:
            self._numbers = np.full(len(self._first), -1, np.int64)
            self._numbers[list(self.slots.values())] = np.arange(len(self.slots))
        if not self.rows:
            return np.full(rows.shape, -1, np.int64)
        return np.where(rows >= 0, self._numbers[self.slot_of_row[rows]], -1)

    def in_order(self) -> tuple[Array, Array]:
        """Live rows, image by image in order of first insertion, and how many each image has."""
        live = np.array(list(self.slots.values()), np.int64)
        counts = self._count.values[live]
        starts = np.repeat(self._first.values[live] - (np.cumsum(counts) - counts), counts)
        return starts + np.arange(len(starts)), counts
