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
    import torch

    if tuple(image.shape[2:]) == tuple(hw):
        return image
    for axis in (3, 2):  # rows are blended last, as TensorFlow does
        low, high, share = _positions(image.shape[axis], hw[axis - 2], grid)
        near = image.index_select(axis, torch.from_numpy(low).to(image.device))
        far = image.index_select(axis, torch.from_numpy(high).to(image.device))
        weight = torch.from_numpy(share).to(image).view((-1, 1) if axis == 2 else (-1,))
        image = far.sub_(near).mul_(weight).add_(near)  # in place: new memory costs more than the sums
    return image


def _positions(size: int, wanted: int, grid: Grid) -> tuple[Int64[Array, " n"], Int64[Array, " n"], Array]:
    """For each of ``wanted`` pixels: the two pixels it lies between, and how far, float32."""
    index = np.arange(wanted, dtype=np.float32)
    if grid == "corners" and wanted > 1:
        place = index * (np.float32(size - 1) / np.float32(wanted - 1))
    elif grid == "half_pixel":
        half = np.float32(0.5)
        place = (index + half) * (np.float32(size) / np.float32(wanted)) - half
    else:
        place = index * (np.float32(size) / np.float32(wanted))
    low = np.floor(place)
    share = (place - low).astype(np.float32)
    return (
        np.clip(low, 0, size - 1).astype(np.int64),
        np.clip(low + 1, 0, size - 1).astype(np.int64),
        share,
    )


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
    import torch

    parts = [_level_cells(level, threshold) for level in levels]
    if not parts:
        return Detections(
            np.zeros((0, 4), np.float32),
            np.zeros((0, 2), np.float32),
            np.zeros((0, channels), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
        )
    boxes, centers, scales, scores = (
        np.concatenate([part[index] for part in parts]) for index in (0, 1, 2, 3)
    )
    kept = suppress(boxes, scores, most=most, iou=iou)
    # Only the rows that are kept leave the device.
    rows, first = [], 0
    order = np.argsort(kept, kind="stable")
    for level, part in zip(levels, parts, strict=True):
        mine = kept[order][(kept[order] >= first) & (kept[order] < first + len(part[3]))] - first
        cells = torch.from_numpy(part[4][mine]).to(level.features.device)
        rows.append(level.features.flatten(0, 1)[cells].float().cpu().numpy())
        first += len(part[3])
    features = np.empty((len(kept), channels), np.float32)
    features[order] = np.concatenate(rows)
    return Detections(boxes[kept], centers[kept], features, scales[kept], scores[kept])


def _level_cells(level: Level, threshold: float) -> tuple[Array, Array, Array, Array, Array]:
    """Boxes, centres, scales, scores and flat indices of the cells of one level that pass the threshold."""
    width = level.attention.shape[1]
    scores = level.attention.float().cpu().numpy().ravel()
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
