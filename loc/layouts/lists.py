"""Text lists of the hloc and COLMAP world: images, intrinsics, pairs, poses.

One entry per line, UTF-8, blank lines and lines that begin with ``#`` are skipped. Names may hold
spaces: an intrinsics line is cut at its camera model, a pose line is read from the right, and a
pair line with more than two words is resolved against the known names.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loc.config import suggest
from loc.conventions import wxyz_from_xyzw, xyzw_from_wxyz
from loc.errors import DataError
from loc.layouts.names import check_name
from loc.stores.files import make_folder, write_text
from loc.types import CAMERA_PARAMS, Camera, Pose

_ORDER = "the order is: name MODEL WIDTH HEIGHT PARAMS, params as in COLMAP"


@dataclass(frozen=True)
class Line:
    """A line with content, and where it stands."""

    text: str
    path: Path
    number: int

    @property
    def where(self) -> str:
        return f"{self.path} line {self.number}"


@dataclass(frozen=True)
class Entry:
    """One image of an image list, with its intrinsics where the line has them."""

    name: str
    camera: Camera | None
    where: str


def read_lines(path: Path) -> list[Line]:
    """Lines with content of one file, or of all files that a glob matches (sorted)."""
    lines = []
    for each in expand_glob(path):
        try:
            text = each.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{each} is not a text file in UTF-8 (byte {error.start})", "save it again as UTF-8"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read the list {each}: {error.strerror}") from error
        for number, raw in enumerate(text.split("\n"), start=1):
            stripped = raw.strip()
            if stripped and not stripped.startswith("#"):
                lines.append(Line(stripped, each, number))
    return lines


def expand_glob(path: Path) -> list[Path]:
    """The file itself, or what it matches as a glob: ``queries/*_with_intrinsics.txt``."""
    if path.is_file():
        return [path]
    matches = sorted(glob.glob(str(path)))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    found = [Path(match) for match in matches if Path(match).is_file()]
    if not found:
        kind = "is a folder, not a list" if path.is_dir() else "does not exist"
        raise DataError(f"the list {path} {kind}", "check the path; it is relative to the working directory")
    return found


def read_entries(path: Path) -> list[Entry]:
    """An image list, each line ``name`` or ``name MODEL WIDTH HEIGHT PARAMS…``.

    A name that is repeated with the same intrinsics counts once.

    Raises:
        DataError: a name that cannot be used, an unknown model, a wrong number of parameters, numbers
            that are not finite, or a name with two different intrinsics; with file and line.
    """
    entries: dict[str, Entry] = {}
    for line in read_lines(path):
        entry = _parse_entry(line)
        before = entries.setdefault(entry.name, entry)
        if _as_text(before.camera) != _as_text(entry.camera):
            raise DataError(
                f"{entry.name!r} has two different intrinsics: {before.where} and {entry.where}",
                "keep one of the lines",
            )
    return list(entries.values())


def read_poses(path: Path) -> dict[str, Pose]:
    """``name qw qx qy qz tx ty tz`` (cam_from_world) per line.

    Raises:
        DataError: too few numbers, NaN, a zero quaternion or a name twice; with file and line.
    """
    poses: dict[str, Pose] = {}
    for line in read_lines(path):
        parts = line.text.rsplit(None, 7)
        numbers = _floats(parts[1:])
        if len(parts) != 8 or numbers is None:
            raise DataError(
                f"{line.where}: expected 'name qw qx qy qz tx ty tz', got {_short(line.text)!r}",
                "each line holds a name and seven numbers",
            )
        name = check_name(parts[0], where=line.where)
        if name in poses:
            raise DataError(f"{line.where}: {name!r} has a pose already", "keep one line per image")
        try:
            poses[name] = Pose(xyzw_from_wxyz(np.array(numbers[:4])), np.array(numbers[4:]))
        except DataError as error:
            raise DataError(f"{line.where}: {error.message}", error.next_step) from error
    return poses


def write_poses(path: Path, poses: Mapping[str, Pose]) -> None:
    """The inverse of :func:`read_poses`, sorted by name; numbers survive exactly."""
    lines = []
    for name in sorted(poses):
        numbers = [*wxyz_from_xyzw(poses[name].quat_xyzw), *poses[name].translation]
        lines.append(" ".join([name, *(repr(float(number)) for number in numbers)]))
    _write_lines(path, lines)


def read_pairs(path: Path, known: Collection[str] | None = None) -> list[tuple[str, str]]:
    """``name0 name1`` per line, in the order of the file; a tab between the names is decisive.

    Args:
        known: the names that exist; needed where names hold spaces and no tab is between them.

    Raises:
        DataError: a line that is no pair of known names, or can be cut in more than one way.
    """
    names = None if known is None else frozenset(known)
    return [_parse_pair(line, names) for line in read_lines(path)]


def write_pairs(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """``name0 name1`` per line, in the given order; no blank line and no line break at the end.

    (hloc's ``import_matches`` stops at a blank line.)
    """
    _write_lines(path, pair_lines(pairs))


def pair_lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A line per pair.

    Where a name holds a space the separator is a tab, which :func:`read_pairs` takes literally and
    which is white space for every other reader.
    """
    lines = []
    for first, second in pairs:
        separator = "\t" if len(f"{first} {second}".split()) > 2 else " "
        lines.append(f"{first}{separator}{second}")
    return lines


def write_names(path: Path, names: Iterable[str]) -> None:
    """One name per line."""
    _write_lines(path, list(names))


def _parse_entry(line: Line) -> Entry:
    words = list(re.finditer(r"\S+", line.text))
    tokens = [word.group() for word in words]
    models = [at for at in range(1, len(tokens)) if tokens[at] in CAMERA_PARAMS]
    if not models:
        _refuse_unknown_model(line, tokens)
        return Entry(check_name(line.text, where=line.where), None, line.where)
    at = models[-1]
    values = _floats(tokens[at + 1 :])
    expected = CAMERA_PARAMS[tokens[at]]
    if values is None or len(values) != expected + 2:
        got = "words that are no numbers" if values is None else f"{len(values)}"
        raise DataError(
            f"{line.where}: {tokens[at]} takes width, height and {expected} parameters "
            f"({expected + 2} numbers), got {got}",
            _ORDER,
        )
    name = check_name(line.text[: words[at].start()].rstrip(), where=line.where)
    return Entry(name, _camera(tokens[at], values, line), line.where)


def _refuse_unknown_model(line: Line, tokens: list[str]) -> None:
    """Four or more numbers at the end are intrinsics (or a pose), not a name with spaces."""
    numbers = 0
    while numbers < len(tokens) and _floats(tokens[len(tokens) - numbers - 1 :]) is not None:
        numbers += 1
    if numbers < 4:
        return
    if len(tokens) - numbers < 2:
        raise DataError(
            f"{line.where}: {numbers} numbers but no camera model in {_short(line.text)!r}",
            "each line is: name, or name MODEL WIDTH HEIGHT PARAMS",
        )
    model = tokens[len(tokens) - numbers - 1]
    raise DataError(
        f"{line.where}: unknown camera model {model!r}", suggest(model.upper(), list(CAMERA_PARAMS))
    )


def _camera(model: str, values: Sequence[float], line: Line) -> Camera:
    if any(not np.isfinite(value) or value != round(value) for value in values[:2]):
        raise DataError(
            f"{line.where}: width and height must be whole numbers, got {values[0]} {values[1]}", _ORDER
        )
    try:
        return Camera(model, int(values[0]), int(values[1]), np.array(values[2:]))
    except DataError as error:
        raise DataError(f"{line.where}: {error.message}", error.next_step or _ORDER) from error


def _parse_pair(line: Line, known: frozenset[str] | None) -> tuple[str, str]:
    gaps = list(re.finditer(r"\t" if "\t" in line.text else r"\s+", line.text))
    cuts = [(line.text[: gap.start()].strip(), line.text[gap.end() :].strip()) for gap in gaps]
    if known is None or not cuts:
        fitting = cuts
    else:
        fitting = [cut for cut in cuts if cut[0] in known and cut[1] in known]
        if not fitting and len(cuts) == 1:
            unknown = [name for name in cuts[0] if name not in known]
            raise DataError(
                f"{line.where}: {' and '.join(map(repr, unknown))}: no image of this scene has that name",
                "names are relative to the image root (scene.images)",
            )
    if len(fitting) == 1:
        first, second = fitting[0]
        return check_name(first, where=line.where), check_name(second, where=line.where)
    if len(fitting) > 1 and known is not None:
        raise DataError(
            f"{line.where}: {_short(line.text)!r} can be read as more than one pair of images",
            "put a tab between the two names",
        )
    raise DataError(
        f"{line.where}: expected two image names, got {_short(line.text)!r}",
        "names with spaces must be names of images in this scene, or put a tab between the two",
    )


def _floats(words: Sequence[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _as_text(camera: Camera | None) -> str:
    return "" if camera is None else str(camera.to_json())


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _write_lines(path: Path, lines: list[str]) -> None:
    make_folder(path.parent)
    write_text(path, "\n".join(lines))
