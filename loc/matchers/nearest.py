"""Nearest neighbours in descriptor space: mutual check, ratio test, distance and similarity bounds.

Distances are Euclidean between unit descriptors, in [0, 2]; similarity is ``1 - distance^2 / 2``,
which is the cosine. Float descriptors are L2-normalised here. uint8 descriptors are taken as
``512 x`` a unit vector (COLMAP's RootSIFT and SIFT); their distances are those of the stored
integers divided by 512, computed exactly, so they are the same for any block size, thread count
and device.

Both directions come from one pass of blocked matrix products: the similarity matrix is never
stored, only tiles of a constant size. On a GPU small pairs of similar size are computed together, as
many as fill a tile, their padding masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from loc.errors import ContractError
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.runtime.buckets import buckets, padded
from loc.types import LocalFeatures, Matches

Tensor = Any  # torch.Tensor; torch is imported where it is used

#: Bytes of one float32 tile of similarities, per device type. Constants, so that float results do
#: not depend on the memory that happens to be free. 16 MiB is the fastest on CPUs of 8 to 32 MiB
#: of cache (8192 x 8192 x 128, two threads: 8 MiB 187 ms, 16 MiB 127 ms, 32 MiB 111 to 140 ms).
TILE_BYTES: dict[str, int] = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
TILE_COLUMNS = 8192
#: The two largest of a row are found by the maxima of groups of this many, then inside one group:
#: one vectorised pass over the tile instead of the two of `topk` (which has no vectorised form).
GROUP = 32
#: Pairs in a call, and pairs at most in a batch, on a GPU.
_GPU_CALL, _GPU_BATCH = 256, 64
#: Norm of COLMAP's uint8 descriptors.
UINT8_NORM = 512.0


class NearestConfig(PluginConfig):
    """Options of :class:`Nearest`."""

    mutual: bool = Field(True, description="keep a match only if each is the other's nearest")
    # Measured with SIFT, ratio from both sides: matches within 4 px of the true epipolar lines, and
    # their share. kermit: 5629 (92 %) at 0.8, 7291 (70 %) at 0.9, 8349 (50 %) at 0.95; sacre_coeur:
    # 6169 (86 %), 8385 (58 %), 9717 (37 %). One side only needs 0.85 for the same share and finds 2 % less.
    ratio: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="Lowe's test on distances: nearest < ratio * second nearest, from both sides if mutual",
    )
    max_distance: float | None = Field(None, gt=0, le=2, description="Euclidean, of unit descriptors")
    min_similarity: float | None = Field(None, ge=-1, le=1, description="cosine")
    # Matches do not depend on it, so it is no part of a fingerprint.
    batch: Literal["auto", "never"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        exclude=True,
        description="small pairs of similar size per pass, at most; auto: 64 on a GPU, never on a CPU",
    )


@dataclass(frozen=True, eq=False)
class PreparedDescriptors:
    """Descriptors of one image on the device.

    ``matrix`` is ``(n, d)`` float32: unit rows, or the integers of uint8 descriptors followed by
    two columns ``1`` and ``-|x|^2 / 2`` that turn a dot product into ``-distance^2 / 2``.
    """

    matrix: Tensor
    dim: int
    dtype: str

    @property
    def is_integer(self) -> bool:
        return self.dtype == "uint8"

    def __len__(self) -> int:
        return int(self.matrix.shape[0])


@dataclass(eq=False)
class _TopTwo:
    """Best value, its index, and the second best value, of every row (or column) so far."""

    value: Tensor
    index: Tensor
    second: Tensor

    @staticmethod
    def empty(n: int, device: Any) -> _TopTwo:
        import torch

        worst = torch.full((n,), -torch.inf, device=device)
        return _TopTwo(worst, torch.zeros(n, dtype=torch.int64, device=device), worst.clone())

    def merge(self, where: slice, value: Tensor, index: Tensor, second: Tensor) -> None:
        """Take in a tile. Tiles come in ascending order: on a tie the lower index stays."""
        import torch

        old = self.value[where]
        loser = torch.minimum(old, value)
        self.second[where] = torch.maximum(torch.maximum(self.second[where], second), loser)
        self.index[where] = torch.where(value > old, index, self.index[where])
        self.value[where] = torch.maximum(old, value)

    def to_distances(self, kind: PreparedDescriptors) -> None:
        """From products of matrices to ``-distance^2 / 2``."""
        for values in (self.value, self.second):
            if kind.is_integer:
                values /= UINT8_NORM**2
            else:
                values -= 1


class Nearest:
    """Nearest-neighbour matcher; see :class:`NearestConfig`.

    A match's score is ``(1 + similarity) / 2``, clipped to [0, 1]. Ties go to the lowest index.
    An image with a single keypoint has no second neighbour to offer: the ratio test passes. Equal
    nearest and second nearest never pass it. Descriptors are compared in float32 on any device.

    Source of the test: D. Lowe, "Distinctive image features from scale-invariant keypoints", 2004.
    """

    Config: ClassVar[type[PluginConfig]] = NearestConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    commercial_ok: ClassVar[bool] = True
    paper: ClassVar[str] = "Lowe, Distinctive image features from scale-invariant keypoints, IJCV 2004"
    requires: ClassVar[frozenset[str]] = frozenset({"descriptors"})
    weights: ClassVar[tuple[WeightFile, ...]] = ()

    def __init__(self, config: NearestConfig, *, device: str = "cpu", dtype: str = "float32") -> None:
        del dtype  # float32 everywhere: half precision reorders close neighbours
        self.config = config
        self.device = device
        choice = config.batch
        if choice == "auto":
            choice = _GPU_BATCH if device.startswith("cuda") else "never"
        self._batch = 1 if choice == "never" else choice

    @property
    def pairs_at_once(self) -> int:
        """How many pairs a call should have."""
        return _GPU_CALL if self._batch > 1 else 16

    def prepare(self, features: LocalFeatures) -> PreparedDescriptors:
        """Descriptors on the device, as the matrix whose products give distances."""
        import torch

        raw = features.descriptors
        matrix = torch.tensor(raw).to(self.device).to(torch.float32)  # copies: stores give read-only arrays
        if raw.dtype == np.uint8:
            ones = matrix.new_ones(len(matrix), 1)
            matrix = torch.cat([matrix, ones, matrix.square().sum(1, keepdim=True) / -2], dim=1)
        else:
            matrix = torch.nn.functional.normalize(matrix, dim=1)
        return PreparedDescriptors(matrix, int(raw.shape[1]), str(raw.dtype))

    def __call__(self, pairs: Sequence[tuple[PreparedDescriptors, PreparedDescriptors]]) -> list[Matches]:
        """Matches of each pair of prepared images, sorted by (index 0, index 1).

        Raises:
            ContractError: the two images' descriptors differ in dimension or in kind.
        """
        out = [Matches.empty()] * len(pairs)
        tile = TILE_BYTES.get(self.device.partition(":")[0], TILE_BYTES["cpu"]) // 4
        sizes = [(len(first), len(second)) for first, second in pairs]
        for bucket in buckets(sizes, self._batch, most_entries=tile):
            members = [pairs[number] for number in bucket]
            alike = len({(each.dim, each.is_integer) for pair in members for each in pair}) == 1
            if len(members) > 1 and alike:
                found = self._match_together(members)
            else:
                found = [self._match(first, second) for first, second in members]
            for number, matches in zip(bucket, found, strict=True):
                out[number] = matches
        return out

    def _match(self, first: PreparedDescriptors, second: PreparedDescriptors) -> Matches:
        import torch

        check_comparable(first, second)
        rows, columns = nearest_two(
            first, second, both=self.config.mutual, seconds=self.config.ratio is not None
        )
        keep = self._accepted(rows)
        if self.config.mutual:
            backward = columns.index[rows.index]
            keep &= backward == torch.arange(len(first), device=keep.device)
            keep &= self._accepted(columns)[rows.index]
        kept = torch.nonzero(keep)[:, 0]
        indices = torch.stack([kept, rows.index[kept]], dim=1).to(torch.int32)
        scores = (1 + _similarity(rows.value[kept])).div(2).clamp(0, 1)
        return Matches(indices.cpu().numpy(), scores.cpu().numpy())

    def _match_together(
        self, pairs: Sequence[tuple[PreparedDescriptors, PreparedDescriptors]]
    ) -> list[Matches]:
        """Matches of several pairs of one kind and of equal padded sizes; their similarities are one tile."""
        import torch

        (a, real_rows), (b, real_columns) = (_stacked([pair[side] for pair in pairs]) for side in (0, 1))
        if pairs[0][0].is_integer:
            b = _other_side(b)
        tile = torch.bmm(a, b.transpose(1, 2))
        tile.masked_fill_(~(real_rows[:, :, None] & real_columns[:, None, :]), -torch.inf)
        rows = self._best_of(tile, pairs[0][0])
        keep = self._accepted(rows) & real_rows
        if self.config.mutual:
            columns = self._best_of(tile.transpose(1, 2).contiguous(), pairs[0][0])
            backward = columns.index.gather(1, rows.index)
            keep &= backward == torch.arange(backward.shape[1], device=backward.device)
            keep &= self._accepted(columns).gather(1, rows.index)
        pair, row = torch.nonzero(keep).T
        indices = torch.stack([row, rows.index[pair, row]], dim=1).to(torch.int32)
        scores = (1 + _similarity(rows.value[pair, row])).div(2).clamp(0, 1)
        ends = keep.sum(1).cumsum(0).tolist()
        shares = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        every = indices.cpu().numpy(), scores.cpu().numpy()
        return [Matches(every[0][share].copy(), every[1][share].copy()) for share in shares]

    def _best_of(self, tile: Tensor, kind: PreparedDescriptors) -> _TopTwo:
        """Two nearest of every row of ``(pairs, rows, columns)``; all fields ``(pairs, rows)``."""
        shape = tile.shape[:2]
        groups = tile.view(shape[0] * shape[1], -1, GROUP)
        value, index, second = _top_two_of_rows(groups, seconds=self.config.ratio is not None)
        found = _TopTwo(value.view(shape), index.view(shape), second.view(shape))
        found.to_distances(kind)
        return found

    def _accepted(self, found: _TopTwo) -> Tensor:
        """bool of the shape of its fields: the nearest neighbour passes the thresholds that are set."""
        squared = squared_distance(found.value)
        keep = squared >= 0  # all true, on the right device
        if self.config.ratio is not None:
            keep &= squared < self.config.ratio**2 * squared_distance(found.second)
        if self.config.max_distance is not None:
            keep &= squared <= self.config.max_distance**2
        if self.config.min_similarity is not None:
            keep &= _similarity(found.value) >= self.config.min_similarity
        return keep


def check_comparable(first: PreparedDescriptors, second: PreparedDescriptors) -> None:
    if first.dim != second.dim or first.is_integer != second.is_integer:
        raise ContractError(
            f"cannot match descriptors of dimension {first.dim} ({first.dtype})"
            f" with dimension {second.dim} ({second.dtype})",
            "both images need features of the same extractor and config",
        )


def squared_distance(negative_half: Tensor) -> Tensor:
    return (-2 * negative_half).clamp_min(0)


def _similarity(negative_half: Tensor) -> Tensor:
    return 1 + negative_half


def nearest_two(
    first: PreparedDescriptors,
    second: PreparedDescriptors,
    *,
    both: bool,
    seconds: bool,
    outside: Callable[[slice, slice], Tensor] | None = None,
) -> tuple[_TopTwo, _TopTwo]:
    """Nearest and second nearest of every row of ``first``, and with ``both`` of ``second``.

    Values are ``-distance^2 / 2``; ``-inf`` where there is none. Without ``seconds`` the second values are
    not looked for. ``outside(rows, columns)`` is the ``(n, m)`` bool mask of what is left out of a tile.
    """
    import torch

    a, b = first.matrix, _other_side(second.matrix) if second.is_integer else second.matrix
    rows, columns = _TopTwo.empty(len(a), a.device), _TopTwo.empty(len(b), b.device)
    for i, j, tile in _tiles(a, b):
        n_i, n_j = i.stop - i.start, j.stop - j.start
        if outside is not None:
            tile[:n_i, :n_j].masked_fill_(outside(i, j), -torch.inf)
        groups = tile.view(tile.shape[0], -1, GROUP)
        value, index, other = _top_two_of_rows(groups, seconds=seconds)
        rows.merge(i, value[:n_i], index[:n_i] + j.start, other[:n_i])
        if both:
            groups = tile.view(-1, GROUP, tile.shape[1])
            value, index, other = _top_two_of_columns(groups, seconds=seconds)
            columns.merge(j, value[:n_j], index[:n_j] + i.start, other[:n_j])
    rows.to_distances(first)
    columns.to_distances(first)
    return rows, columns


def _other_side(matrix: Tensor) -> Tensor:
    """Integer descriptors as second factor: the 1 of one side must meet the ``-|x|^2 / 2`` of the other."""
    import torch

    return torch.cat([matrix[..., :-2], matrix[..., -1:], matrix[..., -2:-1]], dim=-1)


def _stacked(images: Sequence[PreparedDescriptors]) -> tuple[Tensor, Tensor]:
    """``(b, n, d)`` descriptors padded to whole groups, and ``(b, n)`` bool: which rows are real."""
    import torch
    from torch.nn.functional import pad

    n = padded(len(images[0]))
    matrix = torch.stack([pad(image.matrix, (0, 0, 0, n - len(image))) for image in images])
    counts = torch.tensor([len(image) for image in images], device=matrix.device)
    return matrix, torch.arange(n, device=matrix.device) < counts[:, None]


def _tiles(a: Tensor, b: Tensor) -> Any:
    """Products ``a b^T`` in tiles: (rows, columns, tile), the tile padded by -inf to whole groups.

    The tile's memory is reused: it is valid until the next one is asked for.
    """
    import torch

    width = _whole_groups(min(len(b), TILE_COLUMNS))
    budget = TILE_BYTES.get(a.device.type, TILE_BYTES["cpu"])
    height = min(_whole_groups(len(a)), max(GROUP, budget // (4 * width) // GROUP * GROUP))
    buffer = torch.empty((height, width), device=a.device)
    for top in range(0, len(a), height):
        i = slice(top, min(top + height, len(a)))
        for left in range(0, len(b), width):
            j = slice(left, min(left + width, len(b)))
            n_i, n_j = i.stop - i.start, j.stop - j.start
            tile = buffer[: _whole_groups(n_i)]
            torch.mm(a[i], b[j].T, out=tile[:n_i, :n_j])
            tile[n_i:] = -torch.inf
            tile[:, n_j:] = -torch.inf
            yield i, j, tile


def _whole_groups(n: int) -> int:
    return -(-n // GROUP) * GROUP


def _top_two_of_rows(groups: Tensor, *, seconds: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Best value, first index of it, second value, of each row of ``(rows, m, GROUP)``."""
    import torch

    maxima = groups.amax(2)
    value, best = maxima.max(1)
    row = torch.arange(len(groups), device=groups.device)
    group = groups[row, best]
    within = group.max(1).indices
    index = best * GROUP + within
    if not seconds:
        return value, index, torch.full_like(value, -torch.inf)
    maxima[row, best] = -torch.inf
    group[row, within] = -torch.inf
    return value, index, torch.maximum(maxima.amax(1), group.amax(1))


def _top_two_of_columns(groups: Tensor, *, seconds: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_top_two_of_rows`, of each column of ``(m, GROUP, columns)``.

    Written out because a transposed view runs six times slower through the row version.
    """
    import torch

    maxima = groups.amax(1)
    value, best = maxima.max(0)
    group = groups.gather(0, best[None, None].expand(1, GROUP, -1))[0]
    within = group.max(0).indices
    index = best * GROUP + within
    if not seconds:
        return value, index, torch.full_like(value, -torch.inf)
    maxima.scatter_(0, best[None], -torch.inf)
    group.scatter_(0, within[None], -torch.inf)
    return value, index, torch.maximum(maxima.amax(0), group.amax(0))
