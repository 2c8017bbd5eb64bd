"""Pairs of similar size: what one padded batch may hold."""

from __future__ import annotations

from collections.abc import Sequence

#: Keypoint counts are padded to multiples of the first up to the second, then of the third. Constants:
#: how far a pair is padded depends on the pair alone, never on its neighbours in a batch.
_STEP, _FINE_UP_TO, _COARSE_STEP = 256, 2048, 1024


def padded(count: int) -> int:
    """The least bound that is not smaller than ``count`` keypoints; 0 stays 0."""
    step = _STEP if count <= _FINE_UP_TO else _COARSE_STEP
    return -(-count // step) * step


def buckets(
    sizes: Sequence[tuple[int, int]], limit: int, *, most_entries: int | None = None
) -> list[list[int]]:
    """Numbers of the pairs that go into one batch.

    Args:
        sizes: keypoints of both images of each pair.
        limit: most pairs in a batch.
        most_entries: in all padded matrices of a batch together; a single pair may have more.

    Returns:
        Every pair once, grouped by its padded sizes, small ones first. A pair with an empty image is in none.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for number, (first, second) in enumerate(sizes):
        if first and second:
            groups.setdefault((padded(first), padded(second)), []).append(number)
    out = []
    for (first, second), group in sorted(groups.items()):
        most = limit if most_entries is None else max(1, min(limit, most_entries // (first * second)))
        out += [group[start : start + most] for start in range(0, len(group), most)]
    return out
