"""Writing to disk so that a kill, a full disk or a second process loses nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loc.errors import DataError, ResourceError, StoreError

_SEAL = "sha256"
#: The next step after deleting what is damaged: a command that only reads makes nothing anew.
RUN_AGAIN = "run the command that made the run again"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about writing into an error with a next step."""
    try:
        yield
    except OSError as error:
        # h5py reports a full disk as a plain OSError whose text holds the errno.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "errno = 28" in str(error):
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


def require_space(folder: Path, nbytes: float) -> None:
    """Raise a :class:`ResourceError` where a disk has less than ``nbytes`` free.

    HDF5 does not survive a full disk: closing such a file can end the process with a segmentation
    fault (h5py 3.16 on a full tmpfs). So what goes through it asks first.
    """
    with writing(folder):
        free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise ResourceError(
            f"no space left on the disk of {folder}: {nbytes / 1e6:.1f} MB are needed, "
            f"{free / 1e6:.1f} MB are free",
            "free some space, then run the same command again",
        )


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
    temporary = path.with_name(f".{path.name}.{host()}-{os.getpid()}.tmp")
    with writing(path.parent):
        try:
            write(temporary)
            sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def host() -> str:
    """The name of this machine, fit for a file name: process numbers mean something on one machine only."""
    return "".join(c if c.isalnum() else "_" for c in socket.gethostname())[:24] or "host"


def remove_orphans(folder: Path, *, prefix: str) -> None:
    """Delete temporary files, ``<prefix><host>-<process>….tmp``, of processes here that have died."""
    start = f"{prefix}{host()}-"
    for path in sorted(folder.glob("*.tmp")):
        number = re.match(r"\d+", path.name.removeprefix(start)) if path.name.startswith(start) else None
        if number is not None and int(number[0]) != os.getpid():
            with suppress(PermissionError):  # alive, somebody else's
                try:
                    os.kill(int(number[0]), 0)
                except ProcessLookupError:
                    path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    A file name that is not UTF-8 reaches Python as lone surrogates; these are written as ``\\udcfc``,
    which in JSON means the same.
    """

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    write_atomically(path, write)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path, *, cure: str | None = None) -> Any:
    """Read JSON, or raise :class:`StoreError` with what to do (by default: delete its folder)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{path} is missing", "run the command that made this folder again") from error
    except (OSError, ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end
        raise _damaged(path, str(error), cure) from error


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object atomically, with a hash of itself, so that a flipped bit is not a number."""
    write_json(path, {**data, _SEAL: _seal(data)})


def read_sealed(path: Path, *, cure: str | None = None) -> dict[str, Any]:
    """What :func:`write_sealed` was given; a file without a hash (an older one) is taken as it is.

    Raises:
        StoreError: it is missing, no JSON object, or not what was written.
    """
    data = read_json(path, cure=cure)
    if not isinstance(data, dict):
        raise _damaged(path, "it holds no object", cure)
    seal = data.pop(_SEAL, None)
    if seal is not None and seal != _seal(data):
        raise _damaged(path, "its content does not match its sha256", cure)
    return data


def _seal(data: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(data, ensure_ascii=False))
    text = json.dumps(as_read, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _damaged(path: Path, why: str, cure: str | None) -> StoreError:
    return StoreError(f"{path} is damaged: {why}", cure or f"delete the folder {path.parent} and {RUN_AGAIN}")


def remove_tree(folder: Path) -> None:
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)


def make_folder(folder: Path) -> Path:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; those that another process deletes meanwhile are left out."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(where, name).stat().st_size
    return total
