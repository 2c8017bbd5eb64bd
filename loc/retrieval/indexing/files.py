"""Files of an index: which generation counts, and whether what is on disk is what was written.

::

    index.json                     which generation, how many changes count: the only file that is replaced
    generation-000002/
      base.json                    kind, sizes and hashes of the files of the base
      images.json                  names of the base and vectors per name
      vectors.f32, base.faiss      one of them, or both (ivfpq)
      changes/000001.change …      what was added and removed since, in order
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loc.config.index import IndexConfig
from loc.errors import StoreError
from loc.stores.files import read_sealed, remove_orphans, sync, write_sealed

POINTER = "index.json"
BASE = "base.json"
IMAGES = "images.json"
VECTORS = "vectors.f32"
FAISS = "base.faiss"
#: Raised when files of older versions cannot be read any more.
FORMAT = 1
#: Opening compares the hash of this many bytes at the start of each file, and its length: an index of many
#: gigabytes must not be read whole to be opened. :meth:`~loc.retrieval.index.VectorIndex.check` reads all.
CHECKED_BYTES = 64 * 2**20
_BLOCK = 2**20


@dataclass(frozen=True)
class Pointer:
    """What an index folder holds now.

    Attributes:
        generation: number of the folder that counts.
        changes: how many of its change files count; a later one was never finished.
        head: hash of the last of them, which holds the hash of the one before, and so on.
        dim: of the vectors.
        descriptor: what made them.
        config: as the index was created.
    """

    generation: int
    changes: int
    head: str
    dim: int
    descriptor: str
    config: IndexConfig


def cure(root: Path) -> str:
    """What to do about a damaged index."""
    return f"restore {root} from a copy, or delete that folder and build the index again"


def damaged(root: Path, path: Path, why: str) -> StoreError:
    return StoreError(f"{path} is damaged: {why}", cure(root))


def read_pointer(root: Path) -> Pointer:
    """Raises: StoreError: there is no index in ``root``, or its first file is not what was written."""
    path = root / POINTER
    if not path.is_file():
        raise StoreError(f"{root} holds no index: {POINTER} is missing", "create one: loc index build")
    data = read_sealed(path, cure=cure(root))
    if data.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {data.get('format')!r}; this version of loc reads {FORMAT}",
            "build the index again with this version, or use the version that made it",
        )
    fields = {name: data.get(name) for name in ("generation", "changes", "head", "dim", "descriptor")}
    kinds = {"generation": int, "changes": int, "head": str, "dim": int, "descriptor": str}
    wrong = [name for name, kind in kinds.items() if type(fields[name]) is not kind]
    if wrong or min(data["generation"], data["changes"], data["dim"] - 1) < 0:
        raise damaged(root, path, f"{', '.join(wrong) or 'a number'} cannot be")
    try:
        config = IndexConfig.model_validate(data.get("config"))
    except ValidationError as error:
        raise damaged(root, path, f"config: {error.errors()[0]['msg']}") from error
    return Pointer(**{name: data[name] for name in fields}, config=config)


def write_pointer(root: Path, pointer: Pointer) -> None:
    """The moment at which a change or a compaction happens; it is on the disk when this returns."""
    remove_orphans(root, prefix=f".{POINTER}.")  # of writers that were killed here
    fields = {**asdict(pointer), "config": pointer.config.model_dump()}
    write_sealed(root / POINTER, {**fields, "format": FORMAT})
    sync(root)


def generation_folder(root: Path, number: int) -> Path:
    return root / f"generation-{number:06d}"


def change_path(root: Path, generation: int, number: int) -> Path:
    return generation_folder(root, generation) / "changes" / f"{number:06d}.change"


def remove_generations(root: Path, *, keep: tuple[int, ...]) -> None:
    """Delete generations that do not count any more, and what a killed compaction left.

    Where a reader still has a file open and the system therefore refuses (Windows), it stays for next time.
    """
    kept = {generation_folder(root, number).name for number in keep}
    for folder in sorted(root.glob("generation-*")):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


class Hashing:
    """Hash and length of what passes by, a block at a time."""

    def __init__(self) -> None:
        self._start, self._all, self._size = hashlib.sha256(), hashlib.sha256(), 0

    def update(self, block: bytes | memoryview) -> None:
        if self._size < CHECKED_BYTES:
            self._start.update(block[: CHECKED_BYTES - self._size])
        self._all.update(block)
        self._size += len(block)

    def to_json(self) -> dict[str, Any]:
        return {
            "bytes": self._size,
            "sha256": self._all.hexdigest(),
            "start": min(self._size, CHECKED_BYTES),
            "sha256_of_start": self._start.hexdigest(),
        }


def hash_of(path: Path) -> dict[str, Any]:
    """Length and hashes of a file, as :func:`check_file` compares them."""
    hashing = Hashing()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hashing.update(block)
    return hashing.to_json()


def check_file(root: Path, path: Path, expected: Any, *, whole: bool, length: int | None = None) -> None:
    """Compare a file, or its first ``length`` bytes, with what was written.

    Raises:
        StoreError: it is missing, shorter or longer, or its bytes are others.
    """
    known = expected if isinstance(expected, dict) else {}
    size, start = known.get("bytes"), known.get("start")
    if type(size) is not int or type(start) is not int:
        raise damaged(root, path, "no length of it was recorded")
    if not path.is_file():
        raise damaged(root, path, f"expected {size} bytes, got nothing")
    if length is None and path.stat().st_size != size:
        raise damaged(root, path, f"expected {size} bytes, got {path.stat().st_size}")
    sha, left = hashlib.sha256(), size if whole else start
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            sha.update(block)
            left -= len(block)
    if sha.hexdigest() != known.get("sha256" if whole else "sha256_of_start"):
        raise damaged(root, path, "its bytes do not match their hash")
