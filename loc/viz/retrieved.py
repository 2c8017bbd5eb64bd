"""The answers of an index to photos, as one self-contained page: each query beside what was found for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loc.stages.landmarks import Answer, Found
from loc.stores.files import make_folder, write_text
from loc.viz.page import render_page
from loc.viz.thumbnails import Pair, PhotoWithPoints, Thumbnail, draw_pair, stamp

#: Verdicts as people read them, and as the style sheet colours them.
VERDICTS = {
    "match": ("match", "ok"),
    "no_match": ("no match", "failed"),
    "ranked": ("not verified", "doubtful"),
    "nothing_found": ("nothing found", "failed"),
    "unreadable": ("unreadable", "failed"),
}
_NONE = np.zeros((0, 2), np.float32)


@dataclass(frozen=True)
class Row:
    """A query on the page: it and its best image as a picture, and the others as stamps."""

    answer: Answer
    picture: Pair | None
    stamps: tuple[tuple[Found, Thumbnail | None], ...]

    @property
    def verdict(self) -> tuple[str, str]:
        return VERDICTS[self.answer.status]


def write_page(file: Path, answers: Sequence[Answer], *, title: str) -> None:
    """Write the page; the photos are read from where they are, and left out where they are not."""
    make_folder(file.parent)
    write_text(file, render_answers(answers, title=title))


def render_answers(answers: Sequence[Answer], *, title: str) -> str:
    """The page as text."""
    rows = [_row(answer) for answer in answers]
    photos: dict[str, str] = {}
    for row in rows:
        shown = [thumbnail for _, thumbnail in row.stamps]
        if row.picture is not None:
            shown += [row.picture.query, row.picture.reference]
        for thumbnail in shown:
            if thumbnail is not None:
                photos.setdefault(thumbnail.uri, f"p{len(photos) + 1}")
    counts = {status: sum(answer.status == status for answer in answers) for status in VERDICTS}
    return render_page(
        "retrieved.html.j2",
        title=title,
        rows=rows,
        photos=photos,
        counts=[(*VERDICTS[status], count) for status, count in counts.items() if count],
        notes=sorted({answer.note for answer in answers if answer.note}),
    )


def _row(answer: Answer) -> Row:
    stamps = tuple((found, None if found.path is None else stamp(found.path)) for found in answer.images)
    if answer.path is None:
        return Row(answer, None, stamps)
    best = answer.images[0] if answer.images else None
    query_xy, image_xy = _NONE, _NONE
    if best is not None and best.verified is not None and answer.keypoints is not None:
        query_xy = answer.keypoints[best.verified.pairs[:, 0]]
        image_xy = _NONE if best.image_xy is None else best.image_xy
    reference = None
    if best is not None and best.path is not None:
        reference = PhotoWithPoints(best.path, image_xy)
    pair = draw_pair(PhotoWithPoints(answer.path, query_xy), reference, np.arange(len(image_xy)))
    return Row(answer, pair, stamps)
