"""Images taken one after another: their order, and which of them are neighbours."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

from loc.types import ImageRecord

log = logging.getLogger(__name__)


def sequences(images: Iterable[ImageRecord], *, by_time: bool = False) -> list[list[str]]:
    """Names by folder, each in order: by the numbers in the names, or by the time of their EXIF data.

    A folder in which an image has no time is ordered by name, with a warning.
    """
    folders: dict[str, list[ImageRecord]] = {}
    for image in images:
        folders.setdefault(image.name.rpartition("/")[0], []).append(image)
    out = []
    for folder, members in sorted(folders.items()):
        ordered = sorted(members, key=lambda image: natural_key(image.name))
        if by_time:
            timed = [image for image in ordered if image.timestamp_s is not None]
            if len(timed) < len(ordered):
                log.warning(
                    "%d of %d images of the folder %s have no time in their EXIF data: ordered by name",
                    len(ordered) - len(timed),
                    len(ordered),
                    folder or ".",
                )
            else:
                ordered = sorted(ordered, key=lambda image: image.timestamp_s or 0.0)  # stable
        out.append([image.name for image in ordered])
    return out


def natural_key(name: str) -> tuple[tuple[tuple[str, int], ...], str]:
    """Orders names so that numbers in them count as numbers.

    >>> sorted(["frame10.jpg", "frame9.jpg", "a.jpg"], key=natural_key)
    ['a.jpg', 'frame9.jpg', 'frame10.jpg']
    """
    parts = re.findall(r"([^0-9]*)([0-9]*)", name)
    return tuple((text, int(digits) if digits else -1) for text, digits in parts), name


def neighbours(sequence: Sequence[str], overlap: int, *, quadratic: bool = False) -> list[tuple[str, str]]:
    """Each image with those up to ``overlap`` further on; quadratic: also 1, 2, 4, … 2^(overlap - 1).

    >>> neighbours(["a", "b", "c", "d"], 1)
    [('a', 'b'), ('b', 'c'), ('c', 'd')]
    """
    steps = set(range(1, overlap + 1))
    if quadratic:
        steps |= {2**power for power in range(overlap) if 2**power < len(sequence)}
    return [
        (sequence[at], sequence[at + step])
        for at in range(len(sequence))
        for step in sorted(steps)
        if at + step < len(sequence)
    ]
