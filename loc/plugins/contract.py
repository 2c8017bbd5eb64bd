"""The contract suite: what every plug-in must do, as checks that a third party runs in its CI.

::

    from loc.plugins.contract import check_extractor

    def test_contract():
        check_extractor(MyExtractor)

Each function returns None, or raises :class:`loc.errors.ContractError` whose message names the
first rule that is broken and what to do. Inputs are synthetic (:mod:`loc.plugins.contract_samples`);
nothing is downloaded by the checks themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from loc.conventions import corner_from_center
from loc.errors import ContractError
from loc.plugins.contract_card import (
    SEEDS,
    as_shown,
    build,
    call,
    check_card,
    check_choices,
    check_ranked,
    check_rows,
    check_states,
)
from loc.plugins.contract_dense import check_dense_matcher
from loc.plugins.contract_geometry import (
    ASYMMETRIC_TOLERANCE_PX,
    ORIGIN_TOLERANCE_PX,
    check_mirror,
    check_shift,
    inside,
    same_features,
)
from loc.plugins.contract_samples import (
    HEIGHT,
    SHIFT_XY,
    WIDTH,
    as_color,
    other_view,
    sample_features,
    textured_canvas,
)
from loc.plugins.protocols import PluginConfig
from loc.types import LocalFeatures, Matches

Array = np.ndarray

_ORIGINS = ("corner", "center")
_COLORS = ("rgb", "gray")
_PARALLEL = ("batch", "process")
_FEATURE_FIELDS = frozenset(field.name for field in fields(LocalFeatures)) | {"images"}
#: Batch and single images may differ in the last bits, and so now and then in a keypoint.
_LEAST_SAME = 0.95
_LEAST_KEYPOINTS = 20


def check_extractor(
    cls: Any,
    config: PluginConfig | dict[str, Any] | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
) -> None:
    """Check a local feature extractor.

    Its card; shapes, dtypes and ranges; a black image, odd sizes and the smallest allowed side;
    repeatability; batch = singles; and the geometry: keypoints move with the picture as (x, y),
    descriptors go with them, and the origin is the declared one (half a pixel is found by mirroring
    the image). A method whose published form is biased declares ``known_bias_px: float``, the same
    for x and y: how much its keypoints lie too far right and down. A trained detector that treats left
    and right differently declares ``mirror_symmetric = False``: its origin is then checked coarsely.

    Args:
        cls: the plug-in's class.
        config: options, or None for the defaults.
        device, dtype: passed to the plug-in.

    Raises:
        ContractError: the first rule that is broken.
    """
    name = check_card(cls, numbers=("min_side",), flags=("ranked",))
    check_choices(name, cls, pixel_origin=_ORIGINS, color=_COLORS, parallel=_PARALLEL)
    run = _ExtractorRun(cls, build(cls, config, device=device, dtype=dtype), name, device)
    scale = _scale_for(cls.min_side)
    canvas = as_color(textured_canvas(0, scale=scale), cls.color)
    (dx, dy), (width, height) = SHIFT_XY, (WIDTH * scale, HEIGHT * scale)
    if hasattr(run.plugin, "resized_wh"):  # what the runtime would show
        width, height = run.plugin.resized_wh((width, height), None)
    image = np.ascontiguousarray(canvas[:, :height, :width])
    moved = np.ascontiguousarray(canvas[:, dy : dy + height, dx : dx + width])
    base = run.one(image)
    if len(base) < _LEAST_KEYPOINTS:
        raise ContractError(
            f"{name}: {len(base)} keypoints in a picture full of corners and blobs, expected at least"
            f" {_LEAST_KEYPOINTS}",
            "is the image expected in [0, 255]? it comes in [0, 1]",
        )
    if cls.ranked and np.ptp(base.scores) == 0:
        raise ContractError(f"{name}: ranked = True, but all scores are equal", "set ranked = False")
    _check_sizes(run, image, base)
    shifted = run.one(moved)
    _check_repeats(run, image, base)
    _check_batch(run, [image, moved, np.ascontiguousarray(image[:, ::-1])])
    check_shift(name, base, shifted, SHIFT_XY)
    bias = float(getattr(run.plugin, "known_bias_px", 0.0))
    tolerance = ORIGIN_TOLERANCE_PX if getattr(cls, "mirror_symmetric", True) else ASYMMETRIC_TOLERANCE_PX
    for axis, flipped in ((0, image[:, :, ::-1]), (1, image[:, ::-1])):
        mirrored = run.one(np.ascontiguousarray(flipped))
        check_mirror(name, base, mirrored, axis=axis, known_bias_px=bias, tolerance_px=tolerance)
    run.check_strays()


def check_global_extractor(
    cls: Any,
    config: PluginConfig | dict[str, Any] | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    dim: int = 128,
    descriptor_dtype: str = "uint8",
) -> None:
    """Check a global extractor: unit or zero rows, dtype, empty input, repeatable fit, batch = singles.

    Args:
        cls: the plug-in's class.
        config: options, or None for the defaults.
        device, dtype: passed to the plug-in.
        dim, descriptor_dtype: local descriptors to show to one with ``source = "features"``.

    Raises:
        ContractError: the first rule that is broken.
    """
    name = check_card(cls, numbers=("min_side",), flags=("needs_fit",))
    check_choices(name, cls, source=("image", "features"), color=_COLORS)
    plugin = build(cls, config, device=device, dtype=dtype)
    inputs, empty = _global_inputs(cls, dim=dim, descriptor_dtype=descriptor_dtype)
    if cls.needs_fit:
        first, second = (
            call(name, "fit", build(cls, config, device=device, dtype=dtype).fit, inputs) for _ in range(2)
        )
        check_states(name, first, second)
        call(name, "load_state", plugin.load_state, first)

    own = hasattr(cls, "ranking")

    def rows_of(images: list[Any]) -> Array:
        shown = images if cls.source == "features" else as_shown(cls, np.stack(images), device)
        found = call(name, "__call__", plugin, shown)
        return (
            check_ranked(name, cls, config, found, len(images))
            if own
            else check_rows(name, found, len(images))
        )

    together = rows_of(inputs)
    if np.abs(together - together[0]).max() < 1e-6:
        raise ContractError(f"{name}: different images give the same descriptor")
    if not np.array_equal(together, rows_of(inputs)):
        raise ContractError(f"{name}: not repeatable: the same images give other descriptors", SEEDS)
    singles = np.concatenate([rows_of([one]) for one in inputs])
    worst = float(np.abs(together - singles).max())
    if worst > 1e-3:
        raise ContractError(
            f"{name}: batch-dependent: a descriptor changes by up to {worst:.2g} with the batch it is in",
            _BATCH,
        )
    rows_of([empty])


def check_matcher(
    cls: Any,
    config: PluginConfig | dict[str, Any] | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    dim: int = 128,
    descriptor_dtype: str = "float32",
) -> None:
    """Check a matcher: valid matches, empty inputs, grouping, identity, permutation of keypoints.

    One that requires images is checked as :func:`loc.plugins.contract_dense.check_dense_matcher` says.

    Args:
        cls: the plug-in's class.
        config: options, or None for the defaults.
        device, dtype: passed to the plug-in.
        dim, descriptor_dtype: descriptors to show it, e.g. 256 for a network trained on those.

    Raises:
        ContractError: the first rule that is broken.
    """
    name = check_card(cls)
    if not isinstance(cls.requires, frozenset) or not cls.requires <= _FEATURE_FIELDS:
        raise ContractError(
            f"{name}: requires must be a frozenset of {sorted(_FEATURE_FIELDS)}, got {cls.requires!r}"
        )
    if "images" in cls.requires:
        check_dense_matcher(cls, name, config, device=device, dtype=dtype)
        return
    run = _MatcherRun(build(cls, config, device=device, dtype=dtype), name)
    images = [sample_features(seed, n, dim=dim, dtype=descriptor_dtype) for seed, n in ((0, 200), (1, 150))]
    images += [other_view(images[0], 2), sample_features(3, 1, dim=dim, dtype=descriptor_dtype)]
    nothing = sample_features(4, 0, dim=dim, dtype=descriptor_dtype)
    for pair in ((images[0], nothing), (nothing, images[0]), (nothing, nothing)):
        run.matches([pair])
    if run.matches([]):
        raise ContractError(f"{name}: matches for an empty list of pairs")
    run.matches([(images[0], images[3]), (images[3], images[0])])
    _check_identity(run, images[0])
    _check_grouping(run, [(images[0], images[1]), (images[0], images[2]), (images[2], images[1])])
    _check_permutation(run, images[0], images[2])


_BATCH = "put the network in eval mode (batch norm, dropout) and treat each image alone"


class _ExtractorRun:
    """Runs an extractor as the runtime would; keypoints come back with the corner origin."""

    def __init__(self, cls: Any, plugin: Any, name: str, device: str) -> None:
        self.cls, self.plugin, self.name, self.device = cls, plugin, name, device
        self.strays = 0

    def check_strays(self) -> None:
        """Keypoints up to a pixel outside; asked last, as a wrong origin is the better explanation."""
        if self.strays:
            raise ContractError(
                f"{self.name}: {self.strays} keypoints lie outside the image by less than a pixel",
                "drop or clip what refinement moves across the border",
            )

    def one(self, image: Array) -> LocalFeatures:
        return self.batch([image])[0]

    def batch(self, images: list[Array]) -> list[LocalFeatures]:
        _, height, width = images[0].shape
        size = f"{width} x {height} px"
        shown = as_shown(self.cls, np.stack(images), self.device)
        out = call(self.name, f"__call__ on {len(images)} x {size}", self.plugin, shown)
        if not isinstance(out, Sequence) or len(out) != len(images):
            got = f"{len(out)} results" if isinstance(out, Sequence) else type(out).__name__
            raise ContractError(
                f"{self.name}: {got} for {len(images)} images", "return a list, one per image"
            )
        return [self._checked(features, (width, height)) for features in out]

    def _checked(self, features: Any, image_wh: tuple[int, int]) -> LocalFeatures:
        if not isinstance(features, LocalFeatures):
            raise ContractError(f"{self.name}: returned {type(features).__name__}, expected LocalFeatures")
        if tuple(features.image_wh) != image_wh:
            raise ContractError(
                f"{self.name}: image_wh is {tuple(features.image_wh)} for an image of {image_wh}",
                "it is (width, height) of the image that was passed in",
            )
        xy = features.keypoints
        xy = corner_from_center(xy) if self.cls.pixel_origin == "center" else xy
        self.strays += int((~inside(xy, image_wh)).sum())
        if not inside(xy, image_wh, margin_px=1.0).all():
            low, high = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
            swapped = inside(xy[:, ::-1], image_wh, margin_px=1.0).all()
            raise ContractError(
                f"{self.name}: keypoints lie outside the image: x from {low[0]:.1f} to {high[0]:.1f}, y from"
                f" {low[1]:.1f} to {high[1]:.1f} in {image_wh[0]} x {image_wh[1]} px"
                + (": x and y are swapped" if swapped else ""),
                "keypoints are (x, y) in px of the image that was passed in",
            )
        return LocalFeatures(
            xy, features.scores, features.descriptors, features.image_wh, noise_px=features.noise_px
        )


class _MatcherRun:
    def __init__(self, plugin: Any, name: str) -> None:
        self.plugin, self.name = plugin, name

    def matches(self, pairs: list[tuple[LocalFeatures, LocalFeatures]]) -> list[Matches]:
        prepared = [
            tuple(call(self.name, "prepare", self.plugin.prepare, each) for each in pair) for pair in pairs
        ]
        out = call(self.name, "__call__", self.plugin, prepared)
        if not isinstance(out, list) or len(out) != len(pairs):
            raise ContractError(f"{self.name}: must return a list with one Matches per pair")
        for found, pair in zip(out, pairs, strict=True):
            if not isinstance(found, Matches):
                raise ContractError(f"{self.name}: returned {type(found).__name__}, expected Matches")
            limits = [len(pair[0]), len(pair[1])]
            if len(found) and not min(limits):
                raise ContractError(f"{self.name}: matches with an image that has no keypoints")
            if len(found) and ((found.indices < 0) | (found.indices >= limits)).any():
                raise ContractError(f"{self.name}: matches refer to keypoints that do not exist")
        return out


def _scale_for(min_side: int) -> int:
    """Enlarges the test images of a plug-in that takes no small ones."""
    return -(-(min_side + 16) // HEIGHT)


def _check_sizes(run: _ExtractorRun, image: Array, base: LocalFeatures) -> None:
    _, height, width = image.shape
    for shown in (
        np.zeros_like(image),
        np.ascontiguousarray(image[:, : height - 1, : width - 3]),
        np.ascontiguousarray(image[:, : height - 6, : width - 13]),
        np.ascontiguousarray(image[:, : run.cls.min_side, : max(run.cls.min_side, width // 3)]),
        np.ascontiguousarray(image[:, : max(run.cls.min_side, height // 3), : run.cls.min_side]),
        np.ascontiguousarray(image[:, -run.cls.min_side :, -run.cls.min_side :]),
    ):
        found = run.one(shown)
        kind = found.descriptors.dtype, found.descriptors.shape[1]
        if len(found) and kind != (base.descriptors.dtype, base.descriptors.shape[1]):
            raise ContractError(
                f"{run.name}: descriptors are {kind[0]} of dimension {kind[1]} here and"
                f" {base.descriptors.dtype} of dimension {base.descriptors.shape[1]} elsewhere"
            )


def _check_repeats(run: _ExtractorRun, image: Array, base: LocalFeatures) -> None:
    again = run.one(image)
    if not all(
        np.array_equal(getattr(base, key), getattr(again, key))
        for key in ("keypoints", "scores", "descriptors")
    ):
        raise ContractError(f"{run.name}: not repeatable: the same image gives other features", SEEDS)


def _check_batch(run: _ExtractorRun, images: list[Array]) -> None:
    if run.cls.parallel == "process":
        return  # it is only ever shown one image
    for position, (alone, inside_batch) in enumerate(
        zip([run.one(image) for image in images], run.batch(images), strict=True)
    ):
        share = same_features(alone, inside_batch, within_px=0.1, cosine=0.99)
        if share < _LEAST_SAME:
            raise ContractError(
                f"{run.name}: batch-dependent: {100 * share:.0f} % of the features of image {position} are"
                f" the same alone and in a batch of {len(images)}",
                _BATCH,
            )


def _global_inputs(cls: Any, *, dim: int, descriptor_dtype: str) -> tuple[list[Any], Any]:
    if cls.source == "features":
        many = [sample_features(seed, 150, dim=dim, dtype=descriptor_dtype) for seed in range(6)]
        return many, sample_features(9, 0, dim=dim, dtype=descriptor_dtype)
    scale = _scale_for(cls.min_side)
    images = [as_color(textured_canvas(seed, scale=scale), cls.color) for seed in range(3)]
    return images, np.zeros_like(images[0])


def _check_identity(run: _MatcherRun, image: LocalFeatures) -> None:
    itself = run.matches([(image, image)])[0].indices
    right = int((itself[:, 0] == itself[:, 1]).sum())
    if right < 0.5 * len(image) or right < 0.9 * len(itself):
        raise ContractError(
            f"{run.name}: an image matched with itself: {right} of {len(image)} keypoints found themselves,"
            f" {len(itself) - right} found another"
        )


def _check_grouping(run: _MatcherRun, pairs: list[tuple[LocalFeatures, LocalFeatures]]) -> None:
    for alone, together in zip([run.matches([pair])[0] for pair in pairs], run.matches(pairs), strict=True):
        same = np.array_equal(alone.indices, together.indices)
        if not same or not np.allclose(alone.scores, together.scores, atol=1e-4):
            raise ContractError(
                f"{run.name}: a pair's matches change with the pairs it is called with",
                "treat each pair alone, or mask the padding of a batch",
            )


def _check_permutation(run: _MatcherRun, first: LocalFeatures, second: LocalFeatures) -> None:
    order = np.random.default_rng(0).permutation(len(second))
    plain = {tuple(row) for row in run.matches([(first, second)])[0].indices.tolist()}
    permuted = run.matches([(first, second.select(order))])[0].indices.tolist()
    back = {(i, int(order[j])) for i, j in permuted}
    if len(plain ^ back) > 0.02 * max(1, len(plain)):
        raise ContractError(
            f"{run.name}: matches depend on the order of the keypoints:"
            f" {len(plain ^ back)} of {len(plain)} change when image 1 is permuted"
        )


__all__ = ["check_extractor", "check_global_extractor", "check_matcher"]
