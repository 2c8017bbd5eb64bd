"""hloc's HDF5 files: single files of features, global descriptors and matches, as hloc reads them.

Source of the layout: github.com/cvg/Hierarchical-Localization, ``hloc/extract_features.py``,
``hloc/match_features.py``, ``hloc/utils/io.py`` and ``parsers.py``. Keypoints have the centre of the
top-left pixel as origin; pair groups are ``A/B`` with ``/`` in each name written as ``-``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from loc.conventions import center_from_corner, corner_from_center
from loc.errors import DataError
from loc.types import LocalFeatures, Matches

Array = np.ndarray
Pair = tuple[str, str]

#: uint8 descriptors are COLMAP's SIFT, 512 times a unit vector. Divided by a power of two they are
#: exact in float16 and of unit norm, which is what hloc's matchers expect.
UINT8_SCALE = 512.0
#: Attribute of a data set that was uint8: what to multiply by to get it back.
UINT8_ATTRIBUTE = "uint8_scale"
_INT16_MAX = int(np.iinfo(np.int16).max)
#: A keypoint may lie so far outside its image, px: half precision rounds by one at 4000 px.
_OUTSIDE_PX = 2.0


def escaped(name: str) -> str:
    """A name inside a pair's key.

    >>> escaped("db/1.jpg")
    'db-1.jpg'
    """
    return name.replace("/", "-")


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read; what is wrong with it is a :class:`DataError` that names the file."""
    if not path.is_file():
        raise DataError(f"{path} does not exist", "give the .h5 file that hloc wrote")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged or no HDF5 file of hloc: {' '.join(str(error).split())[:200]}",
            "copy it again from its source, or let hloc write it again",
        ) from error


def list_names(file: h5py.File, dataset: str) -> list[str]:
    """Names of the groups that hold ``dataset``, sorted; ``/`` in a name nests."""
    names: list[str] = []

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and path.rpartition("/")[2] == dataset:
            names.append(path.rpartition("/")[0])

    file.visititems(visit)
    return sorted(names)


def write_features(group: h5py.Group, features: LocalFeatures) -> None:
    """Fill an image's group from features in stored px with corner origin; keypoints stay float32."""
    group.create_dataset("keypoints", data=center_from_corner(features.keypoints))
    group["keypoints"].attrs["uncertainty"] = features.noise_px
    descriptors = np.ascontiguousarray(features.descriptors.T)
    if descriptors.dtype == np.uint8:
        group.create_dataset("descriptors", data=(descriptors / UINT8_SCALE).astype(np.float16))
        group["descriptors"].attrs[UINT8_ATTRIBUTE] = UINT8_SCALE
    else:
        group.create_dataset("descriptors", data=descriptors)
    group.create_dataset("scores", data=features.scores)
    if features.scales is not None:
        group.create_dataset("scales", data=features.scales)
    if features.orientations_rad is not None:
        group.create_dataset("oris", data=np.degrees(features.orientations_rad).astype(np.float32))
    group.create_dataset("image_size", data=np.array(features.image_wh, np.int64))


def read_features(file: h5py.File, name: str, image_wh: tuple[int, int]) -> LocalFeatures:
    """Features of one image, stored px with corner origin.

    Scores may be missing (all 1), or be called ``keypoint_scores`` (ALIKED) or ``score`` (dense
    matching); descriptors may be missing (``(n, 0)``): then only imported matches go with them.

    Args:
        image_wh: size in px of the photo.

    Raises:
        DataError: shapes that do not fit, NaN, another image size, keypoints outside the photo.
    """
    group, where = file[name], f"{name!r} in {file.filename}"
    stored = np.asarray(group["keypoints"][()])
    if stored.ndim != 2 or stored.shape[1] != 2 or stored.dtype.kind != "f":
        raise DataError(
            f"keypoints of {where} are {stored.dtype} {stored.shape}, expected float (n, 2)",
            "give hloc's features file, not its matches or global descriptors",
        )
    keypoints = corner_from_center(stored.astype(np.float32))
    n = len(keypoints)
    scores = next((group[key][()] for key in ("scores", "keypoint_scores", "score") if key in group), None)
    descriptors = _read_descriptors(group, n, where)
    scales = group["scales"][()].astype(np.float32) if "scales" in group else None
    oris = np.radians(group["oris"][()]).astype(np.float32) if "oris" in group else None
    for what, values in (("scores", scores), ("scales", scales), ("oris", oris)):
        if values is not None and values.shape != (n,):
            raise DataError(
                f"{what} of {where} are {values.shape}, expected ({n},): one per keypoint",
                "extract this image again",
            )
    for what, values in (("keypoints", keypoints), ("scores", scores), ("descriptors", descriptors)):
        if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{what} of {where} hold NaN or infinity", "extract this image again")
    _check_size(group, keypoints, image_wh, where)
    return LocalFeatures(
        keypoints=keypoints,
        scores=np.ones(n, np.float32) if scores is None else scores.astype(np.float32),
        descriptors=descriptors,
        image_wh=image_wh,
        scales=scales,
        orientations_rad=oris,
        noise_px=float(group["keypoints"].attrs.get("uncertainty", 1.0)),
    )


def _read_descriptors(group: h5py.Group, n: int, where: str) -> Array:
    if "descriptors" not in group:
        return np.zeros((n, 0), np.float16)
    data = group["descriptors"]
    values: Array = data[()]
    if values.ndim != 2 or values.shape[1] != n:
        raise DataError(
            f"descriptors of {where} are {values.shape}, expected (d, {n}): a column per keypoint",
            "hloc stores descriptors transposed: one column per keypoint",
        )
    scale = data.attrs.get(UINT8_ATTRIBUTE)
    if scale is not None:
        values = np.rint(values.astype(np.float32) * np.float32(scale)).astype(np.uint8)
    elif values.dtype == np.float64:
        values = values.astype(np.float32)
    return np.ascontiguousarray(values.T)


def _check_size(group: h5py.Group, keypoints: Array, image_wh: tuple[int, int], where: str) -> None:
    if "image_size" in group:
        width, height = (int(value) for value in group["image_size"][()])
        if (width, height) != image_wh:
            raise DataError(
                f"features of {where} are for {width} x {height} px, the photo is "
                f"{image_wh[0]} x {image_wh[1]}",
                "give the photos the features were made from: --images ROOT",
            )
    if len(keypoints) and (
        (keypoints < -_OUTSIDE_PX).any() or (keypoints > np.add(image_wh, _OUTSIDE_PX)).any()
    ):
        worst = keypoints[np.abs(keypoints - np.array(image_wh) / 2).max(axis=1).argmax()]
        raise DataError(
            f"{where} has a keypoint at ({worst[0]:.1f}, {worst[1]:.1f}), outside the photo of "
            f"{image_wh[0]} x {image_wh[1]} px",
            "keypoints must be in px of the photos given by --images, not of a resized copy",
        )


def write_matches(file: h5py.File, pair: Pair, matches: Matches, counts: tuple[int, int]) -> int:
    """Write one pair; returns how many matches the format cannot hold.

    ``matches0`` has one entry per keypoint of the first image, so of several matches of one keypoint
    the best is kept. It is int16, as hloc writes it, or int32 where an index needs it.

    Args:
        counts: keypoints of the two images.
    """
    order = np.lexsort((matches.indices[:, 1], -matches.scores, matches.indices[:, 0]))
    _, first = np.unique(matches.indices[order, 0], return_index=True)
    best = order[first]
    dtype = np.int16 if counts[1] <= _INT16_MAX else np.int32
    matches0 = np.full(counts[0], -1, dtype)
    scores0 = np.zeros(counts[0], np.float32)
    matches0[matches.indices[best, 0]] = matches.indices[best, 1]
    scores0[matches.indices[best, 0]] = matches.scores[best]
    group = file.create_group(f"{escaped(pair[0])}/{escaped(pair[1])}")
    group.create_dataset("matches0", data=matches0)
    group.create_dataset("matching_scores0", data=scores0)
    return len(matches) - len(best)


def read_matches(file: h5py.File, key: str, counts: tuple[int, int]) -> Matches:
    """Matches of the pair at ``key``, in the order of its two names.

    Raises:
        DataError: ``matches0`` does not fit the keypoints of the two images.
    """
    group, where = file[key], f"{key!r} in {file.filename}"
    matches0 = np.asarray(group["matches0"][()])
    if matches0.shape != (counts[0],) or matches0.dtype.kind not in "iu":
        raise DataError(
            f"matches0 of {where} is {matches0.dtype} {matches0.shape}, the first image has "
            f"{counts[0]} keypoints",
            "give the features file that these matches were made with",
        )
    rows = np.flatnonzero(matches0 >= 0)
    if len(rows) and int(matches0.max()) >= counts[1]:
        raise DataError(
            f"matches0 of {where} refers to keypoint {int(matches0.max())}, the second image has {counts[1]}",
            "give the features file that these matches were made with",
        )
    scores = np.ones(len(rows), np.float32)
    if "matching_scores0" in group:
        scores = np.asarray(group["matching_scores0"][()], np.float32)[rows]
        if not np.isfinite(scores).all():
            raise DataError(f"matching_scores0 of {where} holds NaN or infinity", "match this pair again")
    indices = np.column_stack([rows, matches0[rows]]).astype(np.int32)
    return Matches(indices, np.clip(scores, 0, 1))


def transposed(matches: Matches) -> Matches:
    """The same matches with the two images exchanged."""
    order = np.lexsort((matches.indices[:, 0], matches.indices[:, 1]))
    return Matches(np.ascontiguousarray(matches.indices[order][:, ::-1]), matches.scores[order])


@dataclass(frozen=True)
class PairKeys:
    """Where a file has the matches of which pair.

    Attributes:
        found: pair of names, in the order of ``matches0`` → key.
        unknown: keys of pairs with an image that is not among the given names.
    """

    found: dict[Pair, str]
    unknown: tuple[str, ...]


def find_pairs(file: h5py.File, names: Iterable[str], listed: Iterable[Pair] = ()) -> PairKeys:
    """Resolve the pair keys of a matches file against the names of the images.

    Args:
        names: images that have features.
        listed: pairs of a list; decides where a key fits more than one pair of names.

    Raises:
        DataError: a key that fits more than one pair; both are named.
    """
    by_key: dict[str, list[str]] = {}
    for name in sorted(names):
        by_key.setdefault(escaped(name), []).append(name)
    wanted = {frozenset(pair) for pair in listed}
    found: dict[Pair, str] = {}
    unknown = []
    for key in list_names(file, "matches0"):
        fitting = [
            (first, second)
            for left, right in _cuts(key)
            for first in by_key.get(left, ())
            for second in by_key.get(right, ())
        ]
        if len(fitting) > 1 and wanted:
            fitting = [pair for pair in fitting if frozenset(pair) in wanted]
        if len(fitting) > 1:
            shown = " and ".join(f"({first!r}, {second!r})" for first, second in fitting[:2])
            raise DataError(
                f"the key {key!r} of {file.filename} fits more than one pair: {shown}",
                "hloc's key loses '/': give the list of the pairs that were matched with --pairs",
            )
        if fitting:
            found[fitting[0]] = key
        else:
            unknown.append(key)
    return PairKeys(found, tuple(unknown))


def _cuts(key: str) -> list[Pair]:
    """Ways to cut a key into two escaped names: ``A/B``, or the older ``A_B`` at any underscore."""
    if "/" in key:
        left, _, right = key.partition("/")
        return [(left, right)]
    return [(key[:at], key[at + 1 :]) for at, letter in enumerate(key) if letter == "_"]


def check_escapes(names: Iterable[str]) -> None:
    """Raise a :class:`DataError` where two names would have one key (``a/b`` and ``a-b``)."""
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        other = seen.setdefault(escaped(name), name)
        if other != name:
            raise DataError(
                f"{other!r} and {name!r} are one name in hloc's matches file, which writes '/' as '-'",
                "rename one of the photos, or export without matches: --no-matches",
            )
