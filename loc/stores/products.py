"""Products: artefacts that exist whole or not at all.

A product is built in ``<name>.partial/``, gets its manifest last, and is renamed once. A lock
keeps two processes from building the same one; the second finds it done. The manifest holds size
and hash of every file: what was truncated or has a flipped bit is an error when it is read.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from loc.errors import StoreError
from loc.stores.files import RUN_AGAIN, make_folder, read_sealed, remove_tree, sync, write_sealed, writing

MANIFEST = "manifest.json"


def is_done(folder: Path) -> bool:
    """Whether the product is complete."""
    return (folder / MANIFEST).is_file()


def make_product(folder: Path, fields: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the product at ``folder``, built by ``build(partial_folder)`` if it is not there yet.

    Args:
        folder: final place; its name is usually the fingerprint of ``fields``.
        fields: what the product was made from, kept in its manifest.
        build: fills the folder it is given; whatever it raises leaves nothing behind that
            could be taken for a product.
    """
    if is_done(folder):
        return folder
    make_folder(folder.parent)
    with writing(folder.parent):
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    try:
        if is_done(folder):
            return folder
        partial = folder.with_name(f"{folder.name}.partial")
        remove_tree(partial)
        remove_tree(folder)  # a folder without a manifest is not a product
        make_folder(partial)
        started = time.perf_counter()
        build(partial)
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        manifest = {
            "fields": fields,
            "files": {path.relative_to(partial).as_posix(): path.stat().st_size for path in files},
            "sha256_of_files": {path.relative_to(partial).as_posix(): _sha256(path) for path in files},
            "seconds": round(time.perf_counter() - started, 3),
        }
        with writing(folder):
            for path in files:
                sync(path)
            write_sealed(partial / MANIFEST, manifest)
            partial.rename(folder)
            sync(folder.parent)
    finally:
        lock.release()
    return folder


def read_manifest(
    folder: Path, *, check: tuple[str, ...] = ("",), content: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Manifest of a complete product; checks that its files are there with their sizes.

    Args:
        check: beginnings of the names to check; others may have been deleted to save space.
        content: beginnings of the names whose bytes are compared with their hash too (1 GB/s).

    Raises:
        StoreError: the product is incomplete, or a file is not what was written.
    """
    manifest = read_sealed(folder / MANIFEST)
    for name, size in manifest["files"].items():
        path = folder / name
        if not name.startswith((*check, *content)):
            continue
        if not path.is_file() or path.stat().st_size != size:
            got = f"{path.stat().st_size} bytes" if path.is_file() else "nothing"
            raise _damaged(folder, path, f"expected {size} bytes, got {got}")
        expected = manifest.get("sha256_of_files", {}).get(name)  # manifests of older versions have none
        if expected is not None and name.startswith(content) and _sha256(path) != expected:
            raise _damaged(folder, path, "its bytes do not match their hash in the manifest")
    return manifest


def check_product(folder: Path, *names: str) -> None:
    """Compare files of a finished product with its manifest: all of them, or those that begin with a name.

    A folder without a manifest (copied by hand, or still being built) is taken as it is.

    Raises:
        StoreError: a file is missing or not what was written.
    """
    if is_done(folder):
        read_manifest(folder, check=names or ("",), content=names or ("",))


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _damaged(folder: Path, path: Path, why: str) -> StoreError:
    return StoreError(f"{path} is damaged: {why}", f"delete the folder {folder} and {RUN_AGAIN}")
