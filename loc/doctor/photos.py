"""Photos one by one: can they be read, how are they turned, are there copies."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loc.errors import DataError
from loc.runtime.images import content_hash, image_header, read_photo
from loc.runtime.runtime import Runtime

#: Bytes at the end of a file in which its end mark is looked for; some cameras append zeros.
_TAIL = 64 << 10
_JPEG_END, _PNG_END = b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82"
_END_MARKS = {".jpg": _JPEG_END, ".jpeg": _JPEG_END, ".jpe": _JPEG_END, ".png": _PNG_END}


@dataclass(frozen=True)
class Seen:
    """What the header of a photo says, or why it cannot be read."""

    wh: tuple[int, int] = (0, 0)
    orientation: int = 1
    has_focal: bool = False
    problem: str = ""


def look_at(photos: Mapping[str, Path], *, full: bool) -> dict[str, Seen]:
    """Read all headers, in threads; with ``full``, or where a file's end looks cut, the pixels too."""
    names = sorted(photos)
    with ThreadPoolExecutor(min(8, 2 * Runtime().num_workers)) as threads:
        return dict(zip(names, threads.map(lambda name: _look(photos[name], full=full), names), strict=True))


def _look(path: Path, *, full: bool) -> Seen:
    try:
        status = _status(path)
        if status is not None and not stat.S_ISREG(status.st_mode):
            return Seen(problem=f"{path} is no file but a pipe, a socket or a device")
        wh, exif = image_header(path)
        if full or not ends_well(path):
            read_photo(path, color="gray")
    except DataError as error:
        return Seen(problem=error.message)
    return Seen(wh, exif["orientation"], _has_focal(exif))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # reading it says what is wrong
        return None


def _has_focal(exif: dict[str, Any]) -> bool:
    return exif["focal_35mm"] is not None or exif["focal_mm"] is not None


def ends_well(path: Path) -> bool:
    """Whether a JPEG or PNG ends with its end mark; True for formats without one. Reads 64 kB.

    What ends otherwise may still be whole (programs append things): it has to be decoded to know.

    Raises:
        DataError: the file cannot be read.
    """
    mark = _END_MARKS.get(path.suffix.lower())
    if mark is None:
        return True
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            tail = file.read().rstrip(b"\0")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check its permissions") from error
    return tail.endswith(mark)


def copies(photos: Mapping[str, Path]) -> list[tuple[str, ...]]:
    """Groups of photos with the same bytes; only files of equal size are read, and no pipe or device."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for name in sorted(photos):
        status = _status(photos[name])
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_size > 0:
            by_size[status.st_size].append(name)
    by_content: dict[str, list[str]] = defaultdict(list)
    for names in by_size.values():
        for name in names if len(names) > 1 else ():
            try:
                by_content[content_hash(photos[name])].append(name)
            except DataError:
                continue
    return sorted(tuple(names) for names in by_content.values() if len(names) > 1)
