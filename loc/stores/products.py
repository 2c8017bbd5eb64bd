"""Products: artefacts that exist whole or not at all.

A product is built in ``<name>.partial/``, gets its manifest last, and is renamed once. A lock
keeps two processes from building the same one; the second finds it done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from loc.errors import StoreError
from loc.stores.files import make_folder, read_json, remove_tree, sync, write_json, writing

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
            "seconds": round(time.perf_counter() - started, 3),
        }
        with writing(folder):
            for path in files:
                sync(path)
            write_json(partial / MANIFEST, manifest)
            partial.rename(folder)
            sync(folder.parent)
    finally:
        lock.release()
    return folder


def read_manifest(folder: Path, *, check: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """Manifest of a complete product; checks that its files are there with their sizes.

    Args:
        check: beginnings of the names to check; others may have been deleted to save space.

    Raises:
        StoreError: the product is incomplete or a file was truncated.
    """
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    for name, size in manifest["files"].items():
        path = folder / name
        if not name.startswith(check):
            continue
        if not path.is_file() or path.stat().st_size != size:
            got = f"{path.stat().st_size} bytes" if path.is_file() else "nothing"
            raise StoreError(
                f"{path} is damaged: expected {size} bytes, got {got}",
                f"delete the folder {folder} and run the same command again",
            )
    return manifest
