"""Wrong matchers and global extractors fail the contract, each with its own message."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import ContractError
from loc.globals.vlad import Vlad
from loc.matchers.nearest import Nearest
from loc.plugins.contract import check_global_extractor, check_matcher
from loc.plugins.protocols import PluginConfig
from loc.types import Matches


class Unsorted(Nearest):
    def __call__(self, pairs):
        return [Matches(each.indices[::-1], each.scores[::-1]) for each in super().__call__(pairs)]


class ScoresAboveOne(Nearest):
    def __call__(self, pairs):
        return [Matches(each.indices, each.scores + 1) for each in super().__call__(pairs)]


class OutOfRange(Nearest):
    def __call__(self, pairs):
        return [Matches(each.indices + np.int32(60), each.scores) for each in super().__call__(pairs)]


class MatchesNothing(Nearest):
    def __call__(self, pairs):
        return [Matches.empty() for _ in pairs]


class MatchesTheEmpty(Nearest):
    def __call__(self, pairs):
        one = Matches(np.zeros((1, 2), np.int32), np.ones(1, np.float32))
        return [found if len(found) else one for found in super().__call__(pairs)]


class FailsOnEmpty(Nearest):
    def prepare(self, features):
        features.scores.max()
        return super().prepare(features)


class DependsOnGroup(Nearest):
    """Forgets the mask of a padded batch."""

    def __call__(self, pairs):
        found = super().__call__(pairs)
        least = min((len(each) for each in found), default=0)
        return [Matches(each.indices[:least], each.scores[:least]) for each in found]


class DependsOnOrder(Nearest):
    def __call__(self, pairs):
        kept = [np.abs(each.indices[:, 0] - each.indices[:, 1]) < 60 for each in super().__call__(pairs)]
        found = zip(super().__call__(pairs), kept, strict=True)
        return [Matches(each.indices[keep], each.scores[keep]) for each, keep in found]


class ReturnsArrays(Nearest):
    def __call__(self, pairs):
        return [each.indices for each in super().__call__(pairs)]


class ReturnsOne(Nearest):
    def __call__(self, pairs):
        return super().__call__(pairs)[:1]


class NeedsDepth(Nearest):
    requires = frozenset({"descriptors", "depth"})


WRONG_MATCHERS = {
    Unsorted: "matches must be sorted by (index 0, index 1) without repetition",
    ScoresAboveOne: "match scores must lie in [0, 1]",
    OutOfRange: "matches refer to keypoints that do not exist",
    MatchesNothing: "an image matched with itself: 0 of 200 keypoints found themselves",
    MatchesTheEmpty: "matches with an image that has no keypoints",
    FailsOnEmpty: "prepare raised ValueError",
    DependsOnGroup: "a pair's matches change with the pairs it is called with",
    DependsOnOrder: "matches depend on the order of the keypoints",
    ReturnsArrays: "returned ndarray, expected Matches",
    ReturnsOne: "must return a list with one Matches per pair",
    NeedsDepth: "requires must be a frozenset of",
}


@pytest.mark.parametrize("cls", list(WRONG_MATCHERS), ids=lambda cls: cls.__name__)
def test_a_wrong_matcher_fails_with_its_own_message(cls) -> None:
    with pytest.raises(ContractError) as raised:
        check_matcher(cls)
    assert raised.value.message.startswith(f"{cls.__name__}: ")
    assert WRONG_MATCHERS[cls] in raised.value.message


class NotUnit(Vlad):
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


class WrongDtype(Vlad):
    def __call__(self, inputs):
        return super().__call__(inputs).astype(np.float64)


class OneRow(Vlad):
    def __call__(self, inputs):
        return super().__call__(inputs)[:1]


class NanWhenEmpty(Vlad):
    def __call__(self, inputs):
        rows = super().__call__(inputs)
        rows[[not len(each) for each in inputs]] = np.nan
        return rows


class RandomFit(Vlad):
    def fit(self, inputs):
        state = super().fit(inputs)
        state["codebook"] = state["codebook"] + np.random.default_rng().normal(
            0, 0.01, state["codebook"].shape
        )
        return state


class FitReturnsAList(Vlad):
    def fit(self, inputs):
        return list(super().fit(inputs).values())


class Constant(Vlad):
    def __call__(self, inputs):
        rows = np.zeros_like(super().__call__(inputs))
        rows[:, 0] = 1
        return rows


class BatchDependent(Vlad):
    def __call__(self, inputs):
        rows = super().__call__(inputs)
        if len(rows) > 1:
            rows = rows - 0.5 * rows.mean(0)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


class WrongSource(Vlad):
    source = "pixels"


WRONG_GLOBALS = {
    NotUnit: "rows must have unit L2 norm (or be all zero), got norms from 2 to 2",
    WrongDtype: "must return a float32 array (6, d), got float64 (6, 8192)",
    OneRow: "must return a float32 array (6, d), got float32 (1, 8192)",
    NanWhenEmpty: "a descriptor holds NaN or infinity",
    RandomFit: "fit is not repeatable",
    FitReturnsAList: "fit must return a dict of NumPy arrays",
    Constant: "different images give the same descriptor",
    BatchDependent: "batch-dependent: a descriptor changes by up to",
    WrongSource: "source must be one of image, features, got 'pixels'",
}


@pytest.mark.parametrize("cls", list(WRONG_GLOBALS), ids=lambda cls: cls.__name__)
def test_a_wrong_global_extractor_fails_with_its_own_message(cls) -> None:
    with pytest.raises(ContractError) as raised:
        check_global_extractor(cls)
    assert raised.value.message.startswith(f"{cls.__name__}: ")
    assert WRONG_GLOBALS[cls] in raised.value.message


class MeanColour:
    """The least global extractor from pixels: mean colours of a 4 x 4 grid."""

    Config = PluginConfig
    version = 1
    licence = "Apache-2.0"
    paper = "none: a test"
    weights = ()
    source = "image"
    color = "rgb"
    min_side = 4
    needs_fit = False

    def __init__(self, config, *, device, dtype):
        pass

    def __call__(self, images):
        import torch

        means = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
        return torch.nn.functional.normalize(means, dim=1).cpu().numpy()


def test_a_global_extractor_from_pixels() -> None:
    check_global_extractor(MeanColour)

    class Gray(MeanColour):
        color = "gray"

    check_global_extractor(Gray)
