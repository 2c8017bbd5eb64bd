"""The graph of a SavedModel: its nodes, their attributes and constants, and who feeds whom.

Fields of the messages: tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape}.proto.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np

from loc.errors import WeightsError
from loc.weights.tensorflow.wire import Message, WireError

Array = np.ndarray

#: Operations that hand their first input on: the plumbing of variables and of TF1's loops. (A loop's first
#: round is what a `Merge` takes first.)
_PASSING = {"Identity", "Enter", "Exit", "NextIteration", "Switch", "Merge", "ReadVariableOp"}
_PASSING |= {"StopGradient", "PreventGradient", "CheckNumerics", "Snapshot"}
_VARIABLES = frozenset(("VariableV2", "Variable", "VarHandleOp"))
_MOST_CONSTANTS = 1 << 16
_RELEASE = "is it another release? its graph is built in a way that is not known here"


class Node:
    """One operation."""

    def __init__(self, message: Message) -> None:
        self.name, self.op = message.text(1), message.text(2)
        #: Names of the nodes whose output it reads, in order; without control inputs.
        self.inputs = [each.partition(":")[0] for each in message.texts(3) if not each.startswith("^")]
        self._message = message

    @cached_property
    def _attributes(self) -> dict[str, Message]:
        return {each.text(1): each.message(2) for each in self._message.messages(5)}

    def numbers(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A list of integers."""
        return tuple(self._attributes[key].message(1).ints(3)) if key in self._attributes else default

    def flag(self, key: str, *, default: bool) -> bool:
        """True or False; an absent attribute has its operation's default."""
        return bool(self._attributes[key].number(5)) if key in self._attributes else default

    def number(self, key: str, default: float) -> float:
        """A float32."""
        return self._attributes[key].real(4, default) if key in self._attributes else default

    def text(self, key: str, default: str = "") -> str:
        """A string of bytes."""
        return self._attributes[key].text(2) if key in self._attributes else default

    @property
    def is_float(self) -> bool:
        """Whether it computes with float32 (its type `T`)."""
        return "T" in self._attributes and self._attributes["T"].number(6) == 1

    def tensor(self, key: str = "value") -> Array:
        """A constant, in float64 or int64.

        Raises:
            WireError: it is neither, or as large as no constant of such a graph.
        """
        message = self._attributes[key].message(8) if key in self._attributes else Message(b"")
        shape = tuple(each.number(1) for each in message.message(2).messages(2))
        count = math.prod(shape)
        if any(side < 0 for side in shape) or count > _MOST_CONSTANTS:
            raise WireError(f"the constant {self.name} has the shape {shape}")
        content, kind = bytes(message.blob(4)), message.number(1)
        sources = {1: ("<f4", message.floats, 5), 2: ("<f8", message.doubles, 6)}
        sources |= {3: ("<i4", message.ints, 7), 9: ("<i8", message.ints, 10)}
        if kind not in sources:
            raise WireError(f"the constant {self.name} holds no numbers (data type {kind})")
        dtype, read, field = sources[kind]
        if content and len(content) % np.dtype(dtype).itemsize:
            raise WireError(f"the constant {self.name} ends inside a number")
        values = np.frombuffer(content, dtype) if content else np.asarray(read(field), dtype)
        if not len(values) or len(values) > count:
            values = np.zeros(0, dtype) if not count else values[:count]
            if count and not len(values):
                raise WireError(f"the constant {self.name} has no value")
        if len(values) < count:  # the last one stands for those left out
            values = np.concatenate([values, np.full(count - len(values), values[-1], dtype)])
        return values.reshape(shape).astype(np.float64 if dtype[1] == "f" else np.int64)


class Graph:
    """The nodes of a SavedModel's only graph, by name.

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
            nodes = [Node(each) for each in metas[0].message(2).messages(1)]
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
