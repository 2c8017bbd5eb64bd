"""Python, versions of what `loc` stands on, wheels in each other's way, disk and memory."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from loc.doctor.findings import Finding, Level, environment
from loc.doctor.natives import examine_natives

_DISTRIBUTION = "visloc"
_PYTHON = ((3, 10), (3, 13))
#: Distributions that install the same package: two of them overwrite each other's files.
_EXCLUSIVE = {
    "cv2": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
    "open3d": ("open3d", "open3d-cpu"),
    "faiss": ("faiss-cpu", "faiss-gpu"),
}
_GIB = 1 << 30


def examine_environment() -> list[Finding]:
    """Findings about the machine and the installed packages; nothing heavy is imported here."""
    return [
        *_python(),
        *_versions(),
        *_exclusive(),
        *examine_natives(),
        *_disk(),
        *_memory(),
    ]


def _python() -> Iterator[Finding]:
    found = sys.version_info[:2]
    shown = ".".join(map(str, sys.version_info[:3]))
    lowest, highest = (".".join(map(str, each)) for each in _PYTHON)
    if found < _PYTHON[0]:
        yield environment(
            "problem",
            "python",
            f"Python {shown} is older than {lowest}",
            f"make an environment with a newer one: python{highest} -m venv .venv",
        )
    elif found > _PYTHON[1]:
        yield environment(
            "warning",
            "python",
            f"Python {shown} is newer than {highest}, the newest that is tested",
            f"if something fails: python{highest} -m venv .venv",
        )
    else:
        yield environment("ok", "python", f"Python {shown}")
    if sys.getfilesystemencoding().lower() != "utf-8":
        yield environment(
            "warning",
            "encoding",
            f"file names are in {sys.getfilesystemencoding()}, not UTF-8",
            "export PYTHONUTF8=1",
        )


def _versions() -> Iterator[Finding]:
    """Each requirement against its minimum and the tested version."""
    tested, fine = tested_versions(), []
    for name, minimum in minimum_versions().items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield environment(
                "problem", "versions", f"{name} is not installed", f"pip install {_pin(name, tested)}"
            )
            continue
        known = tested.get(name.lower())
        if as_numbers(found) < as_numbers(minimum):
            yield environment(
                "problem",
                "versions",
                f"{name} {found} is older than {minimum}, the oldest that works",
                f"pip install -U {_pin(name, tested)}",
            )
        elif known is not None and as_numbers(found)[:2] != as_numbers(known)[:2]:
            yield environment(
                "warning",
                "versions",
                f"{name} {found} is not the tested {known}",
                f"if something fails: pip install {_pin(name, tested)}",
            )
        else:
            fine.append(f"{name} {found}")
    if fine:
        yield environment("ok", "versions", ", ".join(fine))


def minimum_versions() -> dict[str, str]:
    """Requirement → oldest version that works, from the metadata of the installed package."""
    try:
        lines = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a source tree that is not installed
        lines = []
    found = {}
    for line in lines:
        match = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", line)
        if match and "extra ==" not in line:
            found[match[1]] = match[2]
    return dict(sorted(found.items()))


def tested_versions() -> dict[str, str]:
    """Distribution (lower case) → version, from ``constraints.txt`` in the package or beside it."""
    package = Path(__file__).resolve().parent.parent
    for path in (package / "constraints.txt", package.parent / "constraints.txt"):
        if path.is_file():
            return dict(_constraints(path.read_text(encoding="utf-8")))
    return {}


def _constraints(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        requirement, _, marker = line.partition(";")
        name, _, pinned = requirement.strip().partition("==")
        if pinned and _applies(marker):
            yield name.lower(), pinned.strip()


def _applies(marker: str) -> bool:
    """Whether ``python_version >= "3.11"`` or ``<`` holds here; anything else does."""
    match = re.search(r'python_version\s*(>=|<)\s*"([\d.]+)"', marker)
    if match is None:
        return True
    newer = sys.version_info[:2] >= as_numbers(match[2])[:2]
    return newer if match[1] == ">=" else not newer


def as_numbers(text: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version, for comparison.

    >>> as_numbers("2.13.0+cpu") < as_numbers("2.14")
    True
    """
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in match[0].split(".")) if match else ()


def _pin(name: str, tested: dict[str, str]) -> str:
    return f"{name}=={tested[name.lower()]}" if name.lower() in tested else name


def _exclusive() -> Iterator[Finding]:
    for package, names in _EXCLUSIVE.items():
        found = [name for name in names if _installed(name)]
        if len(found) > 1:
            yield environment(
                "problem",
                "conflicts",
                f"{' and '.join(found)} are both installed and overwrite each other's files ({package})",
                f"pip uninstall -y {' '.join(found)} && pip install {found[0]}",
            )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _disk() -> Iterator[Finding]:
    for place, what in (
        (Path.cwd(), "the working directory"),
        (Path(tempfile.gettempdir()), "temporary files"),
    ):
        try:
            free = shutil.disk_usage(place).free
        except OSError as error:
            yield environment(
                "problem", "disk", f"{place} cannot be read: {error.strerror}", "cd to another folder"
            )
            continue
        said = f"{free / _GIB:.1f} GiB free for {what} ({place})"
        # Aachen Day-Night with SIFT takes some 30 GB; a small scene a few hundred MB.
        level = _level(free, warning=10 * _GIB, problem=1 * _GIB)
        todo = "" if level == "ok" else "free some space, or give a run folder on another disk: -o RUN"
        if level != "ok" and what == "temporary files":
            todo = "free some space, or export TMPDIR=FOLDER on another disk"
        yield environment(level, "disk", said, todo)


def _memory() -> Iterator[Finding]:
    available = _available_memory()
    if available is not None:
        level = _level(available, warning=4 * _GIB, problem=1 * _GIB)
        todo = (
            ""
            if level == "ok"
            else "close other programs, or give --workers 1 and --set features.resize_max=1024"
        )
        yield environment(level, "memory", f"{available / _GIB:.1f} GiB of memory available", todo)


def _available_memory() -> int | None:
    """Bytes, as the kernel estimates them; None where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return None if match is None else 1024 * int(match[1])


def _level(value: int, *, warning: int, problem: int) -> Level:
    if value < problem:
        return "problem"
    return "warning" if value < warning else "ok"
