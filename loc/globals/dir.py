"""DIR and AP-GeM: a ResNet trained for retrieval, generalised mean, a linear layer, half whitening.

J. Revaud, J. Almazán, R. S. Rezende and C. R. de Souza, Learning with Average Precision: Training Image
Retrieval with a Listwise Loss, ICCV 2019; A. Gordo, J. Almazán, J. Revaud and D. Larlus, End-to-end Learning
of Deep Visual Representations for Image Retrieval, IJCV 2017. Layout and whitening are those of
github.com/naver/deep-image-retrieval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from loc.errors import WeightsError
from loc.globals.pooling import Pooled, PoolingConfig, Trunk
from loc.nets.pooling import gem, mac, spoc, unit
from loc.nets.torchvision import RESNET_CHANNELS, TorchvisionResNet, resnet_shapes
from loc.plugins.precision import torch_dtype
from loc.plugins.protocols import WeightFile
from loc.types import Array
from loc.weights.checkpoints import read_checkpoint
from loc.weights.files import find, locate, sha256_of
from loc.weights.tensors import fitted

if TYPE_CHECKING:
    import torch

#: A page, whose part after # keeps the files apart.
_HOME = "https://github.com/naver/deep-image-retrieval"
_PAPER = "J. Revaud et al., Learning with Average Precision, ICCV 2019"
_NOTE = "offered as a .zip: unpack the .pt into a weights folder"
_NAMES = (
    "Resnet-101-AP-GeM",
    "Resnet-101-AP-GeM-LM18",
    "Resnet-50-AP-GeM",
    "Resnet101-TL-GeM",
    "Resnet101-TL-MAC",
)
#: Where scikit-learn has kept the class over the years.
_PCA = ("sklearn.decomposition.pca.PCA", "sklearn.decomposition._pca.PCA")
_ARCHITECTURES = {f"{name}_rmac": name for name in ("resnet50", "resnet101", "resnet152")}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
#: Of the mean over scales.
_SCALES_POWER = 3.0


def card(name: str) -> WeightFile:
    """NAME.pt, of the authors or of a user."""
    file = name if name.endswith(".pt") else f"{name}.pt"
    known = WeightFile(
        f"{_HOME}#{file}", None, "BSD-3-Clause", _PAPER, note=_NOTE, file=file, output_checked=False
    )
    path = None if file.removesuffix(".pt") in _NAMES else find(known)
    # The user's own is not pinned, as it may be trained again.
    return known if path is None else replace(known, sha256=sha256_of(path))


class DirConfig(PoolingConfig):
    """Options of :class:`Dir`."""

    weights: str = Field("Resnet-101-AP-GeM", description="NAME of NAME.pt in a weights folder")
    whitening: str | None = Field("Landmarks_clean", description="PCA of the checkpoint; null: none")
    published_power: float = Field(0.25, gt=0, le=1, description="of its variances; 0.25 as published")


class DirTrunk(Trunk):
    """The ResNet, its pooling and its linear layer.

    Attributes:
        pca: whitenings by name: ``mean_``, ``components_``, ``explained_variance_``.
    """

    def __init__(self, path: Path, *, device: str, dtype: torch.dtype) -> None:
        data = read_checkpoint(path, _PCA)
        if not isinstance(data, dict) or not {"model_options", "state_dict"} <= data.keys():
            has = ", ".join(sorted(map(str, data))[:6]) if isinstance(data, dict) else type(data).__name__
            raise WeightsError(
                f"{path} is no network of DIR: it has no model_options and state_dict", f"it has: {has}"
            )
        options = dict(data["model_options"])
        architecture = _ARCHITECTURES.get(str(options.get("arch")))
        self._pooling = str(options.get("pooling", "gem"))
        if architecture is None or not self._pooling.startswith(("gem", "max", "avg")):
            raise WeightsError(
                f"{path}: the network is {options.get('arch')!r} with pooling {self._pooling!r}",
                f"known are {', '.join(_ARCHITECTURES)} with gem, max or avg",
            )
        self.channels = RESNET_CHANNELS if options.get("without_fc") else int(options.get("out_dim", 2048))
        shapes = resnet_shapes(architecture)
        shapes |= {"adpool.p": (1,)} if self._pooling.startswith("gem") else {}
        if not options.get("without_fc"):
            shapes |= {"fc.weight": (self.channels, RESNET_CHANNELS), "fc.bias": (self.channels,)}
        state = {str(key).removeprefix("module."): value for key, value in data["state_dict"].items()}
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        unused = ("fc.",) if options.get("without_fc") else ()
        tensors = fitted(state, shapes, path, ignore=unused)
        self._head = {
            key: value.to(device)
            for key, value in tensors.items()
            if key in shapes.keys() - resnet_shapes(architecture).keys()
        }
        self._normalized = bool(options.get("norm_features"))
        self._statistics = {**_IMAGENET, **(data.get("preprocess") or {})}
        self.pca: Mapping[str, Any] = data.get("pca") or {}
        self._net = TorchvisionResNet(
            {key: value for key, value in tensors.items() if key not in self._head},
            architecture,
            device=device,
            dtype=dtype,
        )

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (images.new_tensor(list(self._statistics[key])).view(3, 1, 1) for key in ("mean", "std"))
        return (images - mean) / std

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._net(pixels)

    def vector(self, maps: torch.Tensor) -> torch.Tensor:
        """Unit ``(1, d)`` of the maps ``(c, h, w)`` of one scale."""
        from torch.nn.functional import linear

        if "adpool.p" in self._head:
            row = gem(maps, self._head["adpool.p"])
        else:
            row = mac(maps) if self._pooling == "max" else spoc(maps)
        row = unit(row[None]) if self._normalized else row[None]
        return unit(
            linear(row, self._head["fc.weight"], self._head["fc.bias"]) if "fc.weight" in self._head else row
        )

    def whitening(self, name: str, power: float) -> tuple[Array, Array]:
        """Mean ``(d,)`` and projection ``(e, d)`` of one of its PCAs.

        Raises:
            WeightsError: the checkpoint has none of this name, or an array of it is missing.
        """
        has = ", ".join(sorted(map(str, self.pca))) or "none"
        if name not in self.pca:
            raise WeightsError(
                f"these weights have no whitening {name!r}; they have: {has}", "set globals.whitening"
            )
        parts = self.pca[name]
        wanted = ("mean_", "components_", "explained_variance_")
        missing = [
            key for key in wanted if not isinstance(parts, dict) or not isinstance(parts.get(key), np.ndarray)
        ]
        if missing:
            raise WeightsError(f"the whitening {name!r} lacks {', '.join(missing)}", "fetch the file again")
        mean, components, variances = (np.asarray(parts[key], np.float64) for key in wanted)
        if components.shape != (len(variances), len(mean)) or len(mean) != self.channels:
            raise WeightsError(
                f"the whitening {name!r} is {components.shape} for vectors of {self.channels} values"
            )
        scale = variances**power if parts.get("whiten", True) else np.ones_like(variances)
        return mean.astype(np.float32), (components / scale[:, None]).astype(np.float32)


class Dir(Pooled):
    """Deep image retrieval: AP-GeM and its kin. Never run here with the authors' weights."""

    Config: ClassVar[type[PoolingConfig]] = DirConfig
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = tuple(card(name) for name in _NAMES)
    config: DirConfig
    trunk: DirTrunk

    @classmethod
    def weights_for(cls, config: DirConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return (card(config.weights),)

    def open_trunk(self) -> Trunk:
        dtype = torch_dtype(self.config.precision, self.device)
        trunk = DirTrunk(locate(card(self.config.weights)), device=self.device, dtype=dtype)
        name = self.config.whitening
        if name is not None:
            self.published = trunk.whitening(name, self.config.published_power)
        return trunk

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return self.trunk.vector(maps)

    def power(self) -> float:
        """As published: the signed third power."""
        return _SCALES_POWER
