"""Maps of a network to one vector: MAC, SPoC, CroW, GeM, and the regions of R-MAC.

MAC and R-MAC: G. Tolias, R. Sicre and H. Jégou, ICLR 2016. SPoC: A. Babenko and V. Lempitsky, ICCV 2015.
CroW: Y. Kalantidis, C. Mellina and S. Osindero, ECCV Workshops 2016. GeM: F. Radenović, G. Tolias and
O. Chum, TPAMI 2018, whose code (github.com/filipradenovic/cnnimageretrieval-pytorch) fixes the grid of
regions and the epsilons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

#: Maps ``(c, h, w)``, not negative, to a vector ``(c,)``, not normalised.
Pooling: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
#: Row and column of the first cell, and the side.
Region = tuple[int, int, int]
_LEAST_ACTIVATION = 1e-6
_LEAST_NORM = 1e-6
#: Windows along the long side of a map that are tried, and how much they shall overlap.
_WINDOWS, _OVERLAP = range(2, 8), 0.4


def mac(maps: torch.Tensor) -> torch.Tensor:
    """The maximum of each channel."""
    return maps.amax(dim=(1, 2))


def spoc(maps: torch.Tensor) -> torch.Tensor:
    """The mean of each channel; without the prior for the centre, as later work has it."""
    return maps.mean(dim=(1, 2))


def crow(maps: torch.Tensor) -> torch.Tensor:
    """Sums of cells weighted by their strength, times how rarely each channel is active.

    The weight of a cell is the root of its sum over channels relative to the norm of all; a channel's is the
    logarithm of the mean share of active cells over its own.
    """
    strength = maps.sum(dim=0)
    weights = (strength / strength.norm().clamp_min(_LEAST_NORM)).sqrt()
    active = (maps > 0).to(maps.dtype).mean(dim=(1, 2))
    rarity = ((active.sum() + _LEAST_NORM) / (active + _LEAST_NORM)).log()
    pooled: torch.Tensor = (maps * weights).sum(dim=(1, 2)) * rarity
    return pooled


def gem(maps: torch.Tensor, p: float | torch.Tensor = 3.0) -> torch.Tensor:
    """The generalised mean of each channel: the mean for ``p`` 1, towards the maximum as ``p`` grows."""
    return maps.clamp_min(_LEAST_ACTIVATION).pow(p).mean(dim=(1, 2)).pow(1 / p)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Rows ``(…, d)`` over their norms plus 1e-6; zeros stay zeros."""
    rows: torch.Tensor = vectors / (vectors.norm(dim=-1, keepdim=True) + _LEAST_NORM)
    return rows


def rmac_grid(height: int, width: int, levels: int = 3) -> list[Region]:
    """The square regions of R-MAC on a map, level by level, without the whole map.

    Level l has l of them along the short side, of side ``2 * short // (l + 1)``, and as many more along the
    long side as make regions of the first level overlap by about 0.4.

    >>> [len(rmac_grid(h, w)) for h, w in ((24, 24), (24, 32), (24, 36), (24, 48), (16, 64))]
    [14, 20, 20, 26, 44]
    >>> [(y, x) for y, x, side in rmac_grid(24, 32) if side == 12][:4]
    [(0, 0), (0, 6), (0, 13), (0, 20)]
    """
    short, long = min(height, width), max(height, width)
    shifts = [(long - short) / (windows - 1) for windows in _WINDOWS]
    best = min(range(len(shifts)), key=lambda index: abs(1 - shifts[index] / short - _OVERLAP))
    more = best + 1 if long > short else 0
    regions = []
    for level in range(1, levels + 1):
        side = 2 * short // (level + 1)
        if side < 1:
            continue
        rows = _starts(height, side, level + (more if height > width else 0))
        columns = _starts(width, side, level + (more if width > height else 0))
        regions += [(row, column, side) for row in rows for column in columns]
    return regions


def _starts(size: int, side: int, count: int) -> list[int]:
    """First cells of ``count`` windows, spread over an axis; rounded about their middles, as published."""
    half = np.floor(side / 2 - 1)
    step = (size - side) / (count - 1) if count > 1 else 0.0
    return [int(start) for start in np.floor(half + np.arange(count) * step) - half]


def regional(maps: torch.Tensor, pooling: Pooling, levels: int = 3) -> torch.Tensor:
    """Unit vectors ``(r, c)`` of the whole map, first, and of each region of R-MAC."""
    import torch

    rows = [pooling(maps)]
    for row, column, side in rmac_grid(maps.shape[1], maps.shape[2], levels):
        rows.append(pooling(maps[:, row : row + side, column : column + side]))
    return unit(torch.stack(rows))
