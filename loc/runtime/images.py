"""Reading photos: decoding, EXIF, resizing, and the way back from the plug-in's pixels.

Photos are decoded with Pillow, not OpenCV: ``cv2.imread`` returns a truncated JPEG as an image with
a grey lower part and no error, drops 16 bit silently, and rotates by EXIF without saying so. With
Pillow decoding, integrity and EXIF come from one place.

The pixel grid of `loc` is the **stored** one; plug-ins see an upright copy, and
:func:`features_to_stored` carries their keypoints back.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from loc.conventions import (
    PixelOrigin,
    corner_from_center,
    rescale_xy,
    stored_from_upright_angle,
    stored_from_upright_xy,
    upright_wh,
)
from loc.errors import ContractError, DataError
from loc.runtime import decoding
from loc.runtime.decoding import DAMAGE, MAX_PIXELS, Color, one_line, opened_image
from loc.runtime.exif import gps_position, taken_at_s
from loc.types import Array, LocalFeatures

__all__ = [
    "MAX_PIXELS",
    "PHOTO_EXTENSIONS",
    "Color",
    "Photo",
    "apply_mask",
    "content_hash",
    "features_to_stored",
    "image_header",
    "list_photos",
    "prepare",
    "read_photo",
]

#: What counts as a photo in a folder. HEIC, HEIF and camera raw files are listed so that they are
#: reported as unreadable rather than silently left out.
PHOTO_EXTENSIONS = frozenset(
    f".{extension}"
    for group in (
        "jpg jpeg jpe mpo png apng tif tiff bmp webp gif",
        "ppm pgm pbm pnm jp2 avif heic heif dng cr2",
    )
    for extension in group.split()
)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo.

    Attributes:
        pixels: ``(h, w, 3)`` RGB or ``(h, w)`` grey uint8, **upright** (EXIF applied).
        stored_wh: size in px of the stored pixel grid (before EXIF).
        exif_orientation: 1…8; ``pixels`` is the stored image after this orientation was applied.
    """

    pixels: UInt8[Array, "h w *c"]
    stored_wh: tuple[int, int]
    exif_orientation: int = 1


def read_photo(path: Path, *, color: Color) -> Photo:
    """Decode a photo to upright 8-bit RGB or grey.

    16-bit grey is scaled to 8 bit (65535 → 255), alpha is dropped, palettes and CMYK are converted,
    of an animation the first frame is taken.

    Raises:
        DataError: the file is missing, a folder, empty, no image, truncated, or its header claims
            more than ``MAX_PIXELS`` pixels.
    """
    with opened_image(path) as image:
        stored_wh, orientation = decoding.stored_wh_and_orientation(image)
        try:
            if image.format == "PNG":
                decoding.check_png(path)
            image.load()
            pixels = decoding.as_uint8(image, color)
        except DAMAGE as error:
            kind = "truncated" if "truncated" in str(error) else "damaged"
            raise DataError(
                f"{path} is {kind}: {one_line(error)}", "copy it again from its source, or remove it"
            ) from error
        if image.format == "TIFF":  # Pillow has already turned a TIFF upright while loading
            return Photo(pixels, stored_wh, orientation)
    return Photo(decoding.apply_orientation(pixels, orientation), stored_wh, orientation)


def image_header(path: Path) -> tuple[tuple[int, int], dict[str, Any]]:
    """Stored size in px and EXIF, from the header alone (no pixel is decoded).

    Returns:
        ``(width, height)`` of the stored grid, and a dict with ``orientation`` (1…8; anything else in
        the file counts as 1), ``focal_35mm`` and ``focal_mm`` (float or None), ``focal_plane`` (pixels
        per unit and unit, or None), ``make`` and ``model`` (str, may be empty), ``gps``
        (:class:`loc.types.GpsPosition` or None) and ``timestamp_s`` (float or None).

    Raises:
        DataError: as :func:`read_photo`, except for damage after the header.
    """
    with opened_image(path) as image:
        stored_wh, orientation = decoding.stored_wh_and_orientation(image)
        exif, details = decoding.exif_tables(image)
        gps, timestamp_s = gps_position(image), taken_at_s(image)
    plane = decoding.exif_number(details.get(decoding.TAG_PLANE_X))
    return stored_wh, {
        "orientation": orientation,
        "focal_35mm": decoding.exif_number(details.get(decoding.TAG_FOCAL_35MM)),
        "focal_mm": decoding.exif_number(details.get(decoding.TAG_FOCAL_MM)),
        "focal_plane": None
        if plane is None
        else (plane, decoding.exif_number(details.get(decoding.TAG_PLANE_UNIT))),
        "make": decoding.exif_text(exif.get(decoding.TAG_MAKE)),
        "model": decoding.exif_text(exif.get(decoding.TAG_MODEL)),
        "gps": gps,
        "timestamp_s": timestamp_s,
    }


def prepare(photo: Photo, *, to_wh: tuple[int, int]) -> Float32[Array, "c h w"]:
    """The plug-in's input: ``(c, h, w)`` float32 in [0, 1] of the upright photo, shrunk to ``to_wh`` px.

    Shrinks by area averaging: the right anti-aliasing for large factors.
    """
    import cv2

    pixels = photo.pixels
    height, width = pixels.shape[:2]
    if to_wh != (width, height):
        pixels = cv2.resize(pixels, to_wh, interpolation=cv2.INTER_AREA)
    # Plane by plane: a strided conversion of the whole takes four times as long.
    planes = [pixels] if pixels.ndim == 2 else cv2.split(pixels)
    out = np.empty((len(planes), to_wh[1], to_wh[0]), np.float32)
    for row, plane in enumerate(planes):
        np.divide(plane, np.float32(255), out=out[row], dtype=np.float32)
    return out


def features_to_stored(
    features: LocalFeatures, photo: Photo, resized_wh: tuple[int, int], pixel_origin: PixelOrigin
) -> LocalFeatures:
    """Carry a plug-in's keypoints from the resized upright image to the stored image, corner origin.

    Scales and ``noise_px`` grow by the mean of the two resize factors; orientations turn with the
    grid. Keypoints outside the image are dropped; ties of rounding are clipped to its border.

    Args:
        resized_wh: size in px of what :func:`prepare` returned.
        pixel_origin: what the plug-in declares.

    Raises:
        ContractError: the plug-in's ``image_wh`` is not ``resized_wh``.
    """
    if tuple(features.image_wh) != tuple(resized_wh):
        raise ContractError(
            f"keypoints refer to an image of {features.image_wh}, but the plug-in was shown {resized_wh}",
            "image_wh is (width, height) of the tensor the plug-in was given",
        )
    xy, inside = xy_to_stored(features.keypoints, photo, resized_wh, pixel_origin)
    features, xy = features.select(inside), xy[inside]
    upright = upright_wh(photo.stored_wh, photo.exif_orientation)
    factor = np.float32((upright[0] / resized_wh[0] + upright[1] / resized_wh[1]) / 2)
    angles = features.orientations_rad
    return replace(
        features,
        keypoints=xy,
        image_wh=photo.stored_wh,
        scales=None if features.scales is None else features.scales * factor,
        orientations_rad=None
        if angles is None
        else stored_from_upright_angle(angles, photo.exif_orientation).astype(np.float32),
        noise_px=features.noise_px * float(factor),
    )


def xy_to_stored(
    xy: Float32[Array, "n 2"], photo: Photo, resized_wh: tuple[int, int], pixel_origin: PixelOrigin
) -> tuple[Float32[Array, "n 2"], Bool[Array, " n"]]:
    """Pixels of the resized upright image in the stored image (corner origin), and which lie inside.

    Ties of rounding are clipped to the border.
    """
    exact = xy.astype(np.float64)
    if pixel_origin == "center":
        exact = corner_from_center(exact)
    inside = ((exact >= 0) & (exact <= np.asarray(resized_wh))).all(axis=1)
    upright = upright_wh(photo.stored_wh, photo.exif_orientation)
    exact = rescale_xy(exact, from_wh=resized_wh, to_wh=upright)
    exact = stored_from_upright_xy(exact, stored_wh=photo.stored_wh, exif_orientation=photo.exif_orientation)
    return np.clip(exact, 0, np.asarray(photo.stored_wh)).astype(np.float32), inside


def apply_mask(features: LocalFeatures, mask: Path | Shaped[Array, "h w"]) -> LocalFeatures:
    """Drop the keypoints that lie on zero pixels of a mask.

    Args:
        features: keypoints in the stored image, corner origin.
        mask: an image file or an ``(h, w)`` array, of the size of the stored image.

    Raises:
        DataError: the mask cannot be read or has another size.
    """
    return features.select(seen_through(mask, features.keypoints, features.image_wh))


def seen_through(
    mask: Path | Shaped[Array, "h w"], xy: Float32[Array, "n 2"], image_wh: tuple[int, int]
) -> Bool[Array, " n"]:
    """Which pixels of a stored image a mask leaves visible; arguments and errors as of :func:`apply_mask`."""
    visible = _read_mask(mask) if isinstance(mask, Path) else np.asarray(mask) != 0
    where = str(mask) if isinstance(mask, Path) else "the mask"
    got_wh = (visible.shape[1], visible.shape[0])
    if got_wh != tuple(image_wh):
        turned = got_wh == tuple(image_wh)[::-1]
        raise DataError(
            f"{where} is {got_wh[0]} x {got_wh[1]} px, its photo {image_wh[0]} x "
            f"{image_wh[1]} px{' (it fits the photo only after EXIF rotation)' if turned else ''}",
            "a mask has the size of the stored photo, without EXIF rotation",
        )
    column, row = np.floor(xy).astype(np.int64).T
    seen: Array = visible[np.minimum(row, got_wh[1] - 1), np.minimum(column, got_wh[0] - 1)]
    return seen


def content_hash(path: Path, mask: Path | None = None) -> str:
    """16 hex digits of SHA-256 over the bytes of the photo and, if there is one, of its mask."""
    digest = hashlib.sha256(_file_digest(path))
    if mask is not None:
        digest.update(_file_digest(mask))
    return digest.hexdigest()[:16]


def list_photos(root: Path) -> list[str]:
    """Names of the photos under a folder: relative, with ``/``, sorted, spelled as on disk.

    Extensions count in any case; hidden files and folders are left out; linked folders are followed,
    but never in a circle.
    """
    names: list[str] = []
    _walk(root, "", (), names)
    return sorted(names)


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...], names: list[str]) -> None:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list the folder {folder}: {error.strerror}") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            _walk(folder / entry.name, f"{prefix}{entry.name}/", (*above, identity), names)
        elif os.path.splitext(entry.name)[1].lower() in PHOTO_EXTENSIONS:  # noqa: PTH122  (no Path per file)
            names.append(prefix + entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _read_mask(path: Path) -> Shaped[Array, "h w"]:
    """True where a mask file is not zero, in its stored grid; alpha is ignored."""
    with opened_image(path) as image:
        try:
            image.load()
            if image.mode in ("P", "PA", "LA", "RGBA", "CMYK"):
                image = image.convert("RGB")
            values = np.asarray(image)
        except DAMAGE as error:
            raise DataError(f"the mask {path} is damaged: {one_line(error)}") from error
    seen = values != 0
    return seen.any(axis=2) if seen.ndim == 3 else seen


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return digest.digest()
