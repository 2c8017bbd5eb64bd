from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from loc.sfm.consistent import (
    SharingOptions,
    carry,
    merged,
    oriented,
    share_keypoints,
    snap_to,
    spread,
    usual_spacing,
)
from loc.types import Correspondences

WH = (400, 300)
OPTIONS = SharingOptions(merge_px=2.0, max_error_px=3.0, max_keypoints=1000)
AFFINE = np.array([[0.9, 0.2], [-0.15, 1.1]])


def found_by(map_xy, *, spacing=10.0, noise=0.0, outliers=0.0, seed=0, phase=None) -> Correspondences:
    """Correspondences of a smooth map on a grid of its own."""
    rng = np.random.default_rng(seed)
    start = rng.random(2) * spacing if phase is None else np.asarray(phase)
    axes = [np.arange(start[axis], WH[axis], spacing) for axis in (0, 1)]
    xy0 = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    xy1 = map_xy(xy0) + rng.normal(0, noise, xy0.shape)
    wrong = rng.random(len(xy0)) < outliers
    xy1[wrong] = rng.random((wrong.sum(), 2)) * WH
    inside = ((xy1 > 0) & (xy1 < WH)).all(axis=1)
    scores = np.full(len(xy0), 0.8)
    return Correspondences(*(each[inside].astype(np.float32) for each in (xy0, xy1, scores)))


def affine(xy):
    return xy @ AFFINE.T + [30, 20]


KEYPOINTS = np.stack(np.meshgrid(np.arange(60.0, 300, 13), np.arange(60.0, 240, 13)), axis=-1).reshape(-1, 2)


def test_keypoints_are_carried_exactly_by_an_affine_map() -> None:
    carried = carry(KEYPOINTS, found_by(affine), WH, OPTIONS)
    expected = affine(KEYPOINTS)
    inside = ((expected > 0) & (expected < WH)).all(axis=1)
    assert len(carried.rows) > 0.95 * inside.sum()
    assert np.abs(carried.xy - expected[carried.rows]).max() < 0.05
    assert carried.weights == pytest.approx(0.8)


def test_noise_is_averaged() -> None:
    carried = carry(KEYPOINTS, found_by(affine, noise=1.0), WH, OPTIONS)
    error = carried.xy - affine(KEYPOINTS)[carried.rows]
    assert len(carried.rows) > 0.9 * len(KEYPOINTS)
    assert np.abs(error).mean() < 0.6  # a single correspondence: 0.8


def test_outliers_have_no_say() -> None:
    carried = carry(KEYPOINTS, found_by(affine, outliers=0.15), WH, OPTIONS)
    error = np.linalg.norm(carried.xy - affine(KEYPOINTS)[carried.rows], axis=1)
    assert len(carried.rows) > 0.8 * len(KEYPOINTS)
    assert (error < 0.5).mean() > 0.95


def test_nothing_is_carried_where_the_surface_breaks() -> None:
    def two_depths(xy):
        return xy + np.where(xy[:, :1] < 200, 0.0, [[40.0, 0.0]])

    edge = np.array([[200.0, y] for y in range(50, 250, 10)])
    far = np.array([[100.0, y] for y in range(50, 250, 10)])
    found = found_by(two_depths, phase=(5.0, 5.0))
    both = np.concatenate([edge, KEYPOINTS])
    carried = carry(both, found, WH, OPTIONS)
    moved_x = carried.xy[:, 0] - both[carried.rows, 0]
    assert len(carried.rows) > 0.7 * len(KEYPOINTS)
    assert (np.minimum(np.abs(moved_x), np.abs(moved_x - 40)) < 1).all()  # on one of the sides, never between
    assert len(carry(far, found, WH, OPTIONS).rows) == len(far)


def test_nothing_is_carried_beyond_the_correspondences_or_the_image() -> None:
    found = found_by(lambda xy: xy + 0.0)
    left = found.select(found.xy0[:, 0] < 200)
    carried = carry(KEYPOINTS, left, WH, OPTIONS)
    assert KEYPOINTS[carried.rows, 0].max() < 200 + 1.5 * 10
    small = carry(KEYPOINTS, found, (150, 150), OPTIONS)
    assert (small.xy <= 150).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_correspondences_carry_nothing(count) -> None:
    few = found_by(affine).select(np.arange(count))
    assert len(carry(KEYPOINTS, few, WH, OPTIONS).rows) == 0
    assert len(carry(KEYPOINTS[:0], found_by(affine), WH, OPTIONS).rows) == 0


def test_correspondences_on_a_line_or_in_one_place() -> None:
    row = np.stack([np.arange(0.0, 300, 10), np.full(30, 100.0)], axis=1).astype(np.float32)
    line = Correspondences(row, row + np.float32(5), np.ones(30, np.float32))
    carried = carry(np.array([[101.0, 100.0], [101.0, 104.0]]), line, WH, OPTIONS)
    assert np.isfinite(carried.xy).all()
    assert carried.xy[0] == pytest.approx([106, 105], abs=0.1)
    same = Correspondences(row[:1].repeat(9, axis=0), row[:1].repeat(9, axis=0), np.ones(9, np.float32))
    assert np.isfinite(carry(KEYPOINTS, same, WH, OPTIONS).xy).all()


def test_spread_keeps_the_better_of_neighbours_whatever_the_order() -> None:
    rng = np.random.default_rng(1)
    xy, weights = rng.random((500, 2)) * 100, rng.random(500)
    kept = spread(xy, weights, 4.0)
    near = np.linalg.norm(xy[kept][:, None] - xy[kept][None], axis=2)
    assert near[~np.eye(kept.sum(), dtype=bool)].min() > 4.0
    for row in np.flatnonzero(~kept):  # a better one is near: kept, or removed by a kept one itself
        distance = np.linalg.norm(xy - xy[row], axis=1)
        assert ((distance <= 4.0) & (weights > weights[row])).any()
    order = rng.permutation(500)
    assert np.array_equal(spread(xy[order], weights[order], 4.0), kept[order])
    assert not len(spread(xy[:0], weights[:0], 4.0))


def test_spread_is_the_greedy_choice_where_cells_do_not_interfere() -> None:
    rng = np.random.default_rng(2)
    xy = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2) * 3 + 0.7
    weights = rng.random(len(xy))
    greedy = np.zeros(len(xy), bool)
    for row in np.argsort(-weights):
        greedy[row] = not (np.linalg.norm(xy[greedy] - xy[row], axis=1) <= 5.0).any()
    assert np.array_equal(spread(xy, weights, 5.0), greedy)


def test_merged_is_the_weighted_mean() -> None:
    xy = np.array([[10.0, 10], [11, 10], [50, 50]])
    label, centres, totals = merged(xy, np.array([0.75, 0.25, 0.5]), 2.0)
    assert label.tolist()[0] == label.tolist()[1] != label.tolist()[2]
    assert centres[label[0]] == pytest.approx([10.25, 10])
    assert totals[label] == pytest.approx([1.0, 1.0, 0.5])


def test_usual_spacing() -> None:
    assert usual_spacing(found_by(affine).xy0) == pytest.approx(10)
    assert usual_spacing(np.zeros((1, 2))) == 1.0


IMAGES = ("a", "b", "c", "d", "e")


def moved(name: str):
    """Where the scene's points are in an image: a shift and a slow bend."""
    number = IMAGES.index(name)

    def there(xy):
        return xy + [12.0 * number, 7.0 * number] + number * np.sin(xy / 120)

    return there


def world_xy(name: str, xy):
    guess = xy.copy()
    for _ in range(50):
        guess = guess - (moved(name)(guess) - xy)
    return guess


def scene_pairs(noise: float = 0.2) -> dict[tuple[str, str], Correspondences]:
    """Every pair has points of its own."""
    return {
        pair: found_by(
            lambda xy, pair=pair: moved(pair[1])(world_xy(pair[0], xy)), noise=noise, seed=seed, outliers=0.03
        )
        for seed, pair in enumerate(combinations(IMAGES, 2))
    }


def shared(pairs, *, options=OPTIONS, workers=1):
    return {
        each.name: each
        for each in share_keypoints(
            pairs,
            pairs.__getitem__,
            images=IMAGES,
            image_wh=lambda _: WH,
            options=lambda _: options,
            workers=workers,
        )
    }


def test_points_of_all_pairs_become_keypoints_that_pairs_share() -> None:
    found = shared(scene_pairs())
    degree = dict.fromkeys(IMAGES, 0)
    for name, each in found.items():
        for other, matches in each.matches.items():
            xy0 = world_xy(name, each.xy[matches.indices[:, 0]])
            xy1 = world_xy(other, found[other].xy[matches.indices[:, 1]])
            error = np.linalg.norm(xy0 - xy1, axis=1)
            assert np.median(error) < 0.3
            assert (error < 1.5).mean() > 0.97
            assert len(matches) > 300
            assert len(np.unique(matches.indices[:, 0])) == len(matches)
            assert len(np.unique(matches.indices[:, 1])) == len(matches)
            degree[name] += len(matches)
            degree[other] += len(matches)
    # Of 5 images in all pairs a keypoint has up to 4 matches; with points of each pair alone it has one.
    assert sum(degree.values()) / sum(len(each.xy) for each in found.values()) > 2.8


def test_workers_and_the_order_of_pairs_change_nothing() -> None:
    pairs = scene_pairs()
    first, second = shared(pairs), shared(dict(reversed(pairs.items())), workers=3)
    for name in IMAGES:
        assert np.array_equal(first[name].xy, second[name].xy)
        for other, matches in first[name].matches.items():
            assert np.array_equal(matches.indices, second[name].matches[other].indices)


def test_at_most_so_many_keypoints() -> None:
    found = shared(scene_pairs(), options=SharingOptions(2.0, 3.0, max_keypoints=50))
    assert max(len(each.xy) for each in found.values()) == 50
    for name, each in found.items():
        for other, matches in each.matches.items():
            assert (matches.indices < [len(found[name].xy), len(found[other].xy)]).all()


def test_spacing_by_option() -> None:
    found = shared(scene_pairs(), options=SharingOptions(2.0, 3.0, 1000, spacing_px=40.0))
    assert 10 < len(found["a"].xy) < 150


def test_images_without_correspondences_have_no_keypoints() -> None:
    pairs = {("a", "b"): Correspondences.empty(), ("b", "c"): scene_pairs()["b", "c"]}
    found = shared(pairs)
    assert len(found["a"].xy) == len(found["d"].xy) == 0
    assert len(found["b"].matches["a"]) == 0
    assert len(found["c"].matches["b"]) > 100


def test_a_query_gets_the_frozen_keypoints() -> None:
    frozen_xy = {"a": KEYPOINTS, "b": moved("b")(world_xy("a", KEYPOINTS))}
    pairs = scene_pairs()
    found = snap_to(
        [(name, xy, oriented(pairs[name, "c"], False)) for name, xy in frozen_xy.items()],
        name="c",
        image_wh=WH,
        options=OPTIONS,
    )
    expected = moved("c")(world_xy("a", KEYPOINTS))
    for name in ("a", "b"):
        rows = found.matches[name].indices
        assert len(rows) > 150
        error = np.linalg.norm(found.xy[rows[:, 0]] - expected[rows[:, 1]], axis=1)
        assert np.median(error) < 0.3
    # What both see is one keypoint of the query.
    assert len(found.xy) < 0.7 * (len(found.matches["a"]) + len(found.matches["b"]))
    nothing = snap_to([], name="c", image_wh=WH, options=OPTIONS)
    assert nothing.xy.shape == (0, 2)
    assert nothing.matches == {}
