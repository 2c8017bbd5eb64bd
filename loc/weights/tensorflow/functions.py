"""Graphs whose nodes hide in functions: calls, loops and branches written out into one flat list of nodes.

A node of a function that `call` calls gets the name ``call:node``; what `call` hands on is the node
``call:N`` (its N-th output). Arguments and outputs become operations that hand their first input on, those
of a loop a `Merge` of what comes in and what its last round left, as TF1 writes loops. Fields of the
messages: tensorflow/core/framework/{function,op_def,attr_value}.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loc.weights.tensorflow.node import Node
from loc.weights.tensorflow.wire import Message, WireError, bytes_field

#: Operations that call functions: which attributes name them, and how many inputs are no arguments.
_CALLS: dict[str, tuple[tuple[str, ...], int]] = {
    "PartitionedCall": (("f",), 0),
    "StatefulPartitionedCall": (("f",), 0),
    "While": (("body",), 0),
    "StatelessWhile": (("body",), 0),
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
}
_LOOPS = ("While", "StatelessWhile")
#: More than any network needs in functions; those that call each other twice grow without end.
_MOST_NODES, _DEEPEST = 30_000, 50


@dataclass(frozen=True)
class Function:
    """A function of a graph's library."""

    arguments: tuple[str, ...]
    returns: tuple[str, ...]
    nodes: tuple[Message, ...]


def library(message: Message) -> dict[str, Function]:
    """The functions of a FunctionDefLibrary, by name."""
    out = {}
    for each in message.messages(1):
        signature = each.message(1)
        values = {entry.text(1): entry.text(2) for entry in each.messages(4)}
        outputs = [output.text(1) for output in signature.messages(3)]
        if missing := sorted(set(outputs) - values.keys()):
            raise WireError(f"the function {signature.text(1)} does not say what its output {missing[0]} is")
        out[signature.text(1)] = Function(
            tuple(argument.text(1) for argument in signature.messages(2)),
            tuple(values[name] for name in outputs),
            tuple(each.messages(3)),
        )
    return out


@dataclass(frozen=True)
class _Scope:
    """A call of a function, or the graph itself."""

    prefix: str
    within: tuple[str, ...]
    nodes: list[Node]
    calls: dict[str, list[tuple[str, str]]]
    function: Function

    def resolve(self, reference: str) -> str:
        """The node behind ``node``, ``node:output``, ``node:name of the output:output`` or an argument."""
        name, _, output = reference.partition(":")
        if name not in self.calls:
            return self.prefix + name
        return f"{self.prefix}{name}:{output.rpartition(':')[2] or 0}"


class _Writer:
    def __init__(self, functions: Mapping[str, Function]) -> None:
        self.functions = functions
        self.out: list[Node] = []
        self.waiting: list[_Scope] = []
        self.size = 0

    def enter(self, prefix: str, within: tuple[str, ...], function: Function) -> _Scope:
        """Note the nodes of a function (or of the graph) for a call of it."""
        nodes = [Node(each) for each in function.nodes]
        calls = {node.name: found for node in nodes if (found := self._called(node))}
        scope = _Scope(prefix, within, nodes, calls, function)
        self.waiting.append(scope)
        self.size += len(nodes) + 1 if within else 0
        if len(within) > _DEEPEST or self.size > _MOST_NODES:
            raise WireError(f"its functions call each other without end: {', '.join(within[:3])}")
        return scope

    def write(self, scope: _Scope) -> None:
        for node in scope.nodes:
            if node.name in scope.calls:
                self._call(scope, node)
            node.name, node.inputs = scope.prefix + node.name, [*map(scope.resolve, node.references)]
            self.out.append(node)

    def _called(self, node: Node) -> list[tuple[str, str]]:
        """What a node calls: what stands before the names of that function's nodes, and its name."""
        if node.op in self.functions:  # as TF1 called them
            return [("", node.op)]
        if node.op not in _CALLS:
            return []
        keys, _ = _CALLS[node.op]
        found = []
        for key in keys:
            name = node.function(key)
            if name not in self.functions:
                raise WireError(f"the node {node.name!r} calls {name!r}, which is no function of its library")
            found.append((f"{key}/" if len(keys) > 1 else "", name))
        return found

    def _call(self, scope: _Scope, node: Node) -> None:
        """Arguments and outputs of a call; of branches, an output is any of theirs."""
        called = f"{scope.prefix}{node.name}:"
        _, skipped = _CALLS.get(node.op, ((), 0))
        given = [scope.resolve(each) for each in node.references[skipped:]]
        outputs: list[list[str]] = []
        for part, name in scope.calls[node.name]:
            inner = self.enter(f"{called}{part}", (*scope.within, name), self.functions[name])
            function = inner.function
            wanted = len(function.returns) if node.op in _LOOPS else len(function.arguments)
            if len(given) != len(function.arguments) or len(given) != wanted:
                raise WireError(f"the node {node.name!r} does not fit {name!r}, the function that it calls")
            for number, (argument, source) in enumerate(zip(function.arguments, given, strict=True)):
                again = [f"{called}{number}"] if node.op in _LOOPS else []
                self.out.append(_handing_on(inner.prefix + argument, [source, *again]))
            outputs.append([inner.resolve(each) for each in function.returns])
        if len({len(each) for each in outputs}) > 1:
            raise WireError(f"the branches of {node.name!r} have different numbers of outputs")
        self.out += [
            _handing_on(f"{called}{number}", list(sources))
            for number, sources in enumerate(zip(*outputs, strict=True))
        ]


def written_out(nodes: Iterable[Message], functions: Mapping[str, Function]) -> list[Node]:
    """All nodes of a graph and of the functions that it calls, however deep.

    Raises:
        WireError: a call does not fit its function, or functions call each other without end.
    """
    writer = _Writer(functions)
    writer.enter("", (), Function((), (), tuple(nodes)))
    for scope in writer.waiting:  # grows meanwhile
        writer.write(scope)
    return writer.out


def _handing_on(name: str, inputs: list[str]) -> Node:
    op = "Identity" if len(inputs) == 1 else "Merge"
    node = Node(Message(bytes_field(1, name.encode()) + bytes_field(2, op.encode())))
    node.inputs = inputs
    return node
