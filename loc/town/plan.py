"""The plan of the town: which house stands where, and what stands between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float64

from loc.town import furniture
from loc.town.atlas import Atlas
from loc.town.facades import Style
from loc.town.faces import FaceBuilder, Faces, Frame, Skin
from loc.town.houses import House, build_house
from loc.town.landmarks import build_church, build_town_hall
from loc.town.noise import fractal
from loc.town.paintbox import Paintbox
from loc.town.textures import Painting, Tone, blend, clipped, setts, shade, slabs

Array = np.ndarray

#: Half width (east) and half depth (north) of the square, metres.
HALF = (20.0, 16.0)
FOUNTAIN = (-1.5, 0.5)
_GROUND_HALF = (22.0, 18.0)
_CELL = 4.0

_PLASTER: tuple[Tone, ...] = (
    (226, 198, 146), (214, 168, 138), (236, 226, 202), (188, 190, 164), (196, 204, 206),
    (204, 142, 112), (232, 216, 180), (206, 186, 172), (218, 182, 120), (178, 176, 166),
)  # fmt: skip
_WOOD: tuple[Tone, ...] = ((232, 228, 216), (108, 74, 50), (62, 84, 70), (226, 220, 204), (84, 62, 50))
_SHUTTERS: tuple[Tone | None, ...] = ((72, 104, 84), None, (116, 58, 48), (70, 92, 116), None)
_NAMES = (
    "BOULANGERIE", "HOTEL POST", "CAFE CENTRAL", "APOTHEKE", "LIBRERIA", "OSTERIA", "TABAC", "UHREN WOLF",
    "FLEURISTE", "BUCHHANDLUNG", "CAFE ROMA", "ANTIQUES", "KONDITOREI", "MUSIK HAHN", "WEINHAUS", "OPTIK",
)  # fmt: skip
_AWNINGS: tuple[tuple[Tone, Tone] | None, ...] = (
    ((178, 48, 44), (236, 230, 214)), None, ((48, 92, 70), (236, 230, 214)),
    ((206, 150, 60), (240, 236, 224)), None, ((54, 80, 130), (232, 228, 218)),
)  # fmt: skip

#: What stands where: x and y in metres, then a turn in degrees, a height or colours.
_LAMPS = (
    (-12.5, 9.5), (6.5, 11.5), (14.5, 3.5), (11.0, -11.0), (-2.0, -11.5), (-14.5, -6.5),
    (16.8, 22.0), (27.0, -4.2), (-11.4, -23.0),
)  # fmt: skip
_WALL_LAMPS = (
    (-8.0, 15.98, 0), (8.4, 15.98, 0), (19.98, 9.6, -90), (19.98, -9.5, -90),
    (12.5, -15.98, 180), (-4.0, -15.98, 180), (-19.98, -8.4, 90), (-19.98, 3.0, 90),
)  # fmt: skip
_TREES = ((-11.0, -10.0, 6.4), (13.2, 8.3, 6.0), (14.8, -6.0, 6.8), (-14.6, 6.0, 5.6), (5.2, -12.0, 5.4))
_CREAM: Tone = (238, 232, 218)
_STALLS: tuple[tuple[float, float, float, tuple[Tone, Tone]], ...] = (
    (6.5, -6.4, 12.0, ((176, 52, 46), _CREAM)),
    (9.8, 3.2, 100.0, ((50, 96, 74), _CREAM)),
    (-9.8, 5.4, -65.0, ((204, 156, 66), _CREAM)),
    (-6.5, -7.6, 170.0, ((58, 84, 132), _CREAM)),
)
_PILLARS = ((-15.2, -1.2), (3.4, 9.8))
_CAFES: tuple[tuple[float, float, Tone], ...] = (
    (16.2, 11.0, (214, 196, 160)),
    (13.6, 12.6, (178, 66, 56)),
    (-5.0, -13.2, (214, 196, 160)),
    (16.6, -11.6, (88, 116, 96)),
)
_BENCHES = ((-8.2, 0.4, 90), (4.9, 1.9, -90), (-1.0, 7.6, 0), (-0.5, -6.6, 180), (-16.8, 8.2, 90))
_PLANTERS = (
    (-18.6, -9.5), (18.9, 1.2), (18.9, 5.6), (8.9, -15.2), (-3.5, -15.2), (10.2, 15.2), (-18.9, 15.2),
    (-18.0, 1.4),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Town:
    """What is rendered.

    Attributes:
        faces: the geometry. atlas: its paintings.
        lamps: ``(l, 3)`` float64, where the lights of the street are.
        obstacles: circles (x, y, radius) in which no one can stand, metres.
    """

    faces: Faces
    atlas: Atlas
    lamps: Float64[Array, "l 3"]
    obstacles: tuple[tuple[float, float, float], ...]


def relief(x: Array | float, y: Array | float) -> Array:
    """Height of the paving, metres: waves of a hand's breadth that fade out at the houses."""
    inside = np.clip((1 - (np.asarray(x) / HALF[0]) ** 2) * (1 - (np.asarray(y) / HALF[1]) ** 2), 0, 1)
    waves = np.sin(0.41 * np.asarray(x) + 0.8) * np.cos(0.37 * np.asarray(y)) + 0.5 * np.sin(
        0.23 * np.asarray(y) - 0.3
    )
    return np.asarray(0.13 * np.sqrt(inside) * waves)


def build_town(*, seed: int = 0, ppm: float = 80.0) -> Town:
    """The town square; ``ppm`` is the resolution of the paintings in px per metre of wall."""
    rng = np.random.default_rng(seed)
    box = Paintbox(ppm, np.random.default_rng(seed + 1))
    builder = FaceBuilder(np.random.default_rng(seed + 2))
    _ground(builder, box)
    rows = _rows(builder)
    _build_rows(rows, box, rng)
    build_town_hall(_north(builder).moved(23.5, 0.0), (17.0, 11.0), box)
    build_church(_west(builder).moved(11.0, 0.0), box)
    lamps, obstacles = _furnish(builder, box, rng)
    return Town(builder.build(), box.atlas.build(), np.array(lamps), tuple(obstacles))


def _frame(builder: FaceBuilder, at: tuple[float, float], x: tuple[float, float]) -> Frame:
    along = np.array([*x, 0.0])
    return Frame(builder, np.array([*at, 0.0]), along, np.array([-along[1], along[0], 0.0]))


def _north(builder: FaceBuilder) -> Frame:
    return _frame(builder, (-32.0, 16.0), (1, 0))


def _west(builder: FaceBuilder) -> Frame:
    return _frame(builder, (-20.0, -16.0), (0, 1))


#: A row of houses: widths in metres; a negative width is a gap (a street, or a landmark).
_Row = tuple[Frame, tuple[float, ...]]


def _rows(builder: FaceBuilder) -> list[_Row]:
    return [
        (_north(builder), (6.0, 6.0, 6.0, 5.5, -17.0, 6.0)),
        (_frame(builder, (20.0, 28.0), (0, -1)), (6.0, 6.0, 6.5, 6.0, 5.5, -4.5, 5.0, 4.5)),
        (_frame(builder, (26.0, -16.0), (-1, 0)), (6.0, 6.0, 5.5, 6.5, 6.0, 5.0, -5.0, 6.0, 6.0)),
        (_west(builder), (6.0, 5.0)),
        (_frame(builder, (10.0, 34.0), (1, 0)), (7.0, 7.5)),
        (_frame(builder, (38.0, 4.0), (0, -1)), (7.5, 7.0)),
        (_frame(builder, (-4.0, -35.0), (-1, 0)), (7.5, 7.5)),
        (_frame(builder, (-42.0, 5.0), (0, 1)), (8.0, 8.0)),
    ]


def _build_rows(rows: list[_Row], box: Paintbox, rng: np.random.Generator) -> None:
    number = 0
    for frame, widths in rows:
        x = 0.0
        for k, width in enumerate(widths):
            if width > 0:
                left = k == 0 or widths[k - 1] < 0
                right = k + 1 == len(widths) or widths[k + 1] < 0
                house = replace(_house(width, number, rng), open_sides="l" * left + "r" * right)
                build_house(frame.moved(x, float(rng.uniform(0, 0.22))), house, box, rng, number=number + 1)
                number += 1
            x += abs(width)


def _house(width: float, number: int, rng: np.random.Generator) -> House:
    wall = ("plaster", "plaster", "timber", "plaster", "brick", "plaster", "stone")[number % 7]
    tone: Tone = _PLASTER[number * 3 % len(_PLASTER)]
    if wall == "brick":
        tone = ((160, 98, 76), (172, 116, 90), (146, 92, 80))[number % 3]
    elif wall == "stone":
        tone = ((196, 178, 146), (176, 170, 156))[number % 2]
    elif wall == "timber":
        tone = ((238, 228, 204), (230, 210, 170))[number % 2]
    wood: Tone = (84, 58, 42) if wall == "timber" else _WOOD[number % len(_WOOD)]
    count = 3 if number % 3 else 4
    floors = (float(rng.uniform(3.5, 3.9)), *(float(rng.uniform(2.8, 3.2)) for _ in range(count - 2)))
    name = _NAMES[number % len(_NAMES)] if number % 3 != 1 else ""
    shutters = None if wall in ("timber", "stone") else _SHUTTERS[number % len(_SHUTTERS)]
    trim: Tone = ((212, 200, 178), (196, 186, 168), (222, 214, 196))[number % 3]
    style = Style(wall, tone, trim, wood, shutters, floors, 2 if width < 5.2 else 3, name)
    roof = "gable" if number % 2 else "side"
    pitch = float(rng.uniform(0.95, 1.25) if roof == "gable" else rng.uniform(0.75, 0.95))
    tiles = ("tiles_red", "tiles_brown", "tiles_red", "tiles_slate")[number % 4]
    awning = _AWNINGS[number % len(_AWNINGS)] if name else None
    return House(
        width, 9.5 + 0.13 * (number % 5), style, roof, pitch, tiles, awning, 2 if roof == "side" else 0
    )


def _ground(builder: FaceBuilder, box: Paintbox) -> None:
    """The paving of the square in cells of two triangles, and streets around it."""
    wide, deep = _GROUND_HALF
    wall = box.wall(_paving(box, 0.62 * box.ppm), 2 * wide, 2 * deep)
    for x0 in np.arange(-wide, wide, _CELL):
        for y0 in np.arange(-deep, deep, _CELL):
            _cell(
                builder,
                (float(x0), float(y0)),
                wall.region((x0 + wide, x0 + wide + _CELL), (y0 + deep, y0 + deep + _CELL)),
            )
    street = box.material("setts", (148, 140, 128), scale=0.6)
    for x, y in (
        ((-70, 70), (deep, 70)),
        ((-70, 70), (-70, -deep)),
        ((wide, 70), (-deep, deep)),
        ((-70, -wide), (-deep, deep)),
    ):
        builder.face(
            np.array([x[0], y[1], 0.0]),
            np.array([x[1] - x[0], 0.0, 0.0]),
            np.array([0.0, y[0] - y[1], 0.0]),
            street,
        )


def _cell(builder: FaceBuilder, at: tuple[float, float], skin: Skin) -> None:
    def corner(i: int, j: int) -> Array:
        x, y = at[0] + i * _CELL, at[1] + j * _CELL
        return np.array([x, y, float(relief(x, y))])

    u, v = corner(1, 1) - corner(0, 1), corner(0, 0) - corner(0, 1)
    builder.face(corner(0, 1), u, v, skin, ((0, 0), (1, 0), (0, 1)))
    u, v = corner(1, 0) - corner(0, 0), corner(1, 0) - corner(1, 1)
    builder.face(corner(1, 1) - u, u, v, skin, ((1, 0), (1, 1), (0, 1)))


def _paving(box: Paintbox, ppm: float) -> Painting:
    """Setts, a wheel of slabs around the fountain, slab paths from the streets, gutters, stains."""
    wide, deep = _GROUND_HALF
    shape = (round(2 * deep * ppm / 32) * 32, round(2 * wide * ppm / 32) * 32)
    rng = box.rng
    out = setts(shape, (150, 142, 130), rng, ppm=ppm)
    paths = np.zeros(shape, np.uint8)

    def pixel(x: float, y: float) -> tuple[int, int]:
        return round((x + wide) * shape[1] / (2 * wide)), round((deep - y) * shape[0] / (2 * deep))

    centre = pixel(*FOUNTAIN)
    for end in ((17.0, 18.0), (22.0, -4.2), (-11.5, -18.0), (-22.0, 13.5)):
        cv2.line(paths, centre, pixel(*end), 1, round(1.9 * ppm))
    cv2.rectangle(paths, pixel(-20, 16), pixel(20, -16), 1, round(2.2 * ppm))
    cv2.circle(paths, centre, round(6.6 * ppm), 1, round(1.2 * ppm))
    stones = slabs(shape, (178, 168, 150), rng, ppm=ppm)
    out = np.where(paths[..., None] > 0, stones, out)
    edge = cv2.dilate(paths, np.ones((5, 5), np.uint8)) - paths
    blend(out, (84, 78, 70), 0.6 * edge.astype(np.float32))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    radius = np.hypot(x - centre[0], y - centre[1]) / ppm
    spoke = np.abs(np.sin(8 * np.arctan2(y - centre[1], x - centre[0]))) * radius
    blend(out, (112, 84, 72), 0.75 * ((radius < 6.0) & (radius > 4.2) & (spoke < 0.5)).astype(np.float32))
    shade(out, 1 + 0.09 * fractal(shape, 5 * ppm, rng, octaves=6, gain=0.65))
    stains = np.clip(fractal(shape, 1.6 * ppm, rng, octaves=5, gain=0.7) - 1.6, 0, 1)
    blend(out, (72, 66, 58), 0.6 * stains)
    for _ in range(26):
        at = (int(rng.uniform(0, shape[1])), int(rng.uniform(0, shape[0])))
        cv2.circle(out, at, round(0.3 * ppm), (0.27, 0.26, 0.25, 0.0), -1)
        cv2.circle(out, at, round(0.22 * ppm), (0.36, 0.34, 0.32, 0.0), max(1, round(0.03 * ppm)))
    return clipped(out)


def _furnish(
    builder: FaceBuilder, box: Paintbox, rng: np.random.Generator
) -> tuple[list[Array], list[tuple[float, float, float]]]:
    """Everything between the houses; returns the places of the lamps, and the circles that are taken."""
    taken: list[tuple[float, float, float]] = [(*FOUNTAIN, 4.2)]

    def place(x: float, y: float, radius: float, turn: float = 0.0) -> Frame:
        taken.append((x, y, radius))
        return _frame(builder, (x, y), (1, 0)).turned(turn).moved(0, 0, float(relief(x, y)))

    furniture.build_fountain(_frame(builder, FOUNTAIN, (1, 0)).moved(0, 0, float(relief(*FOUNTAIN))), box)
    lamps = [furniture.build_lamp(place(x, y, 0.5), box) for x, y in _LAMPS]
    for x, y, height in _TREES:
        furniture.build_tree(place(x, y, 1.5), box, rng, height=height)
    for x, y, turn, tones in _STALLS:
        furniture.build_stall(place(x, y, 2.6, turn).moved(-1.5, -0.9), box, rng, tones)
    for x, y in _PILLARS:
        furniture.build_pillar(place(x, y, 1.1), box, rng)
    for x, y, tone in _CAFES:
        furniture.build_cafe(place(x, y, 1.6, float(rng.uniform(0, 90))), box, rng, tone)
    for x, y, turn in _BENCHES:
        furniture.build_bench(place(x, y, 1.1, turn).moved(-0.9, 0), box)
    for k in range(8):
        furniture.build_bollard(place(-9.0 + 2.5 * k, 13.6, 0.4), box)
    for x, y in _PLANTERS:
        furniture.build_planter(place(x, y, 0.5), box, rng)
    for x, y, turn in _WALL_LAMPS:
        wall = _frame(builder, (x, y), (1, 0)).turned(turn).moved(0, 0, 3.1)
        lamps.append(furniture.build_wall_lamp(wall, box))
    return lamps, taken
