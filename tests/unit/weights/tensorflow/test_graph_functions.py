"""Graphs whose nodes hide in functions are read as those that stand in the open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from delf_fixtures import MODELS
from tensorflow_files import EditableGraph, EditableNode, function, functional_loop, into_function

from loc.errors import WeightsError
from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.slim import read_graph
from loc.weights.tensorflow.trunk import Reading

UNIT = "resnet_v1_50/block3/unit_6/bottleneck_v1"


@pytest.fixture
def graph(delf_models):
    return lambda name: EditableGraph(delf_models / MODELS[name] / "saved_model.pb")


@pytest.fixture
def read(tmp_path):
    def reading(edited: EditableGraph) -> Reading:
        return read_graph(Graph(edited.save(tmp_path / "saved_model.pb")))

    return reading


def network_nodes(graph: EditableGraph) -> list[str]:
    """The first copy of the network, without its variables and what reads them."""
    variables = ("/weights", "/weights/read", "/biases", "/biases/read", "/read")
    parts = ("resnet_v1_50/", "attention_block/", "autoencoder/")
    return [
        name
        for name in graph.names
        if name.startswith(parts) and not name.endswith(variables) and graph[name].op != "VariableV2"
    ]


@pytest.mark.parametrize("name", MODELS)
def test_a_network_in_functions_gives_the_same(graph, read, name) -> None:
    """One copy in a call, its third block in a call of that call, the other copy in a loop of functions."""
    plain, edited = read(graph(name)), graph(name)
    nodes = network_nodes(edited)
    assert len(nodes) > 100
    block3 = [each for each in nodes if "/block3/" in each]
    into_function(edited, block3, "block3")
    into_function(edited, [*(each for each in nodes if each not in block3), "block3"], "network")
    functional_loop(edited)
    assert not any(
        each.startswith(("while/", "resnet_v1_50/block3/unit_1/bot")) and "Conv2D" in each
        for each in edited.names
    )
    got = read(edited)
    assert got.facts == plain.facts
    assert got.variables == plain.variables


def test_a_call_as_tf1_wrote_it(graph, read) -> None:
    """The operation is the function's name; a function that hands an argument on."""
    edited = graph("delf")
    source = edited["truediv"].inputs[0]
    edited.functions["same"] = function("Same", [], ["x"], ["x"])
    edited.add(EditableNode.new("between", "Same", [source]))
    edited["truediv"].inputs[0] = "between"
    assert read(edited).facts == read(graph("delf")).facts


def test_branches(graph, read) -> None:
    edited = graph("delf")
    node = EditableNode.new("chosen", "StatelessIf", ["input_image", edited["features"].inputs[0]])
    for key in ("then_branch", "else_branch"):
        node.calls(key, "Same")
    edited.functions["same"] = function("Same", [], ["x"], ["x"])
    edited.add(node)
    edited["features"].inputs[0] = "chosen"
    assert read(edited).facts == read(graph("delf")).facts


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        (f"{UNIT}/conv2/BatchNorm/FusedBatchNormV3", "epsilon", 1e-3),
        ("ResizeBilinear", "half_pixel_centers", True),
        ("add/y", "value", np.asarray([-1, -1, 1, 1], np.float32)),
    ],
)
def test_a_copy_in_a_function_must_agree(graph, read, where, key, value) -> None:
    """The node is named as it stands in the function that ``while`` calls."""
    edited = graph("delf")
    edited[f"while/{where}"].set(key, value)
    functional_loop(edited, "While")
    with pytest.raises(WeightsError, match=r"while:while/.* contradict each other"):
        read(edited)


def test_a_layer_in_a_function_is_not_overlooked(graph, read) -> None:
    edited = graph("delf")
    convolution = edited[f"{UNIT}/conv1/Conv2D"].copied(lambda text: text)
    convolution.name, convolution.inputs = "hidden", ["x", "y"]
    edited.functions["more"] = function("More", [convolution], ["x", "y"], ["hidden:output:0"])
    edited.add(
        EditableNode.new("call", "More", [edited["features"].inputs[0], "resnet_v1_50/conv1/weights/read"])
    )
    edited["features"].inputs[0] = "call"
    with pytest.raises(WeightsError, match="'call:hidden' is a Conv2D"):
        read(edited)


def test_a_layer_that_the_second_round_of_a_loop_sees(graph, read) -> None:
    """What goes out is what came in at first, and after a round what the layer made."""
    edited = graph("delf")
    convolution = EditableNode.new("hidden", "Conv2D", ["first", "kernel"])
    values = ["first", "second", "kernel"]
    edited.functions["round"] = function("OneRound", [convolution], values, ["hidden:y:0", "first", "kernel"])
    source = edited["features"].inputs[0]
    loop = EditableNode.new("rounds", "While", [source, source, "resnet_v1_50/conv1/weights/read"])
    loop.calls("body", "OneRound")
    edited.add(loop)
    edited["features"].inputs[0] = "rounds:1"
    with pytest.raises(WeightsError, match="'rounds:hidden' is a Conv2D"):
        read(edited)


def called(inputs: int, *functions: tuple[str, bytes]):
    def change(graph: EditableGraph) -> None:
        node = EditableNode.new("call", "PartitionedCall", ["boxes"] * inputs)
        node.calls("f", "F")
        graph.add(node)
        graph.functions |= dict(functions)

    return change


def calling(name: str, *others: str) -> bytes:
    nodes = []
    for number, other in enumerate(others):
        node = EditableNode.new(f"n{number}", "PartitionedCall", ["x"])
        node.calls("f", other)
        nodes.append(node)
    return function(name, nodes, ["x"], ["x"])


DAMAGED = {
    "absent": (called(1), "'call' calls 'F', which is no function"),
    "arguments": (called(2, ("F", function("F", [], ["x"], ["x"]))), "'call' does not fit 'F'"),
    "itself": (called(1, ("F", calling("F", "F"))), "without end: F, F, F"),
    "each other": (called(1, ("F", calling("F", "G", "G")), ("G", calling("G", "F", "F"))), "without end"),
    "no return": (called(1, ("F", b"\x0a\x05\x0a\x01F\x1a\x00")), "the function F does not say"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_functions(graph, tmp_path: Path, kind) -> None:
    change, said = DAMAGED[kind]
    edited = graph("delf")
    change(edited)
    with pytest.raises(WeightsError, match=said):
        Graph(edited.save(tmp_path / "saved_model.pb"))


def test_a_loop_that_loses_a_value(graph, tmp_path: Path) -> None:
    edited = graph("delf")
    functional_loop(edited)
    edited["while"].inputs.pop()
    with pytest.raises(WeightsError, match="'while' does not fit 'while_body'"):
        Graph(edited.save(tmp_path / "saved_model.pb"))
