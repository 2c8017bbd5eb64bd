"""VGG-16 out of one file or two: the same network, whichever is at hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from made_globals import network_state
from torch.nn.functional import conv2d, max_pool2d

from loc.cli import weights
from loc.errors import WeightsError
from loc.extractors.delf_ots import DelfOts
from loc.globals.gem import Gem
from loc.globals.pooling import Crow, Mac
from loc.nets import vgg16
from loc.nets.torchvision import VGG16_CONVOLUTIONS, vgg_shapes
from loc.nets.vgg16 import VGG16_FEATURES, VGG16_FILES, Vgg16, preprocessed, vgg16_files
from loc.plugins.blocks import resolve_block
from loc.plugins.standing import weights_verified
from loc.weights.tensors import read_tensors

IMAGE = torch.rand((1, 3, 48, 64), generator=torch.Generator().manual_seed(0))
CONV5 = {24: "conv5_1", 26: "conv5_2", 28: "conv5_3"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where weights are looked for; nothing else is."""
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LOC_OFFLINE", "1")
    return tmp_path


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def stored(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """As torchvision offers it: the classifier is there, without values."""
    torch.save({**state, "classifier.0.weight": torch.full((4, 5), torch.nan)}, path)
    return path


def test_the_file_of_torchvision(folder) -> None:
    """By its own rule: RGB of 0 to 255 less the mean of Caffe (torchvision rounds it), not divided."""
    state = network_state(vgg_shapes("vgg16"))
    stored(folder / VGG16_FEATURES.name, state)
    maps = IMAGE * 255 - torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)
    for index in VGG16_CONVOLUTIONS:
        maps = max_pool2d(maps, 2) if index in (5, 10, 17, 24) else maps
        maps = conv2d(maps, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        maps = maps.relu()
    got = Vgg16(device="cpu", dtype=torch.float32)(preprocessed(IMAGE))
    assert got.shape == (1, 512, 3, 4)
    assert float((got - maps).abs().max() / maps.abs().max()) < 1e-4


def test_it_is_marked_and_the_other_two_are_preferred(folder) -> None:
    plugins = [("features", "delf_ots"), *(("globals", name) for name in ("mac", "gem", "rmac", "crow"))]
    for section, name in plugins:
        plugin = resolve_block(section, name)
        assert plugin.weights == (VGG16_FEATURES,)
        assert not weights_verified(plugin)
        assert set(VGG16_FILES) < set(plugin.cls.weights)
    (folder / VGG16_FILES[1].name).touch()
    assert vgg16_files() == VGG16_FILES
    for cls in (DelfOts, Mac, Gem):
        assert cls.weights_for(cls.Config()) == VGG16_FILES


def test_missing_and_unknown_tensors_are_listed(folder) -> None:
    state = network_state(vgg_shapes("vgg16"))
    state["features.29.weight"] = state.pop("features.28.bias")
    stored(folder / VGG16_FEATURES.name, state)
    with pytest.raises(WeightsError, match=r"1 missing: features.28.bias; 1 unknown: features.29.weight"):
        Vgg16(device="cpu", dtype=torch.float32)


def test_fetched_it_gives_the_numbers_of_the_other_two(shared, tmp_path, monkeypatch) -> None:
    """The weights that are here, written as torchvision does, brought by a server; conv5 to the bit."""
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    expected = Vgg16(device="cpu", dtype=torch.float32)(preprocessed(IMAGE))
    state: dict[str, torch.Tensor] = {}
    first, last = (shared / "weights" / file.name for file in VGG16_FILES)
    for index, (before, after) in VGG16_CONVOLUTIONS.items():
        name = CONV5.get(index, f"dense_feature_extraction.model.{index}")
        wanted = {f"{name}.weight": (after, before, 3, 3), f"{name}.bias": (after,)}
        path, under = (last, None) if index in CONV5 else (first, "model")
        found = read_tensors(path, wanted, under=under, ignore=("dense_feature_extraction", "conv5"))
        state |= {f"features.{index}.{part}": found[f"{name}.{part}"] for part in ("weight", "bias")}
    state["features.0.weight"] = state["features.0.weight"].flip(1)
    (tmp_path / "served").mkdir()
    stored(tmp_path / "served" / VGG16_FEATURES.name, state)
    with served(tmp_path / "served") as url:
        monkeypatch.setattr(vgg16, "VGG16_FEATURES", replace(VGG16_FEATURES, url=url + VGG16_FEATURES.name))
        monkeypatch.setenv("LOC_WEIGHTS_DIR", "")
        monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path / "cache"))
        got = Vgg16(device="cpu", dtype=torch.float32)(preprocessed(IMAGE))
    assert (tmp_path / "cache" / VGG16_FEATURES.name).is_file()
    assert torch.equal(got, expected)


@pytest.mark.parametrize(("name", "cls"), [("delf_ots", DelfOts), ("crow", Crow)])
def test_fetch_takes_the_file_that_is_offered(folder, monkeypatch, capsys, name, cls) -> None:
    """Not the page of the other; the list says of each file where it stands."""
    monkeypatch.delenv("LOC_OFFLINE")
    (folder / "served").mkdir()
    (folder / "served" / VGG16_FEATURES.name).write_bytes(b"weights")
    with served(folder / "served") as url:
        file = replace(VGG16_FEATURES, url=url + VGG16_FEATURES.name)
        monkeypatch.setattr(cls, "weights", (*VGG16_FILES, file))
        weights.fetch([name])
    assert capsys.readouterr().out.split() == [str(folder / "cache" / file.name)]
    assert (folder / "cache" / file.name).read_bytes() == b"weights"
    weights.list_weights([name], json=True)
    rows = {row["file"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[each.name]["needed"] for each in (*VGG16_FILES, file)] == [False, False, True]
    weights.list_weights([name])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "not needed" in lines[VGG16_FILES[0].name]
    assert "offered nowhere" in lines[VGG16_FILES[1].name]
    with pytest.raises(WeightsError, match="is offered nowhere as a file"):
        weights.fetch([VGG16_FILES[1].name])
