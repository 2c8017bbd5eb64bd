"""Change files: what one call added to an index and removed from it. Never modified once written.

A file is the vectors, a JSON object that says what they are, its length in eight bytes, and a mark. The
object comes last so that vectors can be checked and written in one pass, whatever their number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from loc.errors import DataError
from loc.retrieval.indexing.files import Hashing, check_file, damaged
from loc.stores.files import make_folder, sync, write_atomically

Array = np.ndarray
_MARK = b"locchg1\n"
_ROWS = 4096
#: How far from 1 the length of a vector may be: float16 storage moves it by 0.0005.
UNIT_TOLERANCE = 2e-3


@dataclass(frozen=True, eq=False)
class Change:
    """What one call did.

    Attributes:
        names, counts: images added (or replaced) and how many of ``vectors`` are each one's, in order.
        vectors: ``(n, dim)`` float32, mapped from the file.
        removed: images removed, before the others are added.
        sha256: over the object at the end of the file, which holds the hashes of the vectors.
    """

    names: list[str]
    counts: list[int]
    vectors: Array
    removed: list[str] = field(default_factory=list)
    sha256: str = ""


def write_change(
    path: Path,
    dim: int,
    previous: str,
    *,
    names: Sequence[str] = (),
    counts: Sequence[int] = (),
    vectors: Any = (),
    removed: Sequence[str] = (),
) -> str:
    """Write a change file, on the disk when this returns; the SHA-256 that :func:`read_change` finds.

    Args:
        previous: that of the change before, or of the base: so the last hash vouches for all.
        vectors: anything whose slices are arrays, ``(n, dim)`` (``numpy.memmap``, an h5py data set), of unit
            norm. Rows of zeros are left out: they could never be found.

    Raises:
        DataError: a row is not finite or not of unit norm; nothing is written then.
    """
    found = ""

    def write(temporary: Path) -> None:
        nonlocal found
        with temporary.open("wb") as file:
            kept, hashing = _write_vectors(file, vectors, dim)
            ends = np.cumsum(np.concatenate([[0], counts])).astype(np.int64)
            before = np.concatenate([[0], np.cumsum(kept)])
            about = {
                "names": list(names),
                "counts": np.diff(before[ends]).tolist(),
                "removed": list(removed),
                "dim": dim,
                "previous": previous,
                "vectors": hashing.to_json(),
            }
            text = json.dumps(about, sort_keys=True).encode("ascii")
            found = hashlib.sha256(text).hexdigest()
            file.write(text + len(text).to_bytes(8, "little") + _MARK)

    make_folder(path.parent)
    write_atomically(path, write)
    sync(path.parent)
    return found


def _write_vectors(file: BinaryIO, vectors: Any, dim: int) -> tuple[Array, Hashing]:
    """Write the rows that are not zero; which ones they are."""
    kept, hashing = np.zeros(len(vectors), bool), Hashing()
    for top in range(0, len(vectors), _ROWS):
        rows = unit_rows(vectors[top : top + _ROWS], dim, "vectors", first=top)
        kept[top : top + len(rows)] = rows.any(axis=1)
        block = rows[kept[top : top + len(rows)]].astype("<f4").tobytes()
        hashing.update(block)
        file.write(block)
    return kept, hashing


def unit_rows(values: Any, dim: int, what: str, *, first: int = 0) -> Array:
    """``values`` as ``(n, dim)`` float32, checked: finite, of unit norm or zero.

    Raises:
        DataError: they are not; ``what`` and ``first`` say which row in the message.
    """
    rows = np.ascontiguousarray(values, np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise DataError(
            f"{what} have shape {rows.shape}, the index holds vectors of {dim} dimensions",
            "use the descriptor and the fit that the index was made with",
        )
    squared = np.einsum("nd,nd->n", rows, rows)
    wrong = ~((abs(squared - 1) <= 2 * UNIT_TOLERANCE) | ~rows.any(axis=1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        finite = bool(np.isfinite(rows[row]).all())
        why = f"has norm {squared[row] ** 0.5:.4g}" if finite else "holds NaN or infinity"
        raise DataError(
            f"row {first + row} of {what} {why}: unit norm is needed",
            "divide descriptors by their norm" if finite else "extract it again",
        )
    return rows


def read_change(root: Path, path: Path, dim: int, previous: str, *, whole: bool = False) -> Change:
    """Read a change file; its vectors are mapped, not loaded.

    Raises:
        StoreError: it is missing, truncated, or not the one that followed ``previous``.
    """
    text = _text(root, path)
    try:
        about = json.loads(text)
        hashes, length = about["vectors"], int(about["vectors"]["bytes"])
        change = about["names"], about["counts"], about["removed"], about["dim"], about["previous"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(root, path, f"what it says of itself cannot be read ({error})") from error
    names, counts, removed, its_dim, its_previous = change
    if (its_dim, its_previous) != (dim, previous) or length != sum(counts) * dim * 4:
        raise damaged(root, path, "it does not follow the change before it")
    if path.stat().st_size != length + len(text) + 16:
        raise damaged(root, path, f"expected {length + len(text) + 16} bytes, got {path.stat().st_size}")
    check_file(root, path, hashes, whole=whole, length=length)
    vectors = map_rows(path, length // (4 * dim), dim)
    return Change(names, counts, vectors, removed, hashlib.sha256(text).hexdigest())


def _text(root: Path, path: Path) -> bytes:
    """The JSON object at the end of a change file."""
    if not path.is_file():
        raise damaged(root, path, "it is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 16))
        tail = file.read(16)
        length = int.from_bytes(tail[:8], "little")
        if len(tail) < 16 or tail[8:] != _MARK or length > size - 16:
            raise damaged(root, path, "its end is missing")
        file.seek(size - 16 - length)
        return file.read(length)


def map_rows(path: Path, count: int, dim: int) -> Array:
    """The first ``count`` rows of a file of float32, mapped."""
    if not count:
        return np.zeros((0, dim), np.float32)
    return np.asarray(np.memmap(path, dtype="<f4", mode="r", shape=(count, dim)))
