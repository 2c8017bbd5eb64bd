"""Networks of cnnimageretrieval-pytorch, from the checkpoints that its authors publish.

F. Radenović, G. Tolias and O. Chum, TPAMI 2018; the layout is that of their ``imageretrievalnet.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loc.errors import WeightsError
from loc.globals.pooling import Trunk
from loc.nets.pooling import Pooling, gem, mac, regional, spoc, unit
from loc.nets.torchvision import (
    CHANNELS,
    VGG_DEPTHS,
    AlexNet,
    TorchvisionResNet,
    alexnet_shapes,
    resnet_shapes,
    vgg_shapes,
    vgg_trunk,
)
from loc.types import Array
from loc.weights.card import WeightFile
from loc.weights.checkpoints import read_checkpoint
from loc.weights.files import find, sha256_of
from loc.weights.tensors import fitted

if TYPE_CHECKING:
    import torch

_URL = "http://cmp.felk.cvut.cz/cnnimageretrieval/data/networks"
_PAPER = "F. Radenović et al., Fine-tuning CNN Image Retrieval, TPAMI 2018"
#: The children of a ResNet in a Sequential: 2 and 3 are ReLU and pooling.
_CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
_POOLINGS = ("mac", "spoc", "gem", "rmac")

#: As the authors offer them; without a hash, it is pinned on first use.
RELEASES = tuple(
    WeightFile(
        f"{_URL}/{folder}/{name}.pth",
        None,
        "MIT (code); of the weights nothing is said",
        _PAPER,
        output_checked=False,
    )
    for folder, name in (
        ("retrieval-SfM-120k", "retrievalSfM120k-vgg16-gem-b4dcdc6"),
        ("retrieval-SfM-120k", "retrievalSfM120k-resnet101-gem-b80fb85"),
        ("retrieval-SfM-120k", "rSfM120k-tl-resnet50-gem-w-97bf910"),
        ("retrieval-SfM-120k", "rSfM120k-tl-resnet101-gem-w-a155e54"),
        ("retrieval-SfM-120k", "rSfM120k-tl-resnet152-gem-w-f39cada"),
        ("gl18", "gl18-tl-resnet50-gem-w-83fdc30"),
        ("gl18", "gl18-tl-resnet101-gem-w-a4d43db"),
        ("gl18", "gl18-tl-resnet152-gem-w-21278d5"),
    )
)


def card(name: str) -> WeightFile:
    """A published file by its name or a part of it that names one alone; else NAME.pth of a user's own."""
    found = [file for file in RELEASES if name in (file.name, file.name.removesuffix(".pth"))]
    if found:
        return found[0]
    file = name if name.endswith((".pth", ".pt")) else f"{name}.pth"
    own = WeightFile(f"{_URL}/{file}", None, "of its authors", _PAPER, file=file, output_checked=False)
    path = find(own)  # the user's own: not pinned, as it may be trained again
    return own if path is None else replace(own, sha256=sha256_of(path))


class CirtorchTrunk(Trunk):
    """Features, and whitening of each cell where the network has it.

    Attributes:
        power: of the mean over scales.
        learned: ``{set: {"ss" | "ms": {"m", "P"}}}``, whitenings published with the network.
    """

    def __init__(self, path: Path, *, device: str, dtype: torch.dtype) -> None:
        meta, state = _opened(path)
        self._name = _known(path, meta, "architecture", tuple(CHANNELS))
        self._pooling = _known(path, meta, "pooling", _POOLINGS)
        self._regional, self._whitens = bool(meta.get("regional")), bool(meta.get("whitening"))
        self.channels = CHANNELS[self._name]
        self.learned: Mapping[str, Any] = meta.get("Lw") or {}
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        tensors = fitted(state, self._shapes(bool(meta.get("local_whitening"))), path)
        self._mean, self._std = (_triple(path, meta, name) for name in ("mean", "std"))
        self._net: Callable[[torch.Tensor], torch.Tensor]
        if self._name in VGG_DEPTHS:
            self._net = vgg_trunk(tensors, self._name, device=device, dtype=dtype)
        elif self._name == "alexnet":
            self._net = AlexNet(tensors, device=device, dtype=dtype)
            self.least_side_px = AlexNet.least_side_px
        else:
            named = {
                _torchvision(key): value for key, value in tensors.items() if key.startswith("features.")
            }
            self._net = TorchvisionResNet(named, self._name, device=device, dtype=dtype)
        self._rest = {
            key: value.to(device) for key, value in tensors.items() if not key.startswith("features.")
        }
        p = self._rest.get("pool.p", self._rest.get("pool.rpool.p"))
        self._p = 3.0 if p is None else float(p)
        if not (self._p > 0 and all(each > 0 for each in self._std)):
            raise WeightsError(
                f"{path}: the power of GeM is {self._p:g} and std {self._std}, which must be positive",
                "fetch it again",
            )
        self.power = self._p if self._pooling == "gem" and not (self._regional or self._whitens) else 1.0

    def _shapes(self, local_whitening: bool) -> dict[str, tuple[int, ...]]:
        dim = self.channels
        if self._name in VGG_DEPTHS:
            shapes = vgg_shapes(self._name)
        elif self._name == "alexnet":
            shapes = alexnet_shapes()
        else:
            shapes = {_sequential(key): shape for key, shape in resnet_shapes(self._name).items()}
        linear = {"lwhiten": local_whitening, "pool.whiten": self._regional, "whiten": self._whitens}
        for name in (name for name, there in linear.items() if there):
            shapes |= {f"{name}.weight": (dim, dim), f"{name}.bias": (dim,)}
        if self._pooling == "gem":
            shapes["pool.rpool.p" if self._regional else "pool.p"] = (1,)
        return shapes

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self._mean, self._std))
        return (images - mean) / std

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self._net(pixels)
        if "lwhiten.weight" not in self._rest:
            return maps
        return self._linear("lwhiten", maps.float().movedim(1, -1)).movedim(-1, 1)

    def vector(self, maps: torch.Tensor) -> torch.Tensor:
        """The network's vector ``(1, c)`` of the maps ``(c, h, w)`` of one scale."""
        pooling = self._pool()
        if self._regional:
            rows = unit(self._linear("pool.whiten", regional(maps, pooling)))
            row = unit(rows.sum(dim=0, keepdim=True))
        else:
            row = unit(pooling(maps)[None])
        return unit(self._linear("whiten", row)) if self._whitens else row

    def _pool(self) -> Pooling:
        if self._pooling == "gem":
            return lambda maps: gem(maps, self._p)
        if self._pooling == "rmac":
            return lambda maps: regional(maps, mac).sum(dim=0)
        return {"mac": mac, "spoc": spoc}[self._pooling]

    def _linear(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import linear

        return linear(rows, self._rest[f"{name}.weight"], self._rest[f"{name}.bias"])

    def whitening(self, name: str, *, scales: int) -> tuple[Array, Array]:
        """Mean ``(c,)`` and projection ``(c, c)`` of a published whitening.

        Raises:
            WeightsError: the checkpoint has none of this name.
        """
        if name not in self.learned:
            has = ", ".join(sorted(self.learned)) or "none"
            raise WeightsError(
                f"these weights have no learned whitening {name!r}; they have: {has}", "set globals.whitening"
            )
        kind, said = "ms" if scales > 1 else "ss", self.learned[name]
        arrays = said.get(kind) if isinstance(said, Mapping) else None
        found = {} if not isinstance(arrays, Mapping) else arrays
        mean, projection = (np.asarray(found.get(key, ()), np.float32) for key in ("m", "P"))
        if mean.size != self.channels or projection.ndim != 2 or projection.shape[1] != self.channels:
            raise WeightsError(
                f"the whitening {name!r} ({kind}) of these weights has the shapes {mean.shape} and"
                f" {projection.shape}, for vectors of {self.channels} values",
                "fetch the file again, or drop globals.whitening",
            )
        return mean.reshape(-1), projection


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = read_checkpoint(path)
    if not isinstance(data, dict) or not {"meta", "state_dict"} <= data.keys():
        has = ", ".join(sorted(map(str, data))[:6]) if isinstance(data, dict) else type(data).__name__
        raise WeightsError(
            f"{path} is no network of cirtorch: it has no meta and state_dict", f"it has: {has}"
        )
    meta, state = data["meta"], data["state_dict"]
    if not (isinstance(meta, dict) and isinstance(state, dict)):
        raise WeightsError(
            f"{path}: meta is {type(meta).__name__} and state_dict {type(state).__name__}, not two dicts",
            "fetch it again",
        )
    return meta, state


def _known(path: Path, meta: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = meta.get(key)
    if value not in allowed:
        raise WeightsError(f"{path}: {key} is {value!r}", f"known are {', '.join(allowed)}")
    return str(value)


def _triple(path: Path, meta: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = np.asarray(meta.get(key, ()), np.float64).ravel()
    if len(values) != 3:
        raise WeightsError(f"{path}: {key} must be three numbers, got {meta.get(key)!r}", "fetch it again")
    return tuple(values.tolist())


def _sequential(name: str) -> str:
    """A tensor of a ResNet in a Sequential of its children.

    >>> _sequential("layer1.0.bn2.bias"), _torchvision("features.4.0.bn2.bias")
    ('features.4.0.bn2.bias', 'layer1.0.bn2.bias')
    """
    child, _, rest = name.partition(".")
    return f"features.{_CHILDREN[child]}.{rest}"


def _torchvision(name: str) -> str:
    _, index, rest = name.split(".", 2)
    return f"{next(child for child, number in _CHILDREN.items() if number == int(index))}.{rest}"
