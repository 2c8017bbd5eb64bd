"""Unpacking archives that may be hostile: plain files below one folder, of a bounded size."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from loc.errors import ResourceError, WeightsError

_MOST_FILES = 10_000
_MOST_BYTES = 8 << 30


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of a tar archive (compressed or not) below ``folder``.

    Owners, modes and times of the archive are not taken over.

    Raises:
        WeightsError: it is damaged or truncated, leads out of the folder, holds a link, a device or two
            files of one name, or is larger than any archive of weights. Nothing is written outside.
        ResourceError: the disk is full or may not be written.
    """
    seen: set[PurePosixPath] = set()
    total = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = _safe(archive, member)
                total += max(0, member.size)
                if len(seen) >= _MOST_FILES or total > _MOST_BYTES:
                    raise _refused(archive, "holds more than any archive of weights")
                if member.isdir():
                    continue
                if path in seen:
                    raise _refused(archive, f"holds {member.name!r} twice")
                seen.add(path)
                _write(tar, member, folder / path)
            _read_to_the_end(tar)
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise WeightsError(
            f"{archive} cannot be unpacked: {' '.join(str(error).split()) or type(error).__name__}",
            "it is truncated, damaged or no tar archive: delete it and fetch it again",
        ) from error
    except OSError as error:
        if error.filename is None and error.errno is None:  # gzip's and lzma's word for damage
            raise WeightsError(f"{archive} cannot be unpacked: {error}", "fetch it again") from error
        raise ResourceError(
            f"cannot unpack {archive}: {error.strerror}", "free some space, or set TMPDIR to another disk"
        ) from error


def _safe(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    if not (member.isreg() or member.isdir()):
        raise _refused(archive, f"holds {member.name!r}, which is a link or a device")
    path = PurePosixPath(member.name)
    parts = member.name.replace("\\", "/").split("/")
    if path.is_absolute() or ".." in parts or ":" in member.name or "\0" in member.name:
        raise _refused(archive, f"leads out of its folder: {member.name!r}")
    return PurePosixPath(*(part for part in parts if part not in ("", ".")))


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name} has no contents")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    if target.stat().st_size != member.size:
        raise tarfile.ReadError(f"{member.name} is shorter than the archive says")


def _read_to_the_end(tar: tarfile.TarFile) -> None:
    """The checksum of a compressed stream stands behind the last file, and is verified when it is read."""
    stream, rest = tar.fileobj, 0
    while stream is not None and (block := stream.read(1 << 20)):
        rest += len(block)
        if rest > _MOST_BYTES:
            raise tarfile.ReadError("it goes on behind its end")


def _refused(archive: Path, what: str) -> WeightsError:
    return WeightsError(f"{archive} {what}", "nothing of it is used; get the archive from its authors")
