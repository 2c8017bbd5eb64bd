"""SIFT: origin, true cap, spread, dtypes, empty images, repeatability."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from loc.colmap import pycolmap
from loc.errors import ContractError
from loc.extractors.sift import Sift, SiftConfig
from loc.plugins.registry import load_plugin
from loc.runtime.select import coverage
from loc.types import LocalFeatures


def features(image: np.ndarray, **options: object) -> LocalFeatures:
    (out,) = Sift(SiftConfig(**options), device="cpu", dtype="float32")(image[None, None].astype(np.float32))
    return out


def texture(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return (blurred - blurred.min()) / (blurred.max() - blurred.min())


def blob(x: int, y: int, sigma: float = 4.0, shape: tuple[int, int] = (80, 100)) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)


@pytest.fixture(scope="module")
def photo(shared):
    gray = cv2.imread(str(shared / "data/strecha_fountain_p11/images/0004.jpg"), cv2.IMREAD_GRAYSCALE)
    factor = 1000 / max(gray.shape)
    small = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255.0


OPTIONS = [{}, {"domain_size_pooling": True}, {"affine_shape": True}, {"upright": True}, {"first_octave": 0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_blob_at_index_60_40_is_found_at_its_pixel_centre(options):
    found = features(blob(60, 40), **options)
    assert len(found) >= 1
    assert found.keypoints == pytest.approx(np.tile([60.5, 40.5], (len(found), 1)), abs=0.05)
    # A Gaussian blob of 4 px is the extremum at about its own scale.
    assert found.scales[0] == pytest.approx(4.0, rel=0.35)


def test_orientation_is_in_radians_from_x_towards_y():
    # Brightness grows downwards around the blob: the dominant gradient points along +y.
    ramp = np.linspace(0.0, 0.45, 80, dtype=np.float32)[:, None]
    found = features(blob(60, 40, sigma=5.0) * 0.5 + ramp, max_orientations=1)
    nearest = np.linalg.norm(found.keypoints - [60.5, 40.5], axis=1).argmin()
    assert np.degrees(found.orientations_rad[nearest]) == pytest.approx(90.0, abs=5.0)
    assert features(texture(), upright=True).orientations_rad == pytest.approx(0.0, abs=1e-6)


def test_with_affine_shape_scale_and_orientation_come_from_the_shape():
    image = texture()
    frames, _ = Sift(SiftConfig(affine_shape=True))._detect(np.rint(image * 255).astype(np.uint8))
    found = features(image, affine_shape=True, max_keypoints=None)
    assert len(found) == len(frames) > 50
    # An anisotropic blob, twice as long in x as in y, gets one scale between the two.
    rows, columns = np.mgrid[:120, :160]
    stretched = np.exp(-(((columns - 80) / 8.0) ** 2 + ((rows - 60) / 4.0) ** 2) / 2)
    scales = features(stretched, affine_shape=True).scales
    assert len(scales)
    assert ((scales > 4.0) & (scales < 9.0)).any()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cap", [1, 100])
def test_the_cap_is_never_exceeded_and_is_reached(options, cap):
    assert len(features(texture(), max_keypoints=None, **options)) > 300
    assert len(features(texture(), max_keypoints=cap, **options)) == cap


def test_a_smaller_cap_gives_the_first_rows_of_a_larger_one():
    large, small = features(texture(), max_keypoints=300), features(texture(), max_keypoints=120)
    assert np.array_equal(large.keypoints[:120], small.keypoints)
    assert np.array_equal(large.descriptors[:120], small.descriptors)


def test_capped_keypoints_cover_a_photo_better_than_the_largest_or_the_strongest(photo):
    every = features(photo, max_keypoints=None)
    capped = features(photo, max_keypoints=500)
    wh = (photo.shape[1], photo.shape[0])
    assert len(every) > 2000
    for values in (every.scales, every.scores):
        top = every.keypoints[np.argsort(-values, kind="stable")[:500]]
        assert coverage(capped.keypoints, wh) > 1.15 * coverage(top, wh)


def test_scores_are_the_contrast_that_the_peak_threshold_cuts():
    strengths = [0.2, 0.5, 1.0]
    image = sum(s * blob(x, 40, shape=(80, 200)) for s, x in zip(strengths, (30, 100, 170), strict=True))
    found = features(image, upright=True)
    by_x = found.scores[np.argsort(found.keypoints[:, 0])]
    assert by_x / by_x[-1] == pytest.approx(strengths, rel=0.03)
    textured = features(texture(), max_keypoints=None)
    assert np.percentile(textured.scores, 5) > 0.8 * SiftConfig().peak_threshold
    higher = features(texture(), max_keypoints=None, peak_threshold=0.03)
    assert np.percentile(higher.scores, 5) > 0.8 * 0.03


@pytest.mark.parametrize("sigma", [1.5, 2.0, 5.0, 11.0])
def test_the_contrast_of_a_blob_does_not_depend_on_its_size(sigma):
    found = features(blob(128, 128, sigma=sigma, shape=(256, 256)), upright=True)
    nearest = np.linalg.norm(found.keypoints - 128.5, axis=1).argmin()
    assert found.scores[nearest] == pytest.approx(0.12, rel=0.1)


def test_descriptors_are_rootsift_in_uint8():
    found = features(texture())
    assert found.descriptors.dtype == np.uint8
    assert found.descriptors.shape == (len(found), 128)
    norms = np.linalg.norm(found.descriptors.astype(np.float64), axis=1)
    assert norms == pytest.approx(512.0, rel=0.03)
    assert not np.array_equal(found.descriptors, features(texture(), normalization="l2").descriptors)


@pytest.mark.parametrize("options", [{}, {"domain_size_pooling": True, "affine_shape": True}])
@pytest.mark.parametrize("shape", [(16, 16), (16, 200), (17, 33), (120, 160)])
def test_black_and_tiny_images_give_no_keypoints(shape, options):
    found = features(np.zeros(shape, np.float32), **options)
    assert len(found) == 0
    assert found.descriptors.shape == (0, 128)
    assert found.descriptors.dtype == np.uint8
    assert found.image_wh == (shape[1], shape[0])
    assert len(found.scales) == len(found.orientations_rad) == len(found.scores) == 0


@pytest.mark.parametrize("options", [{}, {"domain_size_pooling": True, "affine_shape": True}])
@pytest.mark.parametrize("first_octave", [-1, 0, 1, 4])
def test_small_textured_images_do_not_crash_at_any_octave(options, first_octave):
    # COLMAP's covariant detector dies of a segmentation fault at 16 px with first_octave 1.
    for shape in [(8, 8), (16, 16), (16, 90), (33, 47)]:
        assert features(texture(*shape), first_octave=first_octave, **options).image_wh == shape[::-1]


def test_keypoints_that_colmap_puts_across_the_border_do_not_leave():
    image = np.random.default_rng(0).random((16, 300)).astype(np.float32)
    image = cv2.normalize(cv2.GaussianBlur(image, (0, 0), 1.0), None, 0, 1, cv2.NORM_MINMAX)
    sift = Sift(
        SiftConfig(first_octave=-2, peak_threshold=0.001, domain_size_pooling=True, max_keypoints=None)
    )
    raw, _ = sift._detect(np.rint(image * 255).astype(np.uint8))
    assert ((raw[:, :2] < 0) | (raw[:, :2] > [300, 16])).any()
    (found,) = sift(image[None, None])
    assert ((found.keypoints >= 0) & (found.keypoints <= [300, 16])).all()
    assert 0 < len(found) < len(raw)


def test_the_same_image_gives_the_same_bytes():
    first, again = Sift(SiftConfig()), Sift(SiftConfig())
    image = texture()[None, None]
    one, two, three = first(image)[0], first(image)[0], again(image)[0]
    for name in ("keypoints", "scores", "descriptors", "scales", "orientations_rad"):
        expected = getattr(one, name).tobytes()
        assert getattr(two, name).tobytes() == getattr(three, name).tobytes() == expected


def test_a_long_image_is_not_shrunk_inside():
    strip = np.tile(texture(40, 400), (1, 12))  # 4800 px, beyond COLMAP's default limit of 3200
    found = features(strip, max_keypoints=None)
    alone = features(strip[:, :400], max_keypoints=None)
    near = found.keypoints[found.keypoints[:, 0] < 300]
    expected = alone.keypoints[alone.keypoints[:, 0] < 300]
    assert len(near) == pytest.approx(len(expected), rel=0.05)


def test_a_batch_is_refused_with_what_to_do():
    with pytest.raises(ContractError, match=r"one grey image at a time.*got \(2, 1, 32, 32\)"):
        Sift(SiftConfig())(np.zeros((2, 1, 32, 32), np.float32))


def test_options_out_of_range_are_refused():
    for wrong in ({"max_keypoints": 0}, {"peak_threshold": 0}, {"first_octave": 9}, {"max_kpts": 3}):
        with pytest.raises(ValidationError):
            SiftConfig(**wrong)


def test_it_is_registered_and_shows_a_card():
    assert load_plugin("extractor", "sift") is Sift
    assert Sift.weights == ()
    assert "Lowe" in Sift.paper
    assert "BSD" in Sift.licence


def test_every_option_changes_what_colmap_is_asked():
    default = SiftConfig()
    changed = {
        "first_octave": 0,
        "num_octaves": 5,
        "octave_resolution": 4,
        "peak_threshold": 0.02,
        "edge_threshold": 5,
        "domain_size_pooling": not default.domain_size_pooling,
        "affine_shape": True,
        "upright": True,
        "max_orientations": 3,
        "normalization": "l2",
    }
    from loc.extractors.sift import _options

    base = _options(default).sift.todict()
    for name, value in changed.items():
        asked = _options(SiftConfig(**{name: value})).sift.todict()
        assert sum(asked[key] != base[key] for key in base) == 1, name
    assert set(changed) | {"max_keypoints"} == set(SiftConfig.model_fields)
    assert isinstance(_options(default), pycolmap.FeatureExtractionOptions)
