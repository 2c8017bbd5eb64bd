"""The materials of the town, painted once, and how they are laid on faces."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from loc.town import textures
from loc.town.atlas import AtlasBuilder
from loc.town.faces import Skin
from loc.town.textures import Painting, Tone, clipped

#: Tone of the neutral materials, which faces tint.
NEUTRAL: Tone = (200, 200, 200)


def linear(tone: Tone) -> tuple[float, float, float]:
    """Linear colour of an sRGB tone (gamma 2.2, as everywhere in the town)."""
    red, green, blue = (float((value / 255) ** 2.2) for value in tone)
    return red, green, blue


@dataclass(frozen=True)
class WallSkin:
    """A painting stretched over a wall of ``width`` by ``height`` metres."""

    texture: int
    px: tuple[int, int]
    width: float
    height: float

    def region(self, x: tuple[float, float], z: tuple[float, float]) -> Skin:
        """Skin of a rectangle of the wall, in metres from its lower left corner."""
        sx, sy = self.px[0] / self.width, self.px[1] / self.height
        window = (x[0] * sx, (self.height - z[1]) * sy, (x[1] - x[0]) * sx, (z[1] - z[0]) * sy)
        return Skin(self.texture, None, window, glow=1.0)


@dataclass
class Paintbox:
    """Textures of the town. ``ppm``: px per metre of walls at this size of the town."""

    ppm: float
    rng: np.random.Generator
    atlas: AtlasBuilder = field(default_factory=AtlasBuilder)
    _sheets: dict[str, Painting] = field(default_factory=dict)
    _made: dict[str, int] = field(default_factory=dict)

    def material(self, name: str, tone: Tone | None = None, *, scale: float = 1.0) -> Skin:
        """A material that repeats, tinted so that its mean becomes ``tone``."""
        if name not in self._made:
            self._made[name] = self.atlas.add(self.sheet(name))
        tint = (1.0, 1.0, 1.0)
        if tone is not None:
            wanted, base = linear(tone), linear(NEUTRAL)
            tint = (wanted[0] / base[0], wanted[1] / base[1], wanted[2] / base[2])
        return Skin(self._made[name], self.ppm * scale, tint=tint)

    def sheet(self, name: str) -> Painting:
        """A material in its own colour, 8 m wide and high."""
        if name not in self._sheets:
            self._sheets[name] = self._paint(name)
        return self._sheets[name]

    def stones(self, shape: tuple[int, int], tone: Tone) -> Painting:
        """A piece of dressed stone of a colour, cut out of its sheet at random."""
        sheet = self.sheet("dressed")
        top, left = (int(self.rng.integers(0, side)) for side in sheet.shape[:2])
        rows, columns = (
            (top + np.arange(shape[0])) % sheet.shape[0],
            (left + np.arange(shape[1])) % sheet.shape[1],
        )
        piece = sheet[rows[:, None], columns]
        piece[..., :3] *= np.asarray(tone, np.float32) / np.asarray(NEUTRAL, np.float32)
        return clipped(piece)

    def picture(self, painting: Painting, *, glow: float = 0.0, both: bool = False) -> Skin:
        """A painting that fills one face."""
        texture = self.atlas.add(painting)
        width, height = self.atlas.size(texture)
        return Skin(texture, None, (0.0, 0.0, float(width), float(height)), glow=glow, both=both)

    def wall(self, painting: Painting, width: float, height: float) -> WallSkin:
        texture = self.atlas.add(painting)
        return WallSkin(texture, self.atlas.size(texture), width, height)

    def _paint(self, name: str) -> Painting:
        side = round(8 * self.ppm / 32) * 32
        shape, ppm, rng = (side, side), self.ppm, self.rng
        if name == "plaster":
            return textures.plaster(shape, NEUTRAL, rng, ppm=ppm)
        if name == "stone":
            return textures.courses(
                shape, NEUTRAL, rng, ppm=ppm, height=0.36, length=(0.45, 0.95), spread=0.07
            )
        if name == "dressed":
            return textures.courses(
                shape, NEUTRAL, rng, ppm=ppm, height=0.8, length=(0.9, 1.6), spread=0.05, joint=0.01
            )
        if name == "brick":
            return textures.courses(
                shape, (168, 108, 84), rng, ppm=ppm, height=0.09, length=(0.2, 0.26), spread=0.12, joint=0.014
            )
        if name == "wood":
            return textures.planks(shape, NEUTRAL, rng, ppm=ppm)
        if name == "metal":
            return textures.metal(shape, NEUTRAL, rng, ppm=ppm)
        if name == "setts":
            return textures.setts(shape, NEUTRAL, rng, ppm=ppm)
        if name == "slabs":
            return textures.slabs(shape, NEUTRAL, rng, ppm=ppm)
        if name == "water":
            return textures.water(shape, rng, ppm=ppm)
        tiles: dict[str, Tone] = {
            "tiles_red": (158, 98, 76),
            "tiles_brown": (128, 92, 76),
            "tiles_slate": (104, 106, 110),
        }
        return textures.roof_tiles(shape, tiles[name], rng, ppm=ppm)
