"""What stands in the square: fountain, lamps, trees, stalls, benches, a pillar of posters."""

from __future__ import annotations

import numpy as np

from loc.town.faces import Frame, Skin
from loc.town.lettering import fruit, posters
from loc.town.paintbox import Paintbox
from loc.town.textures import Tone, leaves, stripes

Array = np.ndarray
IRON: Tone = (52, 54, 54)
WORDS = (
    "CONCERT",
    "THEATER",
    "MARKT",
    "JAZZ",
    "CIRCUS",
    "OPERA",
    "1 MAI",
    "FILM",
    "EXPO",
    "TANGO",
    "BALL",
    "REVUE",
)


def build_fountain(frame: Frame, box: Paintbox) -> None:
    """An octagonal basin on steps, a column with a bowl, and a figure on top."""
    stone, rim = box.material("dressed", (190, 180, 160)), box.material("dressed", (206, 198, 180))
    frame.prism((3.9, 3.9), (-0.4, 0.18), stone, top=rim)
    frame.prism((3.5, 3.5), (0.18, 0.36), stone, top=rim)
    frame.prism((2.9, 2.9), (0.36, 1.05), stone)
    outer, inner = _ring(3.0), _ring(2.6)
    frame.prism((3.0, 3.0), (0.95, 1.13), rim)
    for k in range(8):
        n = (k + 1) % 8
        frame.quad([(*outer[k], 1.13), (*inner[k], 1.13), (*inner[n], 1.13), (*outer[n], 1.13)], rim)
        frame.quad([(*inner[n], 1.13), (*inner[k], 1.13), (*inner[k], 0.5), (*inner[n], 0.5)], stone)
        frame.quad(
            [
                (*outer[n], 0.95),
                (*outer[k], 0.95),
                (*(2.9 / 3.0 * outer[k]), 0.95),
                (*(2.9 / 3.0 * outer[n]), 0.95),
            ],
            rim,
        )
    frame.quad([(*point, 0.88) for point in inner[::-1]], box.material("water"))
    frame.prism((0.62, 0.5), (0.8, 1.5), stone)
    frame.prism((0.36, 0.3), (1.5, 2.9), rim)
    frame.prism((0.3, 1.15), (2.6, 3.05), stone)
    frame.prism((1.15, 1.15), (3.05, 3.15), rim, top=box.material("water"), under=True)
    frame.prism((0.26, 0.2), (3.1, 3.9), stone)
    frame.prism((0.42, 0.42), (3.9, 4.05), rim, top=rim, under=True)
    bronze = box.material("metal", (98, 128, 108))
    for radius, z in (
        ((0.34, 0.2), (4.05, 4.75)),
        ((0.2, 0.3), (4.75, 5.2)),
        ((0.3, 0.1), (5.2, 5.4)),
        ((0.1, 0.15), (5.4, 5.55)),
        ((0.15, 0.05), (5.55, 5.75)),
    ):
        frame.prism(radius, z, bronze, sides=8, top=bronze, under=True)
    frame.box((0.2, 0.28), (-0.05, 0.05), (4.6, 6.3), bronze)


def _ring(radius: float, sides: int = 8) -> Array:
    angles = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def build_lamp(frame: Frame, box: Paintbox) -> Array:
    """A street lamp; returns where its light is."""
    iron = box.material("metal", IRON)
    frame.prism((0.2, 0.16), (-0.3, 0.35), iron, sides=8)
    frame.prism((0.16, 0.05), (0.35, 0.75), iron, sides=8)
    frame.prism((0.05, 0.04), (0.75, 3.5), iron, sides=6)
    frame.prism((0.05, 0.16), (3.5, 3.62), iron, sides=6)
    _lantern(frame.moved(0, 0, 3.62), box)
    return frame.at(0, 0, 3.87)


def build_wall_lamp(frame: Frame, box: Paintbox) -> Array:
    """A lantern on an arm; ``frame`` is at the wall, at the height of the lantern."""
    iron = box.material("metal", IRON)
    frame.box((-0.02, 0.02), (-0.55, 0), (0.6, 0.65), iron, without="b")
    _lantern(frame.moved(0, -0.55, 0.05), box)
    return frame.at(0, -0.55, 0.3)


def _lantern(frame: Frame, box: Paintbox) -> None:
    glass = Skin(**{**vars(box.material("plaster", (232, 224, 200))), "glow": -1.0})
    iron = box.material("metal", IRON)
    frame.prism((0.12, 0.19), (0.0, 0.46), glass, sides=6)
    frame.prism((0.23, 0.05), (0.46, 0.62), iron, sides=6, under=True)
    frame.prism((0.04, 0.0), (0.62, 0.74), iron, sides=4)
    frame.prism((0.06, 0.13), (-0.05, 0.0), iron, sides=6)


def build_tree(frame: Frame, box: Paintbox, rng: np.random.Generator, *, height: float) -> None:
    """A tree in a ring of stones: a trunk, boughs, and a crown of sprays of leaves."""
    bark = box.material("wood", (96, 84, 70))
    stone = box.material("dressed", (176, 168, 152))
    frame.prism((0.8, 0.8), (-0.3, 0.22), stone, sides=8)
    frame.prism(
        (0.78, 0.78), (0.1, 0.2), stone, sides=8, top=Skin(**{**vars(bark), "tint": (0.06, 0.045, 0.03)})
    )
    trunk = 0.42 * height
    frame.prism((0.19, 0.13), (0.1, trunk), bark, sides=7)
    frame.prism((0.13, 0.04), (trunk, 0.8 * height), bark, sides=6)
    tones: tuple[Tone, ...] = ((104, 130, 62), (86, 116, 56), (124, 138, 64))
    sprays = [
        box.picture(leaves((128, 128), tone, box.rng, count=150))
        for tone in (tones[int(rng.integers(3))], tones[0])
    ]
    crown, middle = 0.36 * height, 0.68 * height
    for k in range(int(46 + 6 * height)):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        place = direction * crown * rng.uniform(0.35, 1.0) * np.array([1.0, 1.0, 0.82])
        normal = 0.4 * direction + rng.standard_normal(3)  # on the outline, too, some face the eye
        normal /= np.linalg.norm(normal)
        across = np.cross(normal, rng.standard_normal(3))
        across /= np.linalg.norm(across)
        size = rng.uniform(0.34, 0.5) * crown * 1.6
        u, v = size * across, size * np.cross(across, normal)
        centre = frame.at(float(place[0]), float(place[1]), middle + float(place[2]))
        skin = sprays[k % 2]
        bright = float(rng.uniform(0.8, 1.2) * (0.8 + 0.25 * direction[2]))
        leaf = Skin(skin.texture, None, skin.window, (bright, bright, bright * 0.95), cutout=True, both=True)
        frame.builder.face(centre - u / 2 - v / 2, u, v, leaf)


def build_stall(frame: Frame, box: Paintbox, rng: np.random.Generator, tones: tuple[Tone, Tone]) -> None:
    """A market stall 3 m wide: posts, a gabled cloth, a table with crates."""
    wood = box.material("wood", (150, 118, 84))
    for x in (0.05, 2.95):
        for y in (0.05, 1.75):
            frame.box((x - 0.04, x + 0.04), (y - 0.04, y + 0.04), (-0.2, 2.25), wood, without="tu")
    cloth = box.picture(
        stripes((int(1.3 * box.ppm), int(3.4 * box.ppm)), tones, box.rng, ppm=box.ppm), both=True
    )
    frame.quad([(-0.2, 0.9, 2.75), (3.2, 0.9, 2.75), (3.2, -0.35, 2.2), (-0.2, -0.35, 2.2)], cloth)
    frame.quad([(3.2, 0.9, 2.75), (-0.2, 0.9, 2.75), (-0.2, 2.15, 2.2), (3.2, 2.15, 2.2)], cloth)
    frame.wall((-0.2, 3.2), (2.0, 2.2), -0.35, cloth)
    frame.quad([(3.2, 2.15, 2.2), (-0.2, 2.15, 2.2), (-0.2, 2.15, 2.0), (3.2, 2.15, 2.0)], cloth)
    for x in (-0.2, 3.2):
        frame.quad([(x, 0.9, 2.75), (x, 2.15, 2.2), (x, -0.35, 2.2)], cloth)
    frame.box((0.1, 2.9), (0.0, 1.0), (0.75, 0.82), wood)
    board = box.material("wood", tones[0])
    frame.box((0.1, 2.9), (0.02, 0.98), (-0.2, 0.75), board, without="tu")
    goods = box.picture(fruit((int(0.9 * box.ppm), int(2.6 * box.ppm)), rng))
    here = frame.moved(0.2, 0.05, 0.82)
    here.box((0, 2.6), (0, 0.9), (0, 0.22), wood, without="tu")
    here.quad([(0, 0.9, 0.24), (2.6, 0.9, 0.24), (2.6, 0, 0.2), (0, 0, 0.2)], goods)
    for k in range(3):
        x = float(rng.uniform(0.2, 2.3))
        frame.box((x, x + 0.5), (-0.5 - 0.1 * k, -0.15 - 0.1 * k), (-0.1, 0.3), wood)


def build_bench(frame: Frame, box: Paintbox) -> None:
    """A bench 1.8 m long."""
    wood, iron = box.material("wood", (128, 92, 60)), box.material("metal", IRON)
    for x in (0.15, 1.6):
        frame.box((x, x + 0.06), (0, 0.45), (-0.2, 0.42), iron, without="t")
        frame.box((x, x + 0.06), (0.42, 0.48), (0.42, 0.86), iron)
    for k in range(4):
        frame.box((0, 1.8), (0.02 + 0.11 * k, 0.11 + 0.11 * k), (0.42, 0.46), wood)
    for k in range(3):
        frame.box((0, 1.8), (0.40, 0.43), (0.54 + 0.12 * k, 0.63 + 0.12 * k), wood)


def build_pillar(frame: Frame, box: Paintbox, rng: np.random.Generator) -> None:
    """A pillar for posters."""
    radius, sides = 0.68, 12
    round_wall = 2 * np.pi * radius
    paper = posters(
        (int(2.2 * 1.5 * box.ppm), int(round_wall * 1.5 * box.ppm)), WORDS, rng, ppm=1.5 * box.ppm
    )
    skin = box.picture(paper)
    wide, high = skin.window[2], skin.window[3]
    ring = _ring(radius, sides)
    stone = box.material("dressed", (150, 146, 138))
    frame.prism((0.76, 0.76), (-0.3, 0.4), stone, sides=sides, top=stone)
    for k in range(sides):
        n = (k + 1) % sides
        part = Skin(skin.texture, None, (k * wide / sides, 0, wide / sides, high))
        frame.quad([(*ring[k], 2.6), (*ring[n], 2.6), (*ring[n], 0.4), (*ring[k], 0.4)], part)
    green = box.material("metal", (62, 88, 76))
    frame.prism((0.82, 0.82), (2.6, 2.78), green, sides=sides, under=True)
    frame.prism((0.82, 0.2), (2.78, 3.2), green, sides=sides)
    frame.prism((0.08, 0.0), (3.2, 3.6), green, sides=6)


def build_cafe(frame: Frame, box: Paintbox, rng: np.random.Generator, tone: Tone) -> None:
    """A table with chairs under a parasol."""
    wood, iron = box.material("wood", (160, 126, 90)), box.material("metal", IRON)
    cloth = Skin(**{**vars(box.material("plaster", tone)), "both": True})
    frame.prism((0.03, 0.03), (-0.2, 2.5), iron, sides=6)
    frame.prism((1.35, 0.05), (2.05, 2.55), cloth, sides=8)
    frame.prism((1.35, 1.35), (1.9, 2.05), cloth, sides=8)
    frame.prism((0.42, 0.42), (0.7, 0.74), wood, sides=8, top=wood, under=True)
    frame.prism((0.25, 0.2), (-0.2, 0.06), iron, sides=8, top=iron)
    for k in range(int(rng.integers(2, 5))):
        chair = frame.turned(90.0 * k + float(rng.uniform(-20, 20))).moved(-0.2, -0.95)
        for x in (0.0, 0.36):
            for y in (0.0, 0.36):
                chair.box((x, x + 0.04), (y, y + 0.04), (-0.2, 0.44), wood, without="tu")
        chair.box((0, 0.4), (0, 0.4), (0.44, 0.47), wood)
        chair.box((0, 0.4), (0, 0.03), (0.6, 0.88), wood)


def build_planter(frame: Frame, box: Paintbox, rng: np.random.Generator) -> None:
    """A tub with flowers."""
    pot = box.material("plaster", (176, 112, 84))
    frame.prism((0.26, 0.36), (-0.2, 0.5), pot, sides=8, top=box.material("wood", (60, 46, 36)))
    tones: tuple[Tone, ...] = ((190, 62, 70), (204, 150, 60), (170, 90, 150))
    spray = box.picture(leaves((96, 96), (96, 128, 66), box.rng, count=90))
    flowers = box.picture(leaves((96, 96), tones[int(rng.integers(3))], box.rng, count=60))
    for k in range(14):
        across = rng.standard_normal(3)
        across /= np.linalg.norm(across)
        other = np.cross(across, rng.standard_normal(3))
        other /= np.linalg.norm(other)
        x, y, z = (float(value) for value in rng.standard_normal(3))
        centre = frame.at(0.2 * x, 0.2 * y, 0.62 + 0.1 * z)
        skin = flowers if k % 2 else spray
        leaf = Skin(skin.texture, None, skin.window, cutout=True, both=True)
        frame.builder.face(centre - 0.25 * across - 0.25 * other, 0.5 * across, 0.5 * other, leaf)


def build_bollard(frame: Frame, box: Paintbox) -> None:
    stone = box.material("dressed", (166, 160, 148))
    frame.prism((0.16, 0.13), (-0.2, 0.7), stone, sides=8)
    frame.prism((0.13, 0.04), (0.7, 0.82), stone, sides=8)
