"""Photos of every odd kind, the eight EXIF orientations, and the way back to stored pixels."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from loc.conventions import resize_wh, stored_from_upright_xy
from loc.errors import ContractError, DataError
from loc.runtime.images import (
    MAX_PIXELS,
    Photo,
    apply_mask,
    content_hash,
    features_to_stored,
    image_header,
    list_photos,
    prepare,
    read_photo,
)
from loc.types import LocalFeatures


def features_at(xy, image_wh, **more):
    n = len(xy)
    return LocalFeatures(
        np.asarray(xy, np.float32).reshape(n, 2),
        np.ones(n, np.float32),
        np.zeros((n, 4), np.uint8),
        image_wh,
        **more,
    )


def textured(width=48, height=32, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, image=None, orientation=None, **more) -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    (image or textured()).save(path, exif=exif, **more)
    return path


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


# --- what cannot be read ---------------------------------------------------------------------


def test_missing_photo(tmp_path):
    with pytest.raises(DataError, match=r"no photo at .*gone\.jpg \(No such file") as caught:
        read_photo(tmp_path / "gone.jpg", color="rgb")
    assert "scene.images" in caught.value.next_step


def test_folder_named_like_a_photo(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(DataError, match=r"a\.jpg is a folder, not a photo"):
        read_photo(tmp_path / "a.jpg", color="rgb")


def test_zero_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    for read in (lambda p: read_photo(p, color="gray"), image_header):
        with pytest.raises(DataError, match=r"a\.jpg is empty \(0 bytes\)"):
            read(tmp_path / "a.jpg")


def test_text_named_jpg(tmp_path):
    (tmp_path / "a.jpg").write_text("hello world, no photo")
    with pytest.raises(DataError, match=r"a\.jpg is not an image .*hello world") as caught:
        read_photo(tmp_path / "a.jpg", color="rgb")
    assert "remove or convert it" in caught.value.next_step


def test_heic_says_convert(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    with pytest.raises(DataError, match="is HEIC") as caught:
        image_header(tmp_path / "a.heic")
    assert caught.value.next_step == "convert it to JPEG first"


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "bmp", "webp", "gif", "ppm"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated(tmp_path, kind, kept):
    whole = save(tmp_path / f"whole.{kind}", textured(200, 150)).read_bytes()
    path = tmp_path / f"a.{kind}"
    path.write_bytes(whole[: max(12, int(len(whole) * kept))])
    with pytest.raises(DataError, match=rf"a\.{kind}.*is (truncated|damaged|not an image)"):
        read_photo(path, color="rgb")


def test_a_truncated_jpeg_is_called_truncated(tmp_path):
    path = save(tmp_path / "a.jpg", textured(200, 150))
    path.write_bytes(path.read_bytes()[:-300])
    assert image_header(path)[0] == (200, 150)  # the header alone cannot tell
    with pytest.raises(DataError, match=r"a\.jpg is truncated: .*image file is truncated") as caught:
        read_photo(path, color="rgb")
    assert "copy it again" in caught.value.next_step


def test_damaged_png(tmp_path):
    path = save(tmp_path / "a.png", textured(200, 150))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.png is (damaged|truncated)"):
        read_photo(path, color="rgb")


def test_absurd_header_is_refused_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(100_000, 100_000))
    for read in (lambda p: read_photo(p, color="rgb"), image_header):
        with pytest.raises(DataError, match=r"claims 100000 x 100000 px, 10000 megapixels; the limit is 400"):
            read(path)
    assert MAX_PIXELS > 30_000 * 13_000


@pytest.mark.parametrize("name", ["pano.png", "pano.tif"])
def test_wide_panorama_above_pillows_own_limit(tmp_path, monkeypatch, name):
    Image.new("L", (40_000, 46), 7).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / name).load()
    photo = read_photo(tmp_path / name, color="gray")
    assert photo.stored_wh == (40_000, 46)
    assert prepare(photo, to_wh=(1600, 2)).shape == (1, 2, 1600)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_limit_is_restored_by_the_last_of_several_threads(tmp_path):
    path = save(tmp_path / "a.png")
    before = Image.MAX_IMAGE_PIXELS
    threads = [
        threading.Thread(target=lambda: [read_photo(path, color="rgb") for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS is not None


# --- odd photos that can be read -------------------------------------------------------------


def test_one_pixel(tmp_path):
    path = save(tmp_path / "a.png", Image.new("RGB", (1, 1), (10, 20, 30)))
    photo = read_photo(path, color="rgb")
    assert photo.pixels.tolist() == [[[10, 20, 30]]]
    assert prepare(photo, to_wh=(1, 1)).shape == (3, 1, 1)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(values).save(tmp_path / name)
        assert read_photo(tmp_path / name, color="gray").pixels.tolist() == [[0, 1, 128, 255]]
    assert read_photo(tmp_path / "a.png", color="rgb").pixels[0, 2].tolist() == [128, 128, 128]


def test_sixteen_bit_rgb(tmp_path):
    import cv2

    bgr = np.array([[[65535, 32768, 0], [256, 1024, 65280]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    pixels = read_photo(tmp_path / "a.png", color="rgb").pixels
    assert pixels.tolist() == [[[0, 128, 255], [255, 4, 1]]]


def test_float_tiff(tmp_path):
    for top in (1.0, 255.0, 9000.0):
        Image.fromarray(np.array([[0, top / 2, top, np.nan]], np.float32)).save(tmp_path / "a.tif")
        assert read_photo(tmp_path / "a.tif", color="gray").pixels.tolist() == [[0, 128, 255, 0]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_modes(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    image = textured().convert("L" if mode in ("1", "L", "LA") else "RGB")
    path = save(tmp_path / f"a.{suffix}", image.convert(mode))
    rgb, gray = read_photo(path, color="rgb").pixels, read_photo(path, color="gray").pixels
    assert (rgb.shape, rgb.dtype) == ((32, 48, 3), np.uint8)
    assert (gray.shape, gray.dtype) == ((32, 48), np.uint8)
    tolerance = {"1": 130, "P": 16, "CMYK": 10, "YCbCr": 10}.get(mode, 0)
    assert np.abs(rgb.astype(int) - np.asarray(image.convert("RGB")).astype(int)).mean() <= tolerance


def test_alpha_is_dropped_and_transparent_palettes_do_not_warn(tmp_path, recwarn):
    red = Image.new("RGBA", (4, 4), (200, 10, 10, 0))
    assert read_photo(save(tmp_path / "a.png", red), color="rgb").pixels[0, 0].tolist() == [200, 10, 10]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(tmp_path / "p.png", transparency=b"\x00\x10")
    assert read_photo(tmp_path / "p.png", color="rgb").pixels[0, 0].tolist() == [9, 8, 7]
    assert not recwarn.list


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert read_photo(tmp_path / name, color="rgb").pixels[0, 0].tolist()[0] > 250


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_bad_orientation_counts_as_upright(tmp_path, value):
    path = save(tmp_path / "a.jpg", orientation=value)
    assert read_photo(path, color="rgb").exif_orientation == 1
    assert image_header(path)[1]["orientation"] == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_garbage_exif(tmp_path):
    buffer = io.BytesIO()
    textured().save(buffer, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(64)))
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert read_photo(tmp_path / "a.jpg", color="rgb").pixels.shape == (32, 48, 3)
    assert image_header(tmp_path / "a.jpg")[1]["focal_35mm"] is None


# --- EXIF orientation ------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "plain.tif", "packed.tif"])
def test_orientation_agrees_with_pillow_and_with_the_conventions(tmp_path, orientation, name):
    """A pixel painted in the stored grid is found upright where `stored_from_upright_xy` says."""
    stored = np.zeros((20, 32), np.uint8)
    stored[3:7, 24:28] = 255  # symmetric about (26, 5), corner origin
    more = {"compression": "tiff_lzw"} if name == "packed.tif" else {"lossless": True, "quality": 95}
    path = save(tmp_path / name, Image.fromarray(stored), orientation=orientation, **more)
    photo = read_photo(path, color="gray")
    with path.open("rb") as file, Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    assert photo.pixels.shape == expected.shape
    assert (photo.pixels == expected).all()
    assert (photo.stored_wh, photo.exif_orientation) == ((32, 20), orientation)
    assert image_header(path)[0] == (32, 20)
    row, column = np.nonzero(photo.pixels > 128)
    center = np.array([[column.mean() + 0.5, row.mean() + 0.5]])
    back = stored_from_upright_xy(center, stored_wh=(32, 20), exif_orientation=orientation)
    np.testing.assert_allclose(back, [[26, 5]], atol=1e-9)


# --- there and back --------------------------------------------------------------------------


def test_prepare_stays_in_range():
    photo = Photo(np.full((30, 40, 3), 255, np.uint8), (40, 30))
    same, small = prepare(photo, to_wh=(40, 30)), prepare(photo, to_wh=(20, 15))
    assert (same.shape, small.shape, same.dtype) == ((3, 30, 40), (3, 15, 20), np.float32)
    assert same.max() == small.max() == 1.0
    assert same.flags.c_contiguous
    assert prepare(Photo(photo.pixels[..., 0], (40, 30)), to_wh=(40, 30)).shape == (1, 30, 40)


def test_prepare_averages_areas():
    checker = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = prepare(Photo(checker, (64, 64)), to_wh=(16, 16))
    np.testing.assert_allclose(small, 0.5, atol=0.01)


@settings(max_examples=60, deadline=None)
@given(
    wh=st.tuples(st.integers(2, 300), st.integers(2, 300)),
    orientation=st.integers(1, 8),
    origin=st.sampled_from(["corner", "center"]),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_features_go_back_to_the_same_place(wh, orientation, origin, at):
    """Fractions of the upright image are where the stored fractions, turned, say."""
    upright = wh if orientation < 5 else (wh[1], wh[0])
    photo = Photo(np.zeros((upright[1], upright[0]), np.uint8), wh, orientation)
    resized = resize_wh(upright, 100)
    shift = 0.5 if origin == "center" else 0.0
    xy = np.array([[at[0] * resized[0] - shift, at[1] * resized[1] - shift]])
    out = features_to_stored(features_at(xy, resized), photo, resized, origin)
    if len(out) == 0:  # rounding to float32 put a border point outside
        assert min(at) < 1e-6 or max(at) > 1 - 1e-6
        return
    u, v = at
    stored = [(u, v), (1 - u, v), (1 - u, 1 - v), (u, 1 - v), (v, u), (v, 1 - u), (1 - v, 1 - u), (1 - v, u)]
    expected = np.array(stored[orientation - 1]) * wh
    np.testing.assert_allclose(out.keypoints[0], expected, atol=2e-3)
    assert out.image_wh == wh


def test_scales_noise_and_directions_come_along():
    photo = Photo(np.zeros((400, 300), np.uint8), (400, 300), 6)
    found = features_at(
        [[15.0, 20.0]],
        (30, 40),
        scales=np.array([2.0], np.float32),
        orientations_rad=np.array([0.0], np.float32),
        noise_px=0.5,
    )
    out = features_to_stored(found, photo, (30, 40), "corner")
    np.testing.assert_allclose(out.keypoints, [[200, 150]])
    np.testing.assert_allclose(out.scales, [20])
    np.testing.assert_allclose(out.orientations_rad, [-np.pi / 2], atol=1e-6)
    assert out.noise_px == pytest.approx(5.0)
    assert out.orientations_rad.dtype == out.scales.dtype == np.float32


def test_keypoints_outside_are_dropped_and_none_is_fine():
    photo = Photo(np.zeros((30, 40), np.uint8), (40, 30))
    found = features_at([[-0.6, 5], [-0.5, 5], [39.5, 29.5], [39.6, 5], [5, 29.7]], (40, 30))
    out = features_to_stored(found, photo, (40, 30), "center")
    assert out.keypoints.tolist() == [[0, 5.5], [40, 30]]
    assert len(features_to_stored(features_at([], (40, 30)), photo, (40, 30), "center")) == 0


def test_wrong_image_wh_is_a_contract_error():
    photo = Photo(np.zeros((30, 40), np.uint8), (40, 30))
    with pytest.raises(ContractError, match=r"image of \(30, 40\), but the plug-in was shown \(40, 30\)"):
        features_to_stored(features_at([], (30, 40)), photo, (40, 30), "corner")


# --- masks -----------------------------------------------------------------------------------


def test_mask_hides_keypoints(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[:, 20:] = 1
    found = features_at([[19.9, 5], [20.0, 5], [40, 30], [0, 0]], (40, 30))
    assert apply_mask(found, mask).keypoints.tolist() == [[20, 5], [40, 30]]
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert len(apply_mask(found, tmp_path / "m.png")) == 2
    Image.fromarray(mask.astype(np.uint16)).save(tmp_path / "deep.png")  # 1 of 65535 is not zero
    assert len(apply_mask(found, tmp_path / "deep.png")) == 2
    alpha = np.dstack([mask * 255, mask * 0, mask * 0, np.full_like(mask, 255)])
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    assert len(apply_mask(found, tmp_path / "rgba.png")) == 2
    assert len(apply_mask(features_at([], (40, 30)), mask)) == 0


def test_mask_of_the_wrong_size(tmp_path):
    found = features_at([[1, 1]], (40, 30))
    Image.new("L", (41, 30)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png is 41 x 30 px, its photo 40 x 30 px") as caught:
        apply_mask(found, tmp_path / "m.png")
    assert "size of the stored photo" in caught.value.next_step
    with pytest.raises(DataError, match=r"the mask is 30 x 40 px.*fits the photo only after EXIF rotation"):
        apply_mask(found, np.ones((40, 30)))


# --- names, hashes, headers ------------------------------------------------------------------


def test_header_reads_the_lens(tmp_path):
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "Apple\0", "iPhone 6", 6
    exif.get_ifd(0x8769).update({0x920A: 4.15, 0xA405: 29})
    textured().save(tmp_path / "a.jpg", exif=exif)
    wh, header = image_header(tmp_path / "a.jpg")
    assert wh == (48, 32)
    assert header == {
        "orientation": 6,
        "focal_35mm": 29.0,
        "focal_mm": pytest.approx(4.15),
        "focal_plane": None,
        "make": "Apple",
        "model": "iPhone 6",
        "gps": None,
        "timestamp_s": None,
    }


def test_content_hash_covers_photo_and_mask(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    hashes = {content_hash(a), content_hash(b), content_hash(a, b), content_hash(b, a)}
    assert len(hashes) == 4
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes)
    assert content_hash(a) == content_hash(a)
    with pytest.raises(DataError, match="cannot read"):
        content_hash(tmp_path / "gone")


def test_list_photos(tmp_path):
    names = ["b.JPG", "a b/ü-1.jpeg", "a b/c.d/x.Png", "note.txt", ".hidden.jpg", ".git/x.jpg", "noext"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "a b" / "loop").symlink_to(tmp_path)
    other = tmp_path.parent / f"{tmp_path.name}-linked"
    other.mkdir()
    (other / "z.tif").write_bytes(b"x")
    (tmp_path / "linked").symlink_to(other)
    assert list_photos(tmp_path) == ["a b/c.d/x.Png", "a b/ü-1.jpeg", "b.JPG", "linked/z.tif"]
    with pytest.raises(DataError, match="cannot list the folder"):
        list_photos(tmp_path / "nowhere")
