"""The geometry of the 3-D view: frusta, rays, what is left out, and a camera that sees it all."""

from __future__ import annotations

import numpy as np
import pytest

from loc.types import Camera, Pose
from loc.viz.palette import rgb
from loc.viz.scene3d import MAX_RAYS, Drawing, ShownQuery, View, draw_scene, frustum, place_camera

CAMERA = Camera("PINHOLE", 640, 480, np.array([500.0, 500, 320, 240]))
WIDE = Camera("PINHOLE", 4000, 1000, np.array([500.0, 500, 2000, 500]))
RNG = np.random.default_rng(0)


def at(x: float, y: float = 0.0, z: float = 0.0) -> Pose:
    """Looks along +z; +y is down."""
    return Pose(np.array([0, 0, 0, 1.0]), -np.array([x, y, z]))


def facade(n: int = 2000) -> np.ndarray:
    return np.column_stack([RNG.uniform(-6, 6, n), RNG.uniform(-5, 1, n), RNG.normal(10, 0.1, n)])


def drawing(queries: list[ShownQuery], *, focus: str | None = None, xyz: np.ndarray | None = None) -> Drawing:
    xyz = facade() if xyz is None else xyz
    db = {f"db{n}": (at(n - 4.0), CAMERA) for n in range(9)}
    return draw_scene(db, queries, (xyz, np.full(xyz.shape, 99, np.uint8)), focus=focus)


def project(view: View, xyz: np.ndarray, aspect: float) -> np.ndarray:
    """Picture coordinates in [-1, 1] of what is in front of the viewer; NaN behind."""
    forward = (view.target - view.eye) / np.linalg.norm(view.target - view.eye)
    right = np.cross(forward, view.up)
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    local = (xyz - view.eye) @ np.stack([right, up, forward], axis=1)
    tangent = np.tan(np.radians(view.fov_deg) / 2)
    depth = np.where(local[:, 2] > 0, local[:, 2], np.nan)
    return np.column_stack([local[:, 0] / depth / tangent / aspect, local[:, 1] / depth / tangent])


def test_a_frustum_has_the_camera_s_opening_and_points_ahead() -> None:
    pose = at(1.0, 2.0, 3.0)
    ends = frustum(pose, CAMERA, depth=2.0)
    assert ends.shape == (20, 3)
    assert ends.dtype == np.float32
    assert np.allclose(ends[0], [1, 2, 3])
    corners = ends[1:8:2] - np.array([1, 2, 3])
    assert np.allclose(corners[:, 2], 2.0)
    assert np.allclose(np.abs(corners[:, 0]), 2.0 * 320 / 500)
    assert np.allclose(np.abs(corners[:, 1]), 2.0 * 240 / 500)
    mark = ends[17] - np.array([1, 2, 3])
    assert mark[1] < corners[:, 1].min()  # the mark is on the upper edge, and y points down


def test_a_wide_lens_stays_in_proportion() -> None:
    ends = frustum(at(0), WIDE, depth=1.0)
    assert np.abs(ends).max() < 2
    ratio = np.ptp(ends[:, 0]) / np.ptp(ends[1:8:2, 1])
    assert ratio == pytest.approx(4, rel=1e-5)


def queries() -> list[ShownQuery]:
    seen = facade(300)
    return [
        ShownQuery("day", "day", "ok", at(0.5), CAMERA, at(0.5), seen),
        ShownQuery("night", "night", "doubtful", at(1.5), CAMERA, at(1.4), seen[:20]),
        ShownQuery("lost", "night", "pnp_failed", None, CAMERA, at(2.5)),
        ShownQuery("unknown", "night", "no_matches", None, CAMERA),
    ]


def test_kinds_have_their_colours_and_failed_ones_are_at_their_true_pose() -> None:
    lines = {each.name: each for each in drawing(queries()).lines}
    assert {name: each.count for name, each in lines.items()} == {
        "database": 9,
        "day queries": 1,
        "night queries": 1,
        "failed, at the true pose": 1,
    }
    assert lines["day queries"].color == rgb("day") != rgb("night") != rgb("failed")
    assert np.allclose(lines["failed, at the true pose"].ends[0], [2.5, 0, 0])
    assert len({each.color for each in lines.values()}) == 4


def test_rays_join_the_chosen_query_with_its_inliers() -> None:
    made = drawing(queries(), focus="day")
    rays = made.lines[-1]
    assert rays.name == "inlier rays"
    assert 50 < rays.count <= MAX_RAYS
    assert np.allclose(rays.ends[0::2], [0.5, 0, 0])
    inliers = {tuple(row) for row in made.inliers.round(3).tolist()}
    assert {tuple(row) for row in rays.ends[1::2].round(3).tolist()} <= inliers
    assert len(made.inliers) == 300
    failed = drawing(queries(), focus="lost")
    assert failed.focus is not None
    assert "inlier rays" not in [each.name for each in failed.lines]
    bigger = next(each for each in made.lines if each.name == "day queries")
    usual = next(each for each in drawing(queries()).lines if each.name == "day queries")
    assert np.ptp(bigger.ends, axis=0).max() > 1.5 * np.ptp(usual.ends, axis=0).max()


def test_strays_are_left_out_and_do_not_move_the_camera() -> None:
    points = facade()
    strays = np.concatenate([points, RNG.normal(0, 5000, (30, 3))])
    clean, dirty = drawing([], xyz=points), drawing([], xyz=strays)
    assert len(dirty.xyz) <= len(clean.xyz) + 1
    for view in ("top", "oblique"):
        a, b = (place_camera(each, view, aspect=1.6) for each in (clean, dirty))
        assert np.linalg.norm(a.eye - b.eye) < 0.05 * np.linalg.norm(a.eye - a.target)


def test_a_wrong_pose_far_away_is_not_framed() -> None:
    points = facade()
    usual = drawing([], xyz=points)
    off = drawing([ShownQuery("off", "all", "doubtful", at(9.0, 0, -4), CAMERA)], xyz=points)
    assert np.array_equal(usual.frame, off.frame)
    true = drawing([ShownQuery("off", "all", "doubtful", at(9.0, 0, -4), CAMERA, at(4.5))], xyz=points)
    assert len(true.frame) == len(usual.frame) + 1


@pytest.mark.parametrize("view", ["top", "oblique"])
@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.2])
def test_the_picture_holds_what_it_should_and_is_filled(view: str, aspect: float) -> None:
    made = drawing(queries())
    where = place_camera(made, view, aspect=aspect)  # type: ignore[arg-type]
    xy = project(where, made.frame, aspect)
    assert np.isfinite(xy).all()
    assert np.abs(xy).max() <= 1.0
    assert np.abs(xy).max() > 0.85


def test_top_is_above_and_oblique_is_behind_and_above() -> None:
    made = drawing([])
    up = np.array([0, -1.0, 0])
    assert np.allclose(-made.down, up, atol=1e-6)
    top = place_camera(made, "top", aspect=1.0)
    forward = (top.target - top.eye) / np.linalg.norm(top.target - top.eye)
    assert forward @ up == pytest.approx(-1, abs=1e-6)
    oblique = place_camera(made, "oblique", aspect=1.0)
    assert (oblique.eye - made.frame.mean(axis=0)) @ up > 1
    assert oblique.eye[2] < 0  # the cameras look along +z


def test_the_query_s_view_is_from_behind_it() -> None:
    made = drawing(queries(), focus="day")
    view = place_camera(made, "query", aspect=1.6)
    assert view.eye[2] < 0
    xy = project(view, made.inliers.astype(float), 1.6)
    assert np.isfinite(xy).all()
    assert (np.abs(xy) < 1).all(axis=1).mean() > 0.9


def test_one_camera_without_points_can_be_drawn() -> None:
    made = draw_scene({"a": (at(0), CAMERA)}, [], (np.zeros((0, 3)), np.zeros((0, 3), np.uint8)))
    for view in ("top", "oblique", "query"):
        found = place_camera(made, view, aspect=1.0)  # type: ignore[arg-type]
        assert np.isfinite(found.eye).all()
        assert np.linalg.norm(found.target - found.eye) > 0
