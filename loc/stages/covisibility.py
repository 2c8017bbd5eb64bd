"""Which images of a reference model see the same 3-D points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loc.layouts.reference import points_of_images


def from_covisibility(model: Path, names: list[str], k: int) -> list[tuple[str, str]]:
    """Pairs ``(smaller, larger name)`` of each image and the ``k`` that share most 3-D points with it.

    Ties are ordered by name; images without a shared point are in no pair.

    Args:
        model: COLMAP model folder, or an NVM file.
        names: images to pair; those that the model does not have are in no pair.
        k: neighbours per image.
    """
    from scipy.sparse import csr_array

    observed = points_of_images(model)
    names = sorted(name for name in set(names) if name in observed)
    if len(names) < 2:
        return []
    points = [np.unique(observed[name]) for name in names]
    ids, columns = np.unique(np.concatenate(points), return_inverse=True)
    rows = np.concatenate([[0], np.cumsum([len(each) for each in points])])
    ones = np.ones(len(columns), np.int32)
    sees = csr_array((ones, columns, rows), shape=(len(names), max(1, len(ids))))
    transposed = sees.T.tocsr()
    pairs = set()
    for row in range(len(names)):
        shared = (sees[[row]] @ transposed).tocsr()
        others, counts = shared.indices, shared.data
        others, counts = others[others != row], counts[others != row]
        for other in others[np.lexsort((others, -counts))[:k]].tolist():
            pairs.add((names[min(row, other)], names[max(row, other)]))
    return sorted(pairs)
