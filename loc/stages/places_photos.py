"""Which photos an addition to an index means, and what they are called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loc.errors import DataError
from loc.layouts.names import name_problem
from loc.runtime.images import content_hash, list_photos
from loc.stages.places_files import Card, Image, Root, path_of
from loc.types import ImageRecord


@dataclass
class Given:
    """Photos to add.

    Attributes:
        paths: name in the index → file.
        roots: name → number of its folder.
        folders: all folders, those of the index first.
        skipped: name or file → why it cannot be added.
    """

    folders: list[Root]
    paths: dict[str, Path] = field(default_factory=dict)
    roots: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def records(self) -> list[ImageRecord]:
        """As the stages take them, sorted by name."""
        return [ImageRecord(name, path, "db", "-") for name, path in sorted(self.paths.items())]


def given_photos(
    photos: Sequence[Path], card: Card, images: Mapping[str, Image], *, prefix: str = ""
) -> Given:
    """Names for the photos in folders, and for single photos.

    A photo inside a folder that the index knows is named relative to that folder, any other relative to the
    folder given; ``prefix/`` comes before the names from a new folder.

    Raises:
        DataError: a folder is missing or without a photo, or a name already means another photo.
    """
    given = Given(list(card.roots))
    for item in photos:
        base = (item if item.is_dir() else item.parent).resolve()
        if item.is_dir():
            files = [base / name for name in list_photos(item)]
            if not files:
                raise DataError(
                    f"there is no photo in {item}",
                    "give a folder with .jpg, .png, … files, in sub-folders or not",
                )
        elif item.exists():
            files = [base / item.name]
        else:
            raise DataError(f"{item} does not exist", "give folders of photos, or photos")
        _take(given, files, base, prefix)
    known = {str(path_of(card, name, each)): name for name, each in images.items() if each.root >= 0}
    for name in sorted(given.paths):
        _refuse_collision(given, name, card, images, known)
    return given


def _take(given: Given, files: Sequence[Path], base: Path, prefix: str) -> None:
    number = next((row for row, root in enumerate(given.folders) if base.is_relative_to(root.path)), None)
    if number is None:
        given.folders.append(Root(path=str(base), prefix=prefix.strip("/")))
        number = len(given.folders) - 1
    root = given.folders[number]
    for file in files:
        relative = file.relative_to(root.path).as_posix()
        name = f"{root.prefix}/{relative}" if root.prefix else relative
        problem = name_problem(name)
        if problem is not None:
            given.skipped[name] = f"its name cannot be used: {problem}; rename the file"
            continue
        if given.paths.setdefault(name, file) != file:
            raise _collision(name, given.paths[name], file)
        given.roots[name] = number


def _refuse_collision(
    given: Given, name: str, card: Card, images: Mapping[str, Image], known: Mapping[str, str]
) -> None:
    """Raise where a name means another photo, or a photo has another name; moved photos are neither."""
    path = given.paths[name]
    before = images.get(name)
    if before is not None:
        old = path_of(card, name, before)
        if old is None:
            raise DataError(f"the index holds a given vector called {name!r}", "give photos another --prefix")
        if old != path and old.is_file() and not _same(old, path):
            raise _collision(name, old, path)
    elif known.get(str(path), name) != name:
        raise DataError(
            f"{path} is in the index already, as {known[str(path)]!r}; here it would be called {name!r}",
            "add the folders that are new, not one around those that the index knows (loc index info DIR)",
        )


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second) or content_hash(first) == content_hash(second)
    except (OSError, DataError):
        return False


def _collision(name: str, first: Path, second: Path) -> DataError:
    return DataError(
        f"two photos would be called {name!r}: {first} and {second}",
        "add the second folder with --prefix NAME, which comes before the names of its photos",
    )
