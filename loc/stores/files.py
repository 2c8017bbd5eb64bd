"""Writing to disk so that a kill, a full disk or a second process loses nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loc.errors import DataError, ResourceError, StoreError


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about writing into an error with a next step."""
    try:
        yield
    except OSError as error:
        # h5py reports a full disk as a plain OSError whose text holds the errno.
        if error.errno == errno.ENOSPC or "errno = 28" in str(error):
            raise ResourceError(
                f"no space left on the disk of {folder}", "free some space, then run the same command again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise DataError(
                f"cannot write to {folder}: {error.strerror}",
                "choose a folder you may write to with -o, or change its permissions",
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG):
            raise DataError(
                f"{folder} cannot be a folder to write to: {error.strerror}",
                "choose another folder with -o: no part of its path may be a file",
            ) from error
        raise


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems refuse to sync a folder
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path.parent):
        try:
            write(temporary)
            sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, or raise :class:`StoreError` with what to do."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing", "run the command that made this folder again") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path} is damaged: {error}", f"delete the folder {path.parent} and run again"
        ) from error


def remove_tree(folder: Path) -> None:
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)


def make_folder(folder: Path) -> Path:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
