"""Words and pictures: shop signs, posters, the clock of the tower."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont

from loc.town.noise import fractal
from loc.town.textures import Painting, Tone, clipped, plain, shade

Array = np.ndarray
#: Numerals of a clock face, from one o'clock.
_HOURS = ("I", "II", "III", "IIII", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")


def write(painting: Painting, text: str, box: tuple[int, int, int, int], tone: Tone) -> None:
    """Letter ``text`` into ``box`` (left, top, width, height in px), as large as it fits, in place."""
    left, top, width, height = box
    if width < 4 or height < 4:
        return
    size = 100
    font = ImageFont.load_default(size=size)
    x0, y0, x1, y1 = font.getbbox(text)
    size = max(4, int(size * min(width / (x1 - x0), height / (y1 - y0))))
    font = ImageFont.load_default(size=size)
    x0, y0, x1, y1 = font.getbbox(text)
    mask = Image.new("L", (width, height), 0)
    at = ((width - (x1 - x0)) / 2 - x0, (height - (y1 - y0)) / 2 - y0)
    ImageDraw.Draw(mask).text(at, text, fill=255, font=font)
    weight = np.asarray(mask, np.float32)[..., None] / 255
    view = painting[top : top + height, left : left + width, :3]
    view += (np.asarray(tone, np.float32) / 255 - view) * weight


def board(
    shape: tuple[int, int], text: str, rng: np.random.Generator, *, ground: Tone, letters: Tone
) -> Painting:
    """A painted shop board with a frame line."""
    out = plain(shape, ground)
    shade(out, 1 + 0.06 * fractal(shape, shape[0] / 2, rng, octaves=4))
    rows, columns = shape
    line = max(1, rows // 24)
    inset = 2 * line
    colour = (*(value / 255 for value in letters), 0.0)
    cv2.rectangle(out, (inset, inset), (columns - 1 - inset, rows - 1 - inset), colour, line)
    margin = rows // 5
    write(out, text, (margin, margin, columns - 2 * margin, rows - 2 * margin), letters)
    return clipped(out)


def posters(
    shape: tuple[int, int], words: tuple[str, ...], rng: np.random.Generator, *, ppm: float
) -> Painting:
    """A wall full of bills, pasted over one another."""
    out = plain(shape, (178, 168, 148))
    rows, columns = shape
    for _ in range(int(2.2 * rows * columns / (0.8 * ppm**2))):
        high, wide = int(rng.uniform(0.5, 1.0) * ppm), int(rng.uniform(0.4, 0.75) * ppm)
        top = int(rng.integers(0, max(1, rows - high)))
        left = int(rng.integers(0, max(1, columns - wide)))
        out[top : top + high, left : left + wide] = _poster((high, wide), words, rng)[
            : rows - top, : columns - left
        ]
    shade(out, 1 + 0.05 * fractal(shape, 0.5 * ppm, rng, octaves=5, gain=0.7))
    return clipped(out)


def _poster(shape: tuple[int, int], words: tuple[str, ...], rng: np.random.Generator) -> Painting:
    palette: tuple[Tone, ...] = (
        (196, 62, 48), (232, 206, 150), (44, 74, 110), (240, 234, 220),
        (58, 98, 74), (224, 164, 60), (40, 38, 42), (150, 70, 92),
    )  # fmt: skip
    chosen = [palette[i] for i in rng.permutation(len(palette))[:4]]
    rows, columns = shape
    out = plain(shape, chosen[0])
    for tone in chosen[1:3]:
        colour = (*(value / 255 for value in tone), 0.0)
        centre = (int(rng.uniform(0.2, 0.8) * columns), int(rng.uniform(0.3, 0.7) * rows))
        if rng.uniform() < 0.5:
            cv2.circle(out, centre, int(rng.uniform(0.12, 0.35) * columns), colour, -1)
        else:
            far = (int(rng.uniform(0, 1) * columns), int(rng.uniform(0.25, 0.8) * rows))
            cv2.rectangle(out, centre, far, colour, -1)
    write(
        out,
        words[int(rng.integers(len(words)))],
        (columns // 12, rows // 16, columns * 5 // 6, rows // 6),
        chosen[3],
    )
    for line in range(int(rng.integers(2, 5))):
        wide = int(columns * rng.uniform(0.4, 0.85))
        top = int(rows * (0.78 + 0.045 * line))
        out[top : top + max(1, rows // 60), columns // 12 : columns // 12 + wide, :3] = (
            np.asarray(chosen[3], np.float32) / 255
        )
    out[:, :1, :3] *= 0.7
    out[-1:, :, :3] *= 0.6
    return out


def clock_face(side: int, *, hours: float) -> tuple[Painting, Bool[Array, "s s"]]:
    """A dial with Roman numerals and golden hands, and where it is (a disk)."""
    out = plain((side, side), (38, 50, 72))
    centre, radius = side / 2, side / 2
    gold: Tone = (214, 178, 88)
    colour = (*(value / 255 for value in gold), 0.8)
    for reach, width in ((0.96, 0.03), (0.64, 0.012)):
        cv2.circle(
            out,
            (int(centre), int(centre)),
            int(reach * radius),
            colour,
            max(1, int(width * side)),
            cv2.LINE_AA,
        )
    for index, numeral in enumerate(_HOURS):
        angle = 2 * np.pi * (index + 1) / 12
        x, y = centre + 0.8 * radius * np.sin(angle), centre - 0.8 * radius * np.cos(angle)
        size = int(0.2 * radius)
        write(out, numeral, (int(x - size / 2), int(y - size / 2), size, size), gold)
    for turns, reach, width in ((hours / 12, 0.5, 0.035), (hours % 1, 0.75, 0.022)):
        angle = 2 * np.pi * turns
        tip = (int(centre + reach * radius * np.sin(angle)), int(centre - reach * radius * np.cos(angle)))
        cv2.line(out, (int(centre), int(centre)), tip, colour, max(1, int(width * side)), cv2.LINE_AA)
    rows, columns = np.mgrid[:side, :side] + 0.5 - centre
    return clipped(out), np.hypot(rows, columns) <= radius * 0.99


def fruit(shape: tuple[int, int], rng: np.random.Generator) -> Painting:
    """A crate of fruit and greens seen from above."""
    out = plain(shape, (60, 44, 32))
    tones: tuple[Tone, ...] = ((190, 60, 40), (226, 150, 50), (116, 142, 60), (210, 190, 80), (110, 44, 70))
    rows, columns = shape
    for _ in range(260):
        box = int(rng.integers(4))
        tone = tones[(box + int(rng.integers(2))) % len(tones)]
        x = int((box + rng.uniform()) * columns / 4)
        y = int(rng.uniform() * rows)
        bright = rng.uniform(0.7, 1.15) / 255
        colour = (tone[0] * bright, tone[1] * bright, tone[2] * bright, 0.0)
        cv2.circle(out, (x, y), max(2, columns // 44), colour, -1, cv2.LINE_AA)
    for box in range(5):
        at = min(columns - 3, box * columns // 4)
        out[:, at : at + 3, :3] = (0.45, 0.34, 0.22)
    return clipped(out)
