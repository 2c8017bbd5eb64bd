"""The town as flat faces: convex polygons in parallelogram frames, with a window into a texture each.

World: x east, y north, z up, metres. A face is ``origin + a u + b v`` for ``(a, b)`` in a convex polygon
inside the unit square; seen from outside, ``u`` points right and ``v`` down, as in its texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

Array = np.ndarray
Vec = np.ndarray

#: Corners per face at most; polygons with fewer repeat the last one.
MAX_CORNERS = 12
SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True)
class Skin:
    """What covers a face.

    Attributes:
        texture: number in the atlas.
        ppm: px of the texture per metre; with None the face shows ``window`` exactly.
        window: left, top, width, height in px of the texture.
        tint: factors of the (linear) colour.
        glow: how much the fourth channel of the texture shines at night.
        cutout: the fourth channel is 1 where the face is, 0 where one sees through it.
        both: visible from both sides.
    """

    texture: int
    ppm: float | None = None
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    glow: float = 0.0
    cutout: bool = False
    both: bool = False


@dataclass(frozen=True, eq=False)
class Faces:
    """Arrays over faces.

    Attributes:
        origin, u, v: ``(n, 3)`` float64, metres.
        corners: ``(n, MAX_CORNERS, 2)`` float64 in units of u and v, clockwise as seen from outside.
        texture: ``(n,)`` int32. window: ``(n, 4)`` float32: px of the corner (0, 0) and of u and v.
        tint: ``(n, 3)`` float32. glow: ``(n,)`` float32.
        cutout, both: ``(n,)`` bool.
    """

    origin: Float64[Array, "n 3"]
    u: Float64[Array, "n 3"]
    v: Float64[Array, "n 3"]
    corners: Float64[Array, "n c 2"]
    texture: Int32[Array, " n"]
    window: Float32[Array, "n 4"]
    tint: Float32[Array, "n 3"]
    glow: Float32[Array, " n"]
    cutout: Bool[Array, " n"]
    both: Bool[Array, " n"]

    def __len__(self) -> int:
        return int(self.origin.shape[0])

    @property
    def normals(self) -> Float64[Array, "n 3"]:
        """Unit vectors to the outside."""
        across = np.cross(self.v, self.u)
        return across / np.linalg.norm(across, axis=1, keepdims=True)

    @property
    def vertices(self) -> Float64[Array, "n c 3"]:
        """Corners in the world."""
        a, b = self.corners[..., :1], self.corners[..., 1:]
        return self.origin[:, None] + a * self.u[:, None] + b * self.v[:, None]


@dataclass
class FaceBuilder:
    """Collects faces; ``rng`` chooses where in a texture that repeats a face begins."""

    rng: np.random.Generator
    _framed: list[tuple[Vec, Vec, Vec, Array, Skin]] = field(default_factory=list)
    _polygons: list[tuple[Array, Skin]] = field(default_factory=list)

    def face(
        self, origin: Vec, u: Vec, v: Vec, skin: Skin, corners: Sequence[tuple[float, float]] = SQUARE
    ) -> None:
        """Add one face by its frame."""
        self._framed.append((origin, u, v, _padded(np.array(corners, np.float64)), skin))

    def polygon(self, points: Sequence[Vec], skin: Skin) -> None:
        """A planar convex polygon, clockwise as seen from outside; its texture stands upright.

        On a level polygon the first edge is the texture's top.
        """
        self._polygons.append((_padded(np.array(points, np.float64)), skin))

    def build(self) -> Faces:
        """All faces, those with frames first."""
        skins = [row[-1] for row in self._framed] + [row[-1] for row in self._polygons]
        shapes = ((3,), (3,), (3,), (MAX_CORNERS, 2))
        framed = [
            np.array([row[k] for row in self._framed]).reshape(-1, *shape) for k, shape in enumerate(shapes)
        ]
        found = _frames(np.array([points for points, _ in self._polygons]).reshape(-1, MAX_CORNERS, 3))
        origin, u, v, corners = (np.concatenate(pair) for pair in zip(framed, found, strict=True))
        window = np.array([skin.window for skin in skins])
        ppm = np.array([skin.ppm or 0.0 for skin in skins])
        sizes = np.stack([np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)], axis=1) * ppm[:, None]
        repeats = np.concatenate([self.rng.uniform(0, 1024, (len(skins), 2)), sizes], axis=1)
        return Faces(
            origin,
            u,
            v,
            corners,
            np.array([skin.texture for skin in skins], np.int32),
            np.where(ppm[:, None] > 0, repeats, window).astype(np.float32),
            np.array([skin.tint for skin in skins], np.float32),
            np.array([skin.glow for skin in skins], np.float32),
            np.array([skin.cutout for skin in skins]),
            np.array([skin.both for skin in skins]),
        )


def _padded(corners: Array) -> Array:
    return np.concatenate([corners, np.repeat(corners[-1:], MAX_CORNERS - len(corners), axis=0)])


def _frames(points: Float64[Array, "n c 3"]) -> tuple[Array, Array, Array, Array]:
    """Origin, u, v and corners of planar polygons."""
    base = points[:, :1]
    normal = -np.cross(points - base, np.roll(points, -1, axis=1) - base).sum(axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    right = np.cross([0.0, 0.0, 1.0], normal)
    level = np.linalg.norm(right, axis=1, keepdims=True) < 0.1
    right = np.where(level, points[:, 1] - points[:, 0], right)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    down = np.cross(right, normal)
    flat = np.stack([((points - base) * axis[:, None]).sum(axis=2) for axis in (right, down)], axis=2)
    low = flat.min(axis=1)
    size = flat.max(axis=1) - low
    origin = base[:, 0] + low[:, :1] * right + low[:, 1:] * down
    return origin, size[:, :1] * right, size[:, 1:] * down, (flat - low[:, None]) / size[:, None]


@dataclass(frozen=True)
class Frame:
    """A place to build in: ``x`` along a façade seen from outside, ``y`` into the building, ``z`` up."""

    builder: FaceBuilder
    origin: Vec
    x: Vec
    y: Vec

    def at(self, x: float, y: float, z: float) -> Vec:
        """World point of local coordinates, metres."""
        out: Vec = self.origin + x * self.x + y * self.y + np.array([0.0, 0.0, z])
        return out

    def moved(self, x: float, y: float, z: float = 0.0) -> Frame:
        return replace(self, origin=self.at(x, y, z))

    def turned(self, degrees: float) -> Frame:
        """Rotated about the upright, seen from above against the clock."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return replace(self, x=c * self.x + s * self.y, y=-s * self.x + c * self.y)

    def quad(self, points: Sequence[tuple[float, float, float]], skin: Skin) -> None:
        """A planar polygon of local points, clockwise as seen from outside."""
        self.builder.polygon([self.at(*point) for point in points], skin)

    def wall(self, x: tuple[float, float], z: tuple[float, float], y: float, skin: Skin) -> None:
        """An upright rectangle that faces the front."""
        self.builder.face(
            self.at(x[0], y, z[1]), (x[1] - x[0]) * self.x, np.array([0.0, 0.0, z[0] - z[1]]), skin
        )

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        skin: Skin,
        *,
        top: Skin | None = None,
        without: str = "",
    ) -> None:
        """A cuboid; ``without`` names sides to leave out: front, back, left, right, top, under (initials)."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        sides = {
            "f": ((x0, y0, z1), (x1, y0, z1), (x1, y0, z0), (x0, y0, z0)),
            "b": ((x1, y1, z1), (x0, y1, z1), (x0, y1, z0), (x1, y1, z0)),
            "l": ((x0, y1, z1), (x0, y0, z1), (x0, y0, z0), (x0, y1, z0)),
            "r": ((x1, y0, z1), (x1, y1, z1), (x1, y1, z0), (x1, y0, z0)),
            "t": ((x0, y1, z1), (x1, y1, z1), (x1, y0, z1), (x0, y0, z1)),
            "u": ((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)),
        }
        for name, points in sides.items():
            if name not in without:
                self.quad(points, top if name == "t" and top is not None else skin)

    def prism(
        self,
        radius: tuple[float, float],
        z: tuple[float, float],
        skin: Skin,
        *,
        sides: int = 8,
        top: Skin | None = None,
        under: bool = False,
    ) -> None:
        """An upright regular prism or frustum; a lid if ``top`` is given, a floor if ``under``."""
        angles = 2 * np.pi * (np.arange(sides + 1) + 0.5) / sides
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        low = [(*point, z[0]) for point in radius[0] * ring]
        high = [(*point, z[1]) for point in radius[1] * ring]
        for k in range(sides):
            # Against the clock from above is from left to right as one faces a side.
            if radius[1] < 1e-6:
                self.quad([high[k], low[k + 1], low[k]], skin)
            elif radius[0] < 1e-6:
                self.quad([high[k], high[k + 1], low[k]], skin)
            else:
                self.quad([high[k], high[k + 1], low[k + 1], low[k]], skin)
        if top is not None:
            self.quad(high[:sides][::-1], top)
        if under:
            self.quad(low[:sides], skin)
