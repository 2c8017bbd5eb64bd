"""NetVLAD: soft-assigned residuals of VGG-16's cells, from the MatConvNet files that hloc uses.

R. Arandjelović, P. Gronat, A. Torii, T. Pajdla and J. Sivic, NetVLAD: CNN Architecture for Weakly Supervised
Place Recognition, CVPR 2016 (github.com/Relja/netvlad).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from loc.errors import DataError, WeightsError
from loc.globals.pooling import Pooled, PoolingConfig, Trunk
from loc.nets.torchvision import VGG16_CONVOLUTIONS, VGG_CHANNELS, vgg_trunk
from loc.plugins.precision import torch_dtype
from loc.plugins.protocols import WeightFile
from loc.types import Array
from loc.weights.files import locate
from loc.weights.mat_file import read_mat

if TYPE_CHECKING:
    import torch

_URL = "https://cvg-data.inf.ethz.ch/hloc/netvlad"
_PAPER = "R. Arandjelović et al., NetVLAD, CVPR 2016"
_FILES = {
    name: WeightFile(
        f"{_URL}/{name}_struct.mat",
        None,
        "MIT (code); of the weights nothing is said",
        _PAPER,
        output_checked=False,
    )
    for name in ("Pitts30K", "TokyoTM")
}
_ASSIGNMENT, _WHITENING, _WORDS = 30, 33, 64
#: The published files have 530 MB; more than 2 GiB in one variable the format does not allow.
_MAX_BYTES = 2**31


class NetvladConfig(PoolingConfig):
    """Options of :class:`NetVlad`."""

    weights: Literal["Pitts30K", "TokyoTM"] = Field("Pitts30K", description="what it was trained on")
    whiten: bool = Field(True, description="the published whitening, to 4096 values; else 32768")


class NetVladTrunk(Trunk):
    """VGG-16 up to conv5_3 before its ReLU, and what pools its cells."""

    def __init__(self, path: Path, *, whiten: bool, device: str, dtype: torch.dtype) -> None:
        import torch

        arrays = read_matconvnet(path)
        tensors = {}
        for index in VGG16_CONVOLUTIONS:
            kernels = arrays[f"layers.{index}.weights.0"].transpose(3, 2, 0, 1)
            tensors[f"features.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernels))
            tensors[f"features.{index}.bias"] = torch.from_numpy(arrays[f"layers.{index}.weights.1"])
        self._net = vgg_trunk(tensors, device=device, dtype=dtype, relu=False)
        self._mean = torch.from_numpy(arrays["meta.normalization.averageImage"]).view(3, 1, 1).to(device)
        assignment, negative = (arrays[f"layers.{_ASSIGNMENT}.weights.{part}"] for part in (0, 1))
        self._assignment = torch.from_numpy(assignment).to(device)
        self._centers = torch.from_numpy(-negative).to(device)
        self._whitening: tuple[torch.Tensor, torch.Tensor] | None = None
        self.channels = VGG_CHANNELS * _WORDS
        if whiten:
            matrix, bias = (arrays[f"layers.{_WHITENING}.weights.{part}"] for part in (0, 1))
            self._whitening = torch.from_numpy(matrix).to(device), torch.from_numpy(bias).to(device)
            self.channels = matrix.shape[1]

    def preprocessed(self, images: torch.Tensor) -> torch.Tensor:
        return images * 255 - self._mean

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._net(pixels)

    def vector(self, maps: torch.Tensor) -> torch.Tensor:
        """Unit ``(1, d)`` of the maps ``(c, h, w)`` of one scale."""
        from torch.nn.functional import normalize

        cells = normalize(maps.flatten(1), dim=0)
        shares = (self._assignment.T @ cells).softmax(dim=0)
        residuals = cells @ shares.T - self._centers * shares.sum(dim=1)
        row = normalize(normalize(residuals, dim=0).reshape(1, -1))
        if self._whitening is None:
            return row
        matrix, bias = self._whitening
        return normalize(row @ matrix + bias)


class NetVlad(Pooled):
    """64 words of 512 values, whitened to 4096. Never run here with the authors' weights."""

    Config: ClassVar[type[PoolingConfig]] = NetvladConfig
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = tuple(_FILES.values())
    config: NetvladConfig
    trunk: NetVladTrunk

    @classmethod
    def weights_for(cls, config: NetvladConfig) -> tuple[WeightFile, ...]:
        """The file that a configuration needs."""
        return (_FILES[config.weights],)

    def open_trunk(self) -> Trunk:
        return NetVladTrunk(
            locate(_FILES[self.config.weights]),
            whiten=self.config.whiten,
            device=self.device,
            dtype=torch_dtype(self.config.precision, self.device),
        )

    def vectors(self, maps: torch.Tensor) -> torch.Tensor:
        return self.trunk.vector(maps)


def read_matconvnet(path: Path) -> dict[str, Array]:
    """Arrays of a ``*_struct.mat``, float32: ``layers.<i>.weights.<j>``, ``meta.normalization.averageImage``.

    Kernels are (rows, columns, input, output); the output of the whitening has any size.

    Raises:
        WeightsError: it is no such file; or arrays are missing, unknown or of another shape (listed).
    """
    try:
        net = read_mat(path, max_bytes=_MAX_BYTES)["net"]
        layers, average = net["layers"], net["meta"]["normalization"]["averageImage"]
    except (DataError, KeyError, TypeError, IndexError) as error:
        raise WeightsError(
            f"{path} is no network of MatConvNet as a struct: {str(error).splitlines()[0][:200]}",
            "fetch it again (loc weights fetch)",
        ) from error
    color = _mean_color(_plain(average), path)
    found = {
        f"layers.{index}.weights.{part}": _plain(array)
        for index, layer in enumerate(layers if isinstance(layers, list) else [layers])
        for part, array in enumerate(_weights_of(layer))
    }
    return {**_checked(found, path), "meta.normalization.averageImage": color}


def _weights_of(layer: Any) -> list[Any]:
    weights = layer.get("weights", []) if isinstance(layer, dict) else []
    if isinstance(weights, np.ndarray):  # one bare, or the empty one that stands for none
        return [weights] if weights.size else []
    return weights if isinstance(weights, list) else [weights]


def _plain(array: Any) -> Array:
    """Without axes of one, as MATLAB pads; what is no array of numbers has a shape that nothing expects."""
    if not isinstance(array, np.ndarray):
        return np.zeros((0, 0), np.float32)
    with np.errstate(over="ignore"):  # what is infinite in single precision is refused with its name
        return np.asarray(array.squeeze(), np.float32)


def _mean_color(average: Array, path: Path) -> Array:
    """Of every pixel, or of one."""
    color = average if average.ndim == 1 else average[0, 0] if average.ndim == 3 else average[:0]
    if color.shape != (3,) or not np.isfinite(color).all():
        raise WeightsError(f"{path}: averageImage is {average.shape}, expected one of RGB", "fetch it again")
    return np.array(color)


def _checked(found: dict[str, Array], path: Path) -> dict[str, Array]:
    cells = VGG_CHANNELS * _WORDS
    assignment, whitening = f"layers.{_ASSIGNMENT}.weights", f"layers.{_WHITENING}.weights"
    into = found.get(f"{whitening}.1", np.zeros(0)).shape
    expected: dict[str, tuple[int, ...]] = {
        f"{assignment}.0": (VGG_CHANNELS, _WORDS),
        f"{assignment}.1": (VGG_CHANNELS, _WORDS),
        f"{whitening}.0": (cells, *into),
        f"{whitening}.1": into,
    }
    for index, (before, after) in VGG16_CONVOLUTIONS.items():
        expected |= {
            f"layers.{index}.weights.0": (3, 3, before, after),
            f"layers.{index}.weights.1": (after,),
        }
    wrong = [
        f"{key} is {found[key].shape}, expected {shape}"
        for key, shape in expected.items()
        if key in found and found[key].shape != shape
    ]
    parts = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "of another shape": wrong,
        "not finite": sorted(key for key, array in found.items() if not np.isfinite(array).all()),
    }
    said = [f"{len(names)} {what}: {', '.join(names[:6])}" for what, names in parts.items() if names]
    if said:
        raise WeightsError(f"{path} is not NetVLAD on VGG-16: {'; '.join(said)}", "is it the file hloc uses?")
    return {key: np.array(found[key], order="C") for key in expected}  # no view of the file remains
