"""The 2D-3D index: which keypoint of which database image saw which 3-D point.

Computed once per map, so that no query loops over points2D. It lies on disk as plain ``.npy``
files (an ``.npz`` cannot be memory-mapped), so opening a map of a million points reads nothing.
"""

from __future__ import annotations

import json
import tokenize
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int32, Int64

from loc.errors import StoreError
from loc.stores.files import make_folder, read_json, writing

Array = np.ndarray
_ARRAYS = ("offsets", "rows", "xyz", "point_ids", "track_lengths")


@dataclass(frozen=True, eq=False)
class PointIndex:
    """Points of a map and the keypoints that see them.

    Attributes:
        names: registered images, sorted.
        offsets: ``(len(names) + 1,)`` int64; keypoints of image ``i`` are ``rows[offsets[i]:offsets[i+1]]``.
        rows: int32, row of each keypoint's 3-D point in ``xyz``, or -1.
        xyz: ``(p, 3)`` float64, world units, in order of the point ids.
        point_ids: ``(p,)`` int64, ids of the points in the model, ascending.
        track_lengths: ``(p,)`` int32, observations per point.
    """

    names: tuple[str, ...]
    offsets: Int64[Array, " n1"]
    rows: Int32[Array, " k"]
    xyz: Float64[Array, "p 3"]
    point_ids: Int64[Array, " p"]
    track_lengths: Int32[Array, " p"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_number", {name: i for i, name in enumerate(self.names)})
        object.__setattr__(self, "_seen", {})

    def __len__(self) -> int:
        return int(self.point_ids.shape[0])

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    @property
    def _numbers(self) -> dict[str, int]:
        numbers: dict[str, int] = self.__dict__["_number"]
        return numbers

    def point_rows(self, name: str) -> Int32[Array, " n"]:
        """``(n,)`` int32 for the ``n`` keypoints of an image: row into ``xyz``, or -1.

        An image that is not registered has no rows: the result is empty.
        """
        number = self._numbers.get(name)
        if number is None:
            return np.zeros(0, np.int32)
        return self.rows[int(self.offsets[number]) : int(self.offsets[number + 1])]

    def seen(self, name: str) -> Int32[Array, " s"]:
        """``(s,)`` int32, ascending rows of ``xyz`` that an image sees; kept, since queries ask again."""
        cache: dict[str, Int32[Array, " s"]] = self.__dict__["_seen"]
        if name not in cache:
            rows = np.unique(self.point_rows(name))
            cache[name] = rows[rows >= 0]
        return cache[name]

    def save(self, folder: Path) -> None:
        """Write ``names.json`` and one ``.npy`` per array into ``folder``."""
        make_folder(folder)
        with writing(folder):
            (folder / "names.json").write_text(json.dumps(self.names, ensure_ascii=False), encoding="utf-8")
            for name in _ARRAYS:
                np.save(folder / f"{name}.npy", getattr(self, name))

    @staticmethod
    def load(folder: Path) -> PointIndex:
        """Open an index; arrays are memory-mapped, read-only.

        Raises:
            StoreError: a file is missing or damaged.
        """
        names = tuple(read_json(folder / "names.json"))
        arrays = {name: _load(folder / f"{name}.npy") for name in _ARRAYS}
        if len(arrays["offsets"]) != len(names) + 1 or arrays["offsets"][-1] != len(arrays["rows"]):
            raise _damaged(folder, "its arrays do not fit together")
        return PointIndex(names, **arrays)


def _load(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, SyntaxError, tokenize.TokenError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from error
    return array


def _damaged(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"the 2D-3D index {folder} is damaged: {why}",
        f"delete the folder {folder.parent} and run the map again",
    )
