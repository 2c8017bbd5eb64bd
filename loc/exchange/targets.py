"""Where an export goes: a file or a folder that appears whole, and replaces only what an export made.

A folder is filled beside its place and renamed at the end, with ``export.json`` in it; what stood
there before is moved away only then. An export that is interrupted leaves the former one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from loc import __version__
from loc.errors import DataError
from loc.record import FILE
from loc.stores.files import make_folder, remove_tree, sync, write_atomically, write_json, writing

#: Says that a folder is an export, what it holds and how large its files are.
MANIFEST = "export.json"


@contextmanager
def export_folder(target: Path, about: dict[str, Any], *, force: bool = False) -> Iterator[Path]:
    """A folder to fill; renamed to ``target`` when the block ends without an error.

    Args:
        target: must not exist, be empty, or (with ``force``) hold a former export.
        about: goes into ``export.json``, together with the names and sizes of the files.

    Raises:
        DataError: ``target`` holds something that must not be replaced.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  (`-o .` and `-o ..` have no name of their own)
    _check_folder(target, force=force)  # before anything is made
    make_folder(target.parent)
    partial, former = (target.with_name(f".{target.name}.{kind}") for kind in ("partial", "former"))
    with _alone(target):
        if former.exists() and not target.exists():  # killed between the two renames
            former.rename(target)
        _check_folder(target, force=force)
        remove_tree(partial)
        try:
            yield make_folder(partial)
            with writing(target.parent):
                files = sorted(path for path in partial.rglob("*") if path.is_file())
                for path in files:
                    sync(path)
                sizes = {path.relative_to(partial).as_posix(): path.stat().st_size for path in files}
                write_json(partial / MANIFEST, {"loc": __version__, **about, "files": sizes})
                _swap(partial, target, former)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def export_file(target: Path, write: Callable[[Path], None], *, begins: bytes, force: bool = False) -> None:
    """Let ``write`` fill a temporary file with the ending of ``target``, then rename it into place.

    Args:
        begins: how every such export begins: with ``force``, only a file that does so is replaced.

    Raises:
        DataError: ``target`` is something that must not be replaced.
    """
    if target.is_dir():
        raise DataError(f"{target} is a folder", "give a file to write: -o FILE")
    if target.exists() and not force:
        raise DataError(f"{target} exists already", "add --force to replace it, or give another -o")
    if target.exists() and not _begins(target, begins):
        raise DataError(
            f"{target} is no former export of this kind: it is not replaced",
            "give another -o, or delete the file yourself",
        )
    make_folder(target.parent)
    write_atomically(target, write)


def refuse_inside(run: Path, target: Path) -> None:
    """Keep what is written for others out of a run folder, whose files are only its own.

    Args:
        run: a run folder, or a folder in one (a map's).

    Raises:
        DataError: ``target`` is the run folder, lies in it or holds it, by whatever links.
    """
    folder = run.resolve()
    owner = next((each for each in (folder, *folder.parents) if (each / FILE).is_file()), folder)
    place = target.resolve()
    if place.is_relative_to(owner) or owner.is_relative_to(place):
        where = "is inside" if place.is_relative_to(owner) else "holds"
        raise DataError(
            f"{target} {where} the run folder {owner}", "give a place beside the run folder with -o"
        )


def _begins(path: Path, start: bytes) -> bool:
    if not path.is_file():  # a pipe or a device
        return False
    with writing(path), path.open("rb") as file:
        return file.read(len(start)) == start


def _check_folder(target: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise DataError(f"{target} is a file, not a folder", "give a folder to write: -o DIR")
    with writing(target):
        empty = not any(target.iterdir())
    if empty or (force and (target / MANIFEST).is_file()):
        return
    if force:  # --force must not be able to delete somebody's photos
        raise DataError(
            f"{target} holds files that no export made: it has no {MANIFEST}",
            "give another -o, or empty the folder yourself",
        )
    raise DataError(f"{target} is not empty", "add --force to replace a former export, or give another -o")


def _swap(partial: Path, target: Path, former: Path) -> None:
    """Put ``partial`` in the place of ``target``; if that fails the former folder is back."""
    remove_tree(former)
    if target.exists():
        target.rename(former)
    try:
        partial.rename(target)
    except OSError:
        if former.exists():
            former.rename(target)
        raise
    sync(target.parent)
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep a second export away from the same place; the lock's file is gone afterwards."""
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    with writing(target.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise DataError(
                f"another process is writing {target}", "wait for it, or give another -o"
            ) from error
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # Windows keeps it where somebody else has it open
            path.unlink(missing_ok=True)
