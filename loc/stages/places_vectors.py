"""Vectors made elsewhere, for an index without photos: hloc's global descriptors, or NumPy's arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32

from loc.errors import DataError
from loc.layouts.names import check_name
from loc.types import Array

_DATASET = "global_descriptor"
_SUFFIXES = (".h5", ".hdf5", ".npy")


def are_vectors(path: Path) -> bool:
    """Whether a path is a file of vectors, by its name."""
    return path.suffix.lower() in _SUFFIXES and not path.is_dir()


def read_vectors(path: Path, names_file: Path | None = None) -> Iterator[tuple[str, Float32[Array, " d"]]]:
    """``(name, vector of unit length)``, sorted by name; a zero vector stays zero.

    Args:
        path: hloc's ``.h5`` (a group per image with ``global_descriptor``), or ``.npy`` of ``(n, d)``.
        names_file: of ``.npy``: a text file with a name per row; without, rows are called by their number.

    Raises:
        DataError: the file cannot be read, lengths differ, or a vector is not finite.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist", "give hloc's global descriptors (.h5), or a .npy with --names FILE"
        )
    found = _from_npy(path, names_file) if path.suffix.lower() == ".npy" else _from_hdf5(path)
    length = None
    for name, row in found:
        vector = np.asarray(row, np.float32)
        length = length or len(vector)
        if len(vector) != length or not np.isfinite(vector).all():
            wrong = (
                "NaN or infinity" if len(vector) == length else f"{len(vector)} values, others have {length}"
            )
            raise DataError(f"the vector of {name!r} in {path} has {wrong}", "write the file again")
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        yield check_name(name, where=str(path)), (vector / norm).astype(np.float32) if norm else vector


def content_of(vector: Float32[Array, " d"]) -> str:
    """16 hex digits of SHA-256 over the values."""
    return hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()[:16]


def _from_npy(path: Path, names_file: Path | None) -> Iterator[tuple[str, Array]]:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is no array of NumPy: {error}", "write it with numpy.save, (n, d) float32"
        ) from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        shape = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "an archive"
        raise DataError(
            f"{path} holds {shape}, expected floats (n, d)", "write it with numpy.save, (n, d) float32"
        )
    names = [f"{row:06d}" for row in range(len(rows))] if names_file is None else _names(names_file)
    if len(names) != len(rows):
        raise DataError(
            f"{names_file} has {len(names)} names, {path} has {len(rows)} rows",
            "write a name per row, in its order",
        )
    order = sorted(range(len(names)), key=lambda row: names[row])
    for before, after in pairwise(order):
        if names[before] == names[after]:
            raise DataError(f"{names_file} has {names[after]!r} twice", "every image needs a name of its own")
    return ((names[row], rows[row]) for row in order)


def _names(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the names {path}: {error}", "give a UTF-8 text file, a name per row"
        ) from error


def _from_hdf5(path: Path) -> Iterator[tuple[str, Array]]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            names: list[str] = []

            def visit(key: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and key.rpartition("/")[2] == _DATASET and item.ndim == 1:
                    names.append(key.rpartition("/")[0])

            file.visititems(visit)
            for name in sorted(names):
                yield name, file[name][_DATASET][()]
            if not names:
                raise DataError(
                    f"{path} holds no {_DATASET}",
                    "give the file of global descriptors, not of features or matches",
                )
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged or no HDF5 file of hloc: {' '.join(str(error).split())[:200]}",
            "copy it again from its source, or let hloc write it again",
        ) from error
