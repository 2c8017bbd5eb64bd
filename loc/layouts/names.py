"""Names of images: what is allowed, and what a name says about the photo."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

from loc.errors import DataError

_CONDITIONS = ("day", "night")
#: Characters of a path, bytes of one of its components (the common limits of file systems).
_LONGEST, _LONGEST_PART = 2048, 255


def name_problem(name: str) -> str | None:
    """Why ``name`` cannot name an image, or None.

    A name is a relative path with ``/``. It is written into text files of one image per line, so it
    can hold spaces, but not begin or end with one, and no line break.
    """
    if not name:
        return "it is empty"
    if len(name) > _LONGEST or any(
        len(part.encode("utf-8", "surrogatepass")) > _LONGEST_PART for part in name.split("/")
    ):
        return "it is longer than a file's name can be"
    if name.startswith("/") or PureWindowsPath(name).drive:
        return "it is absolute; names are relative to the image root"
    parts = name.split("/")
    if ".." in parts:
        return "it leaves the image root by '..'"
    if "." in parts or "" in parts:
        return "it has an empty or '.' component"
    if name != name.strip():
        return "it begins or ends with a space"
    if name.startswith("#"):
        return "it begins with '#', which is a comment in lists"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        return "it holds a control character or is not valid UTF-8"
    return None


def check_name(name: str, *, where: str) -> str:
    """``name`` itself, or a :class:`DataError` that says where it came from and what is wrong."""
    problem = name_problem(name)
    if problem is not None:
        raise DataError(
            f"image name {_short(name)!r} ({where}) cannot be used: {problem}",
            "names are relative to the image root (scene.images), with / between folders",
        )
    return name


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:197]}..."


def group_of(name: str) -> str:
    """Evaluation group of a query: ``day`` or ``night`` if a component of its path says so, else ``all``.

    >>> group_of("query/night/nexus5x/a.jpg")
    'night'
    """
    for part in PurePosixPath(name).parts:
        if part.lower() in _CONDITIONS:
            return part.lower()
    return "all"
