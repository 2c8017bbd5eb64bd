from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from loc.errors import ContractError, DataError, PluginError, ResourceError
from loc.plugins.blocks import resolve_block
from loc.plugins.protocols import PluginConfig
from loc.runtime.extraction import PhotoFile
from loc.runtime.pairing import PairMatcher
from loc.types import Correspondences

#: Pixels (centre origin) that the plug-in says it found in both images it is shown.
SPOTS = np.array([[0.0, 0.0], [9.0, 4.0]], np.float32)


class Spots:
    Config = PluginConfig
    version = 1
    licence = paper = "none"
    weights: ClassVar[tuple] = ()
    requires = frozenset({"images"})
    pixel_origin = "center"
    color = "rgb"
    min_side = 8
    answer: ClassVar[Any] = None
    prepared: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, config: Any, *, device: str, dtype: str) -> None:
        pass

    def prepare(self, image: Any) -> Any:
        self.prepared.append(tuple(image.shape))
        return image

    def __call__(self, pairs: Any) -> Any:
        if self.answer is not None:
            return type(self).answer(pairs)
        return [Correspondences(SPOTS, SPOTS, np.ones(2, np.float32)) for _ in pairs]


@pytest.fixture
def matcher() -> PairMatcher:
    Spots.answer = None
    Spots.prepared.clear()
    return PairMatcher(resolve_block("matcher", {"use": f"{__name__}:Spots", "resize_max": 20}))


def photo(path: Path, wh: tuple[int, int], orientation: int = 1) -> PhotoFile:
    image = Image.new("RGB", wh, (200, 10, 10))
    exif = image.getexif()
    exif[274] = orientation
    image.save(path, exif=exif)
    return PhotoFile(path.name, path)


def test_points_come_back_in_stored_pixels_of_either_image(matcher, tmp_path) -> None:
    plain = photo(tmp_path / "plain.jpg", (40, 20))  # shown at 20 x 10
    turned = photo(tmp_path / "turned.jpg", (10, 20), orientation=6)  # upright 20 x 10, as it is
    first, second = (matcher.shown(file, key=file.name) for file in (plain, turned))
    assert Spots.prepared == [(3, 10, 20), (3, 10, 20)]
    (found,) = matcher.match([(first, second)])
    assert found.xy0.tolist() == [[1.0, 1.0], [19.0, 9.0]]  # twice (0.5, 0.5) and (9.5, 4.5)
    # Orientation 6: stored x is upright y, stored y counts upright x from the far side.
    assert found.xy1.tolist() == [[0.5, 19.5], [4.5, 10.5]]


def test_masks_hide_on_either_side(matcher, tmp_path) -> None:
    file = photo(tmp_path / "a.png", (20, 10))
    mask = np.full((10, 20), 255, np.uint8)
    mask[:2, :2] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masked = PhotoFile("b", file.path, tmp_path / "mask.png")
    plain, hidden = matcher.shown(file, key="a"), matcher.shown(masked, key="b")
    for pair in ((plain, hidden), (hidden, plain)):
        (found,) = matcher.match([pair])
        assert found.xy0.tolist() == [[9.5, 4.5]]


def test_an_image_is_prepared_once_for_its_pairs(matcher, tmp_path) -> None:
    files = [photo(tmp_path / f"{name}.png", (20, 10)) for name in "abc"]
    for _ in range(3):
        shown = [matcher.shown(file, key=file.name) for file in files]
        assert len(matcher.match([(shown[0], shown[1]), (shown[0], shown[2])])) == 2
    assert len(Spots.prepared) == 3


def test_small_images_are_not_shown(matcher, tmp_path) -> None:
    tiny = matcher.shown(photo(tmp_path / "tiny.png", (7, 30)), key="tiny")
    fine = matcher.shown(photo(tmp_path / "fine.png", (20, 10)), key="fine")
    assert len(Spots.prepared) == 1
    found = matcher.match([(tiny, fine), (fine, fine), (tiny, tiny)])
    assert [len(each) for each in found] == [0, 2, 0]


def test_points_outside_the_image_are_dropped(matcher, tmp_path) -> None:
    shown = matcher.shown(photo(tmp_path / "a.png", (20, 10)), key="a")
    outside = np.array([[5.0, 5.0], [21.0, 5.0]], np.float32)
    Spots.answer = lambda pairs: [Correspondences(SPOTS, outside, np.ones(2, np.float32))]
    (found,) = matcher.match([(shown, shown)])
    assert found.xy1.tolist() == [[5.5, 5.5]]


def test_what_a_plug_in_does_wrong_names_it_and_the_images(matcher, tmp_path) -> None:
    shown = matcher.shown(photo(tmp_path / "a.png", (20, 10)), key="a")

    def crash(pairs: Any) -> Any:
        raise ValueError("no")

    def full(pairs: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    for answer, kind, message in (
        (crash, PluginError, "Spots failed on a.png and a.png: ValueError: no"),
        (full, ResourceError, "ran out of memory on a.png and a.png"),
        (lambda _: [], ContractError, "returned 0 results for 1 pairs"),
        (lambda _: None, ContractError, "returned NoneType results for 1 pairs"),
        (lambda _: [SPOTS], ContractError, "returned ndarray, expected Correspondences"),
    ):
        Spots.answer = answer
        with pytest.raises(kind, match=message):
            matcher.match([(shown, shown)])


def test_a_photo_that_cannot_be_read(matcher, tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"a\.png"):
        matcher.shown(PhotoFile("a.png", tmp_path / "a.png"), key="a")
