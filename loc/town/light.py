"""Where light comes from: the sun as one depth map, sky and street lamps baked into light maps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from loc.town.faces import Faces
from loc.town.plan import Town
from loc.town.raster import Exists, project_parallel, project_pinhole, rasterize

Array = np.ndarray

#: Radius around the middle of the square that shadows are computed in, metres.
_REACH = 46.0
_LAMP_REACH = 16.0
_TEXEL = 0.5  # metres between points of a light map
_MOST = 48  # points of a light map along one side at most
_WIDTH = 2048  # of the picture that holds all light maps
#: Faces below this size (m²) throw no shadow of sky or lamps: nobody sees that, and they are most.
_TINY = 0.35
#: Colours and strengths of the lamps: sodium and, every third, a whiter one.
_LAMP_COLOURS = ((1.0, 0.58, 0.22), (1.0, 0.66, 0.32), (1.0, 0.82, 0.58))


@dataclass(frozen=True)
class Sun:
    """Where the sun stands (azimuth from north, y, to east, x) and its linear colour."""

    azimuth_deg: float
    elevation_deg: float
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def direction(self) -> Float64[Array, "3"]:
        """Unit vector to the sun.

        >>> Sun(90, 0).direction.round(6).tolist()
        [1.0, 0.0, 0.0]
        """
        azimuth, elevation = np.radians(self.azimuth_deg), np.radians(self.elevation_deg)
        east, north = np.cos(elevation) * np.sin(azimuth), np.cos(elevation) * np.cos(azimuth)
        return np.array([east, north, np.sin(elevation)])

    @property
    def is_up(self) -> bool:
        return self.elevation_deg > 0


@dataclass(frozen=True, eq=False)
class LightMaps:
    """Light that does not change between photos, on a grid per face.

    Attributes:
        image: ``(h, w, 4)`` float32: share of the sky that is seen (a level open place: 1), and the light
            of the lamps (r, g, b).
        corner: ``(n, 2)`` float32, first point of each face, x and y. count: ``(n, 2)`` int32 points.
    """

    image: Float32[Array, "h w 4"]
    corner: Float32[Array, "n 2"]
    count: Int32[Array, "n 2"]

    def sample(
        self, face: Int32[Array, " p"], a: Float32[Array, " p"], b: Float32[Array, " p"]
    ) -> Float32[Array, "p 4"]:
        """Bilinear values at frame coordinates of faces."""
        columns, total = 1024, face.shape[0]
        maps = []
        for axis, value in enumerate((a, b)):
            start = np.take(self.corner[:, axis], face)
            span = np.take((self.count[:, axis] - 1).astype(np.float32), face)
            padded = np.zeros(-(-total // columns) * columns, np.float32)
            padded[:total] = start + np.clip(value, 0, 1) * span
            maps.append(padded.reshape(-1, columns))
        return cv2.remap(self.image, maps[0], maps[1], cv2.INTER_LINEAR).reshape(-1, 4)[:total]


@dataclass(frozen=True, eq=False)
class SunMap:
    """Depth of the town as the sun sees it: ``nearest`` is minus the depth, metres."""

    pixel_from_world: Float64[Array, "3 4"]
    nearest: Float32[Array, "s s"]

    def lit(
        self, points: Float32[Array, "p 3"], *, soft: float = 1.0, bias: float = 0.05
    ) -> Float32[Array, " p"]:
        """Share of the sun that reaches each point, from four neighbouring texels ``soft`` apart."""
        columns, total = 1024, points.shape[0]
        linear = self.pixel_from_world[:, :3].astype(np.float32)
        place = points @ linear.T + self.pixel_from_world[:, 3].astype(np.float32)
        rows = -(-total // columns)
        padded = np.zeros((3, rows * columns), np.float32)
        padded[:, :total] = place.T
        x, y, depth = padded.reshape(3, rows, columns)
        x, y = x - np.float32(0.5), y - np.float32(0.5)
        threshold = -depth + np.float32(bias)
        out = np.zeros((rows, columns), np.float32)
        for dx, dy in ((-0.5, -0.25), (0.25, -0.5), (0.5, 0.25), (-0.25, 0.5)):
            found = cv2.remap(
                self.nearest,
                x + np.float32(dx * soft),
                y + np.float32(dy * soft),
                cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=-1e6,
            )
            out += found <= threshold
        return out.reshape(-1)[:total] / 4


def holes(town: Town) -> Exists:
    """Whether leaves are where a ray meets the card they are painted on."""
    alpha = town.atlas.image[..., 3]
    level = 1

    def exists(face: int, a: Float32[Array, " m"], b: Float32[Array, " m"]) -> Bool[Array, " m"]:
        texture = town.faces.texture[face]
        left, top = town.atlas.corners[texture, level]
        wide, high = town.atlas.sizes[texture] >> level
        x = np.clip((a * wide).astype(np.int32), 0, wide - 1) + left
        y = np.clip((b * high).astype(np.int32), 0, high - 1) + top
        return np.asarray(alpha[y, x] > 110)

    return exists


def sun_map(town: Town, direction: Float64[Array, "3"], *, side: int, faces: Faces | None = None) -> SunMap:
    """The depth map for one direction of light, ``side`` texels wide."""
    chosen = town.faces if faces is None else faces
    right = np.cross([0.0, 0.0, 1.0], direction)
    right /= np.linalg.norm(right)
    up = np.cross(direction, right)
    scale = side / (2 * _REACH)
    pixel_from_world = np.zeros((3, 4))
    pixel_from_world[0, :3], pixel_from_world[1, :3] = scale * right, -scale * up
    pixel_from_world[2, :3] = -direction
    pixel_from_world[:2, 3] = side / 2
    view = project_parallel(chosen, pixel_from_world, (side, side))
    exists = holes(replace(town, faces=chosen))
    _, nearest = rasterize(chosen, view, (side, side), exists=exists, parallel=True)
    return SunMap(pixel_from_world, nearest)


@dataclass(frozen=True, eq=False)
class Grid:
    """Points at which light that does not change is computed, and what throws shadows on them."""

    points: Float32[Array, "p 3"]
    normals: Float32[Array, "p 3"]
    where: tuple[Array, Array]
    corner: Int32[Array, "n 2"]
    count: Int32[Array, "n 2"]
    height: int
    casters: Faces

    @staticmethod
    def of(town: Town) -> Grid:
        corner, count, height = _layout(town.faces)
        points, normals, where = _points(town.faces, corner, count)
        casters = _subset(town.faces, (_areas(town.faces) >= _TINY) | town.faces.cutout)
        return Grid(points, normals, where, corner, count, height, casters)

    def maps(self, sky: list[Float32[Array, " p"]], lamps: list[Float32[Array, " p"]]) -> LightMaps:
        """Light maps from the light of each direction and of each lamp, in order."""
        image = np.zeros((self.height, _WIDTH, 4), np.float32)
        row, column = self.where[1], self.where[0]
        image[row, column, 0] = np.minimum(np.sum(sky, axis=0) * np.float32(2 / len(sky)), 1)
        for k, light in enumerate(lamps):
            colour = np.array(_LAMP_COLOURS[k % len(_LAMP_COLOURS)], np.float32)
            image[row, column, 1:] += light[:, None] * colour
        return LightMaps(image, self.corner.astype(np.float32), self.count)


def sky_light(town: Town, grid: Grid, direction: Float64[Array, "3"], *, side: int) -> Float32[Array, " p"]:
    """Light of one direction of the sky on the points, by a depth map of ``side`` texels."""
    lit = sun_map(town, direction, side=side, faces=grid.casters).lit(grid.points, bias=0.12)
    return lit * np.clip(grid.normals @ direction.astype(np.float32), 0, None)


def lamp_light(grid: Grid, lamp: Float64[Array, "3"]) -> Float32[Array, " p"]:
    """Light of one street lamp on the points."""
    casters = grid.casters
    near = np.linalg.norm(casters.vertices - lamp, axis=2).min(axis=1) < _LAMP_REACH
    return _lamp_light(_subset(casters, near | (_areas(casters) > 20)), lamp, grid.points, grid.normals)


def _areas(faces: Faces) -> Float64[Array, " n"]:
    """Areas of the frames, m²."""
    return np.asarray(np.linalg.norm(np.cross(faces.u, faces.v), axis=1))


def _subset(faces: Faces, chosen: Bool[Array, " n"]) -> Faces:
    return Faces(**{name: value[chosen] for name, value in vars(faces).items()})


def sky_directions(count: int) -> list[Float64[Array, "3"]]:
    """Directions spread evenly over the sky (a golden spiral)."""
    k = np.arange(count) + 0.5
    z, angle = k / count * 0.97 + 0.03, 2.399963 * k
    r = np.sqrt(1 - z**2)
    return list(np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1))


def _layout(faces: Faces) -> tuple[Int32[Array, "n 2"], Int32[Array, "n 2"], int]:
    """Place of each face's points in one picture, on shelves of equal height."""
    count = np.stack(
        [
            np.clip(np.ceil(np.linalg.norm(side, axis=1) / _TEXEL) + 1, 2, _MOST)
            for side in (faces.u, faces.v)
        ],
        axis=1,
    ).astype(np.int32)
    corner = np.zeros_like(count)
    x = y = shelf = 0
    for face in np.argsort(-count[:, 1], kind="stable"):
        wide, high = count[face]
        if x + wide > _WIDTH:
            x, y, shelf = 0, y + shelf, 0
        corner[face] = x, y
        x, shelf = x + wide, max(shelf, int(high))
    return corner, count, y + shelf


def _points(
    faces: Faces, corner: Int32[Array, "n 2"], count: Int32[Array, "n 2"]
) -> tuple[Float32[Array, "p 3"], Float32[Array, "p 3"], tuple[Array, Array]]:
    """World points, normals and pixels of all light maps; a little off the surface and its edges."""
    number = count[:, 0] * count[:, 1]
    face = np.repeat(np.arange(len(faces)), number)
    index = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    column, row = index % count[face, 0], index // count[face, 0]
    lengths = np.stack([np.linalg.norm(faces.u, axis=1), np.linalg.norm(faces.v, axis=1)], axis=1)
    inset = np.minimum(0.06 / lengths, 0.2)[face]
    low, high = faces.corners.min(axis=1)[face], faces.corners.max(axis=1)[face]
    ab = np.stack([column, row], axis=1) / (count[face] - 1)
    ab = np.clip(ab, low + inset, high - inset)
    points = faces.origin[face] + ab[:, :1] * faces.u[face] + ab[:, 1:] * faces.v[face]
    normals = faces.normals[face]
    points = points + 0.06 * normals
    where = (corner[face, 0] + column, corner[face, 1] + row)
    return points.astype(np.float32), normals.astype(np.float32), where


def _lamp_light(
    casters: Faces, lamp: Float64[Array, "3"], points: Float32[Array, "p 3"], normals: Float32[Array, "p 3"]
) -> Float32[Array, " p"]:
    """Light of one lamp with its shadows, from six square views of it (a cube map)."""
    side = 160
    away = points - lamp.astype(np.float32)
    distance = np.linalg.norm(away, axis=1)
    near = np.flatnonzero(distance < _LAMP_REACH)
    away, distance, facing = away[near], distance[near], normals[near]
    cosine = np.clip(-(away * facing).sum(axis=1) / distance, 0, None)
    window = np.clip(1 - (distance / _LAMP_REACH) ** 4, 0, 1) ** 2
    # A lantern throws less upwards, where its hood is.
    hood = np.clip(0.55 - away[:, 2] / distance, 0.12, 1)
    light = cosine * window * hood / np.maximum(distance, 0.5) ** 2
    axis = np.abs(away).argmax(axis=1)
    out = np.zeros(len(points), np.float32)
    for k in range(3):
        for sign in (1.0, -1.0):
            chosen = np.flatnonzero((axis == k) & (np.sign(away[:, k]) == sign) & (light > 0))
            if not len(chosen):
                continue
            rotation = np.roll(np.eye(3), 2 - k, axis=1)
            rotation = np.stack([rotation[0], rotation[1], sign * np.eye(3)[k]])
            view = project_pinhole(
                casters,
                rotation,
                -rotation @ lamp,
                (side / 2, side / 2, side / 2),
                (side, side),
                closest=0.45,
            )
            _, nearness = rasterize(casters, view, (side, side), closest=0.45)
            local = away[chosen] @ rotation.T.astype(np.float32)
            x = np.clip((local[:, 0] / local[:, 2] + 1) * side / 2, 0, side - 1).astype(np.int32)
            y = np.clip((local[:, 1] / local[:, 2] + 1) * side / 2, 0, side - 1).astype(np.int32)
            free = nearness[y, x] <= 1 / np.maximum(local[:, 2] - 0.12 - 0.02 * local[:, 2], 0.1)
            out[near[chosen]] = np.where(free, light[chosen], 0)
    return out
