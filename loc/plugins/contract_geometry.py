"""Where keypoints are: checks that find a wrong origin, swapped axes, and mixed-up rows.

All keypoints here have the corner origin of :mod:`loc.conventions`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from loc.errors import ContractError
from loc.types import LocalFeatures

Array = np.ndarray

#: A keypoint is found again if one lies this near, px.
NEAR_PX = 2.0
#: Offset of the origin that is let pass, px. Half a pixel is the mistake to find; detectors that
#: are not symmetric (learned ones) stay below a quarter.
ORIGIN_TOLERANCE_PX = 0.3
#: … and for a trained detector that need not treat left and right alike: in a mirror image DISK, ALIKED
#: and R2D2 find 20 to 65 % of their keypoints again, scattered by pixels, half a pixel off on average.
ASYMMETRIC_TOLERANCE_PX = 1.5
_LEAST_FOUND = 0.3
_MOST_KEYPOINTS = 2000  # of the distance matrices below


def check_shift(name: str, before: LocalFeatures, after: LocalFeatures, shift_xy: tuple[int, int]) -> None:
    """The window of ``after`` lies ``shift_xy`` further right and down in the same picture.

    Raises:
        ContractError: keypoints do not move with the picture, as (x, y) or at all, or descriptors
            are not those of their keypoints.
    """
    first, second = _strongest(before), _strongest(after)
    width, height = before.image_wh
    dx, dy = shift_xy
    found = _share_found(first.keypoints - [dx, dy], second.keypoints, (width - dx, height - dy))
    by_chance = _share_found(first.keypoints - [dx + 7, dy + 5], second.keypoints, (width - dx, height - dy))
    swapped = _share_found(first.keypoints - [dy, dx], second.keypoints, (height - dx, width - dy))
    if found < max(_LEAST_FOUND, 1.3 * by_chance):
        if swapped >= max(_LEAST_FOUND, 1.3 * found):
            raise ContractError(
                f"{name}: x and y are swapped: when the picture moves by {shift_xy} px,"
                f" its keypoints move by {(dy, dx)}",
                "keypoints are (x, y), x to the right; many networks return (row, column)",
            )
        raise ContractError(
            f"{name}: keypoints do not move with the picture: of those that stay visible"
            f" {100 * found:.0f} % are found again within {NEAR_PX:g} px",
            "keypoints must be px of the image that was passed in, not of the feature map",
        )
    _check_descriptors_follow(name, first, second, shift_xy)


def check_mirror(
    name: str,
    original: LocalFeatures,
    mirrored: LocalFeatures,
    *,
    axis: int,
    known_bias_px: float,
    tolerance_px: float = ORIGIN_TOLERANCE_PX,
) -> None:
    """``mirrored`` are the features of the mirrored image (``axis`` 0: left and right exchanged).

    A mirror turns x into width - x. If the origin is off by e, the two sets differ by 2 e, which no
    shift of the picture would show.

    Raises:
        ContractError: the origin is off by more than ``tolerance_px`` from what the plug-in declares as
            its bias.
    """
    expected = _strongest(original).keypoints.astype(np.float64) - known_bias_px
    expected[:, axis] = original.image_wh[axis] - expected[:, axis]
    got = _strongest(mirrored).keypoints.astype(np.float64) - known_bias_px
    offsets = _offsets_of_pairs(expected, got, reach_px=3.0)[:, axis]
    if len(offsets) < 10:
        raise ContractError(
            f"{name}: in the mirrored image only {len(offsets)} of {len(expected)} keypoints are found again"
            f" within 3 px along {'xy'[axis]}",
            "keypoints must be px of the image that was passed in; see the check of the shift",
        )
    middle = float(np.median(offsets))
    bias = float(offsets[np.abs(offsets - middle) <= 1].mean()) / 2
    if abs(bias) > tolerance_px:
        raise ContractError(
            f"{name}: {'xy'[axis]} is off by {bias:+.2f} px: keypoints of an image and of its mirror image"
            f" disagree by {2 * bias:+.2f} px (median of {len(offsets)})",
            'declare pixel_origin = "center" if (0, 0) is the centre of the first pixel, "corner" if that'
            " is (0.5, 0.5); a bias that belongs to the method goes in known_bias_px",
        )


def inside(
    keypoints: Float[Array, "n 2"], image_wh: tuple[int, int], *, margin_px: float = 1e-3
) -> Bool[Array, " n"]:
    """Which keypoints lie in the image, borders included."""
    low, high = -margin_px, np.asarray(image_wh) + margin_px
    return ((keypoints >= low) & (keypoints <= high)).all(axis=1)


def same_features(first: LocalFeatures, second: LocalFeatures, *, within_px: float, cosine: float) -> float:
    """Share of keypoints with a counterpart of nearly equal position and descriptor, in both ways."""
    if not len(first) or not len(second):
        return 1.0 if len(first) == len(second) else 0.0
    shares = []
    for a, b in ((first, second), (second, first)):
        near = _distances(a.keypoints, b.keypoints) <= within_px
        alike = _unit(a.descriptors) @ _unit(b.descriptors).T >= cosine
        shares.append(float((near & alike).any(axis=1).mean()))
    return min(shares)


def _check_descriptors_follow(
    name: str, first: LocalFeatures, second: LocalFeatures, shift_xy: tuple[int, int]
) -> None:
    distance = _distances(first.keypoints - np.array(shift_xy, np.float32), second.keypoints)
    again = np.flatnonzero(distance.min(axis=1) <= NEAR_PX)
    likeness = _unit(first.descriptors[again]) @ _unit(second.descriptors).T
    chosen = likeness.argmax(axis=1)
    right = float((distance[again, chosen] <= 2 * NEAR_PX).mean())
    if right < 0.3:
        raise ContractError(
            f"{name}: descriptors are not those of their keypoints: when the picture moves, only"
            f" {100 * right:.0f} % of the keypoints that are found again have their own descriptor nearest",
            "row i of descriptors belongs to row i of keypoints, also after sorting or filtering",
        )


def _share_found(
    expected: Float[Array, "n 2"], got: Float[Array, "m 2"], visible_wh: tuple[int, int]
) -> float:
    seen = expected[inside(expected, visible_wh, margin_px=0)]
    if not len(seen) or not len(got):
        return 0.0
    return float((_distances(seen, got).min(axis=1) <= NEAR_PX).mean())


def _offsets_of_pairs(
    expected: Float[Array, "n 2"], got: Float[Array, "m 2"], *, reach_px: float
) -> Float[Array, "p 2"]:
    """``got - expected`` of mutually nearest points within ``reach_px``."""
    if not len(expected) or not len(got):
        return np.zeros((0, 2))
    distance = _distances(expected, got)
    forward: Int[Array, " n"] = distance.argmin(axis=1)
    mutual = distance.argmin(axis=0)[forward] == np.arange(len(expected))
    rows = np.flatnonzero(mutual & (distance.min(axis=1) <= reach_px))
    return got[forward[rows]] - expected[rows]


def _strongest(features: LocalFeatures) -> LocalFeatures:
    """The best keypoints by score; with equal scores, rows spread over the list."""
    if len(features) <= _MOST_KEYPOINTS:
        return features
    if np.ptp(features.scores) == 0:
        return features.select(np.linspace(0, len(features) - 1, _MOST_KEYPOINTS).astype(np.int64))
    return features.select(np.argsort(-features.scores, kind="stable")[:_MOST_KEYPOINTS])


def _distances(a: Float[Array, "n 2"], b: Float[Array, "m 2"]) -> Float[Array, "n m"]:
    distance: Array = np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])
    return distance


def _unit(rows: Array) -> Array:
    rows = rows.astype(np.float32)
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
