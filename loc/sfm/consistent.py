"""Keypoints that many pairs share, from correspondences that each pair chose for itself.

A dense or semi-dense matcher (LoFTR, RoMa …) gives every pair points of its own, so hardly a point is
in two pairs and no track is longer than two. Rounding the points to a grid joins them, at the price of
displacing each by up to a cell. Here points are not displaced but *carried over*: a pair's
correspondences sample a smooth map from one image to the other, which says where any keypoint of the
first image lies in the second (a weighted affine fit to its neighbours; the fit also averages the
matcher's noise and gives outliers away). Images are taken one after another. Each takes over what
earlier images carried into it, merged where several agree, adds keypoints where it has none yet, and
carries all of them on. Measured against rounding in ``docs/dense.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from loc.types import Array, Correspondences, Matches

Pair = tuple[str, str]
#: Correspondences around a keypoint that say where it lies in the other image; an affine map has 3
#: unknowns per coordinate, and twice as many points outvote one that is wrong.
_NEIGHBOURS = 8
_LEAST_NEIGHBOURS = 4
#: They are looked for within this many times the usual distance between a pair's points …
_REACH = 3.0
#: … and the nearest must be within this: beyond, the map would be extrapolated.
_NEAREST = 1.5
#: Fits, each with the weights that the one before it gave.
_ROUNDS = 5
#: Where the map stretches this many times as much as usual it bridges two surfaces, one behind the other.
_STRETCH = 3.0
#: A new keypoint keeps this share of the spacing away from those that are there.
_COVERED = 0.7


@dataclass(frozen=True)
class SharingOptions:
    """How keypoints are chosen; lengths in px of the stored image.

    Attributes:
        merge_px: carried keypoints this close are one.
        max_error_px: a keypoint is not carried where its neighbours disagree by more.
        max_keypoints: most keypoints of an image.
        spacing_px: least distance of new keypoints; None: that of the matcher's own points.
    """

    merge_px: float
    max_error_px: float
    max_keypoints: int
    spacing_px: float | None = None


class Carried(NamedTuple):
    """Keypoints of one image seen in another: row of each, ``(c, 2)`` float64 px, weight in [0, 1]."""

    rows: Int[Array, " c"]
    xy: Float[Array, "c 2"]
    weights: Float[Array, " c"]


class SharedKeypoints(NamedTuple):
    """Keypoints of an image, and its matches with images that were done before it.

    ``matches[name]`` has this image's rows in column 0 and those of ``name`` in column 1.
    """

    name: str
    xy: Float[Array, "k 2"]
    scores: Float[Array, " k"]
    matches: dict[str, Matches]


def share_keypoints(
    pairs: Collection[Pair],
    load: Callable[[Pair], Correspondences],
    *,
    images: Sequence[str],
    image_wh: Callable[[str], tuple[int, int]],
    options: Callable[[str], SharingOptions],
    workers: int = 1,
) -> Iterator[SharedKeypoints]:
    """Keypoints of all ``images``, consistent over all ``pairs``; each pair is loaded once.

    Args:
        pairs: (first, second), each in one order only.
        load: the correspondences of a pair.
        images: in the order in which they are done: the best connected first makes short chains.
        image_wh, options: of an image.
        workers: threads; they change nothing of the result.
    """
    place = {name: number for number, name in enumerate(images)}
    later: dict[str, list[Pair]] = {name: [] for name in images}
    for pair in sorted(pairs):
        later[min(pair, key=place.__getitem__)].append(pair)
    arrived: dict[str, list[tuple[str, Carried]]] = {name: [] for name in images}
    with ThreadPoolExecutor(workers) as threads:
        for name in images:
            onward = {
                (second if first == name else first): oriented(load((first, second)), first == name)
                for first, second in later[name]
            }
            found = _settle(name, arrived.pop(name), options(name))
            if onward:
                found = _with_new(found, list(onward.values()), options(name))
            yield found
            jobs = {
                other: threads.submit(carry, found.xy, onward[other], image_wh(other), options(other))
                for other in sorted(onward)
            }
            for other, job in jobs.items():
                arrived[other].append((name, job.result()))


def snap_to(
    frozen: Sequence[tuple[str, Float[Array, "_ 2"], Correspondences]],
    *,
    name: str,
    image_wh: tuple[int, int],
    options: SharingOptions,
    workers: int = 1,
) -> SharedKeypoints:
    """Keypoints of a query: the frozen keypoints of database images, carried into it and merged.

    Args:
        frozen: ``(database image, its keypoints, correspondences from the query to it)``.
    """
    with ThreadPoolExecutor(workers) as threads:
        jobs = {
            other: threads.submit(
                carry, np.asarray(xy, np.float64), oriented(found, False), image_wh, options
            )
            for other, xy, found in sorted(frozen, key=lambda each: each[0])
        }
        arrived = [(other, job.result()) for other, job in jobs.items()]
    return _settle(name, arrived, options)


def oriented(found: Correspondences, forward: bool) -> Correspondences:
    """The correspondences seen from the first image, or from the second."""
    return found if forward else Correspondences(found.xy1, found.xy0, found.scores)


def carry(
    keypoints: Float[Array, "n 2"],
    found: Correspondences,
    target_wh: tuple[int, int],
    options: SharingOptions,
) -> Carried:
    """Where keypoints of image 0 lie in image 1, as far as the correspondences around them agree."""
    nothing = Carried(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0))
    if len(found) < _LEAST_NEIGHBOURS or not len(keypoints):
        return nothing
    source, target = found.xy0.astype(np.float64), found.xy1.astype(np.float64)
    spacing = usual_spacing(source)
    count = min(_NEIGHBOURS, len(source))
    distance, near = cKDTree(source).query(keypoints, k=count, distance_upper_bound=_REACH * spacing)
    there = np.isfinite(distance)
    rows = np.flatnonzero((there.sum(axis=1) >= _LEAST_NEIGHBOURS) & (distance[:, 0] <= _NEAREST * spacing))
    if not len(rows):
        return nothing
    near, there = np.where(there, near, 0)[rows], there[rows]
    weight = found.scores[near] * np.exp(-0.5 * (np.where(there, distance[rows], 0) / spacing) ** 2) * there
    offset = (source[near] - keypoints[rows][:, None]) / spacing
    local = _fitted(offset, target[near], weight, options.max_error_px)
    inside = ((local.xy >= 0) & (local.xy <= np.asarray(target_wh))).all(axis=1)
    enough = (local.weights > 0.3 * weight).sum(axis=1) >= _LEAST_NEIGHBOURS
    plausible = local.stretch <= _STRETCH * max(np.median(local.stretch), spacing / 2)
    good = np.flatnonzero(inside & enough & plausible & (local.error <= options.max_error_px))
    trust = (local.weights * found.scores[near]).sum(axis=1) / np.maximum(local.weights.sum(axis=1), 1e-12)
    return Carried(rows[good], local.xy[good], np.clip(trust[good], 1e-3, 1.0))


class _Local(NamedTuple):
    """Affine maps around points: value there, error in px, weights of the neighbours, px per spacing."""

    xy: Float[Array, "n 2"]
    error: Float[Array, " n"]
    weights: Float[Array, "n k"]
    stretch: Float[Array, " n"]


def _fitted(
    offset: Float[Array, "m j 2"], target: Float[Array, "m j 2"], weight: Float[Array, "m j"], scale_px: float
) -> _Local:
    """An affine map fitted to each row: least squares, then less and less heed to what does not fit.

    Weights of least absolute deviations first, which find the majority; then Geman and McClure's, to
    which an outlier is nothing.
    """
    design = np.concatenate([np.ones((*offset.shape[:2], 1)), offset], axis=2)
    ridge = np.diag([0.0, 1e-3, 1e-3])  # on a line of points the map across it is constant
    centre = np.median(target, axis=1, keepdims=True)  # for the condition, and for the ridge
    weights = weight
    for number in range(_ROUNDS):
        weighted = (design * weights[..., None]).transpose(0, 2, 1)
        normal = weighted @ design + ridge * np.maximum(weights.sum(axis=1), 1e-9)[:, None, None]
        normal[:, 0, 0] += 1e-12
        fit = np.linalg.solve(normal, weighted @ (target - centre))
        residual = np.linalg.norm(design @ fit + centre - target, axis=2)
        last = number >= _ROUNDS - 2
        deviation = 1 + (residual / scale_px) ** 2
        weights = weight / (deviation**2 if last else np.sqrt(deviation))
    error = np.sqrt((weights * residual**2).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12))
    return _Local(fit[:, 0] + centre[:, 0], error, weights, np.linalg.norm(fit[:, 1:], axis=(1, 2)))


def usual_spacing(xy: Float[Array, "n 2"]) -> float:
    """Median distance of points from their nearest neighbour, px; at least a pixel."""
    if len(xy) < 2:
        return 1.0
    distance = cKDTree(xy).query(xy, k=2)[0][:, 1]
    return max(1.0, float(np.median(distance)))


def _settle(name: str, arrived: list[tuple[str, Carried]], options: SharingOptions) -> SharedKeypoints:
    """Merge what arrived in an image into keypoints, and what arrived from where into matches."""
    xy = np.concatenate([np.zeros((0, 2)), *(each.xy for _, each in arrived)])
    weights = np.concatenate([np.zeros(0), *(each.weights for _, each in arrived)])
    label, centres, totals = merged(xy, weights, options.merge_px)
    kept = np.argsort(-totals, kind="stable")[: options.max_keypoints]
    renumbered = np.full(len(centres), -1, np.int64)
    renumbered[kept] = np.arange(len(kept))
    label = renumbered[label]
    matches, start = {}, 0
    for other, each in arrived:
        rows = label[start : start + len(each.rows)]
        matches[other] = _one_to_one(rows, each.rows, each.weights)
        start += len(each.rows)
    scores = totals[kept] / max(1, len(arrived))
    return SharedKeypoints(name, centres[kept], scores, matches)


def _with_new(
    found: SharedKeypoints, onward: list[Correspondences], options: SharingOptions
) -> SharedKeypoints:
    """Keypoints where the matcher has points and there are none yet, the surest first."""
    xy = np.concatenate([each.xy0 for each in onward]).astype(np.float64)
    weights = np.concatenate([each.scores for each in onward]).astype(np.float64)
    if not len(xy):
        return found
    spacing = options.spacing_px or max(usual_spacing(each.xy0) for each in onward)
    if len(found.xy):
        free = cKDTree(found.xy).query(xy, k=1)[0] > _COVERED * spacing
        xy, weights = xy[free], weights[free]
    new = np.flatnonzero(spread(xy, weights, _COVERED * spacing))
    room = options.max_keypoints - len(found.xy)
    new = new[np.argsort(-weights[new], kind="stable")[: max(0, room)]]
    scores = np.concatenate([found.scores, weights[new] / max(1, len(onward) + len(found.matches))])
    return found._replace(xy=np.concatenate([found.xy, xy[new]]), scores=scores)


def merged(
    xy: Float[Array, "n 2"], weights: Float[Array, " n"], radius: float
) -> tuple[Int[Array, " n"], Float[Array, "m 2"], Float[Array, " m"]]:
    """Points within ``radius`` of a weightier one join it: label per point, mean and weight per group."""
    if not len(xy):
        return np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0)
    seeds = np.flatnonzero(spread(xy, weights, radius))
    label = cKDTree(xy[seeds]).query(xy, k=1)[1].astype(np.int64)
    totals = np.bincount(label, weights, len(seeds))
    centres = np.stack([np.bincount(label, weights * xy[:, axis], len(seeds)) for axis in (0, 1)], axis=1)
    return label, centres / totals[:, None], totals


def spread(xy: Float[Array, "n 2"], weights: Float[Array, " n"], radius: float) -> Bool[Array, " n"]:
    """Which points stay when each, the weightiest first, removes its neighbours within ``radius``.

    Only the best point of a cell of half the radius takes part, so that hundreds of pairs with a point in
    about the same place cost no more than a few. All points that are the best of what is left around
    them are taken at once: a few rounds instead of a loop over points.
    """
    chosen = np.lexsort((xy[:, 1], xy[:, 0], -weights))
    cell = np.floor(xy[chosen] / (radius / 2)).astype(np.int64)
    chosen = chosen[np.sort(np.unique(cell, axis=0, return_index=True)[1])]
    kept, open_ = np.zeros(len(chosen), bool), np.ones(len(chosen), bool)
    edges = np.zeros((0, 2), np.int64)
    if len(chosen):  # rows of `chosen` are ranks: of an edge the smaller one is the better point
        edges = np.sort(cKDTree(xy[chosen]).query_pairs(radius, output_type="ndarray"), axis=1)
    while open_.any():
        first = open_.copy()
        first[edges[:, 1]] = False
        kept |= first
        open_ &= ~first
        open_[edges[first[edges[:, 0]], 1]] = False
        edges = edges[open_[edges].all(axis=1)]
    out = np.zeros(len(xy), bool)
    out[chosen[kept]] = True
    return out


def _one_to_one(rows0: Int[Array, " c"], rows1: Int[Array, " c"], weights: Float[Array, " c"]) -> Matches:
    """The surest of the links of each keypoint; links to keypoints that were not kept (-1) are none."""
    order = np.lexsort((rows1, -weights, rows0))
    order = order[rows0[order] >= 0]
    first = np.ones(len(order), bool)
    first[1:] = rows0[order][1:] != rows0[order][:-1]
    order = order[first]
    indices = np.stack([rows0[order], rows1[order]], axis=1).astype(np.int32)
    return Matches(indices, weights[order].astype(np.float32))
