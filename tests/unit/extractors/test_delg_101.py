"""Releases on ResNet-101, from a bundle written here: converted, and both extractors against torch alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from delf_fixtures import MODELS, assert_near
from tensorflow_files import EditableGraph, shapes_of_101_layers, with_101_layers, write_bundle
from torch.nn import functional as F

from loc.errors import WeightsError
from loc.extractors.delg import Delg
from loc.globals.delg import DelgGlobal
from loc.weights.tensorflow.bundle import Bundle
from loc.weights.tensorflow.convert import convert
from loc.weights.tensorflow.files import save

UNITS = (3, 4, 23, 3)
SCALES = (0.70710677, 1.0)
ATTENTION = "attention_block/attention/compute"


def is_of_local_head(name: str) -> bool:
    return name.startswith(("attention_block/", "autoencoder/"))


@pytest.fixture(scope="module")
def variables(delf_models) -> dict[str, np.ndarray]:
    """He's rule; the last norm of a residual is small, so that 33 units do not blow up."""
    shapes = Bundle(delf_models / MODELS["delg"] / "variables/variables").shapes()
    rng, out = np.random.default_rng(0), {}
    numbers = rng.standard_normal(1_000_003, np.float32)  # each tensor takes them from another place on
    for start, (name, shape) in enumerate(sorted(shapes_of_101_layers(shapes).items())):
        if name.endswith("weights"):
            spread = np.float32((2 / np.prod(shape[:-1])) ** 0.5)
            out[name] = np.resize(numbers[100 * start :], shape) * spread
        elif name.endswith("gamma"):
            out[name] = np.full(shape, 0.3 if "conv3" in name else 1.0, np.float32)
        elif name.endswith("moving_variance"):
            out[name] = rng.uniform(0.7, 1.5, shape).astype(np.float32)
        elif name != "global_step":
            out[name] = 0.05 * rng.standard_normal(shape, np.float32)
    return out


@pytest.fixture(scope="module")
def weights(delf_models, variables, tmp_path_factory) -> Path:
    """A folder with both releases, converted."""
    folder, converted = tmp_path_factory.mktemp("r101"), []
    for release, dropped in (("r101delg", ()), ("rn101_af", ("boxes", "features", "scales", "scores"))):
        graph = EditableGraph(delf_models / MODELS["delg"] / "saved_model.pb")
        with_101_layers(graph)
        for name in dropped:
            graph[name].name = f"dropped/{name}"
        graph.save(folder / release / "saved_model.pb")
        kept = {name: each for name, each in variables.items() if not (dropped and is_of_local_head(name))}
        write_bundle(folder / release / "variables/variables", kept, checksums=False)
        found = convert(folder / release)
        assert found.facts.backbone == "resnet_v1_101"
        assert len(found.tensors) == len(kept) == 278 + 17 * 15 - (11 if dropped else 0)
        converted.append(found.tensors)
        save(found, folder / f"{release}.safetensors")
        for path in (folder / release / "variables").iterdir():
            path.unlink()
    both, alone = converted
    assert all(np.array_equal(both[name], values) for name, values in alone.items())
    return folder


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (65, 90, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def maps(variables, image) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Block 3 and block 4 at each scale, by torch alone."""
    pixels = (image - 128) / 128
    return [slim_resnet(legacy_resized(pixels, scale), variables) for scale in SCALES]


def legacy_resized(pixels: np.ndarray, scale: float) -> torch.Tensor:
    """TensorFlow's first bilinear resize: pixel i of the output is at ``i * size / new size``."""
    out = pixels
    for axis in (0, 1):
        size = out.shape[axis]
        count = int(np.round(np.float32(size) * np.float32(scale)))
        at = np.arange(count) * (size / count)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        high = np.minimum(low + 1, size - 1)
        out = out.take(low, axis) * (1 - share) + out.take(high, axis) * share
    return torch.from_numpy(out.astype(np.float32)).permute(2, 0, 1)[None]


def slim_resnet(x: torch.Tensor, variables: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """ResNet-101 of TF-Slim: the stride of a block is that of its last unit; the fourth has none."""

    def conv(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel, *norm = (
            torch.from_numpy(variables[f"resnet_v1_101/{name}/{part}"])
            for part in (
                "weights",
                "BatchNorm/moving_mean",
                "BatchNorm/moving_variance",
                "BatchNorm/gamma",
                "BatchNorm/beta",
            )
        )
        kernel = kernel.permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)
        return F.batch_norm(x, *norm, eps=1e-5)

    x = conv(x, "conv1", 2).relu()
    rows, columns = x.shape[2:]
    x = F.max_pool2d(F.pad(x, (columns % 2, 1, rows % 2, 1)), 3, 2)
    ends = []
    for block, units in enumerate(UNITS, start=1):
        for unit in range(1, units + 1):
            scope = f"block{block}/unit_{unit}/bottleneck_v1"
            stride = 2 if unit == units and block < 4 else 1
            shortcut = conv(x, f"{scope}/shortcut", stride) if unit == 1 else x[:, :, ::stride, ::stride]
            y = conv(conv(x, f"{scope}/conv1").relu(), f"{scope}/conv2", stride).relu()
            x = (conv(y, f"{scope}/conv3") + shortcut).relu()
        ends.append(x)
    return ends[2], ends[3]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def shown(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None]


def test_global_descriptor(monkeypatch, weights, variables, maps, image) -> None:
    """Of the global-only release; the other has the same tensors for it."""
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(weights))
    rows = []
    for _, block4 in maps:
        pooled = block4[0].clamp_min(1e-6).pow(3).mean(dim=(1, 2)).pow(1 / 3).numpy()
        rows.append(pooled @ variables["whitening/weights"] + variables["whitening/biases"])
    expected = unit(unit(np.stack(rows)).sum(axis=0))
    got = DelgGlobal(DelgGlobal.Config(weights="rn101_af", scales=SCALES))(shown(image))
    assert got.shape == (1, 2048)
    assert_near(got[0], expected)


def test_local_features(monkeypatch, weights, variables, maps, image) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(weights))
    block3 = maps[1][0][0].flatten(1).T.numpy()  # cells by row
    reduced = block3 @ variables["autoencoder/conv1/weights"][0, 0] + variables["autoencoder/conv1/biases"]
    expanded = reduced @ variables["autoencoder/conv2/weights"][0, 0] + variables["autoencoder/conv2/biases"]
    hidden = np.maximum(expanded, 0) @ variables[f"{ATTENTION}/conv1/weights"][0, 0]
    mean, variance, gamma, beta = (
        variables[f"{ATTENTION}/conv1/BatchNorm/{part}"]
        for part in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    hidden = np.maximum((hidden - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
    scores = hidden @ variables[f"{ATTENTION}/conv2/weights"][0, 0] + variables[f"{ATTENTION}/conv2/biases"]
    scores = np.logaddexp(0, scores)[:, 0]
    order = np.argsort(-scores, kind="stable")
    delg = Delg(Delg.Config(weights="r101delg", scales=(1.0,), score_threshold=0.0))
    (found,) = delg(shown(image))
    assert_near(found.scores, scores[order])
    assert_near(found.descriptors, unit(reduced[order]))
    columns = maps[1][0].shape[3]
    cells = np.column_stack([order % columns, order // columns])
    np.testing.assert_allclose(found.keypoints, 32 * cells, atol=1e-4)


def test_the_global_release_has_no_local_features(monkeypatch, weights) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(weights))
    with pytest.raises(WeightsError, match="holds global, without DELG's local features"):
        Delg(Delg.Config(weights="rn101_af"))
