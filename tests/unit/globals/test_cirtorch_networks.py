"""Every network of cirtorch that is read: keys, maps and pooling against the network written out."""

from __future__ import annotations

import math

import pytest
import torch
from made_globals import cirtorch
from torch.nn import functional as F

from loc.errors import WeightsError
from loc.globals.gem import Gem
from loc.nets.torchvision import alexnet_shapes, resnet_shapes, vgg_shapes
from loc.plugins.contract import check_global_extractor

IMAGE = torch.rand((1, 3, 64, 96), generator=torch.Generator().manual_seed(3))
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
#: Parameters that torchvision states, less those of the classifier.
PARAMETERS = {
    "alexnet": 2_469_696,
    "vgg11": 9_220_480,
    "vgg13": 9_404_992,
    "vgg16": 14_714_688,
    "vgg19": 20_024_384,
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_WEIGHTS_DIR", "")
    monkeypatch.setenv("LOC_OFFLINE", "1")
    return tmp_path


def network(x: torch.Tensor, state: dict[str, torch.Tensor], architecture: str) -> torch.Tensor:
    """torchvision's layers in a row; 2 and 3 of a ResNet are ReLU and pooling."""

    def conv(x, name, norm="", **options):
        x = F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{norm}.{part}"] for part in parts), eps=1e-5) if norm else x

    if architecture == "alexnet":
        x = F.max_pool2d(conv(x, "features.0", stride=4, padding=2).relu(), 3, 2)
        x = F.max_pool2d(conv(x, "features.3", padding=2).relu(), 3, 2)
        for index in (6, 8, 10):
            x = conv(x, f"features.{index}", padding=1).relu()
        return x
    if architecture.startswith("vgg"):
        # A pooling is where an index is left out.
        indices = sorted(int(key.split(".")[1]) for key in state if key.endswith(".bias"))
        for before, index in zip([-2, *indices], indices, strict=False):
            x = F.max_pool2d(x, 2) if index - before == 3 else x
            x = conv(x, f"features.{index}", padding=1).relu()
        return x
    x = F.max_pool2d(conv(x, "features.0", "features.1", stride=2, padding=3).relu(), 3, 2, 1)
    basic = architecture in ("resnet18", "resnet34")
    for child in (4, 5, 6, 7):
        units = {int(key.split(".")[2]) for key in state if key.startswith(f"features.{child}.")}
        for unit in sorted(units):
            name, stride = f"features.{child}.{unit}", 2 if child > 4 and unit == 0 else 1
            if basic:
                y = conv(x, f"{name}.conv1", f"{name}.bn1", stride=stride, padding=1).relu()
                y = conv(y, f"{name}.conv2", f"{name}.bn2", padding=1)
            else:
                y = conv(x, f"{name}.conv1", f"{name}.bn1").relu()
                y = conv(y, f"{name}.conv2", f"{name}.bn2", stride=stride, padding=1).relu()
                y = conv(y, f"{name}.conv3", f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
            x = (x + y).relu()
    return x


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_parameters_are_those_of_torchvision(architecture) -> None:
    shapes = resnet_shapes(architecture) if architecture.startswith("resnet") else alexnet_shapes()
    shapes = vgg_shapes(architecture) if architecture.startswith("vgg") else shapes
    learned = [shape for name, shape in shapes.items() if name.endswith((".weight", ".bias"))]
    assert sum(math.prod(shape) for shape in learned) == PARAMETERS[architecture]


@pytest.mark.parametrize(
    "architecture", ["alexnet", "vgg19", "resnet18", "resnet34", "resnet101", "resnet152"]
)
def test_a_network(folder, architecture) -> None:
    """VGG-16 and ResNet-50: test_published_globals."""
    path = cirtorch(folder / "mine.pth", architecture, thin=architecture not in ("resnet18", "alexnet"))
    state = torch.load(path, weights_only=True)["state_dict"]
    maps = network((IMAGE - MEAN) / STD, state, architecture)
    expected = F.normalize(maps.clamp_min(1e-6).pow(2.9).mean((2, 3)).pow(1 / 2.9))
    found = Gem(Gem.Config(weights="mine", precision="fp32"))(IMAGE)
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("architecture", ["alexnet", "resnet18"])
def test_missing_and_extra_tensors_are_listed(folder, architecture) -> None:
    path = cirtorch(folder / "mine.pth", architecture)
    data = torch.load(path, weights_only=True)
    data["state_dict"]["features.9.weight"] = data["state_dict"].pop("features.0.weight")
    torch.save(data, path)
    wanted = "1 missing: features.0.weight; 1 unknown: features.9.weight"
    with pytest.raises(WeightsError, match=wanted):
        Gem(Gem.Config(weights="mine"))


def test_small_photos(folder) -> None:
    """Too small for AlexNet: nothing is seen of them, and nothing breaks."""
    cirtorch(folder / "mine.pth", "alexnet")
    check_global_extractor(Gem, {"weights": "mine", "precision": "fp32"})
    plugin = Gem(Gem.Config(weights="mine", precision="fp32"))
    assert not plugin(IMAGE[:, :, :30]).any()
    assert plugin(IMAGE[:, :, :31]).any()


@pytest.mark.parametrize("architecture", ["densenet121", "squeezenet1_1", "vgg16_bn"])
def test_other_networks_are_refused_by_name(folder, architecture) -> None:
    path = cirtorch(folder / "mine.pth", "alexnet")
    data = torch.load(path, weights_only=True)
    data["meta"]["architecture"] = architecture
    torch.save(data, path)
    with pytest.raises(WeightsError, match=f"architecture is '{architecture}'") as caught:
        Gem(Gem.Config(weights="mine"))
    assert "resnet101" in caught.value.next_step


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda data: data.update(meta=None), "meta is NoneType and state_dict .*, not two"),
        (lambda data: data["state_dict"].update({"pool.p": torch.zeros(1)}), "the power of GeM is 0"),
        (lambda data: data["meta"].update(std=[0.0, 0.0, 0.0]), "which must be positive"),
    ],
)
def test_a_file_that_makes_no_sense_is_told(folder, wrong, told) -> None:
    path = cirtorch(folder / "mine.pth", "alexnet")
    data = torch.load(path, weights_only=True)
    wrong(data)
    torch.save(data, path)
    with pytest.raises(WeightsError, match=told):
        Gem(Gem.Config(weights="mine"))
