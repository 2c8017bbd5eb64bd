"""Houses: pierced fronts, roofs, dormers, chimneys, cornices, shop signs and awnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from loc.town.facades import Canvas, Opening, Style, number_plate, paint_front
from loc.town.faces import Frame, Skin
from loc.town.lettering import board
from loc.town.paintbox import Paintbox
from loc.town.textures import Tone, stripes

#: Straight pieces of half a round arch.
_ARCH_STEPS = 6
Region = Callable[[tuple[float, float], tuple[float, float]], Skin]


@dataclass(frozen=True)
class House:
    """One house in a row.

    Attributes:
        width, depth: metres. roof: ``side`` (eaves to the street) or ``gable``. pitch: rise over run.
        tiles: material of the roof. awning: two colours, or None.
        open_sides: which of ``l`` and ``r`` have no neighbour, and windows.
    """

    width: float
    depth: float
    style: Style
    roof: str
    pitch: float
    tiles: str
    awning: tuple[Tone, Tone] | None = None
    dormers: int = 0
    open_sides: str = ""

    @property
    def eaves(self) -> float:
        return sum(self.style.floors)

    @property
    def ridge(self) -> float:
        run = self.depth / 2 if self.roof == "side" else self.width / 2
        return self.eaves + self.pitch * run


def openings_of(house: House, rng: np.random.Generator) -> list[Opening]:
    """Doors and windows; upper windows stand over one another, as masons do it, nearly."""
    style, out = house.style, []
    bay = house.width / style.bays
    wide = min(1.1, 0.52 * bay) if style.shutters is None else min(1.0, 0.36 * bay)
    if style.name:
        door = rng.integers(0, 2) * (house.width - 1.9) + 0.4
        out.append(Opening(door, door + 1.1, 0.0, 2.45, "door"))
        left, right = (door + 1.6, house.width - 0.5) if door < house.width / 2 else (0.5, door - 0.5)
        out.append(Opening(left, right, 0.45, 2.5, "shop"))
    else:
        at = int(rng.integers(0, style.bays))
        for k in range(style.bays):
            middle = (k + 0.5) * bay
            if k == at:
                out.append(Opening(middle - 0.6, middle + 0.6, 0.0, 2.5, "door", round=style.wall == "stone"))
            else:
                out.append(Opening(middle - wide / 2, middle + wide / 2, 1.0, 2.45))
    level = style.floors[0]
    for floor in style.floors[1:]:
        for k in range(style.bays):
            middle = (k + 0.5) * bay + rng.uniform(-0.06, 0.06)
            high = min(1.75, floor - 1.35)
            out.append(Opening(middle - wide / 2, middle + wide / 2, level + 0.85, level + 0.85 + high))
        level += floor
    if house.roof == "gable" and house.width > 5:
        middle = house.width / 2
        out.append(Opening(middle - 0.45, middle + 0.45, level + 0.7, level + 1.9, round=True))
    return out


def build_house(frame: Frame, house: House, box: Paintbox, rng: np.random.Generator, *, number: int) -> None:
    """Put a house up; ``frame`` is at the lower left corner of its front."""
    style = house.style
    top = house.ridge if house.roof == "gable" else house.eaves
    openings = openings_of(house, rng)
    painting = paint_front((house.width, top), style, openings, box)
    doors = [each for each in openings if each.kind == "door"]
    canvas = Canvas(painting, painting.shape[0] / top, top)
    number_plate(canvas, (doors[0].x1 + 0.25, 2.3), str(number))
    skin = box.wall(painting, house.width, top)
    trim = box.material("dressed", style.trim)
    in_wall = [each for each in openings if each.z1 < house.eaves]
    pierced_wall(frame, (house.width, house.eaves), skin.region, trim, in_wall)
    if house.roof == "gable":
        _gable(frame, house, skin.region, [each for each in openings if each not in in_wall])
    plain_wall = box.material("brick" if style.wall == "brick" else "plaster", style.tone)
    if style.wall == "brick":
        plain_wall = box.material("brick")
    without = "ftu" + house.open_sides
    frame.box((0, house.width), (0, house.depth), (-0.5, house.eaves), plain_wall, without=without)
    if "l" in house.open_sides:
        _side(frame.moved(0, house.depth).turned(-90), house, box, trim)
    if "r" in house.open_sides:
        _side(frame.moved(house.width, 0).turned(90), house, box, trim)
    _trimmings(frame, house, openings, trim)
    build_roof(frame, house, box, plain_wall)
    for k in range(house.dormers):
        _dormer(frame, house, box, (k + 0.5) * house.width / house.dormers)
    _chimney(frame, house, box, rng)
    if style.name:
        _shop(frame, house, openings, box, rng)


def _side(frame: Frame, house: House, box: Paintbox, trim: Skin) -> None:
    """A wall along a lane, with a few windows."""
    style = replace(house.style, name="", shutters=None, bays=3)
    openings, level = [], style.floors[0]
    for floor in style.floors[1:]:
        for share in (0.22, 0.5, 0.78):
            if box.rng.uniform() < 0.7:
                x = share * house.depth
                openings.append(Opening(x - 0.42, x + 0.42, level + 0.9, level + min(2.3, floor - 0.4)))
        level += floor
    painting = paint_front((house.depth, house.eaves), style, openings, box, share=0.75)
    skin = box.wall(painting, house.depth, house.eaves)
    pierced_wall(frame, (house.depth, house.eaves), skin.region, trim, openings)
    for each in openings:
        frame.box((each.x0 - 0.12, each.x1 + 0.12), (-0.1, 0), (each.z0 - 0.09, each.z0), trim, without="b")


def pierced_wall(
    frame: Frame,
    size: tuple[float, float],
    region: Region,
    reveal: Skin,
    openings: list[Opening],
) -> None:
    """A wall with its openings as real recesses, the panes set back."""
    edges = sorted({0.0, size[1], *(z for each in openings for z in (each.z0, each.z1))})
    for low, high in pairwise(edges):
        x = 0.0
        across = [each for each in openings if each.z0 <= low and each.z1 >= high]
        for each in sorted(across, key=lambda opening: opening.x0):
            _piece(frame, (x, each.x0), (low, high), region)
            x = each.x1
        _piece(frame, (x, size[0]), (low, high), region)
    for each in openings:
        _recess(frame, each, region, reveal)


def _piece(frame: Frame, x: tuple[float, float], z: tuple[float, float], region: Region) -> None:
    if x[1] - x[0] > 1e-6:
        frame.wall(x, z, 0.0, region(x, z))


def _recess(frame: Frame, opening: Opening, region: Region, reveal: Skin) -> None:
    """Sides, top and sill of an opening, and the pane at its back."""
    deep = {"window": 0.2, "door": 0.28, "shop": 0.24, "arch": 0.6}[opening.kind]
    x0, x1, z0, z1, spring = opening.x0, opening.x1, opening.z0, opening.z1, opening.spring
    frame.quad([(x0, 0, spring), (x0, deep, spring), (x0, deep, z0), (x0, 0, z0)], reveal)
    frame.quad([(x1, deep, spring), (x1, 0, spring), (x1, 0, z0), (x1, deep, z0)], reveal)
    if opening.z0 > 0:
        frame.quad([(x0, deep, z0), (x1, deep, z0), (x1, 0, z0), (x0, 0, z0)], reveal)
    if opening.round:
        _arch(frame, opening, region, reveal, deep)
    else:
        frame.quad([(x0, 0, z1), (x1, 0, z1), (x1, deep, z1), (x0, deep, z1)], reveal)
    if opening.kind != "arch":
        frame.wall((x0, x1), (z0, z1), deep, region((x0, x1), (z0, z1)))


def _arch(frame: Frame, opening: Opening, region: Region, reveal: Skin, deep: float) -> None:
    """The wall above a round arch, in upright strips, and the arch's inner side."""
    radius, middle = (opening.x1 - opening.x0) / 2, (opening.x0 + opening.x1) / 2
    angles = np.linspace(np.pi, 0, 2 * _ARCH_STEPS + 1)
    points = [
        (middle + radius * float(np.cos(t)), opening.spring + radius * float(np.sin(t))) for t in angles
    ]
    for (xa, za), (xb, zb) in pairwise(points):
        low = min(za, zb)
        corners = [(xa, 0.0, opening.z1), (xb, 0.0, opening.z1), (xb, 0.0, zb), (xa, 0.0, za)]
        distinct = [
            p
            for k, p in enumerate(corners)
            if abs(p[2] - corners[k - 1][2]) + abs(p[0] - corners[k - 1][0]) > 1e-9
        ]
        frame.quad(distinct, region((xa, xb), (low, opening.z1)))
        frame.quad([(xa, 0, za), (xb, 0, zb), (xb, deep, zb), (xa, deep, za)], reveal)


def _gable(frame: Frame, house: House, region: Region, openings: list[Opening]) -> None:
    w, eaves, ridge = house.width, house.eaves, house.ridge
    triangle = [(w / 2, 0.0, ridge), (w, 0.0, eaves), (0.0, 0.0, eaves)]
    frame.quad(triangle, region((0, w), (eaves, ridge)))
    for each in openings:  # a blind window with a frame that stands out: nothing to cut
        frame.box(
            (each.x0 - 0.1, each.x1 + 0.1),
            (-0.08, 0),
            (each.z0 - 0.12, each.z0),
            region((0, 0.5), (0.2, 0.5)),
        )


def _trimmings(frame: Frame, house: House, openings: list[Opening], trim: Skin) -> None:
    """Cornices at the floors, sills and lintels."""
    level, w = 0.0, house.width
    for k, floor in enumerate(house.style.floors):
        level += floor
        last = k == len(house.style.floors) - 1
        out, high = (0.26, 0.3) if last else (0.13, 0.17)
        frame.box((0, w), (-out, 0), (level - high, level), trim, without="b")
        if last:
            frame.box((0, w), (-0.15, 0), (level - 0.46, level - 0.3), trim, without="bt")
    for each in openings:
        if each.kind == "window" and each.z1 < house.eaves:
            frame.box(
                (each.x0 - 0.14, each.x1 + 0.14), (-0.13, 0), (each.z0 - 0.1, each.z0), trim, without="b"
            )
            if not each.round:
                frame.box(
                    (each.x0 - 0.2, each.x1 + 0.2),
                    (-0.1, 0),
                    (each.z1 + 0.22, each.z1 + 0.32),
                    trim,
                    without="b",
                )
        elif each.kind == "door":
            frame.box((each.x0 - 0.25, each.x1 + 0.25), (-0.45, 0), (0, 0.14), trim, without="bu")


def build_roof(frame: Frame, house: House, box: Paintbox, wall: Skin) -> None:
    """Two slopes with eaves, their undersides, and the gables."""
    tiles, wood = box.material(house.tiles), box.material("wood", (120, 96, 72))
    w, d, eaves, ridge = house.width, house.depth, house.eaves, house.ridge
    if house.roof == "side":
        over, thick = 0.42, 0.14
        drop = over * house.pitch
        low = eaves - drop + 0.05
        for front in (True, False):
            y0, y1 = (-over, d / 2) if front else (d + over, d / 2)
            xs = (0.0, w) if front else (w, 0.0)
            frame.quad(
                [
                    (xs[0], y1, ridge + thick),
                    (xs[1], y1, ridge + thick),
                    (xs[1], y0, low + thick),
                    (xs[0], y0, low + thick),
                ],
                tiles,
            )
            under = [(xs[0], y0, low), (xs[1], y0, low), (xs[1], y1, ridge), (xs[0], y1, ridge)]
            frame.quad(under, wood)
            frame.quad(
                [(xs[0], y0, low + thick), (xs[1], y0, low + thick), (xs[1], y0, low), (xs[0], y0, low)], wood
            )
        for x, points in (
            (0.0, ((d, eaves), (d / 2, ridge + thick), (0.0, eaves))),
            (w, ((0.0, eaves), (d / 2, ridge + thick), (d, eaves))),
        ):
            frame.quad([(x, y, z) for y, z in points], wall)
        return
    over, thick = 0.35, 0.14
    drop = 0.22 * house.pitch
    for left in (True, False):
        edge = -0.22 if left else w + 0.22
        ys = (d, -over) if left else (-over, d)
        high, low = ridge + thick, eaves - drop + thick
        frame.quad(
            [(w / 2, ys[0], high), (w / 2, ys[1], high), (edge, ys[1], low), (edge, ys[0], low)], tiles
        )
        frame.quad(
            [
                (edge, ys[0], low - thick),
                (edge, ys[1], low - thick),
                (w / 2, ys[1], ridge),
                (w / 2, ys[0], ridge),
            ],
            wood,
        )
        barge = [
            (edge, -over, low),
            (w / 2, -over, high),
            (w / 2, -over, high - thick),
            (edge, -over, low - thick),
        ]
        frame.quad(barge if left else barge[::-1], wood)
    frame.quad([(w / 2, d, ridge + thick), (0.0, d, eaves), (w, d, eaves)], wall)


def _dormer(frame: Frame, house: House, box: Paintbox, x: float) -> None:
    if house.roof != "side":
        return
    y = 0.18 * house.depth
    base = house.eaves + house.pitch * y
    half, high, back = 0.7, 1.25, 0.46 * house.depth
    style = house.style
    front = [Opening(0.25, 1.15, 0.2, 1.1)]
    small = Style("plaster", style.tone, style.trim, style.wood, None, (high,), 1)
    painting = paint_front((2 * half, high), small, front, box)
    here = frame.moved(x - half, y, base)
    skin = box.wall(painting, 2 * half, high)
    here.wall((0, 2 * half), (0, high), 0.0, skin.region((0, 2 * half), (0, high)))
    here.box((0, 2 * half), (0, back - y), (-0.3, high), box.material("plaster", style.tone), without="fbtu")
    little = House(2 * half, back - y, small, "gable", 0.8, house.tiles)
    build_roof(here, little, box, box.material("plaster", style.tone))
    here.quad(
        [(half, 0, little.ridge), (2 * half, 0, high), (0, 0, high)], box.material("plaster", style.tone)
    )


def _chimney(frame: Frame, house: House, box: Paintbox, rng: np.random.Generator) -> None:
    x = rng.uniform(0.2, 0.8) * house.width
    y = (0.62 if house.roof == "side" else 0.5) * house.depth
    brick = box.material("brick")
    frame.box((x - 0.35, x + 0.35), (y - 0.3, y + 0.3), (house.eaves, house.ridge + 0.9), brick, without="u")
    cap = box.material("dressed", (150, 144, 134))
    frame.box((x - 0.42, x + 0.42), (y - 0.37, y + 0.37), (house.ridge + 0.9, house.ridge + 1.02), cap)


def _shop(
    frame: Frame, house: House, openings: list[Opening], box: Paintbox, rng: np.random.Generator
) -> None:
    """The board over the window, the awning and the sign that hangs over the street."""
    window = next(each for each in openings if each.kind == "shop")
    name, style = house.style.name, house.style
    grounds: tuple[Tone, ...] = ((44, 62, 48), (92, 34, 32), (36, 44, 68), (60, 44, 34), (230, 222, 200))
    ground = grounds[int(rng.integers(len(grounds)))]
    letters: Tone = (50, 40, 34) if ground[0] > 200 else (226, 200, 132)
    width = window.x1 - window.x0
    ppm = 1.5 * box.ppm
    picture = box.picture(
        board((int(0.5 * ppm), int(width * ppm)), name, rng, ground=ground, letters=letters)
    )
    low = min(2.95, style.floors[0] - 0.75)
    wood = box.material("wood", ground)
    frame.box((window.x0, window.x1), (-0.14, 0), (low, low + 0.5), wood, without="fb")
    frame.wall((window.x0, window.x1), (low, low + 0.5), -0.14, picture)
    if house.awning is not None:
        _awning(frame, (window.x0 - 0.1, window.x1 + 0.1), low - 0.05, house.awning, box)
    hanging = box.picture(
        board((int(0.6 * ppm), int(0.8 * ppm)), name.split()[-1], rng, ground=ground, letters=letters)
    )
    x = house.width - 0.15 if window.x0 > 1.4 else 0.15
    arm, iron = style.floors[0] - 0.05, box.material("metal", (46, 44, 44))
    sign = frame.moved(x, -0.2, arm - 0.75)
    frame.box((x - 0.02, x + 0.02), (-1.15, 0), (arm - 0.1, arm - 0.05), iron, without="b")
    sign.quad([(-0.03, 0, 0.6), (-0.03, -0.85, 0.6), (-0.03, -0.85, 0), (-0.03, 0, 0)], hanging)
    sign.quad([(0.03, -0.85, 0.6), (0.03, 0, 0.6), (0.03, 0, 0), (0.03, -0.85, 0)], hanging)
    sign.box((-0.03, 0.03), (-0.85, 0), (0, 0.6), wood, without="lr")


def _awning(frame: Frame, x: tuple[float, float], z: float, tones: tuple[Tone, Tone], box: Paintbox) -> None:
    reach, fall = 1.35, 0.55
    cloth = stripes((int(1.5 * box.ppm), int((x[1] - x[0]) * box.ppm)), tones, box.rng, ppm=box.ppm)
    skin = box.picture(cloth, both=True)
    high, low = (z, 0.0), (z - fall, -reach)
    frame.quad(
        [(x[0], high[1], high[0]), (x[1], high[1], high[0]), (x[1], low[1], low[0]), (x[0], low[1], low[0])],
        skin,
    )
    frame.wall(x, (low[0] - 0.22, low[0]), low[1], skin)
    iron = box.material("metal", (70, 66, 62))
    for side in x:
        frame.box(
            (side - 0.015, side + 0.015), (-reach, 0), (low[0] - 0.02, low[0] + 0.01), iron, without="b"
        )
