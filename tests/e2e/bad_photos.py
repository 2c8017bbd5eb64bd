"""Photos that are odd and photos that are none, made on the spot: name → bytes, or a file system trick."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Make = Callable[[Path], None]
Bytes = Callable[[], bytes]

#: EXIF tags: orientation, GPS table, camera's table; focal length, 35 mm equivalent, user comment.
ORIENTATION, GPS, CAMERA = 0x0112, 0x8825, 0x8769
FOCAL, FOCAL_35MM, COMMENT, WIDTH = 0x920A, 0xA405, 0x9286, 0xA002


def image(mode: str = "RGB", wh: tuple[int, int] = (96, 72), seed: int = 0) -> Image.Image:
    """Smooth noise: it has keypoints and compresses."""
    noise = np.random.default_rng(seed).integers(0, 255, (wh[1] // 6 + 1, wh[0] // 6 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize(wh, Image.Resampling.BICUBIC).convert(mode)


def encoded(kind: str, picture: Image.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (picture or image()).save(out, kind, **options)
    return out.getvalue()


def animated(kind: str) -> bytes:
    frames = [image(seed=seed) for seed in range(3)]
    return encoded(kind, frames[0], save_all=True, append_images=frames[1:])


def jpeg_with(exif: dict[int, object], camera: dict[int, object] | None = None, **options: object) -> bytes:
    table = Image.Exif()
    for tag, value in exif.items():
        table[tag] = value
    table.get_ifd(CAMERA).update(camera or {})
    return encoded("JPEG", exif=table, **options)


def jpeg_with_segment(marker: int, payload: bytes) -> bytes:
    """A JPEG whose first segment is of our making."""
    whole = encoded("JPEG")
    return whole[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + whole[2:]


def rationals(*pairs: tuple[int, int]) -> bytes:
    """A little-endian EXIF block whose camera table has a focal length of these numerators/denominators."""
    main = struct.pack("<HHHII", 1, CAMERA, 4, 1, 26) + struct.pack("<I", 0)
    table = struct.pack("<HHHII", 1, FOCAL, 5, len(pairs), 44) + struct.pack("<I", 0)
    values = b"".join(struct.pack("<II", *pair) for pair in pairs)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + main + table + values


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, color: int = 0) -> bytes:
    """A PNG with the given header and chunks, all checksums right."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = b"".join(chunk(kind, data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def bomb(mebibytes: int) -> bytes:
    """Zeros that compress a thousandfold."""
    return zlib.compress(b"\0" * (mebibytes << 20), 9)


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def jpeg_claiming(width: int, height: int) -> bytes:
    whole = encoded("JPEG")
    frame = whole.index(b"\xff\xc0")
    return patched(whole, frame + 5, struct.pack(">HH", height, width))


def tiff_claiming(width: int, height: int) -> bytes:
    """Little-endian TIFF without pixels: width, height, 8 bit, uncompressed, grey, one strip."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags.append((279, width * height % 2**32))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def float_tiff() -> bytes:
    values = np.linspace(0, 1, 96 * 72, dtype=np.float32).reshape(72, 96).copy()
    values[::7, ::5] = np.nan
    values[1, 1] = np.inf
    return encoded("TIFF", Image.fromarray(values))


#: Photos in rare but honest formats, and photos whose EXIF or profile lies: they work like any other.
ODD: dict[str, Bytes] = {
    "1-bit.png": lambda: encoded("PNG", image("1")),
    "palette.png": lambda: encoded("PNG", image("RGB").quantize(16), transparency=3),
    "grey with alpha.png": lambda: encoded("PNG", image("LA")),
    "still.gif": lambda: encoded("GIF"),
    "animated.gif": lambda: animated("GIF"),
    "animated.png": lambda: animated("PNG"),
    "animated.webp": lambda: animated("WEBP"),
    "lossless.webp": lambda: encoded("WEBP", lossless=True),
    "windows.bmp": lambda: encoded("BMP"),
    "netpbm.ppm": lambda: encoded("PPM"),
    "jpeg2000.jp2": lambda: encoded("JPEG2000"),
    "several pages.tif": lambda: animated("TIFF"),
    "deflated.tif": lambda: encoded("TIFF", compression="tiff_deflate"),
    "float with nan.tif": float_tiff,
    "cmyk.tif": lambda: encoded("TIFF", image("CMYK")),
    "ycbcr.tif": lambda: encoded("TIFF", image("YCbCr")),
    "progressive.jpg": lambda: encoded("JPEG", progressive=True),
    "png called.jpg": lambda: encoded("PNG"),
    "jpeg called.tif": lambda: encoded("JPEG"),
    "junk behind.jpg": lambda: encoded("JPEG") + b"\0junk" * 999,
    "30000 px wide.png": lambda: encoded("PNG", image("L", (30_000, 40))),
    "30000 px high.jpg": lambda: encoded("JPEG", image("L", (40, 30_000))),
    "65000 px by 1.png": lambda: encoded("PNG", Image.new("L", (65_000, 1))),
    "orientation 9.jpg": lambda: jpeg_with({ORIENTATION: 9}),
    "orientation 0.jpg": lambda: jpeg_with({ORIENTATION: 0}),
    "orientation is a word.jpg": lambda: jpeg_with_segment(
        0xE1, b"Exif\0\0II*\0" + struct.pack("<IHHHI", 8, 1, ORIENTATION, 2, 3) + b"up\0\0\0\0\0\0"
    ),
    "focal 0.jpg": lambda: jpeg_with({}, {FOCAL: 0.0, FOCAL_35MM: 0}),
    "focal 0 of 0.jpg": lambda: jpeg_with_segment(0xE1, rationals((0, 0))),
    "focal infinite.jpg": lambda: jpeg_with_segment(0xE1, rationals((1, 0))),
    "focal huge.jpg": lambda: jpeg_with({}, {FOCAL_35MM: 65535}),
    "exif of 64 kB.jpg": lambda: jpeg_with({}, {COMMENT: b"x" * 64_000}),
    "exif says other size.jpg": lambda: jpeg_with({}, {WIDTH: 99_999, WIDTH + 1: 1}),
    "gps garbage.jpg": lambda: jpeg_with({GPS: {1: "Q", 2: (999.0, 99.0, 999.0), 3: "", 4: (0.0,), 29: "?"}}),
    "exif offset outside.jpg": lambda: jpeg_with_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "exif of noise.jpg": lambda: jpeg_with_segment(0xE1, b"Exif\0\0" + bytes(range(256)) * 9),
    "exif in a circle.jpg": lambda: jpeg_with_segment(
        0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", CAMERA, 4, 1, 8) + b"\x08\0\0\0"
    ),
    "icc garbage.jpg": lambda: encoded("JPEG", icc_profile=b"\xff" * 700),
    "icc garbage.png": lambda: encoded("PNG", icc_profile=b"\0" * 9),
    "xmp of noise.jpg": lambda: jpeg_with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x" * 99),
}


def cut(data: bytes, name: str) -> bytes:
    """Truncated at a random offset, the same for a name every time, in the last three quarters."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return data[: int(generator.integers(len(data) // 4, len(data) - len(data) // 10))]


#: Files that are no usable photo: skipped, counted, with a reason.
BAD: dict[str, Bytes] = {
    **{
        f"cut {number}.{extension}": (
            lambda kind=kind, name=f"{number}{extension}", options=options: cut(
                encoded(kind, **options), name
            )
        )
        for number in range(3)
        for extension, kind, options in (
            ("jpg", "JPEG", {}),
            ("jpeg", "JPEG", {"progressive": True}),
            ("png", "PNG", {}),
            ("gif", "GIF", {}),
            ("webp", "WEBP", {}),
            ("bmp", "BMP", {}),
            ("tif", "TIFF", {}),
            ("tiff", "TIFF", {"compression": "tiff_lzw"}),
            ("ppm", "PPM", {}),
            ("jp2", "JPEG2000", {}),
        )
    },
    "only the header.jpg": lambda: encoded("JPEG")[:20],
    "only the signature.png": lambda: encoded("PNG")[:8],
    "checksum.png": lambda: patched(encoded("PNG"), 100, b"????"),
    "no pixels.png": lambda: png(64, 48),
    "signature of a png.jpg": lambda: b"\x89PNG\r\n\x1a\n" + encoded("JPEG"),
    "signature of a jpeg.png": lambda: b"\xff\xd8\xff" + encoded("PNG"),
    "zero wide.png": lambda: png(0, 48, (b"IDAT", zlib.compress(b"\0" * 48))),
    "bit depth 7.png": lambda: png(8, 8, (b"IDAT", zlib.compress(b"\0" * 72)), depth=7),
    "bomb of text.png": lambda: png(
        64, 48, *[(b"zTXt", b"a\0\0" + bomb(60))] * 3, (b"IDAT", zlib.compress(b"\0" * 65 * 48))
    ),
    "bomb of pixels.png": lambda: png(60_000, 60_000, (b"IDAT", bomb(64))),
    "claims the most.png": lambda: png(20_000, 20_000, (b"IDAT", bomb(16))),
    "claims 65500.jpg": lambda: jpeg_claiming(65_500, 65_500),
    "claims 65535.gif": lambda: patched(encoded("GIF"), 6, b"\xff\xff\xff\xff"),
    "claims 2 to the 31.bmp": lambda: patched(encoded("BMP"), 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)),
    "claims 2 to the 32.tif": lambda: tiff_claiming(2**32 - 1, 2**32 - 1),
    "claims without strips.tif": lambda: tiff_claiming(15_000, 15_000),
    "ifd of itself.tif": lambda: b"II*\0" + struct.pack("<IHHHIII", 8, 1, 254, 4, 1, 0, 8),
    "claims a lot.ppm": lambda: b"P6\n99999 99999\n255\n" + b"\0" * 99,
    "not a number.ppm": lambda: b"P6\nnan 4\n255\n" + b"\0" * 99,
    "page.jpg": lambda: b"<!doctype html><svg xmlns='http://www.w3.org/2000/svg'/>",
    "postscript.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "archive.jpg": lambda: b"PK\x03\x04" + b"\0" * 200,
    "phone.heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99,
    "zeros.jpg": lambda: b"\0" * 5000,
    "noise.png": lambda: np.random.default_rng(7).bytes(5000),
}


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's address holds 108 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


#: Names in the folder that are no files, or files of an unusable name: skipped as well.
TRICKS: dict[str, Make] = {
    "dangling.jpg": lambda path: path.symlink_to("nowhere"),
    "loop.jpg": lambda path: path.symlink_to(path.name),
    "fifo.jpg": lambda path: os.mkfifo(path),
    "socket.jpg": a_socket,
    "device.jpg": lambda path: path.symlink_to("/dev/zero"),
    "line\nbreak.jpg": lambda path: path.write_bytes(encoded("JPEG")) and None,
    " space before.jpg": lambda path: path.write_bytes(encoded("JPEG")) and None,
    "#comment.jpg": lambda path: path.write_bytes(encoded("JPEG")) and None,
    os.fsdecode(b"latin \xfc.jpg"): lambda path: path.write_bytes(encoded("JPEG")) and None,
}
