"""The contract of matchers that find their own points: a good one passes, each mistake has its message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from loc.errors import ContractError
from loc.plugins.contract import check_matcher
from loc.plugins.protocols import PluginConfig
from loc.types import Correspondences


class Good:
    """SIFT of OpenCV, matched where it is seen: keypoints of its own per pair."""

    Config = PluginConfig
    version = 1
    licence = "Apache-2.0"
    paper = "D. Lowe, IJCV 2004"
    weights: ClassVar[tuple] = ()
    requires = frozenset({"images"})
    pixel_origin = "center"
    color = "gray"
    min_side = 20

    def __init__(self, config: Any, *, device: str, dtype: str) -> None:
        self.sift = cv2.SIFT_create(400)

    def prepare(self, image: Any) -> Any:
        points, rows = self.sift.detectAndCompute((255 * np.asarray(image)[0]).astype(np.uint8), None)
        # OpenCV doubles the image first without moving its origin: a quarter pixel too far right and down.
        xy = np.array([point.pt for point in points], np.float32).reshape(-1, 2) - np.float32(0.25)
        return xy, rows, image.shape[:0:-1]

    def __call__(self, pairs: Any) -> list[Correspondences]:
        return [self.match(*pair) for pair in pairs]

    def match(self, first: Any, second: Any) -> Any:
        (xy0, rows0, _), (xy1, rows1, _) = first, second
        if rows0 is None or rows1 is None:
            return Correspondences.empty()
        found = cv2.BFMatcher(crossCheck=True).match(rows0, rows1)
        pairs = np.array([(each.queryIdx, each.trainIdx) for each in found if each.distance < 150])
        pairs = pairs.reshape(-1, 2).astype(int)
        return Correspondences(xy0[pairs[:, 0]], xy1[pairs[:, 1]], np.ones(len(pairs), np.float32))


def test_a_good_one_passes() -> None:
    check_matcher(Good)


def test_the_example_of_the_docs_passes() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "dense.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "orb"}
    exec(code, names)
    check_matcher(names["OrbPairs"])


class Swapped(Good):
    def match(self, first, second):
        found = super().match(first, second)
        return Correspondences(found.xy0[:, ::-1].copy(), found.xy1[:, ::-1].copy(), found.scores)


class SwappedInside(Swapped):
    """Square pictures hide it from the range check: only the motion shows it."""

    def match(self, first, second):
        found = super().match(first, second)
        low0, low1 = (np.array(each[2]) for each in (first, second))
        good = (found.xy0 < low0 - 1).all(axis=1) & (found.xy1 < low1 - 1).all(axis=1)
        return found.select(good)


class Exchanged(Good):
    def match(self, first, second):
        found = super().match(first, second)
        wh0, wh1 = np.array(first[2]), np.array(second[2])
        good = (found.xy1 < wh0 - 1).all(axis=1) & (found.xy0 < wh1 - 1).all(axis=1)
        return Correspondences(found.xy1, found.xy0, found.scores).select(good)


class WrongOrigin(Good):
    pixel_origin = "corner"


class Grouped(Good):
    def __call__(self, pairs):
        found = super().__call__(pairs)
        return [each.select(np.arange(len(pairs) - 1, len(each), len(pairs))) for each in found]


class Random(Good):
    def match(self, first, second):
        found = super().match(first, second)
        return found.select(np.random.rand(len(found)) < 0.7)


class Bright(Good):
    def prepare(self, image):
        return super().prepare(image / 255)


class Outside(Good):
    def match(self, first, second):
        found = super().match(first, second)
        return Correspondences(found.xy0, found.xy1 + 40, found.scores)


class Indices(Good):
    def match(self, first, second):
        from loc.types import Matches

        return Matches.empty()


class Both(Good):
    requires = frozenset({"images", "descriptors"})


class Shadowed(Good):
    class Config(PluginConfig):
        max_keypoints: int = 400


class TooBold(Good):
    def match(self, first, second):
        found = super().match(first, second)
        return Correspondences(found.xy0, found.xy1, found.scores + 1)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Swapped, "x and y are swapped"),
        (SwappedInside, "x and y are swapped"),
        (Exchanged, "the two sides are exchanged"),
        (WrongOrigin, 'should it be "center"'),
        (Grouped, "change with the pairs it is called with"),
        (Random, "not repeatable"),
        (Bright, r"expected in \[0, 255\]"),
        (Outside, "points lie outside image 1"),
        (Indices, "returned Matches, expected Correspondences"),
        (Both, "requires nothing else"),
        (Shadowed, "max_keypoints of its Config would never reach it"),
        (TooBold, r"must lie in \[0, 1\]"),
    ],
)
def test_each_mistake_is_named(cls: Any, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_matcher(cls)
    assert re.search(message, f"{caught.value.message} {caught.value.next_step}"), caught.value
