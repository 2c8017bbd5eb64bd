"""What differs between releases is read from the graph: a changed graph changes the facts, or is refused."""

from __future__ import annotations

import numpy as np
import pytest
from delf_fixtures import MODELS
from tensorflow_files import EditableGraph, EditableNode

from loc.errors import WeightsError
from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.slim import read_graph

ATTENTION = "attention_block/attention/compute"
UNIT = "resnet_v1_50/block3/unit_6/bottleneck_v1"


@pytest.fixture
def graph(delf_models):
    return lambda name: EditableGraph(delf_models / MODELS[name] / "saved_model.pb")


@pytest.fixture
def facts(tmp_path):
    def read(edited: EditableGraph) -> dict:
        return read_graph(Graph(edited.save(tmp_path / "saved_model.pb"))).facts

    return read


@pytest.mark.parametrize("name", ["delf", "delg"])
def test_facts_of_the_fixtures(graph, facts, name) -> None:
    found = facts(graph(name))
    layers = found.pop("layers")
    assert found.pop("local") == {
        "attention_input": {"delf": "trunk", "delg": "autoencoder"}[name],
        "box_offsets": [-145.0, 145.0],
        "box_stride": 32.0,
        "nms_iou": 1.0,
    }
    assert found.pop("pooling", None) == {"delf": None, "delg": {"power": 3.0, "least": 1e-6}}[name]
    assert found == {
        "kind": name,
        "backbone": "resnet_v1_50",
        "input_offset": 128.0,
        "input_scale": 128.0,
        "resize": "legacy",
    }
    strided = {key for key, each in layers.items() if each["stride"] == 2}
    assert strided == {"stem.conv", "pool", "block1.2.conv2", "block2.3.conv2", "block3.5.conv2"}
    assert {each.get("epsilon") for each in layers.values()} == {1e-5, None}
    assert layers["stem.conv"]["pad"] == [3, 3]
    assert layers["pool"]["pad"] == "same"


def test_all_variables_are_read(shared, graph, tmp_path) -> None:
    for name in MODELS:
        path = graph(name).save(tmp_path / "saved_model.pb")
        table = (shared / f"fixtures/{name}/variables.tsv").read_text().splitlines()[1:]
        expected = {line.split("\t")[0] for line in table} - {"global_step"}
        assert set(read_graph(Graph(path)).variables.values()) == expected


def test_a_model_of_global_descriptors_alone(graph, facts) -> None:
    """As the archive rn101_af: no local outputs, so their heads are no part of it."""
    edited = graph("delg")
    for name in ("boxes", "features", "scales", "scores"):
        edited[name].name = f"dropped/{name}"
    found = facts(edited)
    assert found["kind"] == "global"
    assert "local" not in found
    assert found["pooling"] == {"power": 3.0, "least": 1e-6}
    assert not any(name.startswith(("attention", "autoencoder")) for name in found["layers"])


def test_no_model_of_ours(graph, facts) -> None:
    edited = graph("delf")
    for name in ("boxes", "features", "scales", "scores"):
        edited[name].name = f"dropped/{name}"
    with pytest.raises(WeightsError, match="none of the outputs 'features' and 'global_descriptors'"):
        facts(edited)


@pytest.mark.parametrize("flag", [{"half_pixel_centers": "half_pixel"}, {"align_corners": "corners"}])
def test_resize_flags(graph, facts, flag) -> None:
    edited = graph("delf")
    for key in flag:
        for node in edited.both("ResizeBilinear"):
            node.set(key, True)
    assert facts(edited)["resize"] == next(iter(flag.values()))


def test_absent_attributes_have_their_defaults(graph, facts) -> None:
    """An absent flag of the resize means false; an absent epsilon is TensorFlow's 1e-4."""
    edited = graph("delf")
    for node in edited.both("ResizeBilinear"):
        node.attributes.pop("half_pixel_centers", None)
        node.attributes.pop("align_corners", None)
    for node in edited.both("resnet_v1_50/conv1/BatchNorm/FusedBatchNormV3"):
        node.attributes.pop("epsilon")
    found = facts(edited)
    assert found["resize"] == "legacy"
    assert found["layers"]["stem.conv"]["epsilon"] == 1e-4


def test_epsilon_of_one_layer(graph, facts) -> None:
    edited = graph("delf")
    for node in edited.both(f"{UNIT}/conv1/BatchNorm/FusedBatchNormV3"):
        node.set("epsilon", 1e-3)
    layers = facts(edited)["layers"]
    assert layers["block3.5.conv1"]["epsilon"] == 1e-3
    assert layers["block3.5.conv2"]["epsilon"] == 1e-5


def written_out(graph: EditableGraph, name: str, epsilon: float) -> None:
    """A fused batch norm as the arithmetic of older releases, in both copies."""
    for fused in graph.both(name):
        source, gamma, beta, mean, variance = fused.inputs[:5]
        at = f"{fused.name}/parts"
        one = EditableNode(memoryview(fused.encoded()))

        def node(part: str, op: str, *inputs: str, one: EditableNode = one, at: str = at) -> str:
            one.name, one.op, one.inputs, one.attributes = f"{at}/{part}", op, list(inputs), {}
            graph.add(EditableNode(memoryview(one.encoded())))
            return one.name

        constant = node("epsilon", "Const")
        graph[constant].set("value", np.asarray(epsilon, np.float32))
        inverse = node("inverse", "Mul", node("root", "Rsqrt", node("sum", "Add", variance, constant)), gamma)
        product = node("product", "Mul", source, inverse)
        shift = node("shift", "Sub", beta, node("moved", "Mul", mean, inverse))
        fused.op, fused.inputs = "Add", [product, shift]


def test_batch_norms_that_are_written_out(graph, facts, tmp_path) -> None:
    """All of a unit, the stem's and the attention's: the same facts and variables."""
    edited, plain = graph("delf"), graph("delf")
    names = [f"{UNIT}/{conv}/BatchNorm/FusedBatchNormV3" for conv in ("conv1", "conv2", "conv3")]
    names += ["resnet_v1_50/block3/unit_1/bottleneck_v1/shortcut/BatchNorm/FusedBatchNormV3"]
    names += [f"{scope}conv1/BatchNorm/FusedBatchNormV3" for scope in ("resnet_v1_50/", f"{ATTENTION}/")]
    for name in names:
        written_out(edited, name, 1e-5)
    got = read_graph(Graph(edited.save(tmp_path / "edited.pb")))
    expected = read_graph(Graph(plain.save(tmp_path / "plain.pb")))
    assert got.facts == expected.facts
    assert got.variables == expected.variables


def set_stride(edited: EditableGraph, stride: int) -> None:
    for name in (f"{UNIT}/conv2/Conv2D", f"{UNIT}/shortcut/MaxPool"):
        for node in edited.both(name):
            node.set("strides", (1, stride, stride, 1))


def test_stride_of_the_last_unit(graph, facts) -> None:
    edited = graph("delf")
    set_stride(edited, 1)
    assert facts(edited)["layers"]["block3.5.conv2"] == {"stride": 1, "pad": [1, 1], "epsilon": 1e-5}


def test_constants_behind_the_network(graph, facts) -> None:
    edited = graph("delg")
    for node in edited.both("mul_1/x"):
        node.set("value", np.asarray(16, np.float32))
    for node in edited.both("add/y"):
        node.set("value", np.asarray([-417, -417, 417, 417], np.float32))
    for node in edited.both("Pow/y"):
        node.set("value", np.asarray(4, np.float32))
    for node in edited.both("Pow_1/y"):
        node.set("value", np.asarray(0.25, np.float32))
    for node in edited.both("Maximum/y"):
        node.set("value", np.asarray(1e-4, np.float32))
    edited["non_max_suppression/iou_threshold"].set("value", np.asarray(0.8, np.float32))
    edited["Sub/y"].set("value", np.asarray(127.5, np.float32))
    edited["truediv/y"].set("value", np.asarray(64, np.float32))
    found = facts(edited)
    assert found["local"]["box_stride"] == 16
    assert found["local"]["box_offsets"] == [-417, 417]
    assert found["local"]["nms_iou"] == 0.8
    assert found["pooling"] == {"power": 4.0, "least": 1e-4}
    assert (found["input_offset"], found["input_scale"]) == (127.5, 64)


@pytest.mark.parametrize("version", ["V2", "V4"])
def test_other_versions_of_the_suppression(graph, facts, version) -> None:
    edited = graph("delf")
    node = edited["non_max_suppression/NonMaxSuppressionV3"]
    node.op = f"NonMaxSuppression{version}"
    node.inputs = node.inputs[: 4 if version == "V2" else 5]
    assert facts(edited)["local"]["nms_iou"] == 1.0


def one(name: str, key: str, value: object):
    """Change one of the two copies, or a node that stands once."""

    def change(edited: EditableGraph) -> None:
        edited[name].set(key, value)

    return change


def renamed_op(name: str, op: str):
    def change(edited: EditableGraph) -> None:
        edited[name].op = op

    return change


def rewired(name: str, position: int, source: str):
    def change(edited: EditableGraph) -> None:
        edited[name].inputs[position] = source

    return change


CONV = f"{UNIT}/conv2/Conv2D"
NORM = f"{UNIT}/conv2/BatchNorm/FusedBatchNormV3"
REFUSED = [
    # The copies contradict each other: both are named.
    (one(f"while/{NORM}", "epsilon", 1e-3), f"while/{CONV}"),
    (one("while/ResizeBilinear", "half_pixel_centers", True), "while/ResizeBilinear"),
    (one("while/mul_1/x", "value", np.asarray(16, np.float32)), "while/mul_1"),
    (one("while/add/y", "value", np.asarray([-1, -1, 1, 1], np.float32)), "while/add/y"),
    # Another network.
    (one(CONV, "dilations", (1, 2, 2, 1)), CONV),
    (one(CONV, "data_format", "NCHW"), CONV),
    (one(CONV, "strides", (1, 1, 1, 1)), f"{UNIT}/shortcut/MaxPool"),
    (one(CONV, "strides", (1, 3, 3, 1)), CONV),
    (one(NORM, "is_training", True), NORM),
    (one(f"{UNIT}/shortcut/MaxPool", "ksize", (1, 3, 3, 1)), "shortcut/MaxPool"),
    (one("resnet_v1_50/pool1/MaxPool", "strides", (1, 1, 1, 1)), "pool1/MaxPool"),
    (one(f"{UNIT}/Pad/paddings", "value", np.ones((4, 2), np.int32)), f"{UNIT}/Pad"),
    (one("Pow_1/y", "value", np.asarray(0.5, np.float32)), "Pow_1"),
    (one("Mean/reduction_indices", "value", np.asarray([2, 3], np.int32)), "Mean"),
    (
        one("non_max_suppression/score_threshold", "value", np.asarray(0.5, np.float32)),
        "non_max_suppression/score_threshold",
    ),
    (renamed_op("GreaterEqual", "Greater"), "GreaterEqual"),
    (renamed_op("Round", "Floor"), "Cast_2"),
    (renamed_op("ResizeBilinear", "ResizeBicubic"), "ResizeBilinear"),
    (renamed_op(f"{UNIT}/Relu", "Relu6"), f"{UNIT}/Relu"),
    (renamed_op("Softplus", "Sigmoid"), "Softplus"),
    (renamed_op("Maximum", "Minimum"), "Maximum"),
    (rewired(f"{UNIT}/shortcut/MaxPool", 0, "resnet_v1_50/block3/unit_4/bottleneck_v1/Relu"), "shortcut"),
    (rewired("while/autoencoder/conv1/BiasAdd", 1, "autoencoder/conv2/biases/read"), "autoencoder"),
    (
        rewired("attention_block/attention/compute/conv1/Conv2D", 0, "autoencoder/conv1/BiasAdd"),
        "autoencoder",
    ),
    (rewired(f"{UNIT}/conv1/Conv2D", 0, "no_such_node"), "no_such_node"),
]


@pytest.mark.parametrize(
    ("change", "node"), REFUSED, ids=[f"{n}-{node}" for n, (_, node) in enumerate(REFUSED)]
)
def test_what_is_another_network_names_the_node(graph, facts, change, node) -> None:
    edited = graph("delg")
    change(edited)
    with pytest.raises(WeightsError) as error:
        facts(edited)
    assert node in error.value.message


BETWEEN = [
    ("Softplus", "Square"),
    ("Softplus", "Relu6"),
    ("Reshape_2", "Square"),
    ("whitening/BiasAdd", "Relu"),
    ("Cast_1", "ReverseV2"),
    ("Cast_1", "Mul"),
    ("Round", "Ceil"),
    ("mul", "Square"),
    ("GatherV2_1", "Square"),
    ("add", "Round"),
    ("mul_1", "Square"),
    ("GatherV2_5", "Round"),
    ("truediv_2", "Square"),
]


@pytest.mark.parametrize(("name", "op"), BETWEEN)
def test_an_operation_between_is_refused(graph, facts, name, op) -> None:
    """One that no release has, before or behind the network: never read as if it were not there."""
    edited = graph("delg")
    for node in edited.both(name):
        new = EditableNode.new(f"{node.name}/more", op, [node.name])
        edited.rewire({node.name: new.name})
        edited.add(new)
    with pytest.raises(WeightsError, match="node '"):
        facts(edited)


@pytest.mark.parametrize("name", [f"{UNIT}/Relu", "ExpandDims"])
def test_networks_in_a_circle_end(graph, facts, name) -> None:
    """A unit, or a reshape, that depends on itself."""
    edited = graph("delf")
    readers = (f"{UNIT}/shortcut/MaxPool", f"{UNIT}/conv1/Conv2D") if name != "ExpandDims" else (name,)
    for reader in readers:
        edited[reader].inputs[0] = name
    with pytest.raises(WeightsError, match=f"{name}' depends on itself"):
        facts(edited)


def test_nodes_in_a_circle_end(graph, facts) -> None:
    edited = graph("delf")
    edited["boxes"].inputs = ["boxes"]
    with pytest.raises(WeightsError, match="boxes"):
        facts(edited)


def test_damaged_graphs_are_typed_errors(delf_models, tmp_path) -> None:
    path = tmp_path / "saved_model.pb"
    good = EditableGraph(delf_models / MODELS["delf"] / "saved_model.pb").save(path).read_bytes()
    for size in (0, 1, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(WeightsError):
            read_graph(Graph(path))
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 8).tolist():
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x15]) + good[place + 1 :])
        try:
            read_graph(Graph(path))
        except WeightsError:
            continue
    with pytest.raises(WeightsError, match="cannot read"):
        Graph(tmp_path / "absent.pb")
