"""The graph of a SavedModel: its nodes and those of its functions, and who feeds whom.

Fields of the messages: tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
tensorflow/core/framework/graph.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np

from loc.errors import WeightsError
from loc.weights.tensorflow.functions import library, written_out
from loc.weights.tensorflow.node import Node
from loc.weights.tensorflow.wire import Message, WireError

Array = np.ndarray

#: Operations that hand their first input on: the plumbing of variables and of TF1's loops. (A loop's first
#: round is what a `Merge` takes first.)
_PASSING = {"Identity", "Enter", "Exit", "NextIteration", "Switch", "Merge", "ReadVariableOp"}
_PASSING |= {"StopGradient", "PreventGradient", "CheckNumerics", "Snapshot"}
#: Operations that move values about and leave them as they are: which of their inputs hold the values.
_MOVING = {op: slice(1) for op in ("Reshape", "Squeeze", "ExpandDims", "Slice", "StridedSlice")}
_MOVING |= {op: slice(1) for op in ("Gather", "GatherV2", "GatherNd", "Switch")}
_MOVING |= {"ConcatV2": slice(-1), "Concat": slice(1, None), "Pack": slice(None), "Merge": slice(None)}
_VARIABLES = frozenset(("VariableV2", "Variable", "VarHandleOp"))
_RELEASE = "is it another release? its graph is built in a way that is not known here"


class Graph:
    """The nodes of a SavedModel's only graph and of the functions that it calls, by name.

    Args:
        path: ``saved_model.pb``.

    Raises:
        WeightsError: it cannot be read, or holds no or several graphs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            metas = list(Message(path.read_bytes()).messages(2))
            if len(metas) != 1:
                raise WireError(f"it holds {len(metas)} graphs, expected one")
            graph = metas[0].message(2)
            nodes = written_out(graph.messages(1), library(graph.message(2)))
        except OSError as error:
            raise WeightsError(f"cannot read {path}: {error.strerror}", "unpack the archive again") from error
        except WireError as error:
            raise WeightsError(
                f"{path} cannot be read as a SavedModel: {error}",
                "it is damaged or incomplete: unpack or fetch the archive again",
            ) from error
        self.nodes = {node.name: node for node in nodes}
        if len(self.nodes) != len(nodes):
            raise WeightsError(f"{path} has two nodes of one name", "unpack or fetch the archive again")

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def node(self, name: str) -> Node:
        """The node of a name."""
        if name not in self.nodes:
            raise WeightsError(f"{self.path} has no node {name!r}", _RELEASE)
        return self.nodes[name]

    def origin(self, name: str) -> Node:
        """The operation that computes what ``name`` hands on."""
        seen = set()
        node = self.node(name)
        while node.op in _PASSING and node.inputs:
            if node.name in seen:
                self.refuse(node, "hands on its own value")
            seen.add(node.name)
            node = self.node(node.inputs[0])
        return node

    def computing(self, name: str) -> list[Node]:
        """The operations that compute the values of ``name``, past those that only hand on or move them."""
        waiting, found = [name], []
        seen = {name}
        for each in waiting:
            node = self.node(each)
            kept = _MOVING.get(node.op, slice(1 if node.op in _PASSING else 0))
            fresh = [source for source in node.inputs[kept] if source not in seen]
            if not node.inputs[kept]:
                found.append(node)
            waiting += dict.fromkeys(fresh)
            seen.update(fresh)
        return found

    def source(self, node: Node, position: int) -> Node:
        """The operation behind one input of a node."""
        if position >= len(node.inputs):
            self.refuse(node, f"has {len(node.inputs)} inputs, expected more than {position}")
        return self.origin(node.inputs[position])

    def expect(self, node: Node, *operations: str) -> Node:
        """The node itself, if it is one of these operations."""
        if node.op not in operations:
            self.refuse(node, f"is {node.op}, expected {' or '.join(operations)}")
        return node

    def constant(self, node: Node) -> Array:
        """The value of a constant."""
        self.expect(node, "Const")
        try:
            return node.tensor()
        except WireError as error:
            raise WeightsError(f"{self.path}: {error}", _RELEASE) from error

    def variable(self, node: Node) -> str:
        """The name under which a variable is stored."""
        self.expect(node, *sorted(_VARIABLES))
        return node.text("shared_name") or node.name

    def upstream(self, starts: Iterable[str], stop: Callable[[Node], bool]) -> Iterator[Node]:
        """All nodes that ``starts`` depend on, nearest first; nodes that ``stop`` are met, not passed."""
        waiting = list(starts)
        seen = set(waiting)
        for name in waiting:
            node = self.node(name)
            yield node
            if stop(node):
                continue
            fresh = [each for each in node.inputs if each not in seen]
            waiting += dict.fromkeys(fresh)
            seen.update(fresh)

    def refuse(self, node: Node, what: str) -> NoReturn:
        """Raise the error that names a node."""
        raise WeightsError(f"{self.path}: the node {node.name!r} {what}", _RELEASE)
