"""Which images of a COLMAP model see the same 3-D points.

Only names and point ids are needed, so ``images.bin`` / ``images.txt`` is read directly: pycolmap
hands out 2-D points one Python object at a time and loads the 3-D points too.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from loc.errors import DataError
from loc.types import Array

#: id u32, quaternion 4 f64, translation 3 f64, camera id u32 (COLMAP doc/format.rst).
_IMAGE_HEADER = struct.Struct("<I7dI")
_COUNT = struct.Struct("<Q")
_POINT2D = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])


def from_covisibility(model: Path, names: list[str], k: int) -> list[tuple[str, str]]:
    """Pairs ``(smaller, larger name)`` of each image and the ``k`` that share most 3-D points with it.

    Ties are ordered by name; images without a shared point are in no pair.

    Args:
        model: COLMAP model folder.
        names: images to pair; those that the model does not have are in no pair.
        k: neighbours per image.
    """
    from scipy.sparse import csr_array

    observed = points_of_images(model)
    names = sorted(name for name in set(names) if name in observed)
    if len(names) < 2:
        return []
    points = [np.unique(observed[name]) for name in names]
    ids, columns = np.unique(np.concatenate(points), return_inverse=True)
    rows = np.concatenate([[0], np.cumsum([len(each) for each in points])])
    ones = np.ones(len(columns), np.int32)
    sees = csr_array((ones, columns, rows), shape=(len(names), max(1, len(ids))))
    transposed = sees.T.tocsr()
    pairs = set()
    for row in range(len(names)):
        shared = (sees[[row]] @ transposed).tocsr()
        others, counts = shared.indices, shared.data
        others, counts = others[others != row], counts[others != row]
        for other in others[np.lexsort((others, -counts))[:k]].tolist():
            pairs.add((names[min(row, other)], names[max(row, other)]))
    return sorted(pairs)


def points_of_images(model: Path) -> dict[str, Int64[Array, " n"]]:
    """Image name → ids of the 3-D points it observes (binary model, else text).

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    path = images_file(model)
    return _from_binary(path) if path.suffix == ".bin" else _from_text(path)


def images_file(model: Path) -> Path:
    """``images.bin`` or ``images.txt`` of a model, or a :class:`DataError`."""
    for path in (model / "images.bin", model / "images.txt"):
        if path.is_file():
            return path
    raise DataError(
        f"there is no COLMAP model in {model}", "pairs from covisibility need scene.model, with its points"
    )


def _from_binary(path: Path) -> dict[str, Int64[Array, " n"]]:
    data = path.read_bytes()
    out = {}
    try:
        (count,) = _COUNT.unpack_from(data)
        at = _COUNT.size
        for _ in range(count):
            name_at = at + _IMAGE_HEADER.size
            end = data.index(b"\0", name_at)
            (num_points,) = _COUNT.unpack_from(data, end + 1)
            start = end + 1 + _COUNT.size
            points = np.frombuffer(data, _POINT2D, num_points, start)["point"]
            out[data[name_at:end].decode()] = points[points >= 0]
            at = start + num_points * _POINT2D.itemsize
    except (struct.error, ValueError, OverflowError) as error:
        raise DataError(f"{path} is damaged: {error}", "export the model again from COLMAP") from error
    return out


def _from_text(path: Path) -> dict[str, Int64[Array, " n"]]:
    out = {}
    name = None
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith("#"):
                continue
            try:
                if name is None:
                    if line.strip():
                        name = line.strip().split(None, 9)[9]
                    continue
                points = np.array(line.split()[2::3], dtype=np.int64)
            except (IndexError, ValueError) as error:
                raise DataError(
                    f"{path} line {number} is damaged: {error}", "export the model again from COLMAP"
                ) from error
            out[name], name = points[points >= 0], None
    return out
