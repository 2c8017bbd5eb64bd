"""Random weights of global descriptors in the layout of the published files."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loc.globals.cirtorch import _sequential
from loc.globals.dir import Dir
from loc.globals.hub import CosPlace, EigenPlaces, Hub, MegaLoc, Salad
from loc.globals.netvlad import NetVlad
from loc.nets.torchvision import CHANNELS, VGG16_CONVOLUTIONS, alexnet_shapes, resnet_shapes, vgg_shapes

MINIATURE = """
dependencies = ["torch"]
import torch
from small_network import Small

def {entry}(backbone="small", fc_output_dim=16):
    print("Returning a model")
    model = Small(fc_output_dim)
    url = "https://github.com/{owner}/releases/download/{tag}/" + "{file}".format(backbone, fc_output_dim)
    model.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return model
"""
NETWORK = """
import torch

class Small(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 7, stride=7)
        self.bn = torch.nn.BatchNorm2d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.fc = torch.nn.Linear(8, dim)

    def forward(self, x):
        return self.fc(self.drop(self.bn(self.conv(x)).relu()).amax((2, 3)))
"""


def network_state(
    shapes: dict[str, tuple[int, ...]], seed: int = 0, *, thin: bool = False
) -> dict[str, torch.Tensor]:
    """He's rule; norms that leave their input as it is, the last of each residual small.

    ``thin``: a kernel has one value per channel of its output, so that a file of it is small.
    """
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for key, shape in shapes.items():
        if len(shape) == 4 and thin:
            values = torch.randn((shape[0], 1, 1, 1), generator=generator)
            out[key] = (values / torch.Size(shape[1:]).numel()).expand(shape)
        elif len(shape) >= 2:
            out[key] = torch.randn(shape, generator=generator) * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        elif key.endswith("p"):
            out[key] = torch.full(shape, 2.9)
        elif key.endswith(("running_var", "weight")):
            out[key] = torch.full(shape, 0.3 if "bn3" in key else 1.0)
        else:
            out[key] = 0.05 * torch.randn(shape, generator=generator)
    return out


def cirtorch(
    path: Path,
    architecture: str = "resnet50",
    pooling: str = "gem",
    *,
    legacy: bool = False,
    thin: bool = False,
    **options: Any,
) -> Path:
    """As the authors' trainer saves it; ``Lw`` makes a learned whitening of NumPy arrays."""
    dim, learned = CHANNELS[architecture], options.pop("Lw", None)
    if architecture.startswith("vgg"):
        shapes = vgg_shapes(architecture)
    elif architecture == "alexnet":
        shapes = alexnet_shapes()
    else:
        shapes = {_sequential(key): shape for key, shape in resnet_shapes(architecture).items()}
    for key, name in (("local_whitening", "lwhiten"), ("regional", "pool.whiten"), ("whitening", "whiten")):
        if options.get(key):
            shapes |= {f"{name}.weight": (dim, dim), f"{name}.bias": (dim,)}
    if pooling == "gem":
        shapes["pool.rpool.p" if options.get("regional") else "pool.p"] = (1,)
    state = network_state(shapes, thin=thin)
    if not legacy:
        counters = {f"{key[:-12]}num_batches_tracked" for key in state if key.endswith("running_mean")}
        state |= {key: torch.tensor(7) for key in sorted(counters)}
    meta: dict[str, Any] = {"architecture": architecture, "pooling": pooling, "outputdim": dim, **options}
    meta |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    if learned:
        rng = np.random.default_rng(0)
        kinds = {
            kind: {"m": rng.normal(size=(dim, 1)) * 0.01, "P": np.asfortranarray(rng.normal(size=(dim, dim)))}
            for kind in ("ss", "ms")
        }
        meta["Lw"] = {learned: kinds}
    torch.save({"meta": meta, "state_dict": state}, path, _use_new_zipfile_serialization=not legacy)
    return path


def dir_checkpoint(path: Path, architecture: str = "resnet50", **changes: Any) -> Path:
    """As naver saved it: an object of scikit-learn inside, keys of a network in parallel."""
    shapes = {**resnet_shapes(architecture), "adpool.p": (1,), "fc.weight": (16, 2048), "fc.bias": (16,)}
    state = {} if changes else {f"module.{key}": value for key, value in network_state(shapes).items()}
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(16, 16)))[0].astype(np.float32)
    attributes = {
        "n_components": None,
        "whiten": True,
        "mean_": np.full(16, 0.01, np.float32),
        "components_": basis,
        "explained_variance_": np.linspace(2, 0.5, 16).astype(np.float32),
        "noise_variance_": np.float64(0.0),
        "svd_solver": "full",
    }
    data = {
        "epoch": 3,
        "model_options": {"arch": f"{architecture}_rmac", "out_dim": 16, "pooling": "gem", "gemp": 3},
        "preprocess": {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2], "input_size": 224},
        "state_dict": state,
        **changes,
    }
    with scikit_learn_of_old() as pca:
        data["pca"] = {"Landmarks_clean": pca(attributes)}
        torch.save(data, path)
    return path


class scikit_learn_of_old:  # noqa: N801
    """For as long as it lasts, ``sklearn.decomposition.pca.PCA`` can be imported, as pickle wants it."""

    def __enter__(self) -> Callable[[dict[str, Any]], Any]:
        names = ("sklearn", "sklearn.decomposition", "sklearn.decomposition.pca")
        self._before = {name: sys.modules.get(name) for name in names}
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        pca = type("PCA", (), {"__module__": names[-1], "__qualname__": "PCA"})
        sys.modules[names[-1]].PCA = pca  # type: ignore[attr-defined]

        def make(attributes: dict[str, Any]) -> Any:
            made = pca()
            made.__dict__.update(attributes)
            assert pickle.dumps(made)
            return made

        return make

    def __exit__(self, *_: object) -> None:
        for name, module in self._before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def netvlad(path: Path, **changes: np.ndarray) -> Path:
    """A MatConvNet network as a struct, whitened to 16 values; ``layer30_0=…`` replaces an array."""
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    layers: list[dict[str, Any]] = [{"type": "other", "name": f"l{index}"} for index in range(35)]

    def put(index: int, *arrays: np.ndarray) -> None:
        named = [changes.get(f"layer{index}_{part}", array) for part, array in enumerate(arrays)]
        weights = np.empty((1, len(named)), object)
        for part, array in enumerate(named):
            weights[0, part] = np.asarray(array, np.float32)
        layers[index] = {"type": "conv", "name": f"l{index}", "weights": weights}

    for index, (before, after) in VGG16_CONVOLUTIONS.items():
        put(index, rng.normal(size=(3, 3, before, after)) * (2 / (9 * before)) ** 0.5, np.zeros((after, 1)))
    put(30, rng.normal(size=(512, 64)) * 5, -0.04 * rng.normal(size=(512, 64)))
    put(33, rng.normal(size=(1, 1, 512 * 64, 16)), 0.01 * rng.normal(size=(16, 1)))
    cells = np.empty((1, len(layers)), object)
    cells[0, :] = layers
    average = np.broadcast_to(np.array([123.7, 116.8, 103.9], np.float32), (2, 2, 3))
    net = {"layers": cells, "meta": {"normalization": {"averageImage": average}}}
    savemat(path, {"net": net})
    return path


def hub_repository(folder: Path, cls: type[Hub]) -> Path:
    """A repository with an entry point that downloads its weights as the authors' does."""
    folder.mkdir(parents=True)
    url = cls.weights[0].url
    owner = url.removeprefix("https://github.com/").partition("/releases")[0]
    tag, file = url.split("/")[-2:]
    if "2048" in file:
        file = "{}_{}_" + file.rpartition("_")[2]
    text = MINIATURE.format(entry=cls.entry, owner=owner, tag=tag, file=file)
    (folder / "hubconf.py").write_text(text)
    (folder / "small_network.py").write_text(NETWORK)
    return folder


def hub_weights(folder: Path, cls: type[Hub], dim: int) -> Path:
    """The state dict that its entry point wants."""
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    torch.manual_seed(0)
    path = folder / cls.weights[0].name
    torch.save(scope["Small"](dim).state_dict(), path)
    return path


def hub(cls: type[Hub], dim: int) -> Callable[[Path], Path]:
    """Weights, and the repository where torch.hub keeps one that it has fetched."""

    def make(folder: Path) -> Path:
        cached = folder / "hub" / cls.pinned.replace("/", "_").replace(":", "_")
        if not cached.exists():
            hub_repository(cached, cls)
        return hub_weights(folder, cls, dim)

    return make


GLOBAL_MAKERS: dict[str, Callable[[Path], Path]] = {
    "dir": lambda folder: dir_checkpoint(folder / Dir.weights[0].name),
    "netvlad": lambda folder: netvlad(folder / NetVlad.weights[0].name),
    "megaloc": hub(MegaLoc, 16),
    "salad": hub(Salad, 16),
    "eigenplaces": hub(EigenPlaces, 2048),
    "cosplace": hub(CosPlace, 2048),
}
