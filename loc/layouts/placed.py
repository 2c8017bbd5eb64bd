"""Photos with the places they show: of a retrieval set with ground truth, or of a list ``name place``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loc.errors import DataError
from loc.layouts.lists import read_lines
from loc.layouts.revisited import RetrievalSet
from loc.runtime.images import list_photos

#: Groups of photos that show none of the places.
UNLABELLED, DISTRACTORS = "(unlabelled)", "(distractors)"
_LABELS = ("easy", "hard", "ok", "junk")


@dataclass(frozen=True, eq=False)
class PlacedPhotos:
    """Photos and their places.

    Attributes:
        name: of the set.
        photos, places: one place per photo; those of :data:`UNLABELLED` and :data:`DISTRACTORS` show none of
            the places, and nobody knows which of them show the same.
        asked_only: whether a photo is a query of the set, and no database image.
        ignored: ``(query, image)`` pairs of photos that do not count: too little of the place is in both.
    """

    name: str
    photos: tuple[Path, ...]
    places: tuple[str, ...]
    asked_only: tuple[bool, ...]
    ignored: frozenset[tuple[int, int]] = frozenset()

    def with_distractors(self, folder: Path) -> PlacedPhotos:
        """These photos and those of a folder, which shows none of their places."""
        more = tuple(folder / name for name in list_photos(folder))
        if not more:
            raise DataError(f"{folder} has no photos", "name a folder of photos of other places")
        return replace(
            self,
            photos=self.photos + more,
            places=self.places + (DISTRACTORS,) * len(more),
            asked_only=self.asked_only + (False,) * len(more),
        )

    def united(self, names: Sequence[str]) -> PlacedPhotos:
        """These photos with some places taken for one: those whose photos show each other.

        Raises:
            DataError: there is no such place.
        """
        for name in names:
            if name not in self.places or name in (UNLABELLED, DISTRACTORS):
                known = sorted(set(self.places) - {UNLABELLED, DISTRACTORS})
                raise DataError(f"{self.name} has no place {name!r}", f"it has {', '.join(known)}")
        one = "+".join(names)
        return replace(self, places=tuple(one if each in names else each for each in self.places))

    def select(self, rows: Sequence[int]) -> PlacedPhotos:
        """Some of the photos, in that order."""
        new = {old: row for row, old in enumerate(rows)}
        return PlacedPhotos(
            self.name,
            tuple(self.photos[row] for row in rows),
            tuple(self.places[row] for row in rows),
            tuple(self.asked_only[row] for row in rows),
            frozenset((new[q], new[i]) for q, i in self.ignored if q in new and i in new),
        )


def places_of_set(data: RetrievalSet) -> PlacedPhotos:
    """Places from a ground truth: what some query links (easy, hard, ok or junk) is one place.

    A place is called by what the names of its photos begin with. Database images that no query is linked to
    are of no place.
    """
    truth, count = data.truth, len(data.truth.images)
    place_of = list(range(count + len(truth.queries)))

    def find(item: int) -> int:
        while place_of[item] != item:
            item = place_of[item]
        return item

    ignored = set()
    for row, labels in enumerate(truth.labels):
        for label in _LABELS:
            for image in labels.get(label, ()):
                place_of[find(int(image))] = find(count + row)
                if label == "junk":
                    ignored.add((count + row, int(image)))
    names = [Path(name).stem for name in (*truth.images, *truth.queries)]
    members: dict[int, list[int]] = {}
    for item in range(len(names)):
        members.setdefault(find(item), []).append(item)
    places = [UNLABELLED] * len(names)
    taken: set[str] = set()
    for root in sorted(members):
        if any(item >= count for item in members[root]):
            name = _common_name([names[item] for item in members[root]])
            name = name if name and name not in taken else names[root]
            taken.add(name)
            for item in members[root]:
                places[item] = name
    return PlacedPhotos(
        data.name,
        data.database[:count] + data.queries,
        tuple(places),
        (False,) * count + (True,) * len(truth.queries),
        frozenset(ignored),
    )


def places_of_list(folder: Path, path: Path) -> PlacedPhotos:
    """Places from a list ``name place`` of photos in a folder; ``-`` is no place that another photo shows.

    Raises:
        DataError: a line has no place, a photo is there twice or missing; with file and line.
    """
    places: dict[str, str] = {}
    for line in read_lines(path):
        name, _, place = line.text.rpartition(" ") if "\t" not in line.text else line.text.rpartition("\t")
        name, place = name.strip(), place.strip()
        if not name or not place:
            raise DataError(
                f"{line.where}: expected 'name place', got {line.text!r}", "a photo and its place"
            )
        if name in places:
            raise DataError(f"{line.where}: {name!r} has a place already", "keep one line per photo")
        if not (folder / name).is_file():
            raise DataError(f"{line.where}: {folder} has no photo {name!r}", "names are relative to --root")
        places[name] = UNLABELLED if place == "-" else place
    return PlacedPhotos(
        folder.resolve().name,
        tuple(folder / name for name in places),
        tuple(places.values()),
        (False,) * len(places),
    )


def _common_name(names: Sequence[str]) -> str:
    """What all names begin with, without the number after it."""
    first, last = min(names), max(names)  # what these two share, all share
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:same].rstrip("_- .0123456789")
