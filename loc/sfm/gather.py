"""2D-3D matches of a query: which of its keypoints show which points of the map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from loc.errors import DataError
from loc.sfm.index import PointIndex
from loc.types import Array, Matches


@dataclass(frozen=True, eq=False)
class Gathered:
    """Correspondences of a query with the map, sorted by (keypoint, point row), none twice.

    Attributes:
        keypoints: ``(m,)`` int32, rows of the query's keypoints.
        points: ``(m,)`` int32, rows of the index's ``xyz``.
        support: ``(m,)`` int32, database images through which the correspondence was found.
        references: database images that gave at least one, the one that gave most first.
    """

    keypoints: Int32[Array, " m"]
    points: Int32[Array, " m"]
    support: Int32[Array, " m"]
    references: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.keypoints.shape[0])


def gather(index: PointIndex, matched: Iterable[tuple[str, Matches]]) -> Gathered:
    """Look up the points behind the matches of a query with database images.

    A database image that is not registered in the map gives nothing. A keypoint may keep several
    points (the map may hold one twice, or a match may be wrong): PnP decides.

    Args:
        index: of the map.
        matched: ``(db name, matches)``; column 0 of the matches are query keypoints, column 1 those
            of the database image. The order does not matter, except between references that gave
            equally many, which keep it.

    Raises:
        DataError: matches refer to keypoints the map's image does not have.
    """
    keys: list[Array] = []
    counts: list[tuple[int, int, str]] = []
    for name, matches in matched:
        rows = index.point_rows(name)
        if not len(rows) or not len(matches):
            continue
        if int(matches.indices[:, 1].max()) >= len(rows):
            raise DataError(
                f"matches with {name} refer to keypoint {int(matches.indices[:, 1].max())}, the map knows "
                f"{len(rows)} keypoints of it",
                "the map was made with other features: run the map again",
            )
        points = rows[matches.indices[:, 1]].astype(np.int64)
        seen = points >= 0
        if not seen.any():
            continue
        # Two keypoints of one image may see one point: count the image once.
        found = _distinct(matches.indices[seen, 0].astype(np.int64) << 32 | points[seen])
        keys.append(found)
        counts.append((-len(found), len(counts), name))
    merged, support = np.unique(np.concatenate(keys) if keys else np.zeros(0, np.int64), return_counts=True)
    return Gathered(
        keypoints=(merged >> 32).astype(np.int32),
        points=(merged & 0xFFFFFFFF).astype(np.int32),
        support=support.astype(np.int32),
        references=tuple(name for _, _, name in sorted(counts)),
    )


def _distinct(keys: Array) -> Array:
    """Sorted, without repetition. NumPy's ``unique`` hashes integers, ten times as slow for so few."""
    keys = np.sort(keys)
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first]
