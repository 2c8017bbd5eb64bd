"""Images that lists ask for and that are not there, with a guess at what was meant."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from loc.doctor.findings import Finding, data, some
from loc.doctor.inventory import Inventory

_NUMBER = re.compile(r"[0-9]+")


def missing_images(found: Inventory) -> Iterator[Finding]:
    """A problem per list or model that names images which are not under the root."""
    by_source: dict[str, list[str]] = defaultdict(list)
    every: dict[str, int] = defaultdict(int)
    for item in found.listed:
        source = item.where.partition(" line ")[0]
        every[source] += 1
        if item.name not in found.photos and not (found.root / item.name).is_file():
            by_source[source].append(item.name)
    for source, names in sorted(by_source.items()):
        yield data(
            "problem",
            "missing",
            f"{len(names)} of {every[source]} images of {source} are not under {found.root}: {some(names)}",
            did_you_mean(names, sorted(found.photos), found.root),
            names=names,
        )


def did_you_mean(missing: Sequence[str], photos: Sequence[str], root: Path) -> str:
    """What to type, judged by the first missing names that have a photo of the same file name.

    >>> did_you_mean(["db/1.jpg"], ["images/db/1.jpg"], Path("data"))
    "did you mean another image root?  --set scene.images='data/images'"
    >>> did_you_mean(["photos/1.jpg"], ["1.jpg"], Path("photos"))
    "did you mean another image root?  --set scene.images='.'   or take 'photos/' off the names in the list"
    >>> did_you_mean(["a/1.jpg"], ["a/1.png"], Path("data"))
    "the photos end in '.png', the list in '.jpg': 'a/1.png' exists; mend the list"
    """
    by_file: dict[str, list[str]] = defaultdict(list)
    by_stem: dict[str, str] = {}
    for photo in photos:
        by_file[PurePosixPath(photo).name].append(photo)
        by_stem[str(PurePosixPath(photo).with_suffix(""))] = photo
    for name in missing[:20]:
        for photo in by_file.get(PurePosixPath(name).name, ()):
            advice = _other_root(name, photo, root)
            if advice:
                return advice
        other = by_stem.get(str(PurePosixPath(name).with_suffix("")))
        if other is not None:
            ends = PurePosixPath(other).suffix, PurePosixPath(name).suffix
            return f"the photos end in {ends[0]!r}, the list in {ends[1]!r}: {other!r} exists; mend the list"
    others = [photo for photo in photos if not _other_number(missing[0], photo)]
    close = difflib.get_close_matches(missing[0], others, n=1, cutoff=0.8) if len(others) < 20_000 else []
    if close:
        return f"did you mean {close[0]!r}? {missing[0]!r} is in the list; mend one of them"
    return "copy the photos there, or give another image root: --set scene.images=PHOTOS"


def _other_number(one: str, other: str) -> bool:
    """Whether names differ in nothing but the value of a number: frames of a sequence are close to all."""
    return _NUMBER.sub("0", one) == _NUMBER.sub("0", other) and _numbers(one) != _numbers(other)


def _numbers(name: str) -> list[str]:
    return [digits.lstrip("0") for digits in _NUMBER.findall(name)]


def _other_root(name: str, photo: str, root: Path) -> str:
    if photo.endswith(f"/{name}"):
        return f"did you mean another image root?  --set scene.images='{root / photo[: -len(name) - 1]}'"
    if name.endswith(f"/{photo}"):
        prefix = PurePosixPath(name[: -len(photo) - 1])
        here = PurePosixPath(root.as_posix())
        if here.parts[-len(prefix.parts) :] == prefix.parts:
            above = PurePosixPath(*here.parts[: -len(prefix.parts)])
            return (
                f"did you mean another image root?  --set scene.images='{above}'   or take "
                f"{str(prefix) + '/'!r} off the names in the list"
            )
        return (
            f"the list has {str(prefix) + '/'!r} before the names, the image root has not: {photo!r} exists"
        )
    return f"{photo!r} has the same file name, in another folder: mend the list or move the photos"
