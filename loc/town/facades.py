"""Fronts of houses: where their openings are, and how they are painted."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from loc.town.lettering import write
from loc.town.noise import fractal
from loc.town.paintbox import Paintbox
from loc.town.textures import Painting, Tone, blend, clipped, courses, plain, planks, plaster, shade

Array = np.ndarray


#: Colours of what lies in shop windows.
_GOODS: tuple[Tone, ...] = (
    (176, 128, 76), (202, 178, 132), (120, 70, 50), (150, 52, 44), (88, 104, 74), (74, 88, 112),
    (214, 204, 182), (196, 154, 66), (104, 96, 88), (128, 64, 82),
)  # fmt: skip


@dataclass(frozen=True)
class Opening:
    """A hole in a wall, in metres from its lower left corner.

    Attributes:
        kind: ``window``, ``door``, ``shop`` or ``arch`` (open, nothing in it).
        round: the top is a half circle (inside the rectangle).
    """

    x0: float
    x1: float
    z0: float
    z1: float
    kind: str = "window"
    round: bool = False

    @property
    def spring(self) -> float:
        """Height at which the round top begins."""
        return self.z1 - (self.x1 - self.x0) / 2 if self.round else self.z1


@dataclass(frozen=True)
class Style:
    """How a front looks.

    Attributes:
        wall: ``plaster``, ``stone``, ``brick`` or ``timber``.
        tone, trim, wood: colours of the wall, of the stone around openings, of frames and doors.
        shutters: colour, or None.
        floors: heights in metres, the ground floor first. bays: windows per floor.
        name: lettering of the shop, empty for a dwelling.
    """

    wall: str
    tone: Tone
    trim: Tone
    wood: Tone
    shutters: Tone | None
    floors: tuple[float, ...]
    bays: int
    name: str = ""


@dataclass(frozen=True)
class Canvas:
    """A painting of a wall ``height`` metres high, addressed in metres from its lower left corner."""

    painting: Painting
    ppm: float
    height: float

    def rows(self, z0: float, z1: float) -> slice:
        limit = self.painting.shape[0]
        top, bottom = round((self.height - z1) * self.ppm), round((self.height - z0) * self.ppm)
        return slice(min(max(top, 0), limit), min(max(bottom, 0), limit))

    def columns(self, x0: float, x1: float) -> slice:
        limit = self.painting.shape[1]
        return slice(min(max(round(x0 * self.ppm), 0), limit), min(max(round(x1 * self.ppm), 0), limit))

    def part(self, x: tuple[float, float], z: tuple[float, float]) -> Painting:
        """A view of a rectangle, to paint on."""
        return self.painting[self.rows(*z), self.columns(*x)]

    def pixel(self, x: float, z: float) -> tuple[int, int]:
        return round(x * self.ppm), round((self.height - z) * self.ppm)


def base_wall(shape: tuple[int, int], style: Style, rng: np.random.Generator, *, ppm: float) -> Painting:
    """The bare wall."""
    if style.wall == "stone":
        return courses(shape, style.tone, rng, ppm=ppm, height=0.36, length=(0.45, 0.95), spread=0.08)
    if style.wall == "brick":
        return courses(
            shape, style.tone, rng, ppm=ppm, height=0.11, length=(0.2, 0.3), spread=0.13, joint=0.016
        )
    return plaster(shape, style.tone, rng, ppm=ppm)


def paint_front(
    size: tuple[float, float], style: Style, openings: list[Opening], box: Paintbox, *, share: float = 1.0
) -> Painting:
    """The front of a house, ``size`` metres wide and high, at a ``share`` of the usual resolution."""
    width, height = size
    rng, ppm = box.rng, share * box.ppm
    shape = (round(height * ppm / 32) * 32, round(width * ppm / 32) * 32)
    canvas = Canvas(base_wall(shape, style, rng, ppm=ppm), shape[0] / height, height)
    if style.wall == "timber":
        _beams(canvas, width, style, rng)
    _plinth(canvas, width, style, box)
    if style.wall in ("plaster", "brick"):
        _quoins(canvas, width, style, box)
    if style.wall == "plaster" and rng.uniform() < 0.5:
        _bare_patch(canvas, width, rng)
    for opening in openings:
        if opening.kind != "arch":
            _surround(canvas, opening, style, box)
        _fill(canvas, opening, style, rng)
    level = 0.0
    for floor in style.floors:
        level += floor
        shadow = canvas.part((0, width), (level - 0.55, level - 0.12))
        ramp = np.linspace(0.74, 1, max(1, shadow.shape[0]), dtype=np.float32)
        shade(shadow, ramp[:, None] * np.ones(shadow.shape[:2], np.float32))
    damp = canvas.part((0, width), (0, 0.9))
    ramp = np.linspace(1, 0.72, max(1, damp.shape[0]), dtype=np.float32)[:, None]
    shade(damp, ramp * np.ones(damp.shape[:2], np.float32))
    pipe = width - 0.22 if rng.uniform() < 0.5 else 0.14
    _downpipe(canvas, pipe, sum(style.floors))
    return clipped(canvas.painting)


def _plinth(canvas: Canvas, width: float, style: Style, box: Paintbox) -> None:
    high = style.floors[0] - 0.1 if style.name and box.rng.uniform() < 0.6 else 0.75
    part = canvas.part((0, width), (0, high))
    part[:] = box.stones((part.shape[0], part.shape[1]), style.trim)


def _quoins(canvas: Canvas, width: float, style: Style, box: Paintbox) -> None:
    """Corner stones, long and short in turn."""
    z, long = 0.75, True
    while z < sum(style.floors) - 0.3:
        reach = 0.62 if long else 0.4
        for x in ((0.0, reach), (width - reach, width)):
            part = canvas.part(x, (z, z + 0.34))
            part[:] = box.stones((part.shape[0], part.shape[1]), style.trim)
            shade(part, 0.93 + 0.14 * box.rng.uniform())
            part[-1:, :, :3] *= 0.6
            part[:1, :, :3] *= 1.1
        z, long = z + 0.34, not long


def _bare_patch(canvas: Canvas, width: float, rng: np.random.Generator) -> None:
    """Plaster that came off, and the bricks under it."""
    x, z = rng.uniform(0.1, 0.7) * width, rng.uniform(0.8, 0.8 * canvas.height)
    part = canvas.part((x, x + 2.2), (z, z + 1.6))
    if min(part.shape[:2]) < 16:
        return
    shape = (part.shape[0], part.shape[1])
    bricks = courses(shape, (158, 104, 80), rng, ppm=canvas.ppm, height=0.09, length=(0.2, 0.26), spread=0.12)
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    field = 0.55 - np.hypot(rows, columns) + 0.22 * fractal(shape, 0.7 * canvas.ppm, rng, octaves=4)
    part[:] = np.where((field > 0)[..., None], bricks, part)
    shade(part, 1 - 0.35 * np.exp(-((field * 14) ** 2)))


def _beams(canvas: Canvas, width: float, style: Style, rng: np.random.Generator) -> None:
    """Half-timbering above the ground floor: sills, posts and braces."""
    thick = max(2, round(0.19 * canvas.ppm))
    colours = np.asarray(style.wood, np.float64) / 255
    level, tops = style.floors[0], []
    for floor in style.floors[1:]:
        tops.append((level, level + floor))
        level += floor
    tops.append((level, canvas.height))
    shape = (canvas.painting.shape[0], canvas.painting.shape[1])
    layer = np.zeros(shape, np.uint8)
    for low, high in tops:
        cv2.line(layer, canvas.pixel(0, low + 0.1), canvas.pixel(width, low + 0.1), 255, thick)
        cv2.line(layer, canvas.pixel(0, high - 0.1), canvas.pixel(width, high - 0.1), 255, thick)
        middle = low + 0.42 * (high - low)
        cv2.line(layer, canvas.pixel(0, middle), canvas.pixel(width, middle), 255, thick)
        posts = np.linspace(0.1, width - 0.1, 2 * style.bays + 1)
        for k, x in enumerate(posts):
            cv2.line(layer, canvas.pixel(float(x), low), canvas.pixel(float(x), high), 255, thick)
            if k + 1 < len(posts) and rng.uniform() < 0.45:
                lean = (x, posts[k + 1]) if rng.uniform() < 0.5 else (posts[k + 1], x)
                cv2.line(
                    layer, canvas.pixel(float(lean[0]), low), canvas.pixel(float(lean[1]), middle), 255, thick
                )
    wood = planks(shape, style.wood, rng, ppm=canvas.ppm)
    canvas.painting[:] = np.where((layer > 0)[..., None], wood, canvas.painting)
    edge = cv2.dilate(layer, np.ones((3, 3), np.uint8)) - layer
    blend(canvas.painting, (float(colours[0] * 120), 50, 40), 0.4 * (edge > 0).astype(np.float32))


def _surround(canvas: Canvas, opening: Opening, style: Style, box: Paintbox) -> None:
    """Dressed stones around an opening, with a keystone; shutters beside a window."""
    band = 0.18
    part = canvas.part(
        (opening.x0 - band, opening.x1 + band), (max(0.0, opening.z0 - 0.1), opening.z1 + band * 1.3)
    )
    shape = (part.shape[0], part.shape[1])
    stones = box.stones(shape, style.trim)
    stones[:1, :, :3] *= 1.15
    stones[:, -1:, :3] *= 0.7
    stones[-1:, :, :3] *= 0.6
    part[:] = stones
    middle = (opening.x0 + opening.x1) / 2
    key = canvas.part((middle - 0.14, middle + 0.14), (opening.z1 - 0.02, opening.z1 + band * 1.5))
    shade(key, 1.1)
    if style.shutters is None or opening.kind != "window" or opening.round:
        return
    leaf = min(0.5 * (opening.x1 - opening.x0), 0.55)
    for x in ((opening.x0 - band - leaf, opening.x0 - band), (opening.x1 + band, opening.x1 + band + leaf)):
        part = canvas.part(x, (opening.z0, opening.z1))
        part[:] = plain(part.shape[:2], style.shutters)
        slats = 0.75 + 0.35 * (np.arange(part.shape[0]) * 12 / canvas.ppm % 1)
        shade(part, slats.astype(np.float32)[:, None] * np.ones(part.shape[:2], np.float32))
        rim = max(1, round(0.05 * canvas.ppm))
        for edge in (part[:rim], part[-rim:], part[:, :rim], part[:, -rim:]):
            edge[..., :3] = np.asarray(style.shutters, np.float32) / 255 * 0.95
        shade(part, 0.9 + 0.2 * box.rng.uniform())


def _fill(canvas: Canvas, opening: Opening, style: Style, rng: np.random.Generator) -> None:
    part = canvas.part((opening.x0, opening.x1), (opening.z0, opening.z1))
    if min(part.shape[:2]) < 4:
        return
    if opening.kind == "window":
        _window(part, style, rng, ppm=canvas.ppm)
    elif opening.kind == "shop":
        _shop_window(part, style, rng, ppm=canvas.ppm)
    elif opening.kind == "door":
        _door(part, style, rng, ppm=canvas.ppm)


def _glass(shape: tuple[int, int], rng: np.random.Generator) -> Painting:
    """Dark panes that reflect a strip of sky."""
    out = plain(shape, (52, 58, 64))
    ramp = np.linspace(1.5, 0.75, shape[0], dtype=np.float32)[:, None] * np.ones(shape, np.float32)
    shade(out, ramp)
    shade(out, 1 + 0.14 * fractal(shape, max(8.0, shape[0] / 3), rng, octaves=3))
    return clipped(out)


def _window(part: Painting, style: Style, rng: np.random.Generator, *, ppm: float) -> None:
    rows, columns = part.shape[:2]
    part[:] = _glass((rows, columns), rng)
    lit = rng.uniform() < 0.45
    kind = rng.integers(4)
    if kind < 2:  # curtains, drawn to both sides
        drawn = int(columns * rng.uniform(0.12, 0.3))
        folds = (0.86 + 0.1 * np.sin(np.arange(drawn) * 24 / ppm * 2 * np.pi / 3)).astype(np.float32)
        tone = (
            np.array([[196, 188, 172], [170, 176, 180], [188, 160, 130]], np.float32)[rng.integers(3)] / 255
        )
        part[:, :drawn, :3] = tone * folds[None, :, None]
        part[:, columns - drawn :, :3] = tone * folds[None, ::-1, None]
    elif kind == 2:  # a blind
        down = int(rows * rng.uniform(0.2, 0.7))
        part[:down, :, :3] = np.array([0.66, 0.62, 0.52], np.float32) * rng.uniform(0.8, 1.1)
    if lit:
        glow = np.linspace(0.65, 1.0, rows, dtype=np.float32)[:, None] * np.ones((rows, columns), np.float32)
        part[..., 3] = glow * rng.uniform(0.5, 1.0) * (0.45 + 0.75 * part[..., :3].mean(axis=2))
    bars = max(2, round(0.055 * ppm))
    across = max(2, round(columns / (0.55 * ppm)))
    upright = max(2, round(rows / (0.6 * ppm)))
    frame = np.zeros((rows, columns), bool)
    for k in range(across + 1):
        at = round(k * (columns - bars) / across)
        frame[:, at : at + bars] = True
    for k in range(upright + 1):
        at = round(k * (rows - bars) / upright)
        frame[at : at + bars] = True
    part[frame] = (*(value / 255 for value in style.wood), 0.0)
    shadow = np.zeros((rows, columns), np.float32)
    shadow[: max(1, round(0.1 * ppm))] = 0.45
    shade(part, 1 - shadow)


def _shop_window(part: Painting, style: Style, rng: np.random.Generator, *, ppm: float) -> None:
    """Goods on shelves behind glass, lit at night."""
    rows, columns = part.shape[:2]
    part[:] = plain((rows, columns), (78, 66, 54))
    shade(part, 1 + 0.2 * fractal((rows, columns), ppm, rng, octaves=3))
    for level in np.arange(0.35, 1.0, 0.22):
        shelf = int(rows * level)
        x = 2
        while x < columns - 6:
            wide, high = int(rng.uniform(0.08, 0.28) * ppm), int(rng.uniform(0.1, 0.2) * rows)
            goods = _GOODS[int(rng.integers(len(_GOODS)))]
            colour = np.asarray(goods, np.float32) / 255 * rng.uniform(0.55, 1.1)
            item = part[max(0, shelf - high) : shelf, x : x + wide]
            item[..., :3] = colour
            item[: len(item) // 3, :, :3] *= 1.2
            item[:, -1:, :3] *= 0.5
            item[len(item) // 2 : len(item) // 2 + max(1, len(item) // 8), :, :3] = 0.8 * colour[::-1]
            x += wide + int(rng.uniform(0.02, 0.12) * ppm)
        part[shelf : shelf + max(1, round(0.03 * ppm)), :, :3] = (0.35, 0.27, 0.2)
    part[..., 3] = (0.35 + 0.6 * part[..., :3].mean(axis=2)) * (1.0 if rng.uniform() < 0.7 else 0.0)
    bars = max(2, round(0.07 * ppm))
    for k in range(4):
        at = round(k * (columns - bars) / 3)
        part[:, at : at + bars] = (*(value / 255 for value in style.wood), 0.0)
    part[:bars] = part[-bars:] = (*(value / 255 for value in style.wood), 0.0)
    foot = part[int(rows * 0.86) :]
    foot[:] = planks((foot.shape[0], columns), style.wood, rng, ppm=ppm)


def _door(part: Painting, style: Style, rng: np.random.Generator, *, ppm: float) -> None:
    rows, columns = part.shape[:2]
    part[:] = planks((rows, columns), style.wood, rng, ppm=ppm)
    light = int(rows * 0.18)
    part[:light] = _glass((light, columns), rng)
    part[:light, :, 3] = 0.8
    for top, bottom in ((0.22, 0.55), (0.6, 0.94)):
        for left, right in ((0.1, 0.46), (0.54, 0.9)):
            box = (int(left * columns), int(top * rows)), (int(right * columns), int(bottom * rows))
            dark = (*(value / 255 * 0.5 for value in style.wood), 0.0)
            cv2.rectangle(part_image := np.ascontiguousarray(part), *box, dark, max(1, round(0.02 * ppm)))
            part[:] = part_image
    knob = (int(0.52 * columns), int(0.6 * rows))
    part[knob[1] - 2 : knob[1] + 3, knob[0] : knob[0] + 3, :3] = (0.8, 0.66, 0.3)


def _downpipe(canvas: Canvas, x: float, top: float) -> None:
    part = canvas.part((x, x + 0.1), (0.1, top))
    across = np.linspace(-1, 1, max(1, part.shape[1]), dtype=np.float32)
    part[..., :3] = (0.34 + 0.12 * (1 - across**2))[None, :, None] * np.array([0.9, 1.0, 0.96], np.float32)
    part[..., 3] = 0


def number_plate(canvas: Canvas, at: tuple[float, float], text: str) -> None:
    """A house number."""
    x, y = canvas.pixel(*at)
    side = round(0.26 * canvas.ppm)
    part = canvas.painting[y : y + side, x : x + side]
    if part.shape[:2] == (side, side):
        part[:] = plain((side, side), (36, 58, 120))
        write(canvas.painting, text, (x + 2, y + 2, side - 4, side - 4), (240, 240, 236))
