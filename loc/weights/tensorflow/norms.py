"""Batch norms in a graph: one operation, or the arithmetic that older releases of TensorFlow wrote out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.node import Node

FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
ADDITIONS = ("Add", "AddV2")
#: Of the fused operation, where the attribute is absent.
_DEFAULT_EPSILON = 1e-4


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm at inference.

    Attributes:
        node: whose output it is.
        source: what it normalizes.
        parts: scale, offset, mean and variance.
        epsilon: added to the variance.
    """

    node: Node
    source: Node
    parts: tuple[Node, Node, Node, Node]
    epsilon: float


def norm_at(graph: Graph, node: Node) -> Norm | None:
    """The batch norm whose output is ``node``; None if it is something else.

    Raises:
        WeightsError: it normalizes by the batch, as in training, or along another axis.
    """
    if node.op in FUSED:
        if node.flag("is_training", default=True):
            graph.refuse(node, "normalizes by the batch, as in training")
        if node.text("data_format", "NHWC") != "NHWC":
            graph.refuse(node, f"has the data format {node.text('data_format')}, expected NHWC")
        scale, offset, mean, variance = (graph.source(node, position) for position in (1, 2, 3, 4))
        epsilon = node.number("epsilon", _DEFAULT_EPSILON)
        return Norm(node, graph.source(node, 0), (scale, offset, mean, variance), epsilon)
    return _written_out(graph, node) if node.op in ADDITIONS else None


def _written_out(graph: Graph, node: Node) -> Norm | None:
    """``x * inv + (offset - mean * inv)`` with ``inv = rsqrt(variance + epsilon) * scale``."""
    product, shift = _pair(graph, node, "Mul", "Sub")
    if product is None or shift is None:
        return None
    source, inverse = _pair(graph, product, "Conv2D", "Mul")
    if source is None or inverse is None:
        return None
    sides = [graph.source(inverse, position) for position in (0, 1)]
    roots = [side for side in sides if side.op == "Rsqrt"]
    scaled = graph.expect(graph.source(shift, 1), "Mul")
    others = [side for side in _sides(graph, scaled) if side is not inverse]
    if len(roots) != 1 or len(others) != 1:
        graph.refuse(node, "normalizes in an unknown way")
    (scale,) = (side for side in sides if side is not roots[0])
    total = graph.expect(graph.source(roots[0], 0), *ADDITIONS)
    constants = [side for side in _sides(graph, total) if side.op == "Const"]
    variances = [side for side in _sides(graph, total) if side.op != "Const"]
    if len(constants) != 1 or graph.constant(constants[0]).size != 1:
        graph.refuse(total, "adds no epsilon")
    epsilon = float(graph.constant(constants[0]).reshape(()))
    return Norm(node, source, (scale, graph.source(shift, 0), others[0], variances[0]), epsilon)


def _sides(graph: Graph, node: Node) -> Sequence[Node]:
    return [graph.source(node, position) for position in (0, 1)]


def _pair(graph: Graph, node: Node, first: str, second: str) -> tuple[Node | None, Node | None]:
    """Both inputs of a node by their operations, in either order."""
    sides = {side.op: side for side in _sides(graph, node)}
    return sides.get(first), sides.get(second)
