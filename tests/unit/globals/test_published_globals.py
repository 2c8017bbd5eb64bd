"""Trained global descriptors: made checkpoints in the published layout, through the real loading path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_globals import GLOBAL_MAKERS, cirtorch, dir_checkpoint, hub_repository, hub_weights, netvlad
from torch.nn import functional as F

from loc.errors import ContractError, PluginError, WeightsError
from loc.globals.cirtorch import card as gem_card
from loc.globals.dir import Dir
from loc.globals.dir import card as dir_card
from loc.globals.gem import Gem
from loc.globals.hub import CosPlace, EigenPlaces, MegaLoc, Salad
from loc.globals.netvlad import NetVlad
from loc.plugins.blocks import resolve_block
from loc.plugins.contract import check_global_extractor
from loc.plugins.standing import weights_verified
from loc.stores.fingerprint import fingerprint
from loc.weights.files import verify

IMAGE = torch.rand((1, 3, 64, 96), generator=torch.Generator().manual_seed(3))
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_WEIGHTS_DIR", "")
    monkeypatch.setenv("LOC_OFFLINE", "1")
    return tmp_path


def resnet50(pixels: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """torchvision's, written out."""

    def norm(maps, name):
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, *parts, eps=1e-5)

    maps = F.relu(norm(F.conv2d(pixels, state["conv1.weight"], stride=2, padding=3), "bn1"))
    maps = F.max_pool2d(maps, 3, 2, 1)
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for unit in range(depth):
            name, stride = f"layer{stage}.{unit}", 2 if stage > 1 and unit == 0 else 1
            out = F.relu(norm(F.conv2d(maps, state[f"{name}.conv1.weight"]), f"{name}.bn1"))
            out = F.conv2d(out, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            out = norm(
                F.conv2d(F.relu(norm(out, f"{name}.bn2")), state[f"{name}.conv3.weight"]), f"{name}.bn3"
            )
            if unit == 0:
                maps = F.conv2d(maps, state[f"{name}.downsample.0.weight"], stride=stride)
                maps = norm(maps, f"{name}.downsample.1")
            maps = F.relu(out + maps)
    return maps


def vgg(pixels: torch.Tensor, state: dict[str, torch.Tensor], *, last_relu: bool) -> torch.Tensor:
    maps = pixels
    for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        if index in (5, 10, 17, 24):
            maps = F.max_pool2d(maps, 2)
        maps = F.conv2d(maps, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        maps = F.relu(maps) if index < 28 or last_relu else maps
    return maps


def generalized_mean(maps: torch.Tensor, p: float) -> torch.Tensor:
    return F.normalize(maps.clamp_min(1e-6).pow(p).mean((2, 3)).pow(1 / p))


@pytest.mark.parametrize("legacy", [False, True])
def test_gem_of_a_whitened_resnet(folder, legacy) -> None:
    path = cirtorch(folder / "mine.pth", whitening=True, legacy=legacy)
    state = torch.load(path, weights_only=True)["state_dict"]
    children = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    named = {}
    for key, value in state.items():
        if key.startswith("features."):
            _, child, rest = key.split(".", 2)
            named[f"{children[child]}.{rest}"] = value
    row = generalized_mean(resnet50((IMAGE - MEAN) / STD, named), 2.9)
    expected = F.normalize(F.linear(row, state["whiten.weight"], state["whiten.bias"]))
    plugin = Gem(Gem.Config(weights="mine", precision="fp32"))
    assert plugin(IMAGE) == pytest.approx(expected.numpy(), abs=1e-4)
    assert plugin.power() == 1


def test_gem_of_vgg_with_a_learned_whitening(folder) -> None:
    path = cirtorch(folder / "mine.pth", "vgg16", Lw="retrieval-SfM-120k")
    data = torch.load(path, weights_only=False)
    raw = generalized_mean(vgg((IMAGE - MEAN) / STD, data["state_dict"], last_relu=True), 2.9).numpy()
    plain = Gem(Gem.Config(weights="mine", precision="fp32"))
    assert plain(IMAGE) == pytest.approx(raw, abs=1e-4)
    assert plain.power() == pytest.approx(2.9)
    learned = data["meta"]["Lw"]["retrieval-SfM-120k"]["ss"]
    expected = learned["P"] @ (raw.T - learned["m"])
    options = {"weights": "mine", "precision": "fp32", "whitening": "retrieval-SfM-120k"}
    found = Gem(Gem.Config(**options))(IMAGE)
    assert found[0] == pytest.approx((expected / np.linalg.norm(expected))[:, 0], abs=1e-3)
    with pytest.raises(WeightsError, match="no learned whitening 'other'; they have: retrieval-SfM-120k"):
        Gem(Gem.Config(**{**options, "whitening": "other"}))


def test_regional_pooling_of_cirtorch(folder) -> None:
    path = cirtorch(folder / "mine.pth", "vgg16", regional=True, local_whitening=True)
    state = torch.load(path, weights_only=True)["state_dict"]
    maps = vgg((IMAGE - MEAN) / STD, state, last_relu=True)
    maps = F.linear(maps.movedim(1, 3), state["lwhiten.weight"], state["lwhiten.bias"]).movedim(3, 1)
    from loc.nets.pooling import rmac_grid

    crops = [maps] + [maps[:, :, y : y + s, x : x + s] for y, x, s in rmac_grid(*maps.shape[2:])]
    rows = torch.cat([generalized_mean(crop, 2.9) for crop in crops])
    rows = F.normalize(F.linear(rows, state["pool.whiten.weight"], state["pool.whiten.bias"]))
    expected = F.normalize(rows.sum(0, keepdim=True))
    found = Gem(Gem.Config(weights="mine", precision="fp32"))(IMAGE)
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


def test_a_checkpoint_of_cirtorch_that_does_not_fit(folder) -> None:
    path = cirtorch(folder / "mine.pth", "vgg16")
    data = torch.load(path, weights_only=True)
    data["state_dict"]["extra.weight"] = torch.zeros(2)
    del data["state_dict"]["features.28.bias"], data["state_dict"]["pool.p"]
    torch.save(data, path)
    wanted = r"2 missing: features.28.bias, pool.p; 1 unknown: extra.weight"
    with pytest.raises(WeightsError, match=wanted):
        Gem(Gem.Config(weights="mine"))
    data["meta"]["architecture"] = "densenet121"
    torch.save(data, folder / "dense.pth")
    with pytest.raises(WeightsError, match="architecture is 'densenet121'"):
        Gem(Gem.Config(weights="dense"))
    torch.save({"state_dict": {}}, folder / "bare.pth")
    with pytest.raises(WeightsError, match="it has no meta and state_dict"):
        Gem(Gem.Config(weights="bare"))


def test_dir_without_scikit_learn(folder) -> None:
    path = dir_checkpoint(folder / "Resnet-50-AP-GeM.pt")
    plugin = Dir(Dir.Config(weights="Resnet-50-AP-GeM", precision="fp32"))
    from made_globals import scikit_learn_of_old

    with scikit_learn_of_old():
        data = torch.load(path, weights_only=False)
    state = {key.removeprefix("module."): value for key, value in data["state_dict"].items()}
    row = resnet50((IMAGE - 0.4) / 0.2, state).clamp_min(1e-6).pow(2.9).mean((2, 3)).pow(1 / 2.9)
    row = F.normalize(F.linear(row, state["fc.weight"], state["fc.bias"])).numpy()
    pca = data["pca"]["Landmarks_clean"]
    turned = (row - pca.mean_) @ pca.components_.T / pca.explained_variance_**0.25
    assert plugin(IMAGE) == pytest.approx(turned / np.linalg.norm(turned), abs=1e-4)
    bare = Dir(Dir.Config(weights="Resnet-50-AP-GeM", precision="fp32", whitening=None))
    assert bare(IMAGE) == pytest.approx(row, abs=1e-4)
    with pytest.raises(WeightsError, match="no whitening 'Other'; they have: Landmarks_clean"):
        Dir(Dir.Config(weights="Resnet-50-AP-GeM", whitening="Other"))


class Acts:
    """An object whose pickle would run code."""

    def __reduce__(self):
        return (print, ("ran",))


def test_a_checkpoint_of_dir_that_would_run_code(folder, capsys) -> None:
    dir_checkpoint(folder / "bad.pt", preprocess=Acts())
    with pytest.raises(WeightsError, match="holds more than tensors, and opening it could run code"):
        Dir(Dir.Config(weights="bad"))
    assert "ran" not in capsys.readouterr().out
    dir_checkpoint(folder / "odd.pt", model_options={"arch": "senet154_rmac"})
    with pytest.raises(WeightsError, match="the network is 'senet154_rmac'"):
        Dir(Dir.Config(weights="odd"))


def test_netvlad_of_matconvnet(folder) -> None:
    path = netvlad(folder / "Pitts30K_struct.mat")
    from scipy.io import loadmat

    layers = loadmat(path, struct_as_record=False, squeeze_me=True)["net"].layers
    state = {}
    for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        kernels, bias = layers[index].weights
        state[f"features.{index}.weight"] = torch.from_numpy(kernels).permute(3, 2, 0, 1)
        state[f"features.{index}.bias"] = torch.from_numpy(bias)
    maps = vgg(IMAGE * 255 - torch.tensor([123.7, 116.8, 103.9]).view(3, 1, 1), state, last_relu=False)
    cells = F.normalize(maps[0].flatten(1), dim=0).numpy()
    assignment, negative = layers[30].weights
    scores = np.exp(assignment.T @ cells)
    scores /= scores.sum(0)
    words = np.zeros((512, 64))
    for cell, share in zip(cells.T, scores.T, strict=True):
        words += share * (cell[:, None] + negative)
    words /= np.linalg.norm(words, axis=0)
    row = words.ravel() / np.linalg.norm(words)
    full = NetVlad(NetVlad.Config(precision="fp32", whiten=False))(IMAGE)
    assert full.shape == (1, 32768)
    assert full[0] == pytest.approx(row, abs=1e-4)
    matrix, bias = layers[33].weights
    expected = row @ matrix + bias
    found = NetVlad(NetVlad.Config(precision="fp32"))(IMAGE)
    assert found[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)


def test_a_file_of_matconvnet_that_does_not_fit(folder) -> None:
    from scipy.io import savemat

    path = netvlad(folder / "Pitts30K_struct.mat", layer30_0=np.zeros((512, 32)), layer28_1=np.zeros((9, 1)))
    wanted = (
        r"2 of another shape: layers.30.weights.0 is \(512, 32\), expected \(512, 64\), layers.28.weights.1"
    )
    with pytest.raises(WeightsError, match=wanted):
        NetVlad(NetVlad.Config())
    savemat(path, {"something": np.zeros(3)})
    (folder / "weights.lock.json").unlink()
    with pytest.raises(WeightsError, match="is no network of MatConvNet as a struct"):
        NetVlad(NetVlad.Config())


def test_missing_and_extra_tensors_of_dir_and_netvlad(folder) -> None:
    """Each is counted, and some are named."""
    from scipy.io import savemat

    dir_checkpoint(folder / "few.pt", state_dict={"module.extra": torch.zeros(2)})
    with pytest.raises(WeightsError, match=r"268 missing: .*; 1 unknown: extra"):
        Dir(Dir.Config(weights="few"))
    cells = np.empty((1, 35), object)
    cells[0, :] = [{"type": "other"} for _ in range(35)]
    arrays = np.empty((1, 2), object)
    arrays[0, :] = [np.zeros((3, 3, 4, 5), np.float32), np.zeros(5, np.float32)]
    cells[0, 1] = {"type": "conv", "weights": arrays}
    average = np.ones((2, 2, 3), np.float32)
    net = {"layers": cells, "meta": {"normalization": {"averageImage": average}}}
    savemat(folder / "Pitts30K_struct.mat", {"net": net})
    wanted = r"30 missing: layers\.0\.weights\.0, .*; 2 unknown: layers\.1\.weights\.0, layers\.1\.weights\.1"
    with pytest.raises(WeightsError, match=wanted):
        NetVlad(NetVlad.Config())


@pytest.mark.parametrize("cls", [MegaLoc, Salad, EigenPlaces, CosPlace])
def test_a_repository_of_torch_hub(folder, cls, capsys) -> None:
    name = cls.__name__.lower()
    GLOBAL_MAKERS[name](folder)
    assert not weights_verified(resolve_block("globals", name))
    pinned = cls(cls.Config())(IMAGE)
    hub_repository(folder / "mine", cls)
    local = cls(cls.Config(repository=str(folder / "mine")))(IMAGE)
    assert np.array_equal(pinned, local)
    assert torch.hub.get_dir() != str(folder / "hub")
    assert pinned.shape == (1, 2048 if "Places" in cls.__name__ or cls is CosPlace else 16)


def test_a_repository_that_is_not_here(folder) -> None:
    hub_weights(folder, MegaLoc, 16)
    with pytest.raises(WeightsError, match=r"gmberton/MegaLoc:3f6e01c.* is not on this machine"):
        MegaLoc(MegaLoc.Config())
    with pytest.raises(PluginError, match=r"MegaLoc: .* has no hubconf\.py"):
        MegaLoc(MegaLoc.Config(repository=str(folder)))


def test_an_edited_repository_is_another_network(folder) -> None:
    repository = hub_repository(folder / "mine", MegaLoc)
    hub_weights(folder, MegaLoc, 16)
    block = resolve_block("globals", {"use": "megaloc", "repository": str(repository)})
    before = fingerprint(block.fingerprint_fields())
    assert fingerprint(block.fingerprint_fields()) == before
    with (repository / "hubconf.py").open("a") as file:
        file.write("\n# edited\n")
    assert fingerprint(block.fingerprint_fields()) != before
    assert resolve_block("globals", "megaloc").fingerprint_fields()["inputs"] == {"pinned": MegaLoc.pinned}


def test_a_network_that_returns_no_numbers(folder) -> None:
    repository = hub_repository(folder / "mine", MegaLoc)
    path = hub_weights(folder, MegaLoc, 16)
    state = torch.load(path, weights_only=True)
    torch.save(state | {"fc.bias": torch.full_like(state["fc.bias"], torch.nan)}, path)
    with pytest.raises(ContractError, match="megaloc: its network returned NaN"):
        MegaLoc(MegaLoc.Config(repository=str(repository)))(IMAGE)


def test_weights_that_do_not_fit_the_repository(folder) -> None:
    repository = hub_repository(folder / "mine", MegaLoc)
    path = hub_weights(folder, MegaLoc, 16)
    state = torch.load(path, weights_only=True)
    state["extra"] = state.pop("fc.bias")
    torch.save(state, path)
    with pytest.raises(
        WeightsError, match=r'Missing key\(s\) in state_dict: "fc.bias".* Unexpected .* "extra"'
    ):
        MegaLoc(MegaLoc.Config(repository=str(repository)))


def test_a_repository_whose_needs_are_not_installed(folder) -> None:
    repository = hub_repository(folder / "mine", MegaLoc)
    hub_weights(folder, MegaLoc, 16)
    text = (repository / "hubconf.py").read_text()
    (repository / "hubconf.py").write_text(text.replace('["torch"]', '["torch", "no_such_package"]'))
    with pytest.raises(PluginError, match="its code needs no_such_package") as caught:
        MegaLoc(MegaLoc.Config(repository=str(repository)))
    assert caught.value.next_step == "pip install no_such_package"


@pytest.mark.parametrize("broken", [{}, {"ss": {}}, {"ss": {"m": np.zeros((7, 1)), "P": np.zeros((3, 5))}}])
def test_a_learned_whitening_that_does_not_fit(folder, broken) -> None:
    path = cirtorch(folder / "mine.pth", "resnet18", Lw="mine")
    data = torch.load(path, weights_only=False)
    torch.save(data | {"meta": data["meta"] | {"Lw": {"mine": broken}}}, path)
    with pytest.raises(WeightsError, match=r"'mine' \(ss\) of these weights .* vectors of 512 values"):
        Gem(Gem.Config(weights="mine", whitening="mine"))


@pytest.mark.parametrize(("card", "name"), [(gem_card, "own.pth"), (dir_card, "own.pt")])
def test_own_checkpoints_may_be_trained_again(folder, card, name) -> None:
    """Another file of a name that nobody published is no damage, and another fingerprint."""
    found = []
    for content in (b"first", b"second"):
        (folder / name).write_bytes(content)
        found.append(verify(card("own"), folder / name))
    assert found[0] != found[1] == card("own").sha256


def test_contract_of_gem_with_trained_weights(folder) -> None:
    cirtorch(folder / "mine.pth", "resnet18", whitening=True)
    check_global_extractor(Gem, {"weights": "mine", "precision": "fp32"})
