"""Putting imported things into a run folder: nothing that is there is replaced by something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from loc.errors import DataError
from loc.types import LocalFeatures, Matches


class Items:
    """Puts items into a store; an item that is there already must be the same one."""

    def __init__(self, store: Any, writer: Any, same: Callable[[Any, Any], bool]) -> None:
        self._store, self._writer, self._same = store, writer, same
        self._seen: set[Any] = set()

    def put(self, key: Any, item: Any, *, what: str) -> None:
        if key in self._seen:
            raise DataError(
                f"{self._store.kind} of {what} are twice in the files", "give each image or pair in one file"
            )
        self._seen.add(key)
        if key not in self._store:
            self._writer.put(key, item)
        elif not self._same(self._store.get(key), item):
            raise DataError(
                f"{self._store.folder} holds other {self._store.kind} of {what} already",
                "call what you import now by another name: --name NAME, or give another -o",
            )


def same_features(one: LocalFeatures, other: LocalFeatures) -> bool:
    """Equal to the bit in what matching and mapping use."""
    return (
        np.array_equal(one.keypoints, other.keypoints)
        and np.array_equal(one.scores, other.scores)
        and np.array_equal(one.descriptors, other.descriptors)
    )


def same_matches(one: Matches, other: Matches) -> bool:
    """Equal to the bit."""
    return np.array_equal(one.indices, other.indices) and np.array_equal(one.scores, other.scores)


def refuse_other(path: Path, text: str, *, force: bool) -> None:
    """A file of a former import is only replaced by the same text, or when it is asked for."""
    if path.is_file() and not force and path.read_text(encoding="utf-8") != text:
        raise DataError(
            f"{path} exists and says something else", "add --force to replace it, or give another -o"
        )
