"""The buildings one remembers: the town hall over its arcade, and the church with its tower."""

from __future__ import annotations

import numpy as np

from loc.town.facades import Canvas, Opening, Style, paint_front
from loc.town.faces import Frame
from loc.town.houses import House, build_roof, pierced_wall
from loc.town.lettering import clock_face, write
from loc.town.paintbox import Paintbox, WallSkin
from loc.town.textures import Painting, Tone, stripes

SANDSTONE: Tone = (204, 182, 142)
TRIM: Tone = (222, 208, 178)
#: Arches of the town hall.
_ARCADE = 5


def build_town_hall(frame: Frame, size: tuple[float, float], box: Paintbox) -> None:
    """An arcade of five arches, two floors of tall windows, banners, and a clock gable with a turret."""
    width, depth = size
    floors = (4.7, 4.0, 3.0)
    height = sum(floors)
    bay = width / _ARCADE
    middles = [(k + 0.5) * bay for k in range(_ARCADE)]
    arches = [Opening(m - 1.2, m + 1.2, 0.0, 3.75, "arch", round=True) for m in middles]
    upper = [Opening(m - 0.75, m + 0.75, 5.6, 8.0, round=True) for m in middles]
    small = [Opening(m + s - 0.4, m + s + 0.4, 9.35, 10.6) for m in middles for s in (-0.65, 0.65)]
    style = Style("stone", SANDSTONE, TRIM, (92, 62, 44), None, floors, 2 * _ARCADE)
    painting = paint_front((width, height), style, [*arches, *upper, *small], box)
    skin = box.wall(painting, width, height)
    trim = box.material("dressed", TRIM)
    pierced_wall(frame, (width, height), skin.region, trim, [*arches, *upper, *small])
    _arcade(frame, width, box)
    stone = box.material("stone", SANDSTONE)
    frame.box((0, width), (0, depth), (-0.5, height), stone, without="ftu")
    for level, out in ((4.7, 0.18), (8.7, 0.18), (height, 0.36)):
        frame.box((0, width), (-out, 0), (level - 0.28, level), trim, without="b")
    for k in range(_ARCADE + 1):
        x = min(max(k * bay, 0.28), width - 0.28)
        frame.box((x - 0.28, x + 0.28), (-0.2, 0), (0, height - 0.28), trim, without="bu")
    for m in middles:
        frame.box((m - 1.0, m + 1.0), (-0.2, 0), (5.35, 5.5), trim, without="b")
        frame.quad([(m, -0.16, 8.75), (m + 1.05, -0.16, 8.3), (m - 1.05, -0.16, 8.3)], trim)
    roof = House(width, depth, style, "side", 0.75, "tiles_slate")
    build_roof(frame, roof, box, stone)
    _clock_gable(frame, width, height, box)
    for k, tones in ((0, ((176, 40, 40), (228, 222, 208))), (4, ((38, 66, 118), (226, 190, 70)))):
        _banner(frame, middles[k] + 1.35, tones, box)


def _arcade(frame: Frame, width: float, box: Paintbox) -> None:
    """The vaulted walk behind the arches: back wall with doors, ceiling, floor."""
    deep, high = 3.4, 4.2
    style = Style("plaster", (206, 186, 150), TRIM, (84, 56, 40), None, (high,), _ARCADE)
    openings = [
        Opening(m - 0.7, m + 0.7, 0.0, 2.7, "door")
        if k % 2 == 0
        else Opening(m - 0.9, m + 0.9, 0.8, 2.6, "shop")
        for k, m in enumerate((k + 0.5) * width / _ARCADE for k in range(_ARCADE))
    ]
    painting = paint_front((width, high), style, openings, box)
    back = box.wall(painting, width, high)
    inner = frame.moved(0, deep)
    inner.wall((0, width), (0, high), 0.0, back.region((0, width), (0, high)))
    vault = box.material("plaster", (214, 202, 176))
    frame.quad([(0, 0.6, high), (width, 0.6, high), (width, deep, high), (0, deep, high)], vault)
    frame.wall((0, width), (3.75, high), 0.6, vault)
    floor = box.material("slabs", (176, 166, 148))
    frame.quad([(0, deep, 0.06), (width, deep, 0.06), (width, -0.3, 0.06), (0, -0.3, 0.06)], floor)
    frame.wall((0, width), (-0.4, 0.06), -0.3, floor)
    for x, turned in ((0.05, False), (width - 0.05, True)):
        points = [(x, 0.6, high), (x, deep, high), (x, deep, 0), (x, 0.6, 0)]
        frame.quad(points[::-1] if not turned else points, vault)
    bay = width / _ARCADE
    for k in range(1, _ARCADE):  # backs of the piers
        x = k * bay
        frame.quad(
            [
                (x + bay / 2 - 1.2, 0.6, 3.75),
                (x - bay / 2 + 1.2, 0.6, 3.75),
                (x - bay / 2 + 1.2, 0.6, 0),
                (x + bay / 2 - 1.2, 0.6, 0),
            ],
            vault,
        )


def _clock_gable(frame: Frame, width: float, height: float, box: Paintbox) -> None:
    half, rise = 2.7, 3.2
    style = Style("stone", SANDSTONE, TRIM, (92, 62, 44), None, (rise,), 2)
    painting = paint_front((2 * half, rise + 2.2), style, [], box)
    canvas = Canvas(painting, painting.shape[0] / (rise + 2.2), rise + 2.2)
    _clock(canvas, (half, 1.9), 1.25, hours=10.15)
    skin = box.wall(painting, 2 * half, rise + 2.2)
    here = frame.moved(width / 2 - half, -0.05, height)
    here.wall((0, 2 * half), (0, rise), 0.0, skin.region((0, 2 * half), (0, rise)))
    here.quad(
        [(half, 0, rise + 2.2), (2 * half, 0, rise), (0, 0, rise)],
        skin.region((0, 2 * half), (rise, rise + 2.2)),
    )
    stone = box.material("stone", SANDSTONE)
    here.box((0, 2 * half), (0, 5), (-0.3, rise), stone, without="ftu")
    small = House(2 * half, 5, style, "gable", 2.2 / half, "tiles_slate")
    build_roof(here, small, box, stone)
    turret = here.moved(half, 2.6)
    copper = box.material("metal", (112, 158, 138))
    white = box.material("wood", (226, 220, 206))
    turret.prism((0.75, 0.75), (rise + 1.2, rise + 3.6), white, sides=8)
    turret.prism((0.95, 0.55), (rise + 3.6, rise + 4.4), copper, sides=8, under=True)
    turret.prism((0.55, 0.0), (rise + 4.4, rise + 7.2), copper, sides=8)
    turret.prism((0.05, 0.03), (rise + 7.2, rise + 8.2), box.material("metal", (196, 164, 80)), sides=4)


def _clock(canvas: Canvas, centre: tuple[float, float], radius: float, *, hours: float) -> None:
    side = round(2 * radius * canvas.ppm)
    dial, disk = clock_face(side, hours=hours)
    x, y = canvas.pixel(centre[0] - radius, centre[1] + radius)
    part = canvas.painting[y : y + side, x : x + side]
    rows, columns = part.shape[:2]
    part[disk[:rows, :columns]] = dial[:rows, :columns][disk[:rows, :columns]]


def _banner(frame: Frame, x: float, tones: tuple[Tone, Tone], box: Paintbox) -> None:
    cloth: Painting = stripes((int(3.4 * box.ppm), int(0.9 * box.ppm)), tones, box.rng, ppm=box.ppm)
    rows, columns = cloth.shape[:2]
    shield = cloth[rows // 3 : rows // 2, columns // 8 : columns * 7 // 8]
    shield[..., :3] = np.asarray(tones[1], np.float32) / 255
    write(cloth, "1387", (columns // 6, rows // 3, columns * 2 // 3, rows // 6), (52, 40, 34))
    skin = box.picture(cloth, both=True)
    frame.quad([(x, -0.5, 8.5), (x + 0.9, -0.62, 8.5), (x + 0.9, -0.62, 5.1), (x, -0.5, 5.1)], skin)
    frame.box((x - 0.05, x + 0.95), (-0.64, -0.58), (8.5, 8.56), box.material("wood", (110, 84, 60)))
    frame.box((x + 0.42, x + 0.48), (-0.6, 0), (8.5, 8.56), box.material("wood", (110, 84, 60)), without="b")


def build_church(frame: Frame, box: Paintbox) -> None:
    """A tower of 6.5 m to the left of a nave that turns its gable, portal and rose to the square."""
    grey: Tone = (178, 168, 152)
    trim_tone: Tone = (204, 196, 180)
    stone, trim = box.material("stone", grey), box.material("dressed", trim_tone)
    nave, width, height, ridge = frame.moved(6.5, 0.6), 9.5, 8.6, 15.2
    style = Style("stone", grey, trim_tone, (86, 58, 42), None, (height,), 2)
    portal = Opening(width / 2 - 1.2, width / 2 + 1.2, 0.45, 4.4, "door", round=True)
    lancets = [Opening(x - 0.5, x + 0.5, 3.0, 6.6, round=True) for x in (1.5, width - 1.5)]
    painting = paint_front((width, ridge), style, [portal, *lancets], box)
    canvas = Canvas(painting, painting.shape[0] / ridge, ridge)
    _rose(canvas, (width / 2, 7.6), 1.5, box.rng)
    skin = box.wall(painting, width, ridge)
    pierced_wall(nave, (width, height), skin.region, trim, [portal, *lancets])
    nave.quad(
        [(width / 2, 0, ridge), (width, 0, height), (0, 0, height)], skin.region((0, width), (height, ridge))
    )
    nave.box((0, width), (0, 16), (-0.5, height), stone, without="ftu")
    build_roof(
        nave, House(width, 16, style, "gable", (ridge - height) / (width / 2), "tiles_brown"), box, stone
    )
    for k in range(3):
        reach = 0.5 + 0.42 * (2 - k)
        nave.box(
            (width / 2 - 2.2 - 0.3 * (2 - k), width / 2 + 2.2 + 0.3 * (2 - k)),
            (-reach, 0),
            (0.15 * k, 0.15 * (k + 1)),
            trim,
            without="bu",
        )
    for x in (0.35, width - 0.35):
        nave.box((x - 0.35, x + 0.35), (-0.55, 0), (0, 5.6), stone, without="bu", top=trim)
    _tower(frame, box, grey, trim_tone)


def _rose(canvas: Canvas, centre: tuple[float, float], radius: float, rng: np.random.Generator) -> None:
    """A wheel of coloured glass in stone tracery."""
    side = round(2 * radius * canvas.ppm)
    y, x = (np.mgrid[:side, :side] + 0.5 - side / 2) / (side / 2)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    sector = ((angle + np.pi) / (2 * np.pi) * 12).astype(int) % 12
    ring = (r * 3).astype(int)
    tones = rng.uniform(0.12, 0.5, (12, 4, 3)).astype(np.float32) * np.array([1.0, 0.6, 0.9], np.float32)
    glass = tones[sector, np.minimum(ring, 3)]
    edge = np.abs((angle + np.pi) / (2 * np.pi) * 12 - np.round((angle + np.pi) / (2 * np.pi) * 12)) * r * 2
    bars = (edge < 0.09) | (np.abs(r * 3 - np.round(r * 3)) < 0.12) | (r < 0.12)
    glass[bars] = (0.72, 0.68, 0.6)
    px, py = canvas.pixel(centre[0] - radius, centre[1] + radius)
    part = canvas.painting[py : py + side, px : px + side]
    inside = (r < 1)[: part.shape[0], : part.shape[1]]
    part[..., :3][inside] = glass[: part.shape[0], : part.shape[1]][inside]
    part[..., 3][inside] = np.where(bars, 0.0, 0.7)[: part.shape[0], : part.shape[1]][inside]


def _tower(frame: Frame, box: Paintbox, grey: Tone, trim_tone: Tone) -> None:
    side, height = 6.5, 21.0
    trim = box.material("dressed", trim_tone)
    style = Style("stone", grey, trim_tone, (86, 58, 42), None, (7.0, 7.0, 7.0), 2)
    belfry = [Opening(m - 0.7, m + 0.7, 15.6, 18.8, round=True) for m in (2.0, 4.5)]
    slits = [Opening(3.0, 3.5, z, z + 1.6, round=True) for z in (3.2, 8.6)]
    # The same stones on all four sides would be a repeated texture: each is painted by itself.
    for k, (here, front) in enumerate(
        (
            (frame, True),
            (frame.moved(side, 0).turned(90), True),
            (frame.moved(side, side).turned(180), False),
            (frame.moved(0, side).turned(270), True),
        )
    ):
        openings = [*belfry, *slits]
        painting = paint_front((side, height), style, openings, box, share=1.0 if front else 0.4)
        canvas = Canvas(painting, painting.shape[0] / height, height)
        _clock(canvas, (side / 2, 12.9), 1.35, hours=10.15)
        skin: WallSkin = box.wall(painting, side, height)
        pierced_wall(here, (side, height), skin.region, trim, openings)
        for opening in belfry:
            _louvres(here, opening, box)
        for level, out in ((7.0, 0.16), (14.6, 0.16), (height, 0.34)):
            here.box((-out, side + out), (-out, 0), (level - 0.3, level), trim, without="b")
        if k in (0, 3):
            here.box(
                (-0.45, 0.75), (-0.45, 0.3), (0, 6.2), box.material("stone", grey), without="u", top=trim
            )
    roof = frame.moved(side / 2, side / 2)
    slate, gold = box.material("tiles_slate"), box.material("metal", (196, 164, 80))
    roof.prism((side / 2 * 1.414 + 0.55, 3.1), (height, height + 2.4), slate, sides=4, under=True)
    roof.prism((3.1, 0.0), (height + 2.4, height + 11.5), slate, sides=4)
    roof.prism((0.09, 0.06), (height + 11.2, height + 12.6), gold, sides=4)
    roof.box((-0.4, 0.4), (-0.04, 0.04), (height + 12.1, height + 12.2), gold)


def _louvres(frame: Frame, opening: Opening, box: Paintbox) -> None:
    wood = box.material("wood", (112, 92, 72))
    z = opening.z0 + 0.15
    while z < opening.spring:
        frame.quad(
            [
                (opening.x0, 0.18, z + 0.2),
                (opening.x1, 0.18, z + 0.2),
                (opening.x1, 0.04, z),
                (opening.x0, 0.04, z),
            ],
            wood,
        )
        z += 0.32
