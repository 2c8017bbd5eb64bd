"""Ground truth of retrieval sets: Revisited and classic Oxford and Paris, INSTRE, and sets made like them.

A set is a folder with a ground truth file (``gnd_*.json``, ``gnd_*.pkl`` or ``gnd_*.mat``) and the photos
under ``jpg/``. The fields are those of github.com/filipradenovic/revisitop: ``imlist``, ``qimlist`` and per
query ``gnd`` with ``bbx`` and the labels ``easy``, ``hard``, ``junk`` (revisited) or ``ok``, ``junk``
(classic; INSTRE has ``ok`` alone). Ids count from zero in .json and .pkl, from one in .mat. The text files
of the classic sets (``*_query.txt``, ``*_good.txt``, ``*_ok.txt``, ``*_junk.txt``) are read too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loc.errors import DataError
from loc.layouts.plain_pickle import read_plain_pickle
from loc.runtime.images import list_photos
from loc.types import Array
from loc.weights.mat_file import read_mat

LABELS = ("easy", "hard", "junk", "ok")
#: Kinds of ground truth, in the order in which they are taken where a folder has several.
_SUFFIXES = (".json", ".pkl", ".mat")
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class RetrievalTruth:
    """Which database images show what a query shows.

    Attributes:
        images, queries: names, as the ground truth writes them (mostly without ``.jpg``).
        boxes: per query, the part of its photo that is asked for: ``(x1, y1, x2, y2)`` px of the stored
            photo, or None for the whole.
        labels: per query, label → ids of database images, ``int64`` from zero, ascending.
    """

    images: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: tuple[Box | None, ...]
    labels: tuple[dict[str, Array], ...]

    @property
    def revisited(self) -> bool:
        """Whether it is judged by the protocols easy, medium and hard, else by the classic one."""
        return any("easy" in labels or "hard" in labels for labels in self.labels)


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """A set on disk; distractors are at the end of its database, after the images of the ground truth."""

    name: str
    truth: RetrievalTruth
    database: tuple[Path, ...]
    queries: tuple[Path, ...]


def read_truth(path: Path) -> RetrievalTruth:
    """Read a ground truth file, or a folder of the classic sets' text files.

    Raises:
        DataError: it is missing, damaged, not plain data, or its ids and boxes cannot be.
    """
    if path.is_dir():
        return _from_text_files(path)
    if path.suffix == ".json":
        return _truth(_read_json(path), path, first=0)
    if path.suffix == ".pkl":
        return _truth(read_plain_pickle(path), path, first=0)
    if path.suffix == ".mat":
        return _truth(read_mat(path), path, first=1)
    raise DataError(f"{path} is no ground truth", f"its name ends in one of {', '.join(_SUFFIXES)}")


def find_truth(folder: Path) -> Path | None:
    """The ground truth of a set: its ``gnd_*`` file (.json before .pkl before .mat), or its text files.

    Returns:
        None where the folder has none.

    Raises:
        DataError: there are several.
    """
    for suffix in _SUFFIXES:
        found = sorted(folder.glob(f"gnd_*{suffix}"))
        if len(found) > 1:
            raise DataError(
                f"{folder} has several ground truths: {', '.join(path.name for path in found)}",
                "keep one set per folder",
            )
        if found:
            return found[0]
    places = (folder, *(each for each in sorted(folder.iterdir()) if each.is_dir()))
    return next((place for place in places if any(place.glob("*_query.txt"))), None)


def open_sets(root: Path, distractors: Path | None = None) -> list[RetrievalSet]:
    """The set in a folder, or those in the folders in it, by name.

    Args:
        distractors: a folder of photos that are wrong for every query, added to each database (the revisited
            sets have a million of them).

    Raises:
        DataError: there is none, or a photo of a set is missing.
    """
    folders = [root, *(each for each in sorted(root.iterdir()) if each.is_dir())] if root.is_dir() else []
    found = {folder: path for folder in folders if (path := find_truth(folder)) is not None}
    if not found:
        raise DataError(
            f"{root} holds no ground truth (gnd_*.json, gnd_*.pkl, gnd_*.mat, or *_query.txt)",
            "name the folder of a set, which also has the photos under jpg/, or one that holds such folders",
        )
    chosen = {root: found[root]} if root in found else found
    more = () if distractors is None else tuple(distractors / name for name in list_photos(distractors))
    return [_open_set(folder, path, more) for folder, path in chosen.items()]


def _open_set(folder: Path, path: Path, distractors: tuple[Path, ...]) -> RetrievalSet:
    truth, find = read_truth(path), photo_finder(folder)
    database = tuple(find(name) for name in truth.images) + distractors
    return RetrievalSet(folder.resolve().name, truth, database, tuple(find(name) for name in truth.queries))


def photo_finder(folder: Path) -> Callable[[str], Path]:
    """A function from names of a set to their photos, below ``jpg/`` or anywhere below the folder.

    Classic Paris keeps its photos in folders by landmark, and names them without.
    """
    root = folder / "jpg" if (folder / "jpg").is_dir() else folder
    by_stem: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in _PHOTO_SUFFIXES:
            by_stem.setdefault(path.stem, path)

    def is_photo(path: Path) -> bool:
        try:
            return path.is_file()
        except OSError:  # a name that is too long, say
            return False

    def find(name: str) -> Path:
        for candidate in (root / name, *(root / f"{name}{suffix}" for suffix in _PHOTO_SUFFIXES)):
            if candidate.suffix.lower() in _PHOTO_SUFFIXES and is_photo(candidate):
                return candidate
        stem = Path(name).name.removesuffix(".jpg")
        if stem in by_stem:
            return by_stem[stem]
        raise DataError(
            f"{root} has no photo {name}", "unpack all photos of the set; their names are in its ground truth"
        )

    return find


def _truth(data: Any, path: Path, *, first: int) -> RetrievalTruth:
    """Validate what a file holds; ids in it count from ``first``."""
    if not isinstance(data, dict) or any(key not in data for key in ("imlist", "qimlist", "gnd")):
        raise _broken(path, "it lacks imlist, qimlist or gnd")
    images, queries, gnd = (_flat(data[key]) for key in ("imlist", "qimlist", "gnd"))
    if not all(isinstance(name, str) for name in (*images, *queries)):
        raise _broken(path, "imlist or qimlist holds something that is no name")
    twice = [name for name, count in Counter(images).items() if count > 1]
    if twice:
        raise _broken(path, f"imlist names {twice[0]} twice ({len(twice)} such names)")
    if not images or not queries:
        raise _broken(path, f"it has {len(images)} database images and {len(queries)} queries")
    if len(gnd) != len(queries):
        raise _broken(path, f"it has {len(queries)} queries, and gnd of {len(gnd)}")
    boxes, labels = [], []
    for query, entry in zip(queries, gnd, strict=True):
        if not isinstance(entry, dict) or not any(label in entry for label in LABELS):
            raise _broken(path, f"query {query} has no labels ({', '.join(LABELS)})")
        boxes.append(_box(entry.get("bbx"), query, path))
        labels.append(
            {
                label: _ids(entry[label], len(images), f"{label} of query {query}", path, first)
                for label in LABELS
                if label in entry
            }
        )
    return RetrievalTruth(tuple(images), tuple(queries), tuple(boxes), tuple(labels))


def _flat(values: Any) -> list[Any]:
    """The members of a list or an array; .mat files have one member bare."""
    if isinstance(values, np.ndarray):
        return list(values.ravel().tolist())
    return list(values) if isinstance(values, list | tuple) else [values]


def _numbers(values: Any) -> Array | None:
    """Members as ``float64``; None where one is no finite number."""
    members = _flat(values)
    if not all(isinstance(each, int | float | np.integer | np.floating) for each in members):
        return None
    if not all(abs(each) < 1e15 for each in members):  # NaN is not below either
        return None
    return np.array(members, np.float64)


def _ids(values: Any, count: int, what: str, path: Path, first: int) -> Array:
    found = _numbers(values)
    if found is None or (found % 1).any() or ((found < first) | (found >= count + first)).any():
        raise _broken(path, f"{what} has ids outside of {first} to {count + first - 1}, the images of imlist")
    return np.unique(found.astype(np.int64)) - first


def _box(values: Any, query: str, path: Path) -> Box | None:
    corners = _numbers([] if values is None else values)
    if corners is not None and corners.size == 0:
        return None
    if corners is None or corners.shape != (4,) or (corners[:2] >= corners[2:]).any():
        raise _broken(path, f"bbx of query {query} is no box x1, y1, x2, y2")
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2, y2


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from error


def _from_text_files(folder: Path) -> RetrievalTruth:
    """The classic sets as their authors publish them; database images are the photos found beside them."""
    asked = sorted(folder.glob("*_query.txt"))
    if not asked:
        raise DataError(f"{folder} has no *_query.txt", "unpack the ground truth of the classic set there")
    root = folder if (folder / "jpg").is_dir() else folder.parent
    images = sorted({path.stem for path in root.rglob("*") if path.suffix.lower() in _PHOTO_SUFFIXES})
    ids = {name: index for index, name in enumerate(images)}
    queries, boxes, labels = [], [], []
    for path in asked:
        name, *corners = _words(path) or [""]
        queries.append(name.removeprefix("oxc1_"))
        try:
            boxes.append(_box([float(word) for word in corners], queries[-1], path))
        except ValueError as error:
            raise _broken(path, "expected: photo x1 y1 x2 y2") from error
        stem = path.name.removesuffix("query.txt")
        right = _words(folder / f"{stem}good.txt") + _words(folder / f"{stem}ok.txt")
        listed = {"ok": right, "junk": _words(folder / f"{stem}junk.txt")}
        unknown = [each for names in listed.values() for each in names if each not in ids]
        if unknown:
            raise _broken(path, f"its lists have {unknown[0]}, and there is no such photo below {root}")
        labels.append({label: _sorted_ids(names, ids) for label, names in listed.items()})
    return RetrievalTruth(tuple(images), tuple(queries), tuple(boxes), tuple(labels))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "unpack the whole ground truth") from error
    except UnicodeDecodeError as error:
        raise _broken(path, str(error)) from error


def _sorted_ids(names: list[str], ids: dict[str, int]) -> Array:
    return np.unique(np.array([ids[name] for name in names], np.int64))


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path} is no usable ground truth: {why}", "copy it again from its source")
