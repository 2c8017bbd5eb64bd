"""Places among the references of a query: images of the map that see common points.

Retrieval finds images that look alike, and so do two copies of a façade in two streets. Matches with
both leave a query half its matches wrong, in perfect agreement with each other. Within one connected
component of covisibility there is one place. (Sattler et al., Are Large-Scale 3D Models Really Necessary
for Accurate Visual Localization?, CVPR 2017; hloc.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loc.sfm.index import PointIndex


def covisibility_clusters(index: PointIndex, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The connected components of images that share a 3-D point of the map, directly or by others.

    Args:
        index: of the map; an image without points is a component of its own.
        names: images, best first.

    Returns:
        The components in the order of their first image, each in the given order.
    """
    parent = list(range(len(names)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    last_seen_by = np.full(len(index), -1, np.int32)
    for row, name in enumerate(names):
        points = index.seen(name)
        before = np.bincount(last_seen_by.take(points) + 1, minlength=1)
        for other in np.flatnonzero(before[1:]).tolist():
            first, second = sorted((root(other), root(row)))
            parent[second] = first
        last_seen_by[points] = row
    members: dict[int, list[str]] = {}
    for row, name in enumerate(names):
        members.setdefault(root(row), []).append(name)
    return [tuple(each) for _, each in sorted(members.items())]
