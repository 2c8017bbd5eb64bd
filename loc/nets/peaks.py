"""Hard detection of D2-Net on a feature map, sparsely: peaks of the winning channel of every cell.

The released code filters all 512 channels with four kernels. A keypoint must be the largest response of
its cell over channels, so only one channel per cell can hold one: its eight neighbours are gathered, and
each test leaves fewer candidates for the next. M. Dusmanu et al., CVPR 2019, sections 3.1 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Lowe's edge test for principal curvatures of ratio 5: tr(H)^2 / det(H) <= (r + 1)^2 / r.
_EDGE_LIMIT = (5 + 1) ** 2 / 5
#: Cells per step of the search over channels: bounds what is allocated beside the map.
_BLOCK_CELLS = 1 << 15


@dataclass(frozen=True, eq=False)
class Peaks:
    """Keypoints of one map, ordered by (channel, row, column).

    Attributes:
        cells: ``(n, 2)`` float32 row and column with sub-cell precision.
        scores: ``(n,)`` float32 response at the whole cell.
        descriptors: ``(n, c)`` float32 unit rows: the map sampled bilinearly at ``cells``.
        detected: ``(m, 2)`` int64 every detected cell, also those whose position proved unstable.
    """

    cells: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    detected: torch.Tensor


def detect(features: torch.Tensor, banned: torch.Tensor | None = None) -> Peaks:
    """Peaks of a map.

    Args:
        features: ``(h, w, c)`` float32, contiguous.
        banned: ``(h, w)`` bool: cells where nothing may be detected.
    """
    import torch

    rows, columns, channels = _candidates(features, banned)
    around, inside = _neighbourhood(features, rows, columns, channels)
    maximum = ((around[:, 4:5] >= around) | ~inside).all(1)
    stable, step = _curved(around, maximum)
    order = torch.argsort(channels[stable], stable=True)  # candidates come by row, then column
    rows, columns, channels = (index[stable][order] for index in (rows, columns, channels))
    scores, step = around[stable][order, 4], step[order]
    detected = torch.stack([rows, columns], 1)

    cells = detected + step
    low, high = cells.floor().long(), cells.ceil().long()
    last = torch.tensor(features.shape[:2], device=features.device) - 1
    usable = ((step.abs() < 0.5) & (low >= 0) & (high <= last)).all(1)
    cells = cells[usable]
    descriptors = torch.nn.functional.normalize(_sampled(features, cells), dim=1)
    return Peaks(cells, scores[usable], descriptors, detected)


def _candidates(
    features: torch.Tensor, banned: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row, column and channel of the cells whose largest response is not below a direct neighbour's."""
    import torch

    height, width, depth = features.shape
    flat = features.view(height * width, depth)
    winner = torch.empty(height * width, dtype=torch.int64, device=features.device)
    for start in range(0, len(flat), _BLOCK_CELLS):
        torch.max(
            flat[start : start + _BLOCK_CELLS],
            1,
            out=(flat.new_empty(0), winner[start : start + _BLOCK_CELLS]),
        )
    cell = torch.arange(height * width, device=features.device)
    if banned is not None:
        cell = cell[~banned.view(-1)]
    for row_step, column_step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        row, column, channel = cell // width + row_step, cell % width + column_step, winner[cell]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        other = (row * width + column).clamp_(0, height * width - 1)
        beaten = inside & (features.view(-1)[other * depth + channel] > flat.view(-1)[cell * depth + channel])
        cell = cell[~beaten]
    return cell // width, cell % width, winner[cell]


def _neighbourhood(
    features: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, channels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(n, 9)`` responses of a channel around a cell, row by row (zero outside), and what is inside."""
    import torch

    height, width, depth = features.shape
    steps = torch.tensor([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], device=features.device)
    row, column = rows[:, None] + steps[:, 0], columns[:, None] + steps[:, 1]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    where = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)) * depth + channels[:, None]
    return torch.where(inside, features.view(-1)[where], features.new_zeros(())), inside


def _curved(around: torch.Tensor, maximum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the ``maximum`` are no edges, and the sub-cell step of those.

    Returns:
        Indices into the candidates, and ``(m, 2)`` steps in (row, column): -H^-1 times the gradient.
    """
    import torch

    nw, n, ne, w, here, e, sw, s, se = around.unbind(1)
    ii, jj = n - 2 * here + s, w - 2 * here + e
    ij = 0.25 * (nw - ne - sw + se)
    det, trace = ii * jj - ij * ij, ii + jj
    keep = torch.nonzero(maximum & (det > 0) & (trace * trace / det <= _EDGE_LIMIT))[:, 0]
    ii, jj, ij, det = ii[keep], jj[keep], ij[keep], det[keep]
    gi, gj = 0.5 * (s - n)[keep], 0.5 * (e - w)[keep]
    return keep, torch.stack([(ij * gj - jj * gi) / det, (ij * gi - ii * gj) / det], 1)


def _sampled(features: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Bilinear samples ``(n, c)`` at ``(n, 2)`` row and column; all four corners are inside."""
    import torch

    low, high = cells.floor(), cells.ceil()
    weight = cells - low
    (top, left), (bottom, right) = low.long().unbind(1), high.long().unbind(1)
    below, beside = weight[:, :1], weight[:, 1:]
    upper = torch.lerp(features[top, left], features[top, right], beside)
    lower = torch.lerp(features[bottom, left], features[bottom, right], beside)
    return torch.lerp(upper, lower, below)
