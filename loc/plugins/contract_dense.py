"""The contract of matchers that find their own points, on pictures whose true correspondences are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from loc.conventions import corner_from_center
from loc.errors import ContractError
from loc.plugins.blocks import DenseOptions
from loc.plugins.contract_card import SEEDS, build, call, check_choices
from loc.plugins.contract_geometry import inside
from loc.plugins.contract_samples import SHIFT_XY, as_color, textured_canvas
from loc.plugins.protocols import PluginConfig
from loc.types import Array, Correspondences

#: Smaller than what extractors are shown: a matcher sees many pairs, and may be slow.
_WIDTH, _HEIGHT = 192, 144
_LEAST = 20
#: A correspondence this near the truth is right, px; nearly all of an undistorted picture's must be.
_RIGHT_PX = 3.0
_LEAST_RIGHT = 0.5
#: Half a pixel of a wrong origin shows as a quarter in a picture of half the size.
_ORIGIN_TOLERANCE_PX = 0.15
_ALONE = "treat each pair alone, and put the network in eval mode"


def check_dense_matcher(
    cls: Any, name: str, config: PluginConfig | dict[str, Any] | None, *, device: str, dtype: str
) -> None:
    """Check a matcher that requires images; called by :func:`loc.plugins.contract.check_matcher`.

    Its card; types and ranges, with other, odd and least sizes and with nothing to see; repeatability;
    grouping; and the geometry: a picture and itself, moved, with its sides exchanged, and at half its
    size, where a wrong pixel origin shows (if the method finds at least 20 points there).
    """
    if cls.requires != {"images"}:
        raise ContractError(
            f"{name}: a matcher that requires images requires nothing else, got {sorted(cls.requires)}",
            "its correspondences become keypoints that all pairs share; there are no others",
        )
    taken = sorted(set(cls.Config.model_fields) & set(DenseOptions.model_fields))
    if taken:
        raise ContractError(
            f"{name}: {', '.join(taken)} of its Config would never reach it: the runtime's are called so",
            "give the plug-in's own options other names",
        )
    if type(getattr(cls, "min_side", None)) is not int or cls.min_side < 1:
        raise ContractError(f"{name}: min_side must be an int of at least 1")
    check_choices(name, cls, pixel_origin=("corner", "center"), color=("rgb", "gray"))
    run = _Run(cls, build(cls, config, device=device, dtype=dtype), name, device)
    scale = -(-2 * cls.min_side // _HEIGHT)
    canvas = as_color(textured_canvas(0, scale=scale), cls.color)
    (dx, dy), (width, height) = SHIFT_XY, (_WIDTH * scale, _HEIGHT * scale)
    image = np.ascontiguousarray(canvas[:, :height, :width])
    moved = np.ascontiguousarray(canvas[:, dy : dy + height, dx : dx + width])
    _check_sizes(run, image)
    base = run.one(image, image)
    if len(base) < _LEAST:
        raise ContractError(
            f"{name}: {len(base)} correspondences of a picture full of corners and blobs with itself,"
            f" expected at least {_LEAST}",
            "is the image expected in [0, 255]? it comes in [0, 1]",
        )
    _check_motion(name, base, (0, 0), "a picture and itself")
    forward, backward = run.one(image, moved), run.one(moved, image)
    _check_motion(name, forward, (-dx, -dy), "a picture and the same moved")
    _check_motion(name, backward, (dx, dy), "a moved picture and the original")
    again = run.one(image.copy(), moved.copy())
    if not np.array_equal(forward.xy0, again.xy0) or not np.array_equal(forward.xy1, again.xy1):
        raise ContractError(f"{name}: not repeatable: the same pair gives other correspondences", SEEDS)
    small = np.ascontiguousarray(image[:, : height - 22, : width - 45])
    _check_grouping(run, [(image, moved), (moved, small), (small, image)])
    _check_origin(name, run, image)
    run.check_strays()


class _Run:
    """Runs a matcher as the runtime would; points come back with the corner origin."""

    def __init__(self, cls: Any, plugin: Any, name: str, device: str) -> None:
        self.cls, self.plugin, self.name, self.device = cls, plugin, name, device
        self.strays = 0
        self._prepared: dict[int, tuple[Array, Any]] = {}  # by identity; the array is kept alive

    def _ready(self, image: Array) -> Any:
        """Prepared once for all of its pairs, as by the runtime."""
        import torch

        if id(image) not in self._prepared:
            shown = torch.from_numpy(image).to(self.device)
            self._prepared[id(image)] = image, call(self.name, "prepare", self.plugin.prepare, shown)
        return self._prepared[id(image)][1]

    def one(self, first: Array, second: Array) -> Correspondences:
        return self.many([(first, second)])[0]

    def many(self, pairs: list[tuple[Array, Array]]) -> list[Correspondences]:
        prepared = [(self._ready(first), self._ready(second)) for first, second in pairs]
        out = call(self.name, "__call__", self.plugin, prepared)
        if not isinstance(out, list) or len(out) != len(pairs):
            raise ContractError(f"{self.name}: must return a list with one Correspondences per pair")
        return [self._checked(found, *pair) for found, pair in zip(out, pairs, strict=True)]

    def check_strays(self) -> None:
        """Points up to a pixel outside; asked last, as a wrong origin is the better explanation."""
        if self.strays:
            raise ContractError(
                f"{self.name}: {self.strays} points lie outside their image by less than a pixel",
                "drop what refinement moves across the border",
            )

    def _checked(self, found: Any, first: Array, second: Array) -> Correspondences:
        if not isinstance(found, Correspondences):
            raise ContractError(f"{self.name}: returned {type(found).__name__}, expected Correspondences")
        corner = []
        for side, (xy, image) in enumerate(((found.xy0, first), (found.xy1, second))):
            xy = corner_from_center(xy) if self.cls.pixel_origin == "center" else xy
            wh = (image.shape[2], image.shape[1])
            self.strays += int((~inside(xy, wh)).sum())
            if not inside(xy, wh, margin_px=1.0).all():
                low, high = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
                swapped = inside(xy[:, ::-1], wh, margin_px=1.0).all()
                raise ContractError(
                    f"{self.name}: points lie outside image {side}: x from {low[0]:.1f} to {high[0]:.1f}, y"
                    f" from {low[1]:.1f} to {high[1]:.1f} in {wh[0]} x {wh[1]} px"
                    + (": x and y are swapped" if swapped else ""),
                    "points are (x, y) in px of the image that was passed in, of either's own size",
                )
            corner.append(xy)
        return Correspondences(corner[0], corner[1], found.scores)


def _check_sizes(run: _Run, image: Array) -> None:
    _, height, width = image.shape
    least = run.cls.min_side
    black = np.zeros_like(image)
    odd = np.ascontiguousarray(image[:, : height - 7, : width - 13])
    flat = np.ascontiguousarray(image[:, :least, : max(least, width // 3)])
    tall = np.ascontiguousarray(image[:, : max(least, height // 3), :least])
    for pair in ((black, image), (image, black), (black, black), (odd, image), (image, odd)):
        run.one(*pair)
    for pair in ((flat, tall), (tall, image), (image, flat)):
        run.one(*pair)
    if run.many([]):
        raise ContractError(f"{run.name}: correspondences for an empty list of pairs")


def _check_motion(name: str, found: Correspondences, motion_xy: tuple[int, int], what: str) -> None:
    """Whether points of the second picture are those of the first, moved as it was."""
    if len(found) < _LEAST:
        raise ContractError(
            f"{name}: {len(found)} correspondences of {what}, expected at least {_LEAST}",
            "is the second image's feature map used for the first?",
        )

    def right(xy0: Array, xy1: Array, motion: tuple[int, int]) -> float:
        return float((np.linalg.norm(xy1 - xy0 - np.array(motion), axis=1) <= _RIGHT_PX).mean())

    share = right(found.xy0, found.xy1, motion_xy)
    if share >= _LEAST_RIGHT:
        return
    dx, dy = motion_xy
    why = ""
    if right(found.xy0[:, ::-1], found.xy1[:, ::-1], motion_xy) > share:
        why = ": x and y are swapped"
    elif right(found.xy0, found.xy1, (-dx, -dy)) > share:
        why = ": the two sides are exchanged"
    raise ContractError(
        f"{name}: of {what}, {100 * share:.0f} % of the correspondences are right{why}",
        "row i of xy0 (first image) and of xy1 (second image) are (x, y) of one point",
    )


def _check_grouping(run: _Run, pairs: list[tuple[Array, Array]]) -> None:
    for alone, together in zip([run.one(*pair) for pair in pairs], run.many(pairs), strict=True):
        rows = {tuple(row) for row in np.hstack([alone.xy0, alone.xy1]).round(1).tolist()}
        same = {tuple(row) for row in np.hstack([together.xy0, together.xy1]).round(1).tolist()}
        if len(rows ^ same) > 0.05 * max(_LEAST, len(rows)):
            raise ContractError(
                f"{run.name}: a pair's correspondences change with the pairs it is called with", _ALONE
            )


def _check_origin(name: str, run: _Run, image: Array) -> None:
    """In a picture of half the size a point has half its coordinates, if these count from the corner."""
    channels, height, width = image.shape
    half = image[:, : height // 2 * 2, : width // 2 * 2]
    half = half.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4)).astype(np.float32)
    found = run.one(image, np.ascontiguousarray(half))
    offset = found.xy1 - found.xy0 / 2
    near = np.abs(offset).max(axis=1) <= 1.5
    if near.sum() < _LEAST:
        return  # not every method matches across scales
    bias = np.median(offset[near], axis=0)
    if np.abs(bias).max() > _ORIGIN_TOLERANCE_PX:
        other = "corner" if run.cls.pixel_origin == "center" else "center"
        raise ContractError(
            f"{name}: in a picture of half the size, points lie {bias[0]:+.2f}, {bias[1]:+.2f} px off (x, y)",
            f'pixel_origin is "{run.cls.pixel_origin}": should it be "{other}"?',
        )
