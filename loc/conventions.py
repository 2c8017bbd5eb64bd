"""Pixel origin, quaternion order, resize and EXIF algebra: decided once, and run as doctests.

Pixels in memory are ``xy`` (x right, y down) with a **corner origin**: the centre of the top-left
pixel is (0.5, 0.5), as in COLMAP. A resize is then a pure multiplication. This is the only file
that writes the half pixel.

Transforms are named ``target_from_source``. Quaternions are ``xyzw`` in memory and ``wxyz`` in
benchmark text files.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

PixelOrigin = Literal["corner", "center"]
Array = np.ndarray

HALF_PIXEL = 0.5


def corner_from_center(xy: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
    """Shift pixels whose origin is the centre of the top-left pixel to the corner origin.

    >>> corner_from_center(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    return xy + xy.dtype.type(HALF_PIXEL)


def center_from_corner(xy: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
    """Inverse of :func:`corner_from_center`; the origin of OpenCV, hloc and most papers.

    >>> center_from_corner(np.array([[0.5, 0.5]])).tolist()
    [[0.0, 0.0]]
    """
    return xy - xy.dtype.type(HALF_PIXEL)


def resize_wh(image_wh: tuple[int, int], long_side: int | None) -> tuple[int, int]:
    """Size in pixels after limiting the long side; never enlarges, never below one pixel.

    >>> resize_wh((4000, 3000), 1600)
    (1600, 1200)
    >>> resize_wh((640, 480), 1600)
    (640, 480)
    """
    width, height = image_wh
    if long_side is None or max(width, height) <= long_side:
        return image_wh
    factor = long_side / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def rescale_xy(
    xy: Float[Array, "*n 2"], *, from_wh: tuple[int, int], to_wh: tuple[int, int]
) -> Float[Array, "*n 2"]:
    """Carry corner-origin pixels from an image of size ``from_wh`` to the same image at ``to_wh``.

    >>> rescale_xy(np.array([[400.0, 300.0]]), from_wh=(800, 600), to_wh=(4000, 3000)).tolist()
    [[2000.0, 1500.0]]
    """
    factor = np.array([to_wh[0] / from_wh[0], to_wh[1] / from_wh[1]])
    return (xy * factor).astype(xy.dtype)


# EXIF orientation (TIFF 6.0, tag 274): linear part of `stored_from_upright` in units of the image.
# A row (axis, sign) per stored coordinate: stored x is upright x or y, kept or counted from the
# far side. 1 is upright; 6 is the portrait photo of a phone.
_STORED_FROM_UPRIGHT: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    1: ((0, 1), (1, 1)),
    2: ((0, -1), (1, 1)),
    3: ((0, -1), (1, -1)),
    4: ((0, 1), (1, -1)),
    5: ((1, 1), (0, 1)),
    6: ((1, 1), (0, -1)),
    7: ((1, -1), (0, -1)),
    8: ((1, -1), (0, 1)),
}


def upright_wh(stored_wh: tuple[int, int], exif_orientation: int) -> tuple[int, int]:
    """Width and height of the upright image.

    >>> upright_wh((4000, 3000), 6)
    (3000, 4000)
    """
    (axis, _), _ = _STORED_FROM_UPRIGHT[exif_orientation]
    return stored_wh if axis == 0 else (stored_wh[1], stored_wh[0])


def stored_from_upright_xy(
    xy: Float[Array, "n 2"], *, stored_wh: tuple[int, int], exif_orientation: int
) -> Float[Array, "n 2"]:
    """Carry pixels found in the upright image back to the stored pixel grid.

    The top-left corner of a photo with orientation 6, seen upright, is the bottom-left corner of
    the stored grid:

    >>> stored_from_upright_xy(np.array([[0., 0.]]), stored_wh=(4, 3), exif_orientation=6).tolist()
    [[0.0, 3.0]]
    """
    out = np.empty_like(xy)
    for column, (axis, sign) in enumerate(_STORED_FROM_UPRIGHT[exif_orientation]):
        out[:, column] = xy[:, axis] if sign > 0 else stored_wh[column] - xy[:, axis]
    return out


def stored_from_upright_angle(angle_rad: Float[Array, " n"], exif_orientation: int) -> Float[Array, " n"]:
    """Carry directions (radians, from +x towards +y) from the upright to the stored grid.

    >>> np.degrees(stored_from_upright_angle(np.array([0.0]), 6)).round(6).tolist()
    [-90.0]
    """
    direction = np.stack([np.cos(angle_rad), np.sin(angle_rad)], axis=-1)
    stored = [sign * direction[:, axis] for axis, sign in _STORED_FROM_UPRIGHT[exif_orientation]]
    return np.arctan2(stored[1], stored[0]).astype(angle_rad.dtype)


def wxyz_from_xyzw(quat_xyzw: Float[Array, "4"]) -> Float[Array, "4"]:
    """Order of benchmark and COLMAP text files from the order in memory.

    >>> wxyz_from_xyzw(np.array([1., 2., 3., 4.])).tolist()
    [4.0, 1.0, 2.0, 3.0]
    """
    return quat_xyzw[[3, 0, 1, 2]]


def xyzw_from_wxyz(quat_wxyz: Float[Array, "4"]) -> Float[Array, "4"]:
    """Inverse of :func:`wxyz_from_xyzw`.

    >>> xyzw_from_wxyz(np.array([4., 1., 2., 3.])).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    return quat_wxyz[[1, 2, 3, 0]]


def rotation_from_quat(quat_xyzw: Float[Array, "4"]) -> Float[Array, "3 3"]:
    """Rotation matrix of a unit quaternion (xyzw).

    >>> (rotation_from_quat(np.array([0.0, 0.0, 0.6, 0.8])).round(6) + 0.0).tolist()
    [[0.28, -0.96, 0.0], [0.96, 0.28, 0.0], [0.0, 0.0, 1.0]]
    """
    x, y, z, w = quat_xyzw
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
