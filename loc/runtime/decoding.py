"""Pillow's part of reading photos: opening with every failure typed, EXIF tables, 8-bit pixels."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, UnidentifiedImageError

from loc.errors import DataError
from loc.types import Array

Color = Literal["rgb", "gray"]

#: Above this many pixels a header is taken for damage or a decompression bomb (a 30,000 x 13,000
#: panorama passes; decoded to RGB it is 1.2 GB).
MAX_PIXELS = 400_000_000
# Pillow would also open PostScript (by running Ghostscript) and other things that are no photos.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
# What Pillow's decoders and EXIF parser raise on damaged files, besides OSError.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)
# Pillow warns of damaged EXIF, and of other damage that loc reports itself, at every access. A filter of
# the process, here: readers are threads and worker processes, where `catch_warnings` is not safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
TAG_MAKE, TAG_MODEL, TAG_ORIENTATION, TAG_EXIF_IFD = 271, 272, 274, 0x8769
TAG_FOCAL_MM, TAG_FOCAL_35MM, TAG_PLANE_X, TAG_PLANE_UNIT = 0x920A, 0xA405, 0xA20E, 0xA210
_limit_lock = threading.Lock()
_limit_saved: list[int | None] = []


@contextmanager
def _without_pillow_limit() -> Iterator[None]:
    """Lift Pillow's own size limit (89 MP warns, 179 MP raises): ours takes its place.

    The limit is a variable of the process: the first reader of several threads saves it, the last
    one puts it back.
    """
    with _limit_lock:
        _limit_saved.append(_limit_saved[0] if _limit_saved else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _limit_lock:
            saved = _limit_saved.pop()
            if not _limit_saved:
                Image.MAX_IMAGE_PIXELS = saved


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open lazily; whatever is wrong with the file or its header becomes a DataError."""
    _check_file(path)
    with _without_pillow_limit(), _open_file(path) as file:
        try:
            # A file object, not a path: from a path Pillow maps raw TIFFs into memory and, where
            # their orientation is 5 to 8, shears them (seen with 13.0).
            image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise _not_an_image(path) from error
        except DAMAGE as error:
            raise DataError(
                f"{path} is truncated or damaged: {one_line(error)}",
                "copy it again from its source, or remove it",
            ) from error
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS or width < 1 or height < 1:
                raise DataError(
                    f"{path} claims {width} x {height} px, {width * height / 1e6:.0f} megapixels; "
                    f"the limit is {MAX_PIXELS / 1e6:.0f}",
                    "the header is damaged, or the picture must be cut or shrunk before it is used",
                )
            yield image


def check_png(path: Path) -> None:
    """Raise what Pillow raises where a PNG's checksums are wrong: decoding alone does not look at them."""
    with _open_file(path) as file, Image.open(file, formats=("PNG",)) as image:
        image.verify()


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check its permissions") from error


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"no photo at {path} ({error.strerror})", "check the name and the image folder (scene.images)"
        ) from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"no photo at {path!s}: {error}") from error
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a photo")
    if status.st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)", "copy it again from its source, or remove it")


def _not_an_image(path: Path) -> DataError:
    with _open_file(path) as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return DataError(f"{path} is HEIC, which is not supported", "convert it to JPEG first")
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"RIFF", b"GIF8", b"BM")):
        return DataError(
            f"{path} is truncated or damaged: its header cannot be read",
            "copy it again from its source, or remove it",
        )
    return DataError(
        f"{path} is not an image that can be read (it starts with {start!r})",
        "JPEG, PNG, TIFF, WebP, BMP, GIF, PPM, JPEG 2000 and AVIF are; remove or convert it",
    )


def exif_tables(image: Image.Image) -> tuple[dict[int, Any], dict[int, Any]]:
    """Main EXIF table and the camera's own; empty where the data is garbage."""
    try:
        exif = image.getexif()
        main = dict(exif)
    except DAMAGE:
        return {}, {}
    try:
        return main, dict(exif.get_ifd(TAG_EXIF_IFD))
    except DAMAGE:
        return main, {}


def stored_wh_and_orientation(image: Image.Image) -> tuple[tuple[int, int], int]:
    value = exif_tables(image)[0].get(TAG_ORIENTATION)
    orientation = value if isinstance(value, int) and 1 <= value <= 8 else 1
    if image.format == "TIFF" and orientation >= 5:  # Pillow reports the upright size of a TIFF
        return (image.size[1], image.size[0]), orientation
    return image.size, orientation


def exif_number(value: Any) -> float | None:
    """A positive finite EXIF number (rational, tuple or garbage), or None."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def exif_text(value: Any) -> str:
    return value.replace("\0", "").strip() if isinstance(value, str) else ""


def as_uint8(image: Image.Image, color: Color) -> UInt8[Array, "h w *c"]:
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    wanted = "RGB" if color == "rgb" else "L"
    return np.array(image if image.mode == wanted else image.convert(wanted))


def _to_8_bit(values: Shaped[Array, "h w"]) -> UInt8[Array, "h w"]:
    """Deep grey to 8 bit: 16-bit by 257, float by its evident range ([0, 1], [0, 255] or its maximum)."""
    deep = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(deep.max(initial=0.0))
    if values.dtype.kind == "f":
        white = 1.0 if top <= 1 else 255.0 if top <= 255 else top
    else:
        white = 65535.0 if top <= 65535 else top
    return np.clip(np.round(deep * (255.0 / white)), 0, 255).astype(np.uint8)


def apply_orientation(stored: UInt8[Array, "h w *c"], orientation: int) -> UInt8[Array, "h2 w2 *c"]:
    """Apply an EXIF orientation (TIFF 6.0, tag 274) to the stored pixels."""
    turned = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
