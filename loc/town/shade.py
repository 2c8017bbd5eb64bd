"""From faces to light: what each pixel of a pinhole view receives."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32

from loc.town.atlas import LEVELS
from loc.town.light import LightMaps, Sun, SunMap, holes
from loc.town.noise import fractal
from loc.town.plan import Town
from loc.town.raster import Projection, project_pinhole, rasterize

Array = np.ndarray
Colour = tuple[float, float, float]

_GAMMA = 2.2
#: Last frame coordinate that is looked up: at 1 a painting that fills its face would begin again.
_END = np.float32(1 - 1e-6)
_LINEAR = ((np.arange(256) / 255) ** _GAMMA).astype(np.float32)


@dataclass(frozen=True)
class Weather:
    """Light of one hour.

    Attributes:
        sun: where it stands, and its colour. sky, bounce: linear colours of light from the sky, and of
            what walls and ground throw back.
        clouds: share of the sky that is covered. horizon, zenith: colours of the sky.
        lamps, windows: strength of the artificial light (0 by day).
        drift: which clouds there are.
    """

    sun: Sun
    sky: Colour
    bounce: Colour
    clouds: float
    horizon: Colour
    zenith: Colour
    lamps: float = 0.0
    windows: float = 0.0
    drift: int = 0


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A view without distortion: ``cam_from_world``, focal length and principal point in px, size in px."""

    rotation: Float64[Array, "3 3"]
    translation: Float64[Array, "3"]
    focal: float
    center: tuple[float, float]
    wh: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Stage:
    """The town with its light maps and a picture of clouds: what every photo is made from."""

    town: Town
    light: LightMaps
    clouds: Float32[Array, "s s"]


def make_clouds(side: int = 512, *, seed: int = 5) -> Float32[Array, "s s"]:
    return fractal((side, side), side / 3.5, np.random.default_rng(seed), octaves=7, gain=0.55)


def visible(stage: Stage, view: Pinhole) -> tuple[Int32[Array, "h w"], Float32[Array, "h w"], Projection]:
    """Face and 1/z per pixel, and the projection they are from."""
    intrinsics = (view.focal, *view.center)
    projection = project_pinhole(stage.town.faces, view.rotation, view.translation, intrinsics, view.wh)
    seen, nearness = rasterize(stage.town.faces, projection, view.wh, exists=holes(stage.town))
    return seen, nearness, projection


def render(
    stage: Stage, view: Pinhole, weather: Weather, sun: SunMap | None
) -> tuple[Float32[Array, "h w 3"], Float32[Array, "h w"]]:
    """Linear radiance per pixel, where a white wall in full sun is about 1; and 1/z (0 for the sky)."""
    seen, nearness, projection = visible(stage, view)
    out = _sky(stage, view, weather)
    flat = np.flatnonzero(seen.ravel() >= 0)
    face = seen.ravel()[flat]
    x = (flat % view.wh[0]).astype(np.float32) + np.float32(0.5)
    y = (flat // view.wh[0]).astype(np.float32) + np.float32(0.5)
    a, b, level = _surface(projection, face, x, y, stage)
    albedo, fourth = _paint(stage, face, a, b, level)
    light = stage.light.sample(face, a, b)
    total = _ambient(stage, face, light[:, 0], weather)
    if sun is not None:
        z = 1 / nearness.ravel()[flat]
        total += _sunlight(stage, (view, weather, sun), face, (x, y, z))
    if weather.lamps:
        total += light[:, 1:] * np.float32(weather.lamps)
    total *= albedo
    if weather.windows:
        total += _glow(stage, face, fourth, albedo, weather)
    out.reshape(-1, 3)[flat] = total
    return out, nearness


def _surface(
    projection: Projection,
    face: Int32[Array, " p"],
    x: Float32[Array, " p"],
    y: Float32[Array, " p"],
    stage: Stage,
) -> tuple[Float32[Array, " p"], Float32[Array, " p"], Int32[Array, " p"]]:
    """Frame coordinates and mip level per pixel."""
    used = np.unique(face)
    small = np.zeros(len(stage.town.faces), np.int32)
    small[used] = np.arange(len(used))
    index = np.take(small, face)
    k = projection.frame[used].astype(np.float64)
    # Affine functions in float32 lose nothing visible if x and y are counted from the image's middle.
    middle = np.array([x.mean(), y.mean()]) if len(x) else np.zeros(2)
    k[:, :, 2] += k[:, :, 0] * middle[0] + k[:, :, 1] * middle[1]
    k = k.astype(np.float32)
    x, y = x - np.float32(middle[0]), y - np.float32(middle[1])

    def affine(row: int) -> tuple[Array, Array, Array]:
        kx, ky = np.take(k[:, row, 0], index), np.take(k[:, row, 1], index)
        return kx, ky, kx * x + ky * y + np.take(k[:, row, 2], index)

    wx, wy, w = affine(2)
    inverse = 1 / w
    window = stage.town.faces.window[used]
    stretch = []
    coordinates = []
    for row in (0, 1):
        kx, ky, value = affine(row)
        value *= inverse
        coordinates.append(value)
        scale = np.take(np.abs(window[:, 2 + row]), index) * inverse
        stretch.append(((kx - value * wx) * scale, (ky - value * wy) * scale))
    along = np.hypot(stretch[0][0], stretch[1][0])
    down = np.hypot(stretch[0][1], stretch[1][1])
    large, little = np.maximum(along, down), np.minimum(along, down)
    footprint = np.maximum(little, large / 3)  # at grazing angles sharpness matters more than a little noise
    dither = ((x.astype(np.int32) & 1) * 2 + (y.astype(np.int32) & 1)).astype(np.float32) * np.float32(0.25)
    level = np.clip(np.floor(np.log2(np.maximum(footprint, 1e-3)) + dither), 0, LEVELS - 1)
    return coordinates[0], coordinates[1], level.astype(np.int32)


def _paint(
    stage: Stage,
    face: Int32[Array, " p"],
    a: Float32[Array, " p"],
    b: Float32[Array, " p"],
    level: Int32[Array, " p"],
) -> tuple[Float32[Array, "p 3"], Float32[Array, " p"]]:
    """Linear albedo, and the fourth channel of the paintings."""
    faces = stage.town.faces
    window = faces.window
    xy = np.stack(
        [
            np.take(window[:, 0], face) + np.clip(a, 0, _END) * np.take(window[:, 2], face),
            np.take(window[:, 1], face) + np.clip(b, 0, _END) * np.take(window[:, 3], face),
        ]
    )
    colour = stage.town.atlas.sample(np.take(faces.texture, face), xy, level)
    albedo = cv2.LUT(np.ascontiguousarray(colour[:, :3])[None], _LINEAR)[0]
    for channel in range(3):
        albedo[:, channel] *= np.take(faces.tint[:, channel], face)
    return albedo, colour[:, 3].astype(np.float32) / 255


def _ambient(
    stage: Stage, face: Int32[Array, " p"], sky: Float32[Array, " p"], weather: Weather
) -> Float32[Array, "p 3"]:
    """Light of the sky that is seen from a point, and of the ground and walls instead of what is hidden."""
    up = np.take(stage.town.faces.normals[:, 2].astype(np.float32), face)
    open_share = sky**1.2
    hidden = (1 - open_share) * (0.35 + 0.65 * open_share) * (0.75 - 0.25 * up)
    return open_share[:, None] * np.array(weather.sky, np.float32) + hidden[:, None] * np.array(
        weather.bounce, np.float32
    )


def _sunlight(
    stage: Stage,
    scene: tuple[Pinhole, Weather, SunMap],
    face: Int32[Array, " p"],
    pixel: tuple[Float32[Array, " p"], Float32[Array, " p"], Float32[Array, " p"]],
) -> Float32[Array, "p 3"]:
    """Light of the sun on pixels ``(x, y, z)``; leaves let some of it through."""
    (view, weather, sun), faces = scene, stage.town.faces
    direction = weather.sun.direction
    facing = (faces.normals @ direction).astype(np.float32)
    facing = np.where(faces.cutout, 0.35 + 0.4 * np.abs(facing), np.where(faces.both, np.abs(facing), facing))
    cosine = np.take(np.clip(facing, 0, None).astype(np.float32), face)
    chosen = np.flatnonzero(cosine > 0)
    x, y, z = (each[chosen] for each in pixel)
    local = np.stack(
        [
            (x - np.float32(view.center[0])) * z / view.focal,
            (y - np.float32(view.center[1])) * z / view.focal,
            z,
        ],
        axis=1,
    ).astype(np.float32)
    world = (local - view.translation.astype(np.float32)) @ view.rotation.astype(np.float32)
    normals = faces.normals.astype(np.float32)[face[chosen]]
    lit = np.zeros(len(face), np.float32)
    lit[chosen] = sun.lit(world + np.float32(0.05) * normals)
    return (cosine * lit)[:, None] * np.array(weather.sun.colour, np.float32)


def _glow(
    stage: Stage,
    face: Int32[Array, " p"],
    fourth: Float32[Array, " p"],
    albedo: Float32[Array, "p 3"],
    weather: Weather,
) -> Float32[Array, "p 3"]:
    """Lit windows (by the fourth channel) and lanterns (all of them)."""
    glow = np.take(stage.town.faces.glow, face)
    strength = np.where(glow < 0, np.float32(9.0), glow * fourth) * np.float32(weather.windows)
    return strength[:, None] * (np.array([1.0, 0.62, 0.27], np.float32) * 0.45 + 0.55 * albedo)


def _sky(stage: Stage, view: Pinhole, weather: Weather) -> Float32[Array, "h w 3"]:
    """Gradient, a glow around the sun, clouds on a level plane far above, and hills at the horizon."""
    quarter = (view.wh[0] // 4 + 1, view.wh[1] // 4 + 1)
    x, y = np.meshgrid(4 * np.arange(quarter[0]) + 2.0, 4 * np.arange(quarter[1]) + 2.0)
    rays = np.stack(
        [(x - view.center[0]) / view.focal, (y - view.center[1]) / view.focal, np.ones_like(x)], axis=2
    )
    rays = (rays / np.linalg.norm(rays, axis=2, keepdims=True)) @ view.rotation
    up = np.clip(rays[..., 2], 0, 1)
    blend = (1 - np.exp(-4.0 * up))[..., None]
    out = np.array(weather.horizon) * (1 - blend) + np.array(weather.zenith) * blend
    toward = np.clip(rays @ weather.sun.direction, 0, 1)
    out = out + (0.25 * toward[..., None] ** 24 + 1.2 * toward[..., None] ** 400) * np.array(
        weather.sun.colour
    )
    side = stage.clouds.shape[0]
    distance = 0.11 * side / np.maximum(up + 0.12, 0.05)
    cx = (rays[..., 0] * distance + 97.0 * weather.drift) % side
    cy = (rays[..., 1] * distance + 61.0 * weather.drift) % side
    field = cv2.remap(
        stage.clouds,
        cx.astype(np.float32),
        cy.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    cover = np.clip((field - 1.6 * (1 - 2 * weather.clouds)) * 0.8, 0, 1) * np.clip(up * 9, 0, 1)
    white = (
        0.55 * np.array(weather.sky)
        + 0.6 * np.array(weather.sun.colour) * 0.6
        + 0.1 * np.array(weather.horizon)
    )
    shaded = white * (1.08 - 0.35 * cover[..., None] ** 2)
    out = out * (1 - 0.9 * cover[..., None]) + 0.9 * cover[..., None] * shaded
    azimuth = np.arctan2(rays[..., 0], rays[..., 1])
    ridge = (
        0.035 + 0.014 * np.sin(3 * azimuth + 1) + 0.009 * np.sin(11 * azimuth) + 0.004 * np.sin(29 * azimuth)
    )
    hill = np.clip((ridge - rays[..., 2]) * 160, 0, 1)[..., None]
    out = out * (1 - hill) + hill * (
        0.5 * np.array(weather.horizon) + 0.12 * np.array(weather.sky) * [0.6, 1.0, 0.7]
    )
    full = cv2.resize(
        out.astype(np.float32), (quarter[0] * 4, quarter[1] * 4), interpolation=cv2.INTER_LINEAR
    )
    return np.ascontiguousarray(full[: view.wh[1], : view.wh[0]])
