"""The matchers `adalam` and `guided` on made scenes whose true matches are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loc.errors import ContractError
from loc.matchers.adalam import Adalam, AdalamConfig
from loc.matchers.guided import Guided, GuidedConfig
from loc.matchers.nearest import Nearest, NearestConfig
from loc.types import LocalFeatures, Matches

WH = (1000, 800)
K = np.array([[900.0, 0, 500], [0, 900, 400], [0, 0, 1]])


def rotation(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


def views(points: np.ndarray, *, turn: float, step: tuple[float, float, float], rng) -> list[np.ndarray]:
    """Pixels, with noise of a third of a pixel, of the same points in two views."""
    moved = points @ rotation(turn).T + np.array(step)
    shown = [each @ K.T for each in (points, moved)]
    return [each[:, :2] / each[:, 2:] + rng.normal(0, 0.3, (len(each), 2)) for each in shown]


def cloud(rng, n: int, *, depth: tuple[float, float]) -> np.ndarray:
    """``n`` points that the first view sees, at random depths."""
    xy = rng.uniform((60, 60), (940, 740), (n, 2))
    rays = np.column_stack([xy, np.ones(n)]) @ np.linalg.inv(K).T
    return rays * rng.uniform(*depth, (n, 1))


def described(rng, n: int, *, alike: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of ``n`` points in both views; groups of ``alike`` points look the same but for noise."""
    base = np.repeat(rng.normal(size=(-(-n // alike), 64)), alike, axis=0)[:n]
    return tuple((base + 0.15 * rng.normal(size=base.shape)).astype(np.float32) for _ in range(2))


def features(xy: np.ndarray, rows: np.ndarray, noise_px: float = 0.5, **more) -> LocalFeatures:
    xy = xy.astype(np.float32)
    return LocalFeatures(xy, np.ones(len(xy), np.float32), rows, WH, noise_px=noise_px, **more)


def pair(seed: int = 0, *, unique: int = 150, repeated: int = 200, wrong: int = 0, **motion):
    """Two images whose row i is the same point; ``wrong`` more rows look alike and lie anywhere."""
    rng = np.random.default_rng(seed)
    motion = {"depth": (4, 9), "turn": 4.0, "step": (0.9, 0.1, 0.2)} | motion
    points = cloud(rng, unique + repeated, depth=motion.pop("depth"))
    xy = views(points, rng=rng, **motion)
    rows = [described(rng, unique), described(rng, repeated, alike=5), described(rng, wrong)]
    anywhere = [rng.uniform((0, 0), WH, (wrong, 2)) for _ in range(2)]
    return tuple(
        features(np.vstack([xy[side], anywhere[side]]), np.vstack([each[side] for each in rows]))
        for side in (0, 1)
    )


def match(matcher, first: LocalFeatures, second: LocalFeatures) -> Matches:
    return matcher([(matcher.prepare(first), matcher.prepare(second))])[0]


def pairs_of(matches: Matches) -> set[tuple[int, int]]:
    return {tuple(row) for row in matches.indices.tolist()}


def right(matches: Matches, first: int = 0, last: int = 10**6) -> int:
    same = matches.indices[:, 0] == matches.indices[:, 1]
    return int((same & (matches.indices[:, 0] >= first) & (matches.indices[:, 0] < last)).sum())


PLAIN = Nearest(NearestConfig())
GUIDED = Guided(GuidedConfig())
ADALAM = Adalam(AdalamConfig())


def test_guided_finds_what_the_ratio_test_removed() -> None:
    first, second = pair()
    plain, found = match(PLAIN, first, second), match(GUIDED, first, second)
    assert right(plain, 0, 150) > 140
    assert right(plain, 150) < 40  # five that look alike: none passes but by luck
    assert right(found, 0, 150) >= right(plain, 0, 150) - 2
    assert right(found, 150) > 120
    assert right(found) > 0.93 * len(found)


def test_guided_drops_what_contradicts_the_geometry() -> None:
    first, second = pair(wrong=80, repeated=0)
    plain, found = match(PLAIN, first, second), match(GUIDED, first, second)
    assert right(plain, 150) == 80  # they look alike
    assert right(found, 0, 150) >= right(plain, 0, 150) - 2
    assert right(found, 150) < 8


@pytest.mark.parametrize(
    "motion",
    [
        {"depth": (6, 6), "turn": 3.0, "step": (0.8, 0.0, 0.3)},  # a plane
        {"depth": (4, 9), "turn": 12.0, "step": (0.0, 0.0, 0.0)},  # a camera that only turns
    ],
    ids=["plane", "rotation"],
)
def test_guided_loses_nothing_where_the_fundamental_matrix_is_open(motion) -> None:
    first, second = pair(seed=3, wrong=20, **motion)
    plain, found = match(PLAIN, first, second), match(GUIDED, first, second)
    assert pairs_of(plain) <= pairs_of(found)
    assert right(found, 150, 350) > right(plain, 150, 350) + 100


def test_guided_keeps_the_few_matches_beside_a_plane() -> None:
    """A dozen points off the plane may be outliers of a fundamental matrix that fits the plane."""
    rng = np.random.default_rng(5)
    plane, beside = cloud(rng, 200, depth=(6, 6)), cloud(rng, 12, depth=(2, 4))
    xy = views(np.vstack([plane, beside]), turn=3.0, step=(0.8, 0.0, 0.3), rng=rng)
    rows = described(rng, 212)
    first, second = (features(xy[side], rows[side]) for side in (0, 1))
    assert right(match(GUIDED, first, second), 200) == right(match(PLAIN, first, second), 200) == 12


def test_guided_is_plain_where_nothing_agrees() -> None:
    first, second = pair(unique=0, repeated=0, wrong=60)
    plain, found = match(PLAIN, first, second), match(GUIDED, first, second)
    assert len(plain) == 60
    np.testing.assert_array_equal(plain.indices, found.indices)
    np.testing.assert_array_equal(plain.scores, found.scores)


def test_guided_measures_in_the_noise_of_the_keypoints() -> None:
    """The same scene, one photo three times as large with keypoints three times as coarse."""
    first, second = pair(seed=7)
    larger = replace(
        second, keypoints=3 * second.keypoints, image_wh=(3000, 2400), noise_px=3 * second.noise_px
    )
    plain = pairs_of(match(GUIDED, first, second))
    assert len(plain ^ pairs_of(match(GUIDED, first, larger))) <= 0.02 * len(plain)


def test_guided_ignores_how_tiles_fall(monkeypatch) -> None:
    first, second = pair(seed=2)
    whole = match(GUIDED, first, second)
    monkeypatch.setattr("loc.matchers.nearest.TILE_COLUMNS", 96)
    monkeypatch.setattr("loc.matchers.nearest.TILE_BYTES", {"cpu": 4 * 96 * 64})
    np.testing.assert_array_equal(whole.indices, match(GUIDED, first, second).indices)


@pytest.mark.parametrize("frames", [True, False], ids=["scales and orientations", "neither"])
def test_adalam_keeps_what_moves_together(frames) -> None:
    first, second = pair(unique=500, repeated=0, wrong=300, depth=(6, 7))
    if frames:
        rng = np.random.default_rng(1)
        scales = rng.uniform(2, 9, len(first)).astype(np.float32)
        turns = rng.uniform(-3, 3, len(first)).astype(np.float32)
        first = replace(first, scales=scales, orientations_rad=turns)
        second = replace(
            second,
            scales=np.where(np.arange(800) < 500, scales, rng.permutation(scales)).astype(np.float32),
            orientations_rad=turns,
        )
    plain, found = match(PLAIN, first, second), match(ADALAM, first, second)
    assert right(plain, 0, 500) / len(plain) < 0.7
    assert right(found, 0, 500) / len(found) > 0.95
    assert right(found, 0, 500) > 0.9 * right(plain, 0, 500)
    scores = dict(zip(map(tuple, plain.indices.tolist()), plain.scores.tolist(), strict=True))
    for row, score in zip(found.indices.tolist(), found.scores.tolist(), strict=True):
        assert score == pytest.approx(scores.get(tuple(row), score), abs=1e-6)


def test_adalam_without_any_consistent_neighbourhood_has_no_matches() -> None:
    """kornia would give a ratio test's matches here."""
    first, second = pair(unique=0, repeated=0, wrong=60)
    assert len(match(PLAIN, first, second)) == 60
    assert len(match(ADALAM, first, second)) == 0


@pytest.mark.parametrize("matcher", [ADALAM, GUIDED], ids=["adalam", "guided"])
def test_none_one_and_two_keypoints(matcher) -> None:
    first, second = pair()
    for n in (0, 1, 2):
        few = second.select(np.arange(n))
        for found in (match(matcher, first, few), match(matcher, few, first), match(matcher, few, few)):
            assert len(found) <= (0 if matcher is ADALAM else n)  # AdaLAM: no neighbourhood


@pytest.mark.parametrize("matcher", [ADALAM, GUIDED], ids=["adalam", "guided"])
def test_descriptors_that_cannot_be_compared(matcher) -> None:
    first, second = pair()
    with pytest.raises(ContractError, match="cannot match descriptors"):
        match(matcher, first, replace(second, descriptors=second.descriptors[:, :32].copy()))
