"""A correct extractor passes the contract; each way of being wrong fails with its own message."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from loc.errors import ContractError, WeightsError
from loc.extractors.sift import Sift
from loc.plugins.contract import check_extractor
from loc.plugins.protocols import PluginConfig
from loc.types import LocalFeatures


class BlobConfig(PluginConfig):
    threshold: float = 0.01


class Blobs:
    """Local maxima of a difference of box means, described by the 9 x 9 px around them."""

    Config = BlobConfig
    version = 1
    licence = "Apache-2.0"
    paper = "none: a test"
    weights = ()
    pixel_origin = "center"
    color = "gray"
    parallel = "batch"
    min_side = 16
    ranked = True

    def __init__(self, config, *, device, dtype):
        self.config = config

    def response(self, images):
        means = [functional.avg_pool2d(images, k, 1, k // 2, count_include_pad=False) for k in (3, 7)]
        return (means[0] - means[1]).abs()

    def detect(self, response):
        top = functional.max_pool2d(response, 7, 1, 3)
        return (response == top) & (response > self.config.threshold)

    def __call__(self, images):
        response = self.response(images)
        peaks = self.detect(response)
        padded = functional.pad(images, (4, 4, 4, 4), mode="reflect")[:, 0]
        steps = torch.arange(9)
        out = []
        for image, peak, whole in zip(response, peaks, padded, strict=True):
            y, x = torch.nonzero(peak[0], as_tuple=True)
            rows = whole[y[:, None, None] + steps[:, None], x[:, None, None] + steps].flatten(1)
            rows = functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)
            xy = torch.stack([x, y], dim=1).float()
            out.append(self.features(xy.numpy(), image[0, y, x].numpy(), rows.numpy(), images.shape))
        return out

    def features(self, xy, scores, rows, shape):
        return LocalFeatures(xy, scores, rows, (shape[3], shape[2]))


def test_a_correct_extractor_passes() -> None:
    assert check_extractor(Blobs) is None
    check_extractor(Blobs, {"threshold": 0.02})
    check_extractor(Blobs, BlobConfig(threshold=0.02))


class CornerOrigin(Blobs):
    pixel_origin = "corner"

    def features(self, xy, scores, rows, shape):
        return super().features(xy + np.float32(0.5), scores, rows, shape)


class OneByOne(Blobs):
    """The same on NumPy arrays in worker processes."""

    parallel = "process"

    def __call__(self, images):
        assert isinstance(images, np.ndarray)
        assert images.shape[0] == 1
        return super().__call__(torch.from_numpy(images))


class Stride4(Blobs):
    """Positions on a grid of cells of 4 px, as a network without refinement gives them."""

    ranked = False

    def features(self, xy, scores, rows, shape):
        xy = np.floor(xy / 4) * 4 + 1.5
        return super().features(
            xy.clip(0, [shape[3] - 1, shape[2] - 1]).astype(np.float32), scores, rows, shape
        )


class Biased(Blobs):
    """Two pixels off by its published definition."""

    known_bias_px = 2.0

    def features(self, xy, scores, rows, shape):
        keep = (xy + 2 < [shape[3], shape[2]]).all(axis=1)
        return super().features(xy[keep] + 2, scores[keep], rows[keep], shape)


class NeedsLargeImages(Blobs):
    min_side = 250

    def __call__(self, images):
        assert min(images.shape[2:]) >= 250
        return super().__call__(images)


class Rgb(Blobs):
    color = "rgb"

    def __call__(self, images):
        return super().__call__(images.mean(1, keepdim=True))


@pytest.mark.parametrize("cls", [CornerOrigin, OneByOne, Stride4, Biased, NeedsLargeImages, Rgb])
def test_other_correct_extractors_pass(cls) -> None:
    check_extractor(cls)


class Swapped(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy[:, ::-1].copy(), scores, rows, shape)


class SwappedInside(Blobs):
    """Swapped, and hides it by dropping what falls outside."""

    def features(self, xy, scores, rows, shape):
        xy = xy[:, ::-1]
        keep = (xy < [shape[3], shape[2]]).all(axis=1)
        return super().features(xy[keep], scores[keep], rows[keep], shape)


class HalfPixelLow(Blobs):
    pixel_origin = "corner"  # but gives centres


class HalfPixelHigh(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy + np.float32(0.5), scores, rows, shape)


class HalfPixelInY(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy + np.float32([0, 0.5]), scores, rows, shape)


class SiftOfAnotherOrigin(Sift):
    pixel_origin = "center"


class CoarseAndLow(Stride4):
    """Half a pixel is found also where positions are multiples of four."""

    pixel_origin = "corner"


class AcrossTheBorder(Blobs):
    """Refinement moves one keypoint a little outside."""

    def features(self, xy, scores, rows, shape):
        xy[:1] = [-0.75, 3]
        return super().features(xy, scores, rows, shape)


class UndeclaredBias(Biased):
    known_bias_px = 0.0


class FeatureMapPixels(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy / 4, scores, rows, shape)


class BatchDependent(Blobs):
    def response(self, images):
        return super().response(images - 0.5 * images.mean(0, keepdim=True))


class DescriptorsDependOnBatch(Blobs):
    def __call__(self, images):
        alone = super().__call__(images)
        swap = np.eye(81, dtype=np.float32)[::-1] if len(images) > 1 else np.eye(81, dtype=np.float32)
        return [dataclasses.replace(each, descriptors=each.descriptors @ swap) for each in alone]


class SortedHalfway(Blobs):
    def features(self, xy, scores, rows, shape):
        order = np.argsort(-scores)
        return super().features(xy[order], scores[order], rows, shape)


class Random(Blobs):
    def response(self, images):
        return super().response(images) + 1e-3 * torch.rand(images.shape)


class WrongDtype(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy, scores, rows.astype(np.float64), shape)


class NotANumber(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy, scores, rows / np.float32(0), shape)


class WrongSize(Blobs):
    def features(self, xy, scores, rows, shape):
        return LocalFeatures(xy, scores, rows, (shape[2], shape[3]))


class FailsOnBlack(Blobs):
    def features(self, xy, scores, rows, shape):
        scores = scores / scores.max()
        return super().features(xy, scores, rows, shape)


class FailsOnOddSizes(Blobs):
    def __call__(self, images):
        images.unfold(2, 4, 4)
        return super().__call__(images.view(len(images), 1, images.shape[2] // 4 * 4, -1))


class ClaimsSmallImages(Blobs):
    min_side = 2


class ChangingDescriptors(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy, scores, rows if shape[3] == 320 else rows[:, :64], shape)


class Expects255(Blobs):
    def __init__(self, config, *, device, dtype):
        super().__init__(BlobConfig(threshold=5.0), device=device, dtype=dtype)


class NotRanked(Blobs):
    def features(self, xy, scores, rows, shape):
        return super().features(xy, np.ones_like(scores), rows, shape)


class OneForAll(Blobs):
    def __call__(self, images):
        return super().__call__(images)[0]


class TooFew(Blobs):
    def __call__(self, images):
        return super().__call__(images)[:1]


class ReturnsDicts(Blobs):
    def __call__(self, images):
        return [dataclasses.asdict(each) for each in super().__call__(images)]


class NoLicence(Blobs):
    licence = ""


class WrongOrigin(Blobs):
    pixel_origin = "centre"


class NoVersion(Blobs):
    version = "1"


class NeedsAnOption(Blobs):
    class Config(PluginConfig):
        weights_path: str


WRONG = {
    Swapped: "outside the image: x from",
    SwappedInside: "x and y are swapped: when the picture moves by (64, 32) px, its keypoints move by (32,",
    HalfPixelLow: "x is off by -0.",
    HalfPixelHigh: "x is off by +0.",
    HalfPixelInY: "y is off by +0.",
    SiftOfAnotherOrigin: "x is off by +0.",
    CoarseAndLow: "x is off by -0.",
    AcrossTheBorder: "keypoints lie outside the image by less than a pixel",
    UndeclaredBias: "is off by",
    FeatureMapPixels: "keypoints do not move with the picture",
    BatchDependent: "batch-dependent: ",
    DescriptorsDependOnBatch: "batch-dependent: 0 % of the features of image 0",
    SortedHalfway: "descriptors are not those of their keypoints",
    Random: "not repeatable: the same image gives other features",
    WrongDtype: "descriptors must be float32, float16 or uint8, got float64",
    NotANumber: "descriptors holds NaN or infinity",
    WrongSize: "image_wh is (240, 320) for an image of (320, 240)",
    FailsOnBlack: "__call__ on 1 x 320 x 240 px raised ValueError",
    FailsOnOddSizes: "__call__ on 1 x 317 x 239 px raised RuntimeError",
    ClaimsSmallImages: "__call__ on 1 x 106 x 2 px raised",
    ChangingDescriptors: "descriptors are float32 of dimension 64 here and float32 of dimension 81 elsewhere",
    Expects255: "0 keypoints in a picture full of corners and blobs",
    NotRanked: "ranked = True, but all scores are equal",
    OneForAll: "LocalFeatures for 1 images",
    TooFew: "1 results for 3 images",
    ReturnsDicts: "returned dict, expected LocalFeatures",
    NoLicence: "licence must be a sentence or an SPDX identifier, got ''",
    WrongOrigin: "pixel_origin must be one of corner, center, got 'centre'",
    NoVersion: "version must be an int of at least 1, got '1'",
    NeedsAnOption: "its Config refuses its own defaults",
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("cls", list(WRONG), ids=lambda cls: cls.__name__)
def test_a_wrong_extractor_fails_with_its_own_message(cls) -> None:
    with pytest.raises(ContractError) as raised:
        check_extractor(cls)
    message = raised.value.message
    assert message.startswith(f"{cls.__name__}: ")
    assert WRONG[cls] in message


def test_swapped_says_so() -> None:
    with pytest.raises(ContractError, match="x and y are swapped"):
        check_extractor(Swapped)


def test_missing_weights_are_not_a_breach_of_contract() -> None:
    class NoWeights(Blobs):
        def __init__(self, config, *, device, dtype):
            raise WeightsError("no weights here")

    with pytest.raises(WeightsError, match="no weights here"):
        check_extractor(NoWeights)
