"""Finding weights: in the folders a user names, in the cache, or at their URL; always with a hash.

``LOC_WEIGHTS_DIR`` (or ``--weights-dir``) names folders to look in first, separated as in ``PATH``;
``LOC_OFFLINE=1`` forbids downloads. A file without a published hash is pinned on first use: its hash
goes into ``weights.lock.json`` of the cache, and another file of that name is refused from then on.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from loc.errors import WeightsError
from loc.weights.card import WeightFile
from loc.weights.download import download, hash_of

log = logging.getLogger(__name__)
LOCK = "weights.lock.json"


def cache_folder() -> Path:
    """Where downloads go; ``LOC_CACHE_DIR`` moves it."""
    chosen = os.environ.get("LOC_CACHE_DIR")
    return Path(chosen) if chosen else user_cache_path("visloc") / "weights"


def search_folders() -> list[Path]:
    """Folders that are searched for weights, in order; the cache is the last."""
    named = os.environ.get("LOC_WEIGHTS_DIR", "")
    return [Path(part) for part in named.split(os.pathsep) if part] + [cache_folder()]


def offline() -> bool:
    """Whether downloads are forbidden."""
    return os.environ.get("LOC_OFFLINE", "").lower() not in ("", "0", "false", "no")


def find(file: WeightFile) -> Path | None:
    """Where a file is on this machine, unchecked; None: nowhere."""
    return next((folder / file.name for folder in search_folders() if (folder / file.name).is_file()), None)


def needed(files: Sequence[WeightFile]) -> tuple[WeightFile, ...]:
    """Those that are to be here: without the ones replaced by a stand-in, and without idle stand-ins."""
    out: set[str] = set()
    for file in files:
        if any(each.name in file.stands_for and not each.offered and find(each) is None for each in files):
            out |= set(file.stands_for)
        elif file.stands_for:
            out.add(file.name)
    return tuple(file for file in files if file.name not in out)


def locate(file: WeightFile) -> Path:
    """A file of verified weights, downloaded if need be.

    Raises:
        WeightsError: it is nowhere and may not or cannot be downloaded, or its hash is not the expected.
    """
    path = find(file)
    if path is None:
        if offline():
            raise WeightsError(
                f"the weights {file.name} are not on this machine, and LOC_OFFLINE forbids the download",
                f"copy them from {file.url} into a folder and name it with --weights-dir",
            )
        path = fetch(file)
    verify(file, path)
    return path


def fetch(file: WeightFile) -> Path:
    """Download a file into the cache, resuming what is there of it; nothing if it is complete."""
    if not file.offered:
        raise WeightsError(
            f"{file.name} is offered nowhere as a file; {file.url} tells of it: {file.note}",
            "copy it into a folder and name it with --weights-dir; what stands for it: loc weights list",
        )
    folder = _made(cache_folder())
    path = folder / file.name
    with FileLock(folder / f".{file.name}.lock"):
        if not path.is_file():
            log.warning("downloading %s (licence: %s)", file.url, file.licence)
            download((file.url, *file.mirrors), path, sha256=file.sha256)
    return path


def verify(file: WeightFile, path: Path) -> str:
    """The SHA-256 of a file, if it is the expected one; pins it if none was expected so far.

    Raises:
        WeightsError: it is another file than the authors' or the pinned one.
    """
    found = sha256_of(path)
    expected, source = file.sha256, "published"
    if expected is None:
        expected, source = pinned(file), f"pinned in {cache_folder() / LOCK}"
    if expected is None:
        _pin(file, found)
    elif expected != found:
        raise WeightsError(
            f"{path} is not the expected file: its SHA-256 is {found[:16]}…, {expected[:16]}… is {source}",
            "delete it and fetch it again, or drop the pin if you trust it: loc weights verify --repin "
            + file.name,
        )
    return found


def pinned(file: WeightFile) -> str | None:
    """The hash noted when a file was first used."""
    return _pins(cache_folder() / LOCK).get(file.url)


def repin(file: WeightFile, path: Path) -> str:
    """Trust the file that is there from now on."""
    found = sha256_of(path)
    _pin(file, found)
    return found


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file; read once per process while the file stays the same."""
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}", "see: loc weights list") from error


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    return hash_of(path)


def _pin(file: WeightFile, sha256: str) -> None:
    try:
        folder = _made(cache_folder())
        with FileLock(folder / f".{LOCK}.lock"):
            pins = {**_pins(folder / LOCK), file.url: sha256}
            temporary = folder / f".{LOCK}.{os.getpid()}.tmp"
            temporary.write_text(json.dumps(pins, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            temporary.replace(folder / LOCK)
    except (WeightsError, OSError) as error:  # a read-only home must not stop a run
        log.warning("cannot pin the hash of %s: %s", file.name, error)


def _pins(lock: Path) -> dict[str, str]:
    if not lock.is_file():
        return {}
    try:
        pins = json.loads(lock.read_text(encoding="utf-8"))
        if not isinstance(pins, dict):
            raise ValueError(f"it holds no hashes by address but {type(pins).__name__}")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{lock} is damaged: {error}", "delete it: hashes are pinned anew") from error
    return {str(url): str(sha256) for url, sha256 in pins.items()}


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"cannot make the weights cache {folder}: {error.strerror}", "choose another with LOC_CACHE_DIR"
        ) from error
    return folder


def identity(file: WeightFile) -> str:
    """What stands for the file in a fingerprint: its hash, or its address as long as it is nowhere."""
    path = find(file)
    if path is not None:
        return verify(file, path)
    return file.sha256 or pinned(file) or file.url
