"""Downloads that survive a dropped connection: resumed, checked, renamed into place when complete."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loc.errors import ResourceError, WeightsError

log = logging.getLogger(__name__)
_BLOCK = 1 << 18
_TIMEOUT_S = 30.0
#: Attempts at one address that bring nothing new before the next address is tried.
_IDLE_ATTEMPTS = 3
_DROPPED = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)
#: Beside ``<name>.part``: the server's name (ETag) of the version that it is a part of.
_TAG = ".tag"


def download(urls: Sequence[str], path: Path, *, sha256: str | None, pause_s: float = 1.0) -> None:
    """Bring a file from the first address that gives it whole.

    What has arrived is kept in ``<name>.part`` and continued by a Range request, in this call or a
    later one; a server that ignores Range, or has another version by now, makes it start over.

    Args:
        urls: the file's address, then mirrors of the same bytes.
        sha256: of the whole file, or None where it is not known.
        pause_s: wait between attempts, doubled each time.

    Raises:
        WeightsError: no address gave the file; says what each of them answered.
    """
    part = path.with_name(path.name + ".part")
    said = []
    for url in urls:
        problem = _from(url, part, pause_s)
        if problem is None and sha256 is not None and hash_of(part) != sha256:
            problem = "it is complete, but not the published file (SHA-256 differs)"
            part.unlink(missing_ok=True)
        if problem is None:
            part.replace(path)
            _tag_of(part).unlink(missing_ok=True)
            return
        said.append(f"{url}: {problem}")
    raise WeightsError(
        f"cannot download {path.name}: {'; '.join(said)}",
        "try again later, or copy the file into a folder and name it with --weights-dir",
    )


def _from(url: str, part: Path, pause_s: float) -> str | None:
    """Bring ``part`` to its full length from one address; a sentence if that fails."""
    idle, most, problem = 0, _size(part), "nothing came"
    while idle < _IDLE_ATTEMPTS:
        before = _size(part)
        try:
            if _continue(url, part, before):
                return None
            problem = "the connection was dropped"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                return f"HTTP {error.code} {error.reason}"
            if error.code == 416:  # what we have is longer than the file: it is another one
                part.unlink(missing_ok=True)
            problem = f"HTTP {error.code} {error.reason}"
        except (*_DROPPED, ValueError) as error:  # ValueError: redirected to what is no address
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        # More than ever before: a server that ignores Range brings the same bytes again and again.
        idle = 0 if _size(part) > most else idle + 1
        most = max(most, _size(part))
        if idle < _IDLE_ATTEMPTS:
            time.sleep(pause_s * 2**idle if idle else 0)
    return problem


def _continue(url: str, part: Path, have: int) -> bool:
    """Ask for what is missing and append it; True when the file is complete."""
    request = urllib.request.Request(url, headers={"User-Agent": "visloc"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    tag = _tag_of(part)
    known = tag.read_text(encoding="ascii", errors="replace") if have and tag.is_file() else ""
    if known:
        request.add_header("If-Range", known)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        if answer.headers.get_content_type() == "text/html":
            raise urllib.error.URLError("it answers with a web page instead of the file")
        resumed = answer.status == 206 and _starts_at(answer) == have
        version = _version(answer)
        if resumed and known and version and version != known:  # a server that ignores If-Range
            part.unlink()
            raise urllib.error.URLError("it offers another version of the file by now")
        expected = _length(answer)
        received = have if resumed else 0
        if expected is not None:
            expected += received
        if not resumed:
            with _opened(tag, "wb") as file:
                _written(file, version.encode("ascii", "ignore"), tag)
        with _opened(part, "ab" if resumed else "wb") as file:
            while block := answer.read(_BLOCK):
                received += _written(file, block, part)
            os.fsync(file.fileno())
    return expected is None or received == expected


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _tag_of(part: Path) -> Path:
    return part.with_name(part.name + _TAG)


def _version(answer: Any) -> str:
    """A strong ETag, which says that bytes are the same; nothing otherwise."""
    value = str(answer.headers.get("ETag", ""))
    return value if value.startswith('"') else ""


def _opened(part: Path, mode: str) -> Any:
    try:
        return part.open(mode)
    except OSError as error:
        raise WeightsError(
            f"cannot write {part}: {error.strerror}", "choose another cache folder with LOC_CACHE_DIR"
        ) from error


def _written(file: Any, block: bytes, part: Path) -> int:
    try:
        return int(file.write(block))
    except OSError as error:  # what is there is kept: the next call resumes
        raise ResourceError(
            f"cannot write {part}: {error.strerror}", "free some space, then run the same command again"
        ) from error


def _starts_at(answer: Any) -> int:
    """First byte of a partial answer: ``bytes 100-199/200``."""
    value = answer.headers.get("Content-Range", "").partition(" ")[2].partition("-")[0]
    return int(value) if value.isdigit() else -1


def _length(answer: Any) -> int | None:
    value = answer.headers.get("Content-Length")
    return int(value) if value is not None and value.isdigit() else None


def hash_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
