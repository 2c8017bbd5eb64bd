"""The files of an index folder that say what it is: `index.json`, and the table of its images.

``index.json`` is small and written whole. The table grows with the images: each change is a file of its own
in ``images/``, so that what an addition writes is proportional to it; compaction makes one file of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from loc.config import Section, validate
from loc.errors import ConfigError, DataError, StoreError
from loc.layouts.names import name_problem
from loc.stores.files import make_folder, read_sealed, write_sealed

FILE = "index.json"
FORMAT = 1
#: What the vectors are: one per image of a global extractor, local descriptors that vote, or given ones.
Of = Literal["global", "local", "vectors"]
_STORE_NAME = r"^[\w.-]+$"


class Root(Section):
    """A folder of photos; its images are called ``prefix/relative path``, or by the path alone."""

    path: str
    prefix: str = ""


class Card(Section):
    """What an index was made with: plug-in blocks with all options settled, and the names of its stores.

    ``fits`` are the products that plug-ins learned from the first build; queries and later photos use them.
    """

    kind: Literal["places"] = "places"
    format: Literal[1] = 1
    of: Of
    features: dict[str, Any] | None = None
    globals: dict[str, Any] | None = None
    index: dict[str, Any] = Field(default_factory=dict)
    features_store: str | None = Field(None, pattern=_STORE_NAME)
    globals_store: str | None = Field(None, pattern=_STORE_NAME)
    fits: dict[Literal["features", "globals"], str] = Field(default_factory=dict)
    roots: tuple[Root, ...] = ()
    complete: bool = False

    @model_validator(mode="after")
    def _fits_are_beside(self) -> Card:
        for name in self.fits.values():
            if not re.match(_STORE_NAME, name) or name in (".", ".."):
                raise ValueError(f"{name!r} is not the name of a fit")
        return self

    @property
    def descriptor(self) -> str:
        """What made the vectors, as the vector index knows it."""
        if self.of == "vectors":
            return "given vectors"
        return f"{self.of} {self.features_store if self.of == 'local' else self.globals_store}"


def read_card(folder: Path) -> Card:
    """``index.json`` of an index folder.

    Raises:
        DataError: the folder is not an index.
        StoreError: the file is damaged, or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(
            f"{folder} is not an index of photos: it has no {FILE}", "make one: loc index build PHOTOS -o DIR"
        )
    cure = f"delete the folder {folder} and build it again: loc index build PHOTOS -o {folder}"
    data = read_sealed(path, cure=cure)
    if data.get("kind") != "places" or data.get("format") != FORMAT:
        raise StoreError(
            f"{path} is of format {data.get('kind')!r} {data.get('format')!r}, expected 'places' {FORMAT}",
            f"give the folder of an index, or {cure}",
        )
    try:
        return validate(Card, data, where=FILE)
    except ConfigError as error:
        raise StoreError(f"{path} is damaged: {error.message}", cure) from error


def write_card(folder: Path, card: Card) -> None:
    write_sealed(folder / FILE, card.model_dump(mode="json"))


@dataclass(frozen=True)
class Image:
    """An image of an index.

    Attributes:
        root: number of its folder in :attr:`Card.roots`; -1 for a given vector.
        content: hash of the photo's (or vector's) bytes.
        vectors: how many it has in the index; 0 for a photo on which nothing was found.
    """

    root: int
    content: str
    vectors: int


class ImageTable:
    """Images by name. Whatever has a vector is in here, with the content that the vector was made of."""

    def __init__(self, folder: Path, roots: int) -> None:
        """Read the table.

        Args:
            folder: of the index.
            roots: how many folders of photos the index knows.

        Raises:
            StoreError: a file is damaged or says what cannot be.
        """
        self._folder = folder / "images"
        self.images: dict[str, Image] = {}
        while True:
            self._numbers = self._listed()
            try:
                self._read_all(roots)
                return
            except StoreError:
                if self._numbers == self._listed():
                    raise
                self.images.clear()  # another process has written or compacted the table meanwhile

    @property
    def files(self) -> int:
        """Changes on disk that a compaction would join; a finished index has at least one."""
        return len(self._numbers)

    def add(self, images: Mapping[str, Image]) -> None:
        """Add or replace images; on disk when it returns."""
        self._write({"images": _rows(images)})
        self.images.update(images)

    def remove(self, names: Iterable[str]) -> None:
        """Forget images; on disk when it returns."""
        gone = list(names)
        self._write({"removed": gone})
        for name in gone:
            self.images.pop(name, None)

    def compact(self) -> None:
        """One file with all that is left; the others are deleted after it is there."""
        old = self._numbers[:]
        self._write({"whole": True, "images": _rows(self.images)})
        for number in old:
            self._path(number).unlink(missing_ok=True)
            self._numbers.remove(number)

    def _listed(self) -> list[int]:
        stems = [path.stem for path in self._folder.glob("*.json")]
        return sorted(int(stem) for stem in stems if re.fullmatch(r"[0-9]{6,9}", stem))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"

    def _write(self, data: dict[str, Any]) -> None:
        number = self._numbers[-1] + 1 if self._numbers else 1
        make_folder(self._folder)
        write_sealed(self._path(number), data)
        self._numbers.append(number)

    def _read_all(self, roots: int) -> None:
        """Numbers follow one another, from 1 or, after a compaction, from any: else a file is lost."""
        whole = [self._read(self._path(number), roots) for number in self._numbers]
        if whole:
            lost = set(range(self._numbers[0] if any(whole) else 1, self._numbers[-1])) - set(self._numbers)
            if lost:
                raise StoreError(f"{self._path(min(lost))} is missing", self._cure)

    @property
    def _cure(self) -> str:
        return f"delete the folder {self._folder.parent} and build the index again"

    def _read(self, path: Path, roots: int) -> bool:
        """Take in one file; whether it is the whole table."""
        data = read_sealed(path, cure=self._cure)
        try:
            if data.get("whole") is True:
                self.images.clear()
            for name, root, content, vectors in data.get("images", []):
                problem = name_problem(name)
                if problem is not None:
                    raise ValueError(f"the image name {name!r}: {problem}")
                image = Image(root, content, vectors)
                if not _plausible(image, roots):
                    raise ValueError(f"the image {name!r} has {root!r}, {content!r}, {vectors!r}")
                self.images[name] = image
            for name in data.get("removed", []):
                self.images.pop(name, None)
        except (TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"{path} is damaged: {error}", self._cure) from error
        return data.get("whole") is True


def _rows(images: Mapping[str, Image]) -> list[list[str | int]]:
    return [[name, each.root, each.content, each.vectors] for name, each in images.items()]


def _plausible(image: Image, roots: int) -> bool:
    return (
        type(image.root) is int
        and -1 <= image.root < roots
        and isinstance(image.content, str)
        and re.fullmatch(r"[0-9a-f]{16}", image.content) is not None
        and type(image.vectors) is int
        and image.vectors >= 0
    )


def path_of(card: Card, name: str, image: Image) -> Path | None:
    """Where a photo was when it was added; None for a given vector."""
    if image.root < 0:
        return None
    root = card.roots[image.root]
    return Path(root.path) / (name.removeprefix(f"{root.prefix}/") if root.prefix else name)


def nearest_names(wrong: str, names: Sequence[str]) -> str:
    """``did you mean …?`` over many names."""
    import difflib

    close = difflib.get_close_matches(wrong, names, n=3, cutoff=0.5)
    return f"did you mean {', '.join(map(repr, close))}?" if close else "see: loc index info DIR --json"
