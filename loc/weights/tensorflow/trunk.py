"""The trunk of a TF-Slim graph, a ResNet v1 of bottleneck units, read from its end down to the image.

Every layer's stride, padding and epsilon, and the variables it reads, are noted; a copy of the network that
says otherwise, or a layer that no such network has, is an error that names the node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.node import Node
from loc.weights.tensorflow.norms import ADDITIONS, norm_at

_SCOPE = re.compile(
    r"(?:.*/)?(resnet_v1_\d+)/block(\d)/unit_(\d+)/bottleneck_v1/(conv[123]|shortcut)/weights"
)
#: Parts of a batch norm, in the order of the operation's inputs.
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
#: What the user gives, or the graph instead.
GIVEN = ("Placeholder", "Const")
_RESHAPES = frozenset(("Reshape", "Squeeze", "ExpandDims"))
SUPPRESSIONS = tuple(f"NonMaxSuppression{version}" for version in ("", "V2", "V3", "V4"))


@dataclass
class Reading:
    """What a graph says.

    Attributes:
        facts: of the network and what follows it, ready for JSON; ``layers`` holds stride, padding and
            epsilon of each layer.
        variables: name of a tensor of ours → the variable that the graph reads for it.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


class TrunkReader:
    """Reads the trunk and single layers; :class:`loc.weights.tensorflow.slim.SlimGraph` adds the heads."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found = Reading()
        self._said: dict[str, tuple[Any, Node]] = {}
        self._trunks: set[str] = set()
        self._layers_read: set[str] = set()

    def _note(self, key: str, value: Any, node: Node) -> None:
        """A fact; the copies of the network must not contradict each other."""
        if key in self._said and self._said[key][0] != value:
            before, other = self._said[key]
            self.graph.refuse(
                node, f"and {other.name!r} contradict each other: {key} is {value} here and {before} there"
            )
        self._said[key] = (value, node)

    def _keep(self, tensor: str, variable: Node, node: Node) -> None:
        name = self.graph.variable(variable)
        if self.found.variables.setdefault(tensor, name) != name:
            self.graph.refuse(node, f"reads {name!r}, its copy {self.found.variables[tensor]!r}")

    # Trunk -------------------------------------------------------------------------------------------

    def _trunk(self, end: Node, block: str) -> None:
        """From the last unit of a block to the image."""
        if end.name in self._trunks:
            return
        if not self._is_unit(end):
            self.graph.refuse(end, f"is not the output of a unit of {block}")
        node = end
        last = self._unit_name(end)
        if last[0] != block:
            self.graph.refuse(end, f"belongs to {last[0]}, expected {block}")
        seen: set[str] = set()
        while self._is_unit(node):
            if node.name in seen:
                self.graph.refuse(node, "depends on itself")
            seen.add(node.name)
            node = self._unit(node)
        self._trunks |= seen
        pool = self.graph.expect(node, "MaxPool")
        kernel, strides = pool.numbers("ksize"), pool.numbers("strides")
        if kernel != (1, 3, 3, 1) or strides != (1, 2, 2, 1):
            self.graph.refuse(pool, f"pools {kernel} by {strides}, expected 3 x 3 by 2")
        self._plain(pool)
        padding: Any = "same" if pool.text("padding") == "SAME" else [0, 0]
        self._note("layers:pool", {"stride": 2, "pad": padding}, pool)
        self._preprocessing(self._normalized("stem.conv", self._relu(self.graph.source(pool, 0))))

    def _is_unit(self, node: Node) -> bool:
        add = self.graph.source(node, 0) if node.op == "Relu" else node
        return add is not node and add.op in ADDITIONS and norm_at(self.graph, add) is None

    def _branches(self, end: Node) -> tuple[Node, Node]:
        """Residual and shortcut of a unit, in this order."""
        add = self.graph.source(end, 0)
        sides = [self.graph.source(add, position) for position in (0, 1)]
        residual = [side for side in sides if self._weights_of(side).endswith("conv3/weights")]
        if len(residual) != 1:
            self.graph.refuse(add, "does not add one residual to one shortcut")
        return residual[0], sides[1] if sides[0] is residual[0] else sides[0]

    def _weights_of(self, node: Node) -> str:
        """The weights of the convolution below a batch norm; empty if it is something else."""
        norm = norm_at(self.graph, node)
        if norm is None:
            return ""
        conv = self.graph.expect(norm.source, "Conv2D")
        return self.graph.variable(self.graph.source(conv, 1))

    def _unit_name(self, end: Node) -> tuple[str, int]:
        residual, _ = self._branches(end)
        match = _SCOPE.fullmatch(self._weights_of(residual))
        if match is None:
            self.graph.refuse(residual, f"reads {self._weights_of(residual)!r}: no unit of a slim ResNet")
        self._note("backbone", match[1], residual)
        return f"block{match[2]}", int(match[3]) - 1

    def _unit(self, end: Node) -> Node:
        """Read a unit; returns what it gets."""
        graph = self.graph
        block, number = self._unit_name(end)
        name = f"{block}.{number}"
        residual, shortcut = self._branches(end)
        below = residual
        strides = []
        for layer in ("conv3", "conv2", "conv1"):
            given = self._normalized(f"{name}.{layer}", below if layer == "conv3" else self._relu(below))
            strides.append(self._said[f"layers:{name}.{layer}"][0]["stride"])
            below = given
        if norm_at(graph, shortcut) is not None:
            source = self._normalized(f"{name}.shortcut.conv", shortcut)
            stride = self._said[f"layers:{name}.shortcut.conv"][0]["stride"]
        elif shortcut.op == "MaxPool":
            if shortcut.numbers("ksize") != (1, 1, 1, 1):
                graph.refuse(shortcut, f"pools {shortcut.numbers('ksize')}, expected single cells")
            source, stride = graph.source(shortcut, 0), self._stride(shortcut)
        else:
            source, stride = shortcut, 1
        if source is not below:
            graph.refuse(shortcut, f"starts from {source.name!r}, the residual from {below.name!r}")
        if stride != int(np.prod(strides)):
            graph.refuse(shortcut, f"has the stride {stride}, the residual of {name} {int(np.prod(strides))}")
        return below

    def _preprocessing(self, resize: Node) -> None:
        graph = self.graph
        graph.expect(resize, "ResizeBilinear")
        aligned = resize.flag("align_corners", default=False)
        halves = resize.flag("half_pixel_centers", default=False)
        if aligned and halves:
            graph.refuse(resize, "sets both align_corners and half_pixel_centers")
        grid = "corners" if aligned else ("half_pixel" if halves else "legacy")
        self._note("resize", grid, resize)
        rounded = self._past(graph.source(resize, 1), "Cast")
        if rounded.op != "Round":
            graph.refuse(graph.source(resize, 1), "is a size that is not rounded")
        product = graph.expect(graph.source(rounded, 0), "Mul")
        for factor in (each for name in product.inputs for each in graph.computing(name)):
            graph.expect(self._past(factor, "Cast"), "Shape", *GIVEN)
        division = graph.expect(self._reshaped(graph.source(resize, 0)), "RealDiv", "Div")
        self._note("input_scale", self._number(graph.source(division, 1)), division)
        difference = graph.expect(graph.source(division, 0), "Sub")
        self._note("input_offset", self._number(graph.source(difference, 1)), difference)
        graph.expect(self._past(graph.source(difference, 0), "Cast", *_RESHAPES), "Placeholder")

    def _suppression(self, node: Node) -> None:
        """The overlap above which a box is dropped."""
        graph = self.graph
        by_input = node.op != "NonMaxSuppression"
        iou = self._number(graph.source(node, 3)) if by_input else node.number("iou_threshold", 0.5)
        self._note("local:nms_iou", short(iou), node)
        if len(node.inputs) > 4 and self._number(graph.source(node, 4)) > np.finfo(np.float32).min:
            graph.refuse(graph.source(node, 4), "sets a second threshold of scores")

    # Layers ------------------------------------------------------------------------------------------

    def _normalized(self, name: str, end: Node) -> Node:
        """A convolution with batch norm; ``end`` may be the ReLU after it. Returns what it gets."""
        node = self.graph.source(end, 0) if end.op == "Relu" else end
        norm = norm_at(self.graph, node)
        if norm is None:
            self.graph.refuse(node, f"is {node.op}, expected a batch norm")
        self._layers_read.add(node.name)
        for part, variable in zip(NORM_PARTS, norm.parts, strict=True):
            self._keep(f"{norm_name(name)}.{part}", variable, node)
        return self._convolution(name, norm.source, short(norm.epsilon))

    def _biased(self, name: str, bias: Node) -> Node:
        self.graph.expect(bias, "BiasAdd")
        self._keep(f"{name}.bias", self.graph.source(bias, 1), bias)
        return self._convolution(name, self.graph.source(bias, 0), None)

    def _convolution(self, name: str, conv: Node, epsilon: float | None) -> Node:
        graph = self.graph
        graph.expect(conv, "Conv2D")
        self._layers_read.add(conv.name)
        self._plain(conv)
        if any(each != 1 for each in conv.numbers("dilations")):
            graph.refuse(conv, f"is dilated by {conv.numbers('dilations')}")
        self._keep(f"{name}.weight", graph.source(conv, 1), conv)
        below = graph.source(conv, 0)
        padding: Any = "same" if conv.text("padding") == "SAME" else [0, 0]
        if conv.text("padding") not in ("SAME", "VALID"):
            graph.refuse(conv, f"has the padding {conv.text('padding')!r}")
        if below.op == "Pad":
            sides = graph.constant(graph.source(below, 1))
            if (
                padding == "same"
                or sides.shape != (4, 2)
                or sides[[0, 3]].any()
                or (sides[1] != sides[2]).any()
            ):
                graph.refuse(below, f"pads by {sides.tolist()}")
            padding = [int(side) for side in sides[1]]
            below = graph.source(below, 0)
        facts: dict[str, Any] = {"stride": self._stride(conv), "pad": padding}
        if epsilon is not None:
            facts["epsilon"] = epsilon
        self._note(f"layers:{name}", facts, conv)
        return below

    def _stride(self, node: Node) -> int:
        strides = node.numbers("strides")
        if len(strides) != 4 or strides[0] != 1 or strides[3] != 1 or strides[1] != strides[2]:
            self.graph.refuse(node, f"has the strides {strides}")
        if strides[1] not in (1, 2):
            self.graph.refuse(node, f"has the stride {strides[1]}, expected 1 or 2")
        return strides[1]

    def _plain(self, node: Node) -> None:
        if node.text("data_format", "NHWC") != "NHWC":
            self.graph.refuse(node, f"has the data format {node.text('data_format')}, expected NHWC")

    def _relu(self, node: Node) -> Node:
        return self.graph.expect(node, "Relu")

    def _reshaped(self, node: Node) -> Node:
        return self._past(node, *_RESHAPES)

    def _past(self, node: Node, *operations: str) -> Node:
        """What feeds a chain of these operations."""
        seen: set[str] = set()
        while node.op in operations:
            if node.name in seen:
                self.graph.refuse(node, "depends on itself")
            seen.add(node.name)
            node = self.graph.source(node, 0)
        return node

    def _number(self, node: Node) -> float:
        value = self.graph.constant(node)
        if value.size != 1:
            self.graph.refuse(node, f"holds {value.size} numbers, expected one")
        return short(float(value.reshape(())))


def norm_name(layer: str) -> str:
    """Batch norm of a convolution: ``block1.0.conv2`` → ``block1.0.bn2``.

    >>> norm_name("block1.0.shortcut.conv")
    'block1.0.shortcut.bn'
    """
    scope, _, last = layer.rpartition(".")
    return f"{scope}.{last.replace('conv', 'bn')}"


def short(value: float) -> float:
    """The shortest number that is the same float32: 1e-5, not 9.99999974e-06."""
    return float(str(np.float32(value)))
