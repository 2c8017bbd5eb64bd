"""Features of a dense network over an image pyramid, as DELF selects them.

H. Noh et al., Large-Scale Image Retrieval with Attentive Deep Local Features, ICCV 2017; the numbers are
those of tensorflow/models research/delf (feature_extractor.py, object_detection's box_list_ops.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float32, Int64

if TYPE_CHECKING:
    import torch

Array = np.ndarray
Grid = Literal["legacy", "half_pixel", "corners"]

#: `tf.nn.l2_normalize` divides by the root of at least this.
_LEAST_SQUARE = 1e-12


def level_hw(hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """Size of a pyramid level: rounded half to even, in float32, as `tf.round` does.

    >>> level_hw((10, 6), 0.25)
    (2, 2)
    """
    height, width = np.round(np.asarray(hw, np.float32) * np.float32(scale)).astype(int).tolist()
    return height, width


def resize_bilinear(image: torch.Tensor, hw: tuple[int, int], grid: Grid) -> torch.Tensor:
    """``(b, c, h, w)`` resized without anti-aliasing, on one of TensorFlow's three grids.

    ``legacy`` (TF1's default) puts pixel i at ``i * in / out``, ``half_pixel`` (TF2's) at
    ``(i + 0.5) * in / out - 0.5``, ``corners`` lets the outermost pixels coincide.
    """
    if tuple(image.shape[2:]) == tuple(hw):
        return image
    for axis in (3, 2):  # rows are blended last, as TensorFlow does
        low, high, share = _positions(image, axis, hw[axis - 2], grid)
        near, far = image.index_select(axis, low), image.index_select(axis, high)
        weight = share.view((-1, 1) if axis == 2 else (-1,))
        image = far.sub_(near).mul_(weight).add_(near)  # in place: new memory costs more than the sums
    return image


def _positions(
    image: torch.Tensor, axis: int, wanted: int, grid: Grid
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of ``wanted`` pixels of an axis: the two pixels it lies between, and how far, float32.

    On the device of the image; every number is rounded to float32, as TensorFlow has it.
    """
    import torch

    size = image.shape[axis]
    place = torch.arange(wanted, device=image.device, dtype=torch.float32)
    if grid == "corners" and wanted > 1:
        place *= float(np.float32(size - 1) / np.float32(wanted - 1))
    elif grid == "half_pixel":
        place = (place + 0.5) * float(np.float32(size) / np.float32(wanted)) - 0.5
    else:
        place *= float(np.float32(size) / np.float32(wanted))
    low = place.floor()
    first = low.long()
    return first.clamp(0, size - 1), (first + 1).clamp_(0, size - 1), (place - low).to(image)


@dataclass(frozen=True, eq=False)
class Level:
    """The maps of one pyramid level.

    Attributes:
        scale: of the level; the published decimals, not the ratio of the sizes.
        features: ``(h, w, c)``.
        attention: ``(h, w)``.
        stride, offsets: a cell's box is ``(stride * cell + offsets) / scale``, px of the image.
        center: centre of cell (0, 0) in px of the level, as (y, x); ``step`` px to the next.
    """

    scale: float
    features: torch.Tensor
    attention: torch.Tensor
    stride: float
    offsets: tuple[float, float]
    center: tuple[float, float] = (0.0, 0.0)
    step: float = 0.0


@dataclass(frozen=True, eq=False)
class Detections:
    """Selected cells of a pyramid, the highest score first.

    Attributes:
        boxes: ``(n, 4)`` ymin, xmin, ymax, xmax of the receptive fields, px of the image.
        centers: ``(n, 2)`` y, x where the cells look, px of the image, centre origin.
        features: ``(n, c)`` raw.
        scales: ``(n,)`` 1 / scale of the level.
        scores: ``(n,)`` attention.
    """

    boxes: Float32[Array, "n 4"]
    centers: Float32[Array, "n 2"]
    features: Float32[Array, "n c"]
    scales: Float32[Array, " n"]
    scores: Float32[Array, " n"]

    @property
    def locations(self) -> Float32[Array, "n 2"]:
        """The published positions: centres of the boxes, as (y, x)."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / np.float32(2)


def select(levels: Sequence[Level], *, threshold: float, most: int, iou: float, channels: int) -> Detections:
    """The cells of all levels with at least this attention, after suppression, at most ``most``.

    Args:
        iou: a box that overlaps a better one by more than this is dropped; 1 drops none.
        channels: of the features, for a pyramid without levels.
    """
    if not levels:
        return Detections(
            np.zeros((0, 4), np.float32),
            np.zeros((0, 2), np.float32),
            np.zeros((0, channels), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
        )
    parts = [
        _level_cells(level, scores, threshold)
        for level, scores in zip(levels, _attention(levels), strict=True)
    ]
    boxes, centers, scales, scores = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:4])
    kept = suppress(boxes, scores, most=most, iou=iou)
    features = _features(levels, [part[4] for part in parts], kept)
    return Detections(boxes[kept], centers[kept], features, scales[kept], scores[kept])


def _attention(levels: Sequence[Level]) -> list[Float32[Array, " _"]]:
    """The attention of each level's cells, row by row; all levels leave the device together."""
    import torch

    flat = torch.cat([level.attention.float().flatten() for level in levels]).cpu().numpy()
    return np.split(flat, np.cumsum([level.attention.numel() for level in levels])[:-1])


def _features(
    levels: Sequence[Level], cells: Sequence[Int64[Array, " _"]], kept: Int64[Array, " n"]
) -> Float32[Array, "n c"]:
    """Features of the candidates ``kept``, in this order; no others leave the device.

    Args:
        cells: flat indices of each level's candidates; ``kept`` counts through all levels.
    """
    import torch

    order = np.argsort(kept, kind="stable")
    ends = np.searchsorted(kept[order], np.cumsum([len(each) for each in cells]))
    chosen = torch.from_numpy(np.concatenate(cells)[kept[order]]).to(levels[0].features.device)
    rows = torch.cat(
        [
            level.features.flatten(0, 1)[chosen[start:stop]]
            for level, start, stop in zip(levels, [0, *ends[:-1]], ends, strict=True)
        ]
    )
    features = np.empty(tuple(rows.shape), np.float32)
    features[order] = rows.float().cpu().numpy()
    return features


def _level_cells(
    level: Level, scores: Float32[Array, " n"], threshold: float
) -> tuple[Array, Array, Array, Array, Array]:
    """Boxes, centres, scales, scores and flat indices of the cells of one level that pass the threshold."""
    width = level.attention.shape[1]
    cells = np.flatnonzero(scores >= np.float32(threshold))
    row, column = np.divmod(cells, width)
    corner = np.stack([row, column], axis=1).astype(np.float32)
    scale = np.float32(level.scale)
    boxes = np.concatenate(
        [(np.float32(level.stride) * corner + np.float32(offset)) / scale for offset in level.offsets], axis=1
    )
    centers = (np.float32(level.step) * corner + np.asarray(level.center, np.float32)) / scale
    sizes = np.full(len(cells), np.float32(1) / scale, np.float32)
    return boxes, centers, sizes, scores[cells], cells


def suppress(
    boxes: Float32[Array, "n 4"], scores: Float32[Array, " n"], *, most: int, iou: float
) -> Int64[Array, " m"]:
    """Greedy non-maximum suppression: rows that are kept, the best first, ties by index.

    A box is dropped where its intersection over union with a kept one is more than ``iou``; boxes
    without area overlap nothing (`tf.image.non_max_suppression`).
    """
    order = np.argsort(-scores, kind="stable")
    if iou >= 1:
        return order[:most]
    low = np.minimum(boxes[:, :2], boxes[:, 2:])
    high = np.maximum(boxes[:, :2], boxes[:, 2:])
    area = (high - low).prod(axis=1)
    kept: list[int] = []
    while len(order) and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(high[best], high[order]) - np.maximum(low[best], low[order])
        shared = np.maximum(sides, 0).prod(axis=1)
        union = area[best] + area[order] - shared
        empty = (area[best] <= 0) | (area[order] <= 0)
        overlap = np.divide(shared, union, out=np.zeros_like(shared), where=~empty)
        order = order[overlap <= np.float32(iou)]
    return np.asarray(kept, np.int64)


def unit_rows(rows: Float32[Array, "n d"]) -> Float32[Array, "n d"]:
    """Rows divided by their norm, at least 1e-6: `tf.nn.l2_normalize`.

    >>> unit_rows(np.array([[0.0, 0.0], [1e-7, 0.0]], np.float32)).round(3)
    array([[0. , 0. ],
           [0.1, 0. ]], dtype=float32)
    """
    square = np.square(rows, dtype=np.float32).sum(axis=1, keepdims=True)
    return rows / np.sqrt(np.maximum(square, np.float32(_LEAST_SQUARE)))


@dataclass(frozen=True, eq=False)
class Projection:
    """PCA of DELF: components are rows; whitening divides by the roots of the variances.

    Attributes:
        mean: ``(c,)``; components: ``(d, c)``; deviations: ``(d,)`` or None.
    """

    mean: Float32[Array, " c"]
    components: Float32[Array, "d c"]
    deviations: Float32[Array, " d"] | None = None

    def __call__(self, rows: Float32[Array, "n c"]) -> Float32[Array, "n d"]:
        """Unit rows of ``(n, c)`` raw ones: normalized, projected, whitened, normalized again."""
        projected = (unit_rows(rows) - self.mean) @ self.components.T
        if self.deviations is not None:
            projected = projected / self.deviations
        return unit_rows(projected)
