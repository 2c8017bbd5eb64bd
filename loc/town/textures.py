"""Painted materials: plaster, stone, brick, tiles, setts, wood, cloth, leaves, water.

A painting is ``(h, w, 4)`` float32: sRGB colour in [0, 1], and a fourth channel that is the light of a
lit window at night, or for leaves what is not transparent. Materials continue over their edges.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float32

from loc.town.noise import fractal

Array = np.ndarray
Painting = np.ndarray
Tone = tuple[float, float, float]  # sRGB, 0 to 255


def plain(shape: tuple[int, int], tone: Tone) -> Painting:
    """One colour."""
    out = np.zeros((*shape, 4), np.float32)
    out[..., :3] = np.asarray(tone, np.float32) / 255
    return out


def clipped(painting: Painting) -> Painting:
    """Colours brought back into [0, 1]."""
    out: Painting = np.clip(painting, 0, 1)
    return out


def shade(painting: Painting, factor: Float32[Array, "h w"] | float) -> None:
    """Multiply the colour in place."""
    painting[..., :3] *= factor[..., None] if isinstance(factor, np.ndarray) else factor


def blend(painting: Painting, tone: Tone, weight: Float32[Array, "h w"]) -> None:
    """Mix a colour in, in place, by a weight per pixel in [0, 1]."""
    target = np.asarray(tone, np.float32) / 255
    painting[..., :3] += (target - painting[..., :3]) * weight[..., None]


def plaster(shape: tuple[int, int], tone: Tone, rng: np.random.Generator, *, ppm: float) -> Painting:
    """Weathered plaster: clouds of tone, streaks of rain, grain; ``ppm`` is px per metre."""
    out = plain(shape, tone)
    cloud = fractal(shape, 2.2 * ppm, rng, octaves=5, gain=0.6)
    streaks = fractal(shape, (4 * ppm, 0.25 * ppm), rng, octaves=3)
    grain = fractal(shape, 0.12 * ppm, rng, octaves=3, gain=0.9)
    shade(out, 1 + 0.045 * cloud + 0.03 * streaks + 0.035 * grain)
    dirt = np.clip(fractal(shape, 1.4 * ppm, rng, octaves=5, gain=0.65) - 1.3, 0, 1)
    blend(out, (112, 100, 84), 0.35 * dirt)
    return clipped(out)


def courses(
    shape: tuple[int, int],
    tone: Tone,
    rng: np.random.Generator,
    *,
    ppm: float,
    height: float,
    length: tuple[float, float],
    spread: float = 0.09,
    joint: float = 0.02,
    mortar: Tone = (150, 140, 124),
) -> Painting:
    """Stones or bricks in courses, each with a tone of its own, its upper edge lit and the joints dark.

    Args:
        height: of a course, in metres; ``length``: shortest and longest stone.
        spread: standard deviation of the tone; ``joint``: width of the mortar, in metres.
    """
    rows, columns = shape
    out = plain(shape, tone)
    count = max(1, round(rows / (height * ppm)))
    edges = np.linspace(0, rows, count + 1).round().astype(int)
    tones = np.empty(shape, np.float32)
    warmth = np.empty(shape, np.float32)
    near = np.empty(shape, np.float32)  # px to the next joint, measured along the course
    x = np.arange(columns, dtype=np.float32)
    for top, bottom in pairwise(edges):
        cuts = _cuts(columns, length[0] * ppm, length[1] * ppm, rng)
        stone = np.searchsorted(cuts, x, side="right") - 1
        n = len(cuts)
        tones[top:bottom] = (1 + spread * rng.standard_normal(n).astype(np.float32))[stone]
        warmth[top:bottom] = (0.3 * spread * rng.standard_normal(n).astype(np.float32))[stone]
        right = np.append(cuts[1:], columns)[stone]
        near[top:bottom] = np.minimum(x + 0.5 - cuts[stone], right - x - 0.5)
    y = np.arange(rows, dtype=np.float32) + 0.5
    course = np.searchsorted(edges, y, side="right") - 1
    above, below = y - edges[course], edges[course + 1] - y
    shade(out, tones)
    out[..., 0] *= 1 + warmth
    out[..., 2] *= 1 - warmth
    shade(out, 1 + 0.05 * fractal(shape, 0.5 * ppm, rng, octaves=5, gain=0.75))
    wobble = 0.25 * joint * ppm * fractal(shape, 0.15 * ppm, rng, octaves=2)
    gap = np.minimum(np.minimum(near, np.minimum(above, below)[:, None]) + wobble, 3 * joint * ppm + 1)
    half = max(0.5 * joint * ppm, 0.6)
    rim = np.clip((gap - half) / (joint * ppm + 0.5), 0, 1)
    shade(out, 0.82 + 0.18 * rim)
    shade(out, 1 + 0.10 * np.exp(-((above[:, None] - 2 * half) ** 2) / (2 * half**2)))
    blend(out, mortar, 0.75 * np.clip(half - gap + 0.5, 0, 1))
    shade(out, 1 + 0.05 * fractal(shape, 3 * ppm, rng, octaves=4, gain=0.6))
    return clipped(out)


def _cuts(extent: int, shortest: float, longest: float, rng: np.random.Generator) -> Float32[Array, " n"]:
    """Where stones begin along a course; the first at 0, the last not shorter than half a stone."""
    steps = rng.uniform(shortest, longest, int(extent / shortest) + 2)
    cuts = np.concatenate([[0.0], np.cumsum(steps)])
    return cuts[cuts < max(extent - 0.5 * shortest, 1)].astype(np.float32)


def roof_tiles(shape: tuple[int, int], tone: Tone, rng: np.random.Generator, *, ppm: float) -> Painting:
    """Plain tiles in offset rows, with a rounded face, a shadow under each row, moss and bleached spots."""
    rows, columns = shape
    out = plain(shape, tone)
    high, wide = 0.26 * ppm, 0.2 * ppm
    y, x = np.arange(rows) + 0.5, np.arange(columns) + 0.5
    per_row, per_column = max(1, round(rows / high)), max(2, round(columns / wide))
    row = (y * per_row / rows).astype(int)
    down = y * per_row / rows - row
    shifted = x[None] * per_column / columns + 0.5 * (row % 2)[:, None]
    column = shifted.astype(int)
    across = shifted - column
    tones = rng.standard_normal((per_row, per_column + 1)).astype(np.float32)
    tones[:, -1] = tones[:, 0]
    shade(out, 1 + 0.12 * tones[row[:, None], column])
    shade(out, (0.86 + 0.18 * np.sin(np.pi * across)).astype(np.float32))
    shade(out, np.where(down > 0.82, 0.55, 1.0).astype(np.float32)[:, None] * np.ones(shape, np.float32))
    moss = np.clip(fractal(shape, 1.8 * ppm, rng, octaves=5, gain=0.7) - 0.9, 0, 1)
    blend(out, (92, 96, 70), 0.5 * moss)
    shade(out, 1 + 0.07 * fractal(shape, 1.2 * ppm, rng, octaves=5, gain=0.7))
    return clipped(out)


def planks(shape: tuple[int, int], tone: Tone, rng: np.random.Generator, *, ppm: float) -> Painting:
    """Upright boards with grain."""
    out = plain(shape, tone)
    cuts = _cuts(shape[1], 0.1 * ppm, 0.18 * ppm, rng)
    x = np.arange(shape[1], dtype=np.float32)
    board = np.searchsorted(cuts, x, side="right") - 1
    tones = (1 + 0.12 * rng.standard_normal(len(cuts)).astype(np.float32))[board]
    dark = np.where(x - cuts[board] < max(1.0, 0.012 * ppm), 0.5, 1.0).astype(np.float32)
    shade(out, (tones * dark)[None] * np.ones(shape, np.float32))
    shade(out, 1 + 0.09 * fractal(shape, (1.2 * ppm, 0.04 * ppm), rng, octaves=3, gain=0.8))
    return clipped(out)


def metal(shape: tuple[int, int], tone: Tone, rng: np.random.Generator, *, ppm: float) -> Painting:
    """Painted or oxidized metal: nearly one tone, with runs and specks."""
    out = plain(shape, tone)
    shade(out, 1 + 0.07 * fractal(shape, (1.5 * ppm, 0.3 * ppm), rng, octaves=4, gain=0.7))
    shade(out, 1 + 0.04 * fractal(shape, 0.06 * ppm, rng, octaves=2))
    return clipped(out)


def stripes(
    shape: tuple[int, int], tones: tuple[Tone, Tone], rng: np.random.Generator, *, ppm: float
) -> Painting:
    """Awning cloth: stripes of two colours across, 0.22 m wide, sun-bleached."""
    count = 2 * max(1, round(shape[1] / (0.44 * ppm)))
    x = (np.arange(shape[1]) * count // shape[1]) % 2
    out = plain(shape, tones[0])
    out[:, x == 1, :3] = np.asarray(tones[1], np.float32) / 255
    shade(out, 1 + 0.05 * fractal(shape, 0.8 * ppm, rng, octaves=4, gain=0.7))
    return clipped(out)


def setts(shape: tuple[int, int], tone: Tone, rng: np.random.Generator, *, ppm: float) -> Painting:
    """Small paving stones in rows."""
    return courses(
        shape,
        tone,
        rng,
        ppm=ppm,
        height=0.15,
        length=(0.12, 0.24),
        spread=0.11,
        joint=0.018,
        mortar=(96, 90, 80),
    )


def slabs(shape: tuple[int, int], tone: Tone, rng: np.random.Generator, *, ppm: float) -> Painting:
    """Large paving stones in rows."""
    return courses(
        shape,
        tone,
        rng,
        ppm=ppm,
        height=0.55,
        length=(0.5, 1.1),
        spread=0.07,
        joint=0.015,
        mortar=(110, 104, 94),
    )


def leaves(shape: tuple[int, int], tone: Tone, rng: np.random.Generator, *, count: int = 300) -> Painting:
    """A spray of leaves on nothing: the fourth channel is 1 where a leaf is."""
    rows, columns = shape
    out = plain(shape, tone)
    shade(out, 0.5)
    for depth in np.linspace(0.45, 1.1, count):
        radius = 0.46 * np.sqrt(rng.uniform())
        angle = rng.uniform(0, 2 * np.pi)
        centre = (
            int(columns * (0.5 + radius * np.cos(angle))),
            int(rows * (0.5 + radius * np.sin(angle))),
        )
        size = (
            max(2, int(columns * rng.uniform(0.028, 0.05))),
            max(1, int(columns * rng.uniform(0.012, 0.022))),
        )
        warm = rng.uniform(-0.1, 0.12)
        value = np.asarray(tone, np.float64) / 255 * depth * rng.uniform(0.75, 1.2)
        colour = (value[0] * (1 + warm), value[1], value[2] * (1 - warm), 1.0)
        cv2.ellipse(out, centre, size, rng.uniform(0, 180), 0, 360, colour, -1)
    return clipped(out)


def water(shape: tuple[int, int], rng: np.random.Generator, *, ppm: float) -> Painting:
    """Rippled water over stone."""
    out = plain(shape, (88, 112, 112))
    shade(out, 1 + 0.16 * fractal(shape, 0.5 * ppm, rng, octaves=4, gain=0.7))
    glints = np.clip(fractal(shape, 0.18 * ppm, rng, octaves=3) - 1.5, 0, 1)
    blend(out, (214, 226, 230), glints)
    return clipped(out)
