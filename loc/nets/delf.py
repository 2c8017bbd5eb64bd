"""The networks of DELF and DELG: a ResNet, an attention head, an autoencoder, a global head.

H. Noh et al., Large-Scale Image Retrieval with Attentive Deep Local Features, ICCV 2017; B. Cao, A. Araujo
and J. Sim, Unifying Deep Local and Global Features for Image Search, ECCV 2020. One image is moved to the
device once, however many levels its pyramid has, and one pass gives local and global features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from loc.errors import ContractError
from loc.nets.pyramid import Grid, Level, level_hw, resize_bilinear, unit_rows
from loc.nets.resnet import Convolution, ResNet
from loc.weights.tensorflow.facts import LocalFacts, NetworkFacts, PoolingFacts
from loc.weights.tensorflow.files import release

if TYPE_CHECKING:
    import torch

Array = np.ndarray

#: Local and global features in one network.
DELG_RELEASES = tuple(
    release(name, "delg")
    for name in (
        "r50delg_gldv2clean_20200914",
        "r101delg_gldv2clean_20200914",
        "r50delg_gld_20200814",
        "r101delg_gld_20200814",
    )
)


class DelfNetwork:
    """Maps of one image at several scales.

    Args:
        tensors: as ``loc weights convert`` writes them, in torch's layout.
        facts: those of the same file: strides, epsilons, resize, receptive field, pooling.
        device, dtype: where and in which precision the convolutions run.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        facts: NetworkFacts,
        *,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        import torch

        like = torch.empty(0, device=device, dtype=dtype)
        layers = facts.layers
        self.facts = facts
        self.trunk = ResNet(tensors, layers, like)
        self._heads = {
            name: Convolution(name, tensors, layers[name], like)
            for name in ("attention.conv1", "attention.conv2", "autoencoder.conv1", "autoencoder.conv2")
            if name in layers
        }
        self._whitening = [
            tensors[name].to(device) for name in ("whitening.weight", "whitening.bias") if name in tensors
        ]

    @property
    def channels(self) -> int:
        """Of a local feature."""
        return 128 if "autoencoder.conv1" in self._heads else 1024

    @property
    def grid(self) -> Grid:
        """The grid of its image resize."""
        return self.facts.resize

    def describe(
        self,
        image: torch.Tensor,
        scales: Sequence[float],
        *,
        local: Collection[int],
        overall: Collection[int],
    ) -> tuple[list[Level], Float32[Array, "g 2048"]]:
        """Local maps and global descriptors of one image.

        Args:
            image: ``(3, h, w)`` RGB in [0, 1]; the networks take it as the nearest 8-bit values.
            scales: of the pyramid.
            local, overall: indices into ``scales``: at which levels local features and global
                descriptors are wanted. A level that is empty after rounding is left out.

        Returns:
            The levels of ``local``, and one raw row per level of ``overall``, in the order of ``scales``.
        """
        import torch

        if image.ndim != 3 or image.shape[0] != 3:
            raise ContractError(f"delf takes RGB images (3, h, w), got {tuple(image.shape)}")
        levels, rows = [], []
        hw = (int(image.shape[1]), int(image.shape[2]))
        offset, scale = self.facts.input_offset, self.facts.input_scale
        # TF32 keeps ten bits of a factor: errors of 1e-3 where 1e-4 is promised.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            pixels = ((image[None].float() * 255).round_() - offset) / scale
            for index, size in enumerate(level_hw(hw, scale) for scale in scales):
                if min(size) < 1 or not (index in local or index in overall):
                    continue
                maps = self.trunk.block3(resize_bilinear(pixels, size, self.grid))
                if index in local and self.facts.local is not None:
                    levels.append(self._level(maps, scales[index], size, self.facts.local))
                if index in overall and self.facts.pooling is not None:
                    rows.append(self._pooled(maps, self.facts.pooling))
        return levels, torch.cat(rows).cpu().numpy() if rows else np.zeros((0, 2048), np.float32)

    def _level(self, maps: torch.Tensor, scale: float, hw: tuple[int, int], facts: LocalFacts) -> Level:
        from torch.nn.functional import softplus

        attended = features = maps
        if "autoencoder.conv1" in self._heads:
            features = self._heads["autoencoder.conv1"](maps)
            attended = self._heads["autoencoder.conv2"](features).relu_()
        hidden = self._heads["attention.conv1"](attended).relu_()
        attention = softplus(self._heads["attention.conv2"](hidden).float())
        (top, step), (left, _) = (self.trunk.grid(side) for side in hw)
        # Pixel centres of TF2's resize do not coincide at 0, as they do in TF1's.
        moved = (1 - scale) / 2 if self.grid == "half_pixel" else 0.0
        return Level(
            scale=scale,
            features=features[0].permute(1, 2, 0),
            attention=attention[0, 0],
            stride=facts.box_stride,
            offsets=facts.box_offsets,
            center=(top + moved, left + moved),
            step=float(step),
        )

    def _pooled(self, maps: torch.Tensor, facts: PoolingFacts) -> torch.Tensor:
        """Generalized mean of block 4, whitened, ``(1, 2048)``; not normalized."""
        from torch.nn.functional import linear

        deep = self.trunk.block4(maps).float().clamp_min_(facts.least)
        pooled = deep.pow_(facts.power).mean(dim=(2, 3)).pow_(1 / facts.power)
        row: torch.Tensor = linear(pooled, *self._whitening)
        return row


def joined(rows: Float32[Array, "g d"]) -> Float32[Array, " d"]:
    """One global descriptor of the raw ones of several scales: unit rows, their sum, unit again."""
    return unit_rows(unit_rows(rows).sum(axis=0, keepdims=True))[0]
