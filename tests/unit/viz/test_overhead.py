"""The plan: seen from above, robust against what lies far away; and which way down is."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from loc.types import Pose
from loc.viz.ground import down_direction, ground_axes
from loc.viz.overhead import Plan, PlanQuery, draw_plan


def look(center: list[float], forward: list[float], down: list[float]) -> Pose:
    """A camera at ``center`` whose image's lower edge points as far down as the view allows."""
    z = np.array(forward) / np.linalg.norm(forward)
    x = np.cross(down, z)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    return Pose(quaternion(rotation), -rotation @ np.array(center))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation).as_quat()


def roll(pose: Pose, degrees: float) -> Pose:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return Pose(quaternion(turn @ pose.rotation), turn @ pose.translation)


DOWN = [0.0, 0.0, -1.0]
RNG = np.random.default_rng(3)


def ring(count: int, pitch: float = 0.0, span: float = 2 * np.pi) -> list[Pose]:
    """Cameras on a circle that look at its middle, tipped down by ``pitch`` (a slope)."""
    angles = np.linspace(0, span, count, endpoint=False)
    return [look([5 * np.cos(a), 5 * np.sin(a), 1.7], [-np.cos(a), -np.sin(a), -pitch], DOWN) for a in angles]


def angle_deg(a: np.ndarray, b: list[float]) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ np.array(b), -1, 1))))


@pytest.mark.parametrize("pitch", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("span", [2 * np.pi, 1.5])
def test_down_does_not_depend_on_how_far_cameras_are_tipped(pitch: float, span: float) -> None:
    assert angle_deg(down_direction(ring(12, pitch, span)), DOWN) < 0.1


def test_down_survives_a_minority_of_rotated_photos() -> None:
    poses = ring(12, 0.2)
    for turn, number in ((90, 1), (-90, 4), (180, 7), (90, 9)):
        poses[number] = roll(poses[number], turn)
    assert angle_deg(down_direction(poses), DOWN) < 3


def test_down_of_aerial_photos_and_of_one_photo() -> None:
    headings = RNG.uniform(0, 2 * np.pi, 20)
    aerial = [look([i, 0, 50], [0, 0, -1], [np.cos(a), np.sin(a), 0]) for i, a in enumerate(headings)]
    assert angle_deg(down_direction(aerial), DOWN) < 0.1
    assert angle_deg(down_direction([ring(4)[0]]), DOWN) < 1e-3


@pytest.mark.parametrize("turn", [0, 17, 45, 71])
def test_walls_lie_along_the_page(turn: int) -> None:
    """A yard of 20 by 12, turned in the world: its longer walls are level, and cameras look up the page."""
    t = RNG.uniform(-1, 1, (4, 300))
    one = np.ones(300)
    walls = [(10 * t[0], -6 * one), (10 * t[1], 6 * one), (-10 * one, 6 * t[2]), (10 * one, 6 * t[3])]
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    flat = np.concatenate([np.stack(wall, axis=1) for wall in walls]) @ np.array([[c, s], [-s, c]])
    clutter = RNG.normal(0, 4, (150, 2))
    xyz = np.column_stack([np.concatenate([flat, clutter]), RNG.uniform(0, 5, 1350)])
    axes = ground_axes(np.array(DOWN), xyz, [look([0, 0, 0], [-s, c, 0], DOWN)])
    assert np.allclose(np.cross(axes[0], axes[1]), [0, 0, 1])
    assert angle_deg(axes[0], [c, s, 0]) < 2.5
    assert angle_deg(axes[1], [-s, c, 0]) < 2.5


def xy_of(plan: Plan | None) -> dict[str, tuple[float, float]]:
    assert plan is not None
    return {mark.query.name: (mark.x, mark.y) for mark in plan.marks}


def row_of_cameras() -> list[Pose]:
    return [look([x, 0.0, 1.5], [0, 1, 0], DOWN) for x in np.linspace(-4, 4, 9)]


def facade() -> np.ndarray:
    return np.column_stack([RNG.uniform(-4, 4, 400), RNG.normal(6, 0.05, 400), RNG.uniform(0, 5, 400)])


def test_the_plan_is_seen_from_above() -> None:
    """Right is right of where cameras look, what they look at is above, triangles turn with them."""
    queries = [
        PlanQuery("left", "ok", "all", look([-2.0, 1, 1.5], [0, 1, 0], DOWN)),
        PlanQuery("right", "ok", "all", look([2.0, 1, 1.5], [1, 0, 0], DOWN)),
        PlanQuery("ahead", "ok", "all", look([-2.0, 3, 1.5], [0, 1, 0], DOWN)),
    ]
    plan = draw_plan(row_of_cameras(), queries, facade())
    at = xy_of(plan)
    assert at["left"][0] < at["right"][0]
    assert abs(at["left"][0] - at["ahead"][0]) < 15  # the page turns by how the points happen to lie
    assert at["ahead"][1] < at["left"][1]
    assert plan is not None
    heading = {mark.query.name: mark.heading_deg for mark in plan.marks}
    assert heading["left"] == pytest.approx(0, abs=5)
    assert heading["right"] == pytest.approx(90, abs=5)
    units, length = plan.bar
    assert length / units == pytest.approx((at["right"][0] - at["left"][0]) / 4, rel=0.02)


def test_failed_queries_are_at_their_true_place_and_errors_are_lines() -> None:
    here, there = look([1.0, 1, 1.5], [0, 1, 0], DOWN), look([-1.0, 1, 1.5], [0, 1, 0], DOWN)
    queries = [
        PlanQuery("failed", "pnp_failed", "night", None, here),
        PlanQuery("off", "ok", "day", here, there, wrong=True),
        PlanQuery("right", "ok", "day", there, there),
        PlanQuery("nowhere", "no_matches", "day"),
    ]
    plan = draw_plan(row_of_cameras(), queries, facade())
    assert plan is not None
    marks = {mark.query.name: mark for mark in plan.marks}
    assert sorted(marks) == ["failed", "off", "right"]
    assert marks["failed"].kind == "failed"
    assert (marks["failed"].x, marks["failed"].y) == (marks["off"].x, marks["off"].y)
    assert marks["off"].true_xy == (marks["right"].x, marks["right"].y)
    assert marks["right"].true_xy is None
    assert plan.marks[-1].kind == "failed"  # drawn last, so on top
    assert plan.outside == ()


def test_what_lies_far_away_does_not_shrink_the_plan() -> None:
    points = facade()
    strays = np.concatenate([points, [[900.0, 900, 2], [-5000, 0, 3], [4, 800, -700]]])
    alone = draw_plan(row_of_cameras(), [], points)
    far = look([900.0, 900, 1], [0, 1, 0], DOWN)
    lost = [PlanQuery("far", "doubtful", "all", far), PlanQuery("further", "ok", "all", far)]
    plan = draw_plan(row_of_cameras(), lost, strays)
    assert alone is not None
    assert plan is not None
    assert plan.outside == ("far", "further")
    assert plan.bar[1] / plan.bar[0] == pytest.approx(alone.bar[1] / alone.bar[0], rel=0.1)


def test_points_are_painted_in_their_colours() -> None:
    points = facade()
    red = np.tile(np.array([[200, 30, 30]], np.uint8), (len(points), 1))
    plan = draw_plan(row_of_cameras(), [], points, red)
    assert plan is not None
    assert plan.points is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(plan.points.partition(",")[2]))))
    assert picture.shape[2] == 4
    solid = picture[picture[:, :, 3] > 200].astype(int)
    assert len(solid) > 100
    assert (solid[:, 0] > solid[:, 1] + 60).all()
    assert (picture[:, :, 3] == 0).mean() > 0.5  # transparent where nothing is


def test_an_empty_map_has_no_plan() -> None:
    assert draw_plan([], [], np.zeros((0, 3))) is None
    alone = draw_plan([row_of_cameras()[0]], [], np.zeros((0, 3)))
    assert alone is not None
    assert alone.points is None
    assert alone.num_cameras == 1
    assert np.isfinite(alone.height)
    same_place = draw_plan([row_of_cameras()[0]] * 3, [], facade())
    assert same_place is not None
