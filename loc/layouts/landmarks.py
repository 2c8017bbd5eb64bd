"""Solutions and predictions of Google Landmarks v2, as its CSV files have them (a header line, then rows)."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from loc.errors import DataError

#: Images of the last are in no score.
SPLITS = ("Public", "Private", "Ignored")


def read_recognition_solution(path: Path) -> dict[str, dict[str, frozenset[int]]]:
    """Split → image → its landmarks (none: an image without a landmark).

    Raises:
        DataError: no such file, a row that is not ``id,landmarks,Usage``, or an image twice.
    """
    out: dict[str, dict[str, frozenset[int]]] = {split: {} for split in SPLITS}
    for image, listed, usage in _solution_rows(path):
        out[usage][image] = frozenset(_integer(word, path) for word in listed.split())
    return out


def read_retrieval_solution(path: Path) -> dict[str, dict[str, frozenset[str]]]:
    """Split → query → its images; errors as of :func:`read_recognition_solution`."""
    out: dict[str, dict[str, frozenset[str]]] = {split: {} for split in SPLITS}
    for query, listed, usage in _solution_rows(path):
        out[usage][query] = frozenset(listed.split())
    return out


def read_recognition_predictions(
    path: Path, solution: Mapping[str, Mapping[str, Collection[int]]], split: str
) -> dict[str, tuple[int, float]]:
    """Image → (landmark, confidence) of one split; images of the other splits are left out.

    Raises:
        DataError: no such file, or a row that is not ``id,landmark confidence``, or an image twice.
    """
    out: dict[str, tuple[int, float]] = {}
    for image, listed in _prediction_rows(path):
        words = listed.split()
        if len(words) != 2:
            raise _broken(path, f"image {image} has {listed!r}: expected one landmark and its confidence")
        confidence = _number(words[1], path)
        if _in_split(image, solution, split):
            out[image] = (_integer(words[0], path), confidence)
    return out


def read_retrieval_predictions(
    path: Path, solution: Mapping[str, Mapping[str, Collection[str]]], split: str
) -> dict[str, list[str]]:
    """Query → images, best first, of one split; errors as of :func:`read_recognition_predictions`."""
    rows = _prediction_rows(path)
    return {query: listed.split() for query, listed in rows if _in_split(query, solution, split)}


def _in_split(name: str, solution: Mapping[str, Mapping[str, object]], split: str) -> bool:
    """Whether a prediction counts; one that no split has stays, so that the metric can refuse it."""
    return name in solution[split] or not any(name in other for other in solution.values())


def _solution_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    for row in _rows(path):
        if len(row) != 3 or row[2] not in SPLITS:
            raise _broken(path, f"row {','.join(row)[:80]!r} is not id,list,{'|'.join(SPLITS)}")
        yield row[0], row[1], row[2]


def _prediction_rows(path: Path) -> Iterator[tuple[str, str]]:
    for row in _rows(path):
        if len(row) > 2:
            raise _broken(path, f"row {','.join(row)[:80]!r} is not id,list")
        if len(row) == 2 and row[1].strip():  # an empty list is no prediction
            yield row[0], row[1]


def _rows(path: Path) -> Iterator[list[str]]:
    """Rows after the header; an id that comes twice is an error."""
    seen: set[str] = set()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            next(reader, None)
            for row in reader:
                if not row:
                    continue
                if row[0] in seen:
                    raise _broken(path, f"{row[0]} is there twice")
                seen.add(row[0])
                yield row
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise _broken(path, str(error)) from error


def _integer(word: str, path: Path) -> int:
    try:
        return int(word)
    except ValueError as error:
        raise _broken(path, f"{word!r} is no landmark: they are numbers") from error


def _number(word: str, path: Path) -> float:
    try:
        value = float(word)
    except ValueError as error:
        raise _broken(path, f"{word!r} is no confidence") from error
    if math.isnan(value):
        raise _broken(path, "a confidence is NaN")
    return value


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path}: {why}", "rows are id,list and, in solutions, the split; the first is a header")
