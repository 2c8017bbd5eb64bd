"""Two photos side by side, with lines between matches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

from loc.runtime.images import Photo, read_photo
from loc.viz.thumbnails import upright_from_stored_xy

Array = np.ndarray
#: Height of the photos, and the widest picture, px; small photos are enlarged to be seen.
_HEIGHT, _WIDEST = 720, 3200
#: Between the photos, px.
_GAP = 8
#: Points are drawn between pixels: positions in sixteenths.
_SHIFT = 4
#: RGB; of B. Wong (Nature Methods 2011), which with viridis most eyes tell apart.
_OUTLIER, _KEYPOINT = (213, 94, 0), (240, 240, 240)
#: Dark ends of a colour map are lost on photos: the part of viridis from here on.
_FROM = 110


@dataclass(frozen=True, eq=False)
class ShownPhoto:
    """A photo and points in it: ``(n, 2)`` px of the stored photo, corner origin.

    Attributes:
        matched: of the matches, row by row those of the other photo.
        keypoints: to be drawn as dots; none if empty.
    """

    path: Path
    matched: Float[Array, "m 2"]
    keypoints: Float[Array, "k 2"]


def draw_matches(
    left: ShownPhoto, right: ShownPhoto, inliers: Bool[Array, " m"], *, most_lines: int | None = None
) -> UInt8[Array, "h w 3"]:
    """An RGB picture: both photos upright at one height, inliers as lines, other matches as dots.

    Lines are coloured by the height at which they start, so that one that crosses the others is seen.

    Args:
        most_lines: this many inliers are drawn, evenly spread over them; None: all.

    Raises:
        DataError: a photo cannot be read.
    """
    photos = [read_photo(each.path, color="rgb") for each in (left, right)]
    wide = sum(photo.pixels.shape[1] / photo.pixels.shape[0] for photo in photos)
    height = max(1, min(_HEIGHT, int((_WIDEST - _GAP) / wide)))
    shown = [_at_height(photo.pixels, height) for photo in photos]
    offsets = (0, shown[0].shape[1] + _GAP)
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    canvas = np.ascontiguousarray(np.hstack([shown[0], gap, shown[1]]))
    ends = []
    for each, photo, small, offset in zip((left, right), photos, shown, offsets, strict=True):
        _dots(canvas, _carried(each.keypoints, photo, small, offset), _KEYPOINT, 1.0)
        ends.append(_carried(each.matched, photo, small, offset))
        _dots(canvas, ends[-1][~inliers], _OUTLIER, 2.0)  # as lines, the wrong ones would hide the photos
    _lines(canvas, ends[0][inliers], ends[1][inliers], most_lines)
    return canvas


def _at_height(pixels: UInt8[Array, "h w 3"], height: int) -> UInt8[Array, "g v 3"]:
    rows, columns = pixels.shape[:2]
    how = cv2.INTER_AREA if height < rows else cv2.INTER_CUBIC
    resized: Array = cv2.resize(pixels, (max(1, round(columns * height / rows)), height), interpolation=how)
    return resized


def _carried(
    xy: Float[Array, "n 2"], photo: Photo, small: UInt8[Array, "h w 3"], offset: int
) -> Float64[Array, "n 2"]:
    """Stored px of a photo as px of the picture, in which its shrunk copy begins at ``offset``."""
    upright = upright_from_stored_xy(xy, stored_wh=photo.stored_wh, exif_orientation=photo.exif_orientation)
    factors = [small.shape[1] / photo.pixels.shape[1], small.shape[0] / photo.pixels.shape[0]]
    carried: Array = upright * factors + [offset, 0]
    return carried


def _lines(
    canvas: UInt8[Array, "h w 3"], start: Float[Array, "n 2"], end: Float[Array, "n 2"], most: int | None
) -> None:
    count = len(start)
    if most is not None and count > most:
        chosen = np.argsort(start[:, 1], kind="stable")[np.arange(most) * count // max(1, most)]
        start, end = start[chosen], end[chosen]
    levels = np.clip(_FROM + start[:, 1] / len(canvas) * (255 - _FROM), 0, 255).astype(np.uint8)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_VIRIDIS)[0, :, ::-1]
    for one, other, color in zip(_placed(start), _placed(end), table[levels].tolist(), strict=True):
        cv2.line(canvas, one, other, color, 1, cv2.LINE_AA, _SHIFT)
        for point in (one, other):
            cv2.circle(canvas, point, int(2.5 * 2**_SHIFT), color, 1, cv2.LINE_AA, _SHIFT)


def _dots(
    canvas: UInt8[Array, "h w 3"], xy: Float[Array, "n 2"], color: tuple[int, int, int], radius: float
) -> None:
    for point in _placed(xy):
        cv2.circle(canvas, point, int(radius * 2**_SHIFT), color, -1, cv2.LINE_AA, _SHIFT)


def _placed(xy: Float[Array, "n 2"]) -> list[list[int]]:
    """Positions as OpenCV draws them: the centre of a pixel is at whole numbers, in sixteenths."""
    return np.rint((xy - 0.5) * 2**_SHIFT).astype(int).tolist()  # type: ignore[no-any-return]
