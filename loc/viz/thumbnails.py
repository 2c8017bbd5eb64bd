"""A query beside a database image: two small photos, and their inlier matches as an SVG overlay.

Photos are embedded once however often they are shown; lines stay sharp at any size, and the style
sheet can hide them to show the photos bare.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from loc.conventions import stored_from_upright_xy, upright_wh
from loc.errors import DataError
from loc.runtime.images import Photo, read_photo
from loc.types import Array

#: Largest size in px of one photo.
THUMB_WH = (440, 330)
#: Largest size in px of a photo that is only to be recognized.
STAMP_WH = (144, 108)
#: Distance between the two photos, px.
GAP_PX = 6
#: More lines or dots than these cover the photos instead of explaining them; a regular subset is drawn.
MAX_LINES, MAX_DOTS = 36, 260
#: Hues of the lines, by place from left to right, so that the eye can follow one.
NUM_HUES = 6
_QUALITY = 72


@dataclass(frozen=True, eq=False)
class PhotoWithPoints:
    """A photo and the pixels to mark in it: ``(n, 2)`` stored px, corner origin."""

    path: Path
    xy: Float[Array, "n 2"]


@dataclass(frozen=True)
class Thumbnail:
    """A small upright photo as a data URI, and its size in px."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Pair:
    """What the template draws, in px of ``width`` × ``height``.

    Attributes:
        query, reference: photos; the reference is missing where there is none, or it cannot be read.
        query_y, reference_x, reference_y: where their upper left corners are (the query's x is 0).
        dots: ``d`` of a path whose round caps are the marked pixels.
        lines: ``d`` of the matches' lines, one path per hue.
    """

    width: int
    height: int
    query: Thumbnail
    query_y: int
    reference: Thumbnail | None = None
    reference_x: int = 0
    reference_y: int = 0
    dots: str = ""
    lines: tuple[str, ...] = ()


def draw_pair(
    query: PhotoWithPoints, reference: PhotoWithPoints | None = None, rows: Int[Array, " k"] | None = None
) -> Pair | None:
    """The query with its points, beside it the reference, matches joined by lines.

    Args:
        rows: ``rows[i]`` is the row of ``query.xy`` that matches row ``i`` of ``reference.xy``.

    Returns:
        None if the query's photo cannot be read (any more).
    """
    left = _placed(query)
    if left is None:
        return None
    right = None if reference is None else _placed(reference)
    small, left_xy = left
    if right is None:
        return Pair(small.width, small.height, small, 0, dots=_dots(left_xy))
    other, right_xy = right
    height = max(small.height, other.height)
    x, left_y, right_y = small.width + GAP_PX, (height - small.height) // 2, (height - other.height) // 2
    left_xy = left_xy + np.array([0, left_y])
    right_xy = right_xy + np.array([x, right_y])
    matched = np.zeros(0, np.int64) if rows is None else rows
    return Pair(
        x + other.width,
        height,
        small,
        left_y,
        other,
        x,
        right_y,
        _dots(left_xy) + _dots(right_xy),
        _lines(left_xy[matched], right_xy[: len(matched)]),
    )


def stamp(path: Path) -> Thumbnail | None:
    """A photo at the size of a stamp; None if it cannot be read (any more)."""
    try:
        return _small(path, STAMP_WH)[0]
    except DataError:
        return None


def upright_from_stored_xy(
    xy: Float[Array, "n 2"], *, stored_wh: tuple[int, int], exif_orientation: int
) -> Float[Array, "n 2"]:
    """Inverse of :func:`loc.conventions.stored_from_upright_xy`.

    >>> upright_from_stored_xy(np.array([[0., 3.]]), stored_wh=(4, 3), exif_orientation=6).tolist()
    [[0.0, 0.0]]
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    origin, *axes = stored_from_upright_xy(corners, stored_wh=stored_wh, exif_orientation=exif_orientation)
    linear = np.stack(axes, axis=1) - origin[:, None]
    moved: Array = np.asarray(xy, np.float64) - origin
    return moved @ linear  # a signed permutation: its inverse is its transpose


def _placed(photo: PhotoWithPoints) -> tuple[Thumbnail, Float[Array, "n 2"]] | None:
    """The photo made small and the points in it; None if it cannot be read."""
    try:
        small, stored_wh, orientation = _small(photo.path, THUMB_WH)
    except DataError:
        return None
    xy = np.asarray(photo.xy, np.float64).reshape(-1, 2)
    upright = upright_from_stored_xy(xy, stored_wh=stored_wh, exif_orientation=orientation)
    full_wh = upright_wh(stored_wh, orientation)
    return small, upright * [small.width / full_wh[0], small.height / full_wh[1]]


@lru_cache(maxsize=512)
def _small(path: Path, largest_wh: tuple[int, int]) -> tuple[Thumbnail, tuple[int, int], int]:
    """A photo as a thumbnail, its stored size and EXIF orientation; references are used again."""
    import cv2

    photo: Photo = read_photo(path, color="rgb")
    height, width = photo.pixels.shape[:2]
    factor = min(largest_wh[0] / width, largest_wh[1] / height, 1.0)
    wh = max(1, round(width * factor)), max(1, round(height * factor))
    pixels = cv2.resize(photo.pixels, wh, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(
        ".webp", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    )
    uri = "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
    return Thumbnail(uri, *wh), photo.stored_wh, photo.exif_orientation


def _dots(xy: Float[Array, "n 2"]) -> str:
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in xy[_spread(xy, MAX_DOTS)].tolist())


def _lines(left: Float[Array, "k 2"], right: Float[Array, "k 2"]) -> tuple[str, ...]:
    chosen = _spread(left, MAX_LINES)
    paths = [""] * NUM_HUES
    for number, row in enumerate(chosen.tolist()):
        ends = f"M{left[row, 0]:.1f} {left[row, 1]:.1f}L{right[row, 0]:.1f} {right[row, 1]:.1f}"
        paths[number * NUM_HUES // len(chosen)] += ends
    return tuple(paths) if len(chosen) else ()


def _spread(xy: Float[Array, "n 2"], most: int) -> Int[Array, " m"]:
    """Rows of at most ``most`` points, from left to right, spread over the image: one per cell first."""
    if len(xy) <= most:
        return np.argsort(xy[:, 0], kind="stable")
    low, high = xy.min(axis=0), xy.max(axis=0)
    for cells in range(2, 65):
        grid = np.floor((xy - low) / np.maximum(high - low, 1e-9) * (cells - 1e-6)).astype(np.int64)
        _, first = np.unique(grid[:, 0] * cells + grid[:, 1], return_index=True)
        if len(first) >= most:
            break
    ordered = first[np.argsort(xy[first, 0], kind="stable")]
    keep = np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(np.int64)
    return ordered[np.unique(keep)]
