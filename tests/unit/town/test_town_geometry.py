"""The renderer is exact: known points are found where the camera model puts them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from loc.colmap import camera_to_colmap
from loc.town.atlas import Atlas, AtlasBuilder
from loc.town.faces import FaceBuilder, Faces, Frame, Skin
from loc.town.light import Grid, Sun, sun_map
from loc.town.photo import Exposure, develop, distort, lens_of, undistort
from loc.town.plan import Town
from loc.town.raster import project_pinhole, rasterize
from loc.town.shade import Stage, Weather, make_clouds, render
from loc.town.views import look
from loc.types import Camera, Pose

#: Squares of the test board along one side; 0.25 m each.
SQUARES = 8
FLAT = Weather(
    sun=Sun(0, -90), sky=(0.8, 0.8, 0.8), bounce=(0, 0, 0), clouds=0, horizon=(0, 0, 0), zenith=(0, 0, 0)
)


def board() -> np.ndarray:
    painting = np.zeros((256, 256, 4), np.float32)
    tiles = np.add.outer(np.arange(256) // 32, np.arange(256) // 32) % 2
    painting[..., :3] = np.where(tiles, 0.9, 0.2)[..., None]
    return painting


def town_of(builder: FaceBuilder, atlas: Atlas) -> Town:
    return Town(builder.build(), atlas, np.zeros((0, 3)), ())


def stage_of(town: Town) -> Stage:
    grid = Grid.of(town)
    return Stage(town, grid.maps([np.ones(len(grid.points), np.float32)], []), make_clouds(64))


def board_town() -> Town:
    """A board of 2 m that stands at y = 0 and faces the camera at negative y."""
    atlas, builder = AtlasBuilder(), FaceBuilder(np.random.default_rng(0))
    skin = Skin(atlas.add(board()), None, (0, 0, 256, 256))
    frame = Frame(builder, np.array([-1.0, 0.0, 0.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    frame.wall((0, 2), (0, 2), 0.0, skin)
    frame.quad([(-3, 3, 4), (5, 3, 4), (5, 3, -2), (-3, 3, -2)], Skin(atlas.add(board() * 0 + 0.5), None))
    return town_of(builder, atlas.build())


def corners() -> np.ndarray:
    step = 2 / SQUARES
    inner = np.arange(1, SQUARES) * step
    x, z = np.meshgrid(inner - 1, inner)
    return np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=1)


@pytest.mark.parametrize("k", [-0.12, 0.0, 0.09])
@pytest.mark.parametrize(("x", "yaw", "roll"), [(0.0, 0.0, 0.0), (1.4, -32.0, 7.0)])
def test_corners_of_a_texture_are_where_colmap_projects_them(
    k: float, x: float, yaw: float, roll: float
) -> None:
    camera = Camera("SIMPLE_RADIAL", 480, 360, np.array([400.0, 243.0, 177.0, k]))
    pose = look(np.array([x, -2.6, 1.1]), yaw, -2.0, roll)
    lens = lens_of(camera)
    light, _ = render(stage_of(board_town()), lens.view(pose), FLAT, None)
    photo = develop(lens.bend(light), Exposure(noise=0, shot=0), np.random.default_rng(0))
    local = corners() @ pose.rotation.T + pose.translation
    expected = camera_to_colmap(camera).img_from_cam(local)
    inside = ((expected > 12) & (expected < np.array(camera.image_wh) - 12)).all(axis=1)
    assert inside.sum() >= 20
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    start = (expected[inside] - 0.5).astype(np.float32).reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-4)
    found = cv2.cornerSubPix(gray, start.copy(), (5, 5), (-1, -1), criteria).reshape(-1, 2) + 0.5
    errors = np.linalg.norm(found - expected[inside], axis=1)
    assert np.median(errors) < 0.05
    assert errors.max() < 0.2
    assert np.abs((found - expected[inside]).mean(axis=0)).max() < 0.03  # no constant shift: half pixels


def test_undistort_is_the_inverse_of_distort() -> None:
    xy = np.random.default_rng(0).uniform(-0.7, 0.7, (100, 2))
    for k in (-0.15, 0.0, 0.1):
        np.testing.assert_allclose(undistort(distort(xy, k), k), xy, atol=1e-12)


def random_faces(count: int, *, around_the_eye: bool) -> Faces:
    """Triangles and quads at random; some reach behind the camera at the origin."""
    rng = np.random.default_rng(3)
    builder = FaceBuilder(np.random.default_rng(0))
    for k in range(count):
        middle = rng.uniform(-3, 3, 3) + np.array([0, 0, 0.5 if around_the_eye else 6])
        u, v = rng.standard_normal((2, 3)) * 1.5
        shape = ((0, 0), (1, 0), (0.3, 1)) if k % 2 else ((0, 0), (1, 0), (1, 1), (0, 1))
        builder.face(middle - (u + v) / 2, u, v, Skin(0, None, both=True), shape)
    return builder.build()


@pytest.mark.parametrize("around_the_eye", [False, True])
def test_nearest_face_agrees_with_casting_rays(around_the_eye: bool) -> None:
    faces, wh, f = random_faces(40, around_the_eye=around_the_eye), (64, 48), 40.0
    closest = 0.05
    view = project_pinhole(faces, np.eye(3), np.zeros(3), (f, 32.0, 24.0), wh, closest=closest)
    seen, nearness = rasterize(faces, view, wh, closest=closest)
    x, y = np.meshgrid((np.arange(wh[0]) + 0.5 - 32) / f, (np.arange(wh[1]) + 0.5 - 24) / f)
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    best, depth = np.full(x.size, -1), np.full(x.size, np.inf)
    for face in range(len(faces)):
        frame = np.stack([faces.u[face], faces.v[face], faces.origin[face]], axis=1)
        a, b, w = np.linalg.solve(frame, rays)
        ab, z = np.stack([a / w, b / w], axis=1), 1 / w
        polygon = faces.corners[face][: 3 if face % 2 else 4]
        edges = np.roll(polygon, -1, axis=0) - polygon
        to = ab[:, None] - polygon
        inside = (edges[:, 0] * to[..., 1] - edges[:, 1] * to[..., 0] >= 0).all(axis=1)
        nearer = inside & (z >= closest) & (z < depth)
        best[nearer], depth[nearer] = face, z[nearer]
    agree = best == seen.ravel()
    assert (~agree).sum() <= 6  # pixels whose centre lies on an edge, of 3072
    assert len(np.unique(best)) > 10
    hit = agree & (best >= 0)
    np.testing.assert_allclose(nearness.ravel()[hit], 1 / depth[hit], rtol=1e-4)


def test_faces_are_seen_from_outside_only() -> None:
    builder = FaceBuilder(np.random.default_rng(0))
    frame = Frame(builder, np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    frame.box((-1, 1), (-1, 1), (-1, 1), Skin(0, None))
    frame.moved(5, 0).prism((1, 1), (-1, 1), Skin(0, None), top=Skin(0, None), under=True)
    faces = builder.build()
    middle = faces.vertices.mean(axis=1)
    for center, chosen in (((0, 0, 0), slice(0, 6)), ((5, 0, 0), slice(6, None))):
        outward = middle[chosen] - np.array(center)
        assert (np.einsum("ni,ni->n", outward, faces.normals[chosen]) > 0).all()


def test_sun_throws_the_shadow_of_a_box_where_geometry_says() -> None:
    atlas, builder = AtlasBuilder(), FaceBuilder(np.random.default_rng(0))
    skin = Skin(atlas.add(board()), None, (0, 0, 256, 256))
    frame = Frame(builder, np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    frame.quad([(-20, 20, 0), (20, 20, 0), (20, -20, 0), (-20, -20, 0)], skin)
    frame.box((-1, 1), (-1, 1), (0, 2), skin)
    town = town_of(builder, atlas.build())
    sun = Sun(180, 45)  # from the south: a box 2 m high reaches 2 m to the north
    shadow = sun_map(town, sun.direction, side=2048)
    y = np.array([1.5, 2.8, 3.2, 6.0, -1.5])
    points = np.stack([np.zeros(5), y, np.full(5, 0.06)], axis=1).astype(np.float32)
    assert shadow.lit(points).tolist() == [0, 0, 1, 1, 1]


def test_look_points_the_camera() -> None:
    pose: Pose = look(np.array([1.0, 2.0, 1.6]), 90.0, 0.0)
    np.testing.assert_allclose(pose.center_in_world, [1.0, 2.0, 1.6], atol=1e-12)
    np.testing.assert_allclose(pose.rotation[2], [1, 0, 0], atol=1e-12)  # east
    np.testing.assert_allclose(pose.rotation[1], [0, 0, -1], atol=1e-12)  # y is down
