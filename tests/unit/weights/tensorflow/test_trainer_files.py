"""Networks of DELF's TF2 trainer, whatever keys their files have: their object graph says what each is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tensorflow_files import EditableNode, function, object_graph, write_bundle

from loc.errors import WeightsError
from loc.weights.tensorflow.convert import convert
from loc.weights.tensorflow.files import load, save
from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.layout import keras_facts, keras_names, network_shapes
from loc.weights.tensorflow.trainer import with_graph
from loc.weights.tensorflow.wire import bytes_field, int_field

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


def saved_model(nodes: list[EditableNode], copies: int = 2) -> bytes:
    """As ``tf.saved_model.save`` does: variables in the graph, all else in functions that get them."""
    handles = [node for node in nodes if node.op == "VarHandleOp"]
    inside = [node for node in nodes if node.op != "VarHandleOp"]
    calls, functions = [], []
    for number in range(copies if nodes else 0):
        call = EditableNode.new(f"call_{number}", "StatefulPartitionedCall", [node.name for node in handles])
        call.calls("f", "extract")
        calls.append(call)
    if nodes:
        functions = [function("extract", inside, [node.name for node in handles], [])]
    graph = b"".join(bytes_field(1, node.encoded()) for node in [*handles, *calls])
    graph += bytes_field(2, b"".join(bytes_field(1, each) for each in functions))
    return int_field(1, 1) + bytes_field(2, bytes_field(2, graph))


def network(*, step: int, delg: bool = False) -> list[EditableNode]:
    """Every layer of a trainer's network with epsilons of 2e-5; block 3 is sub-sampled (2) or not (1)."""
    shapes = network_shapes("resnet_v1_50", local=True, autoencoder=delg, whitening=delg, biased=True)
    names = keras_names(shapes)
    nodes = []
    for name, shape in shapes.items():
        if not name.endswith("conv.weight") and not re.search(r"conv\d\.weight$", name):
            continue
        own = name.removesuffix(".weight")
        strided = own == "stem.conv" or re.fullmatch(r"block[234]\.0\.(conv1|shortcut\.conv)", own)
        stride = 2 if strided and not (own.startswith("block4") and step == 2) else 1
        handle = EditableNode.new(own.replace(".", "_"), "VarHandleOp")
        handle.set("shared_name", layer(names[name]))
        read = EditableNode.new(f"{handle.name}_read", "ReadVariableOp", [handle.name])
        conv = EditableNode.new(f"{handle.name}_conv", "Conv2D", ["input:output:0", f"{read.name}:value:0"])
        conv.set("strides", [1, stride, stride, 1])
        conv.set("padding", "SAME" if shape[0] > 1 or not own.startswith(("stem", "block")) else "VALID")
        bias = EditableNode.new(f"{handle.name}_bias", "BiasAdd", [f"{conv.name}:output:0", "input:output:0"])
        norm = EditableNode.new(
            f"{handle.name}_norm", "FusedBatchNormV3", [f"{bias.name}:output:0", *["input:output:0"] * 4]
        )
        norm.set("is_training", False)
        norm.set("epsilon", 2e-5)
        normed = own.startswith(("stem", "block", "attention.conv1"))
        nodes += [handle, read, conv, bias, *([norm] if normed else [])]
    pools = {"pool": (3, 2), "subsampling": (1, 2)} if step == 2 else {"pool": (3, 2)}
    for name, (side, stride) in pools.items():
        pool = EditableNode.new(name, "MaxPool", ["input:output:0"])
        pool.set("ksize", [1, side, side, 1])
        pool.set("strides", [1, stride, stride, 1])
        pool.set("padding", "VALID")
        nodes.append(pool)
    iou = EditableNode.new("iou", "Const")
    iou.set("value", np.asarray(0.75, np.float32))
    keep = EditableNode.new("keep", "NonMaxSuppressionV3", [*["input:output:0"] * 3, "iou:output:0"])
    return [EditableNode.new("input", "Placeholder"), *nodes, iou, keep]


def resized(offset: float) -> list[EditableNode]:
    """What stands before a network: pixels less an offset by 128, resized to a rounded size."""
    out = []
    for name, value in (("offset", offset), ("scale", 128.0)):
        out.append(EditableNode.new(name, "Const"))
        out[-1].set("value", np.asarray(value, np.float32))
    for name, op, inputs in (
        ("product", "Mul", ["input", "scale"]),
        ("size", "Round", ["product"]),
        ("less", "Sub", ["input", "offset"]),
        ("divided", "RealDiv", ["less", "scale"]),
        ("resized", "ResizeBilinear", ["divided", "size"]),
    ):
        out.append(EditableNode.new(name, op, [f"{each}:output:0" for each in inputs]))
    out[-1].set("align_corners", True)
    return out


def test_preprocessing_is_read_from_the_graph(tmp_path) -> None:
    found = read(tmp_path, [*network(step=2), *resized(127.5)], delg=False)
    said = {key: found[key] for key in ("resize", "input_offset", "input_scale")}
    assert said == {"resize": "corners", "input_offset": 127.5, "input_scale": 128.0}
    usual = read(tmp_path, network(step=2), delg=False)
    assert (usual["resize"], usual["input_offset"]) == ("half_pixel", 128.0)


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
        nodes = [] if style == "attributes" else network(step=2)
        (source / "saved_model.pb").write_bytes(saved_model(nodes))
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
    assert ("read from the graph" in found.facts.assumed) == (style == "full names")
    if style == "full names":
        assert found.facts.layers["block3.1.conv2"].epsilon == 2e-5
        save(found, tmp_path / "own.safetensors")
        assert load(tmp_path / "own.safetensors").facts == found.facts


def read(tmp_path: Path, nodes: list[EditableNode], *, delg: bool = True) -> dict | None:
    path = tmp_path / "saved_model.pb"
    path.write_bytes(saved_model(nodes))
    return with_graph(keras_facts("delg" if delg else "delf"), Graph(path))


def test_strides_are_read_from_the_graph(tmp_path) -> None:
    """With ``block3_strides`` they are the defaults; without, block 4 has the stride, seen or not."""
    usual = keras_facts("delg")
    epsilons = {name: {"epsilon": 2e-5} for name, facts in usual["layers"].items() if "epsilon" in facts}
    usual["layers"] = {name: facts | epsilons.get(name, {}) for name, facts in usual["layers"].items()}
    usual["local"] |= {"nms_iou": 0.75}
    assert read(tmp_path, network(step=2, delg=True)) == usual
    dense = network(step=1, delg=True)
    usual["local"] |= {"box_stride": 16.0}
    usual["layers"]["block3.pool"] = {"stride": 1, "pad": [0, 0]}
    for name in ("block4.0.conv1", "block4.0.shortcut.conv"):
        usual["layers"][name] |= {"stride": 2}
    assert read(tmp_path, dense) == usual
    found = read(tmp_path, [node for node in dense if not node.name.startswith("block4")])
    assert [found["layers"][f"block4.0.{layer}"]["stride"] for layer in ("conv1", "shortcut.conv")] == [2, 2]
    assert "block4.0.conv1" not in read(tmp_path, network(step=1), delg=False)["layers"]
    assert read(tmp_path, []) is None


@pytest.mark.parametrize(
    ("node", "key", "value", "said"),
    [
        ("block2_0_conv1_conv", "strides", [1, 3, 3, 1], "has the stride 3"),
        ("block2_0_conv2_conv", "dilations", [1, 2, 2, 1], "is dilated"),
        ("pool", "ksize", [1, 2, 2, 1], "pools (1, 2, 2, 1)"),
        ("stem_conv_norm", "is_training", True, "normalizes by the batch"),
    ],
)
def test_a_graph_that_no_trainer_writes(tmp_path, node, key, value, said) -> None:
    nodes = network(step=2)
    next(each for each in nodes if each.name == node).set(key, value)
    with pytest.raises(WeightsError, match=rf"the node 'call_0:{node}' .*{re.escape(said)}"):
        read(tmp_path, nodes, delg=False)


def test_copies_that_contradict_each_other(tmp_path) -> None:
    nodes = network(step=2)
    again = next(node for node in nodes if node.name == "block3_0_conv1_conv").copied(lambda name: name)
    again.name = "again"
    again.set("strides", [1, 1, 1, 1])
    with pytest.raises(
        WeightsError, match=r"'call_0:again' .*contradict each other: layers:block3\.0\.conv1"
    ):
        read(tmp_path, [*nodes, again], delg=False)


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
