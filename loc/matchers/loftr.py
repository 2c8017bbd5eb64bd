"""LoFTR: semi-dense correspondences from pixels, without keypoints; the network is kornia's.

J. Sun et al., LoFTR: Detector-Free Local Feature Matching with Transformers, CVPR 2021.

A point of the first image is the corner of a cell of 8 x 8 px; its partner is found among the cells of the
second and refined to a fraction of a pixel. The points count from the image's corner: they were supervised
with COLMAP's depth maps and intrinsics, whose origin that is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from loc.conventions import PixelOrigin
from loc.errors import ContractError, PluginError
from loc.nets.kornia import import_kornia
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Correspondences
from loc.weights.files import locate
from loc.weights.tensors import fitted, read_state

if TYPE_CHECKING:
    import torch

_PAPER = "J. Sun et al., LoFTR, CVPR 2021"
_URL = "https://huggingface.co/kornia/loftr/resolve/main/"
_MIRROR = "https://cmp.felk.cvut.cz/~mishkdmy/models/"
_FILES = {
    "outdoor": "loftr_outdoor.ckpt",
    "indoor": "loftr_indoor.ckpt",
    "indoor_new": "loftr_indoor_ds_new.ckpt",
}


class LoFTRConfig(PluginConfig):
    """Options of :class:`LoFTR`."""

    weights: Literal["outdoor", "indoor", "indoor_new"] = Field(
        "outdoor",
        description="outdoor: MegaDepth; indoor: ScanNet, as published; indoor_new: its mended training",
    )
    min_score: float = Field(0.2, ge=0, lt=1, description="least confidence of a correspondence")


class LoFTR:
    """Correspondences of grey images on the grid of the first, with confidences."""

    Config: ClassVar[type[LoFTRConfig]] = LoFTRConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = tuple(
        WeightFile(
            f"{_URL}{file}",
            None,
            "Apache-2.0"
            if name == "outdoor"
            else "Apache-2.0; trained on ScanNet, whose terms are for research",
            _PAPER,
            mirrors=(f"{_MIRROR}{file}",),
            commercial_ok=True if name == "outdoor" else None,
            output_checked=False,
        )
        for name, file in _FILES.items()
    )
    requires: ClassVar[frozenset[str]] = frozenset({"images"})
    pixel_origin: ClassVar[PixelOrigin] = "corner"
    color: ClassVar[Literal["rgb", "gray"]] = "gray"
    min_side: ClassVar[int] = 64
    #: The size of its training; memory grows with the fourth power of the side.
    stage_defaults: ClassVar[dict[str, int]] = {"resize_max": 840}
    #: Standard deviation of a coordinate, px: the fine maps have a stride of 2.
    noise_px: ClassVar[float] = 1.0

    def __init__(self, config: LoFTRConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        self._net = _network(config, locate(self.weights_for(config)[0])).to(device).eval()

    @classmethod
    def weights_for(cls, config: LoFTRConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return tuple(file for file in cls.weights if file.name == _FILES[config.weights])

    def prepare(self, image: torch.Tensor) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        """Feature maps of a grey image ``(1, h, w)`` in [0, 1], and its width and height."""
        import torch

        if image.ndim != 3 or image.shape[0] != 1:
            raise ContractError(f"loftr takes grey images (1, h, w), got {tuple(image.shape)}")
        with torch.inference_mode():
            return self._net.extract_features(image[None]), (image.shape[2], image.shape[1])

    def __call__(self, pairs: Sequence[tuple[Any, Any]]) -> list[Correspondences]:
        """One :class:`Correspondences` per pair; pairs run one by one and do not see each other."""
        return [self._match(first, second) for first, second in pairs]

    def _match(self, first: Any, second: Any) -> Correspondences:
        import torch

        (features0, wh0), (features1, wh1) = first, second
        with torch.inference_mode():
            found = self._net({"features0": features0, "features1": features1})
        xy0, xy1 = (found[f"keypoints{side}"].float().cpu().numpy() for side in (0, 1))
        scores = found["confidence"].float().cpu().numpy().clip(0, 1)
        inside = (np.concatenate([xy0, xy1], axis=1) >= 0).all(axis=1)
        inside &= (xy0 <= wh0).all(axis=1) & (xy1 <= wh1).all(axis=1)  # refinement may cross the border
        return Correspondences(xy0, xy1, scores).select(inside)


def _network(config: LoFTRConfig, path: Any) -> Any:
    """kornia's network with the authors' weights, strictly by name and shape."""
    cls = import_kornia("loftr", "LoFTR")
    if not hasattr(cls, "extract_features"):
        raise PluginError(
            "this kornia's LoFTR runs its backbone for every pair, and only on sides that are multiples of 8",
            "pip install 'kornia>=0.9' (Python 3.11 or newer)",
        )
    from kornia.feature.loftr.loftr import default_cfg

    options: dict[str, Any] = copy.deepcopy(default_cfg)
    options["match_coarse"]["thr"] = config.min_score
    options["coarse"]["temp_bug_fix"] = config.weights == "indoor_new"
    net = cls(None, options)
    state = read_state(path, under="state_dict", optional=True)
    state = {key.removeprefix("matcher."): value for key, value in state.items()}
    # Counters of batches, which older checkpoints lack and nothing reads.
    own = net.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    shapes = {key: tuple(value.shape) for key, value in own.items() if key not in counters}
    net.load_state_dict({**counters, **fitted(state, shapes, path, ignore=tuple(counters))})
    return net
