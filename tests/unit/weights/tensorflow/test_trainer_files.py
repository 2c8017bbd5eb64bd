"""Networks of DELF's TF2 trainer, whatever keys their files have: their object graph says what each is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tensorflow_files import object_graph, write_bundle

from loc.errors import WeightsError
from loc.weights.tensorflow.convert import convert
from loc.weights.tensorflow.files import load, save
from loc.weights.tensorflow.layout import keras_names, network_shapes

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def trained(*, delg: bool) -> dict[str, np.ndarray]:
    """Path in the model → a tensor filled with its rank, so that each can be told from the others."""
    shapes = network_shapes("resnet_v1_50", local=True, autoencoder=delg, whitening=True, biased=True)
    names = keras_names(shapes)
    paths = {names[name]: shape for name, shape in shapes.items() if delg or not name.startswith("whit")}
    heads = {"desc_classification/kernel": (2048, 3), "attn_classification/bias": (3,), "scale_factor": ()}
    return {
        path: np.full(shape, rank, np.float32)
        for rank, (path, shape) in enumerate(sorted((paths | heads).items()), start=1)
    }


def layer(path: str) -> str:
    """The full name that Keras gives a variable: the names of its layer and its own, below the model's."""
    path = re.sub(r"l(\d[a-f])/conv2([abc])", r"res\1_branch2\2", path)
    path = re.sub(r"l(\d[a-f])/bn2([abc])", r"bn\1_branch2\2", path)
    path = re.sub(r"l(\d[a-f])/conv_shortcut", r"res\1_branch1", path)
    path = re.sub(r"l(\d[a-f])/bn_shortcut", r"bn\1_branch1", path)
    path = path.replace("attention/conv", "attention/attn_conv").replace("coder/conv", "coder/autoenc_conv")
    path = path.replace("desc_classification", "desc_fc").replace("attn_classification", "att_fc")
    return path if path == "scale_factor" else f"DELF/{path}"


def write(prefix: Path, tensors: dict[str, np.ndarray], *, lists_only: bool = False, under: str = "") -> None:
    """As ``tf.saved_model.save`` numbers variables, or (``under``) as ``tf.train.Checkpoint`` names them."""
    order = sorted(tensors, key=lambda path: path[::-1])  # that of no list of ours
    keys = {
        path: f"{under}{path}{SUFFIX}" if under else f"_model/variables/{number}{SUFFIX}"
        for number, path in enumerate(order)
    }
    paths = {f"_model/variables/{n}": (layer(path), keys[path]) for n, path in enumerate(order)}
    if not lists_only:
        paths |= {f"{under or '_model/'}{path}": (layer(path), keys[path]) for path in order}
    stored: dict[str, np.ndarray | bytes] = {keys[path]: tensors[path] for path in order}
    stored |= {GRAPH: object_graph(paths), f"save_counter{SUFFIX}": np.asarray(1, np.int64)}
    if under:
        stored[f"{under}backbone/conv1/kernel/.OPTIMIZER_SLOT/optimizer/momentum{SUFFIX}"] = np.ones(3)
        stored[f"optimizer/iter{SUFFIX}"] = np.asarray(1, np.int64)
    write_bundle(prefix, stored, checksums=False)


@pytest.mark.parametrize(
    ("style", "delg"), [("attributes", True), ("full names", False), ("checkpoint", False)]
)
def test_every_variable_is_found(tmp_path, style, delg) -> None:
    """A SavedModel with numbered variables, by their attributes or by their names; a Checkpoint(model=…)."""
    tensors = trained(delg=delg)
    if style == "checkpoint":
        prefix = source = tmp_path / "delf_tf2-ckpt-7"
        write(prefix, tensors, under="model/")
    else:
        source = tmp_path / "saved"
        (source / "variables").mkdir(parents=True)
        (source / "saved_model.pb").write_bytes(b"")
        write(source / "variables/variables", tensors, lists_only=style == "full names")
    found = convert(source)
    shapes = network_shapes("resnet_v1_50", local=True, autoencoder=delg, whitening=delg, biased=True)
    assert found.facts.kind == ("delg" if delg else "delf")
    assert "unverified" in found.facts.assumed
    assert found.tensors.keys() == shapes.keys()
    for name, path in keras_names(shapes).items():
        assert found.tensors[name].flat[0] == found.tensors[name].flat[-1] == tensors[path].flat[0], path
    assert found.tensors["attention.bn1.weight"].shape == (512,)
    assert found.tensors["stem.bn.weight"].shape == (64,)
    if style == "full names":
        save(found, tmp_path / "own.safetensors")
        assert load(tmp_path / "own.safetensors").facts == found.facts


@pytest.fixture
def small():
    """DELF of the trainer without the fourth block, which is not used."""
    return {path: value for path, value in trained(delg=False).items() if not path.startswith("backbone/l5")}


def test_missing_unknown_and_misshapen_are_listed(small, tmp_path) -> None:
    gone = small.pop("attention/conv2/bias")
    small["backbone/l3b/bn2c/gamma"] = np.ones(7, np.float32)
    small["backbone/l9x/conv2a/kernel"] = gone
    write(tmp_path / "v", small)
    with pytest.raises(WeightsError) as caught:
        convert(tmp_path / "v")
    said = caught.value.message
    assert f"1 missing: attention/conv2/bias{SUFFIX}" in said
    assert re.search(r"1 unknown: _model/variables/\d+/", said)
    assert re.search(r"_model/variables/\d+/\S+ is \(7,\), expected \(512,\)", said)


def test_two_variables_of_one_name(small, tmp_path) -> None:
    order = list(small)
    keys = {path: f"_model/variables/{number}{SUFFIX}" for number, path in enumerate(order)}
    paths = {f"_model/variables/{n}": (layer(path), keys[path]) for n, path in enumerate(order)}
    again = f"_model/variables/999{SUFFIX}"
    paths["_model/variables/999"] = ("DELF/attention/attn_conv2/bias", again)
    stored: dict[str, np.ndarray | bytes] = {keys[path]: small[path] for path in order}
    write_bundle(
        tmp_path / "v", stored | {again: np.ones(1, np.float32), GRAPH: object_graph(paths)}, checksums=False
    )
    with pytest.raises(WeightsError, match=r"attention/conv2/bias is _model/variables/\d+/\S+ and _model"):
        convert(tmp_path / "v")


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (b"\x0a\x06\x0a\x04\x08\x09\x12\x00", "an object that it does not hold"),
        (b"\x0a\x7f", "cannot be read"),
    ],
)
def test_a_damaged_object_graph(tmp_path, graph, said) -> None:
    write_bundle(tmp_path / "v", {f"_model/variables/0{SUFFIX}": np.ones(3, np.float32), GRAPH: graph})
    with pytest.raises(WeightsError, match=said):
        convert(tmp_path / "v")


def test_an_object_graph_of_something_else(tmp_path) -> None:
    key = f"net/kernel{SUFFIX}"
    write_bundle(
        tmp_path / "v", {key: np.ones(3, np.float32), GRAPH: object_graph({"net/kernel": ("k", key)})}
    )
    with pytest.raises(WeightsError, match="no codebook and no checkpoint of DELF's trainer"):
        convert(tmp_path / "v")
