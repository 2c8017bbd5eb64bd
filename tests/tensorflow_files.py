"""Writing what TensorFlow writes: tensor bundles, and graphs that differ from a given one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from loc.weights.tensorflow.crc import crc32c, masked
from loc.weights.tensorflow.wire import (
    Message,
    bytes_field,
    fixed32_field,
    float_field,
    int_field,
    ints_field,
    varint,
)

MAGIC = 0xDB4775248B80FB57
DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def write_bundle(
    prefix: Path, tensors: Mapping[str, np.ndarray | bytes], *, shards: int = 1, checksums: bool = True
) -> None:
    """A tensor bundle; ``bytes`` are scalar strings. Keys share prefixes, and blocks are small."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    entries = [(b"", int_field(1, shards) + int_field(2, 0))]
    files = [
        prefix.with_name(f"{prefix.name}.data-{n:05d}-of-{shards:05d}").open("wb") for n in range(shards)
    ]
    for number, (name, value) in enumerate(sorted(tensors.items())):
        shard = number % shards
        if isinstance(value, bytes):
            kind, shape = 7, ()
            raw = varint(len(value)) + masked(crc32c(varint(len(value)))).to_bytes(4, "little") + value
        else:
            kind, shape, raw = DTYPES[value.dtype.name], value.shape, np.ascontiguousarray(value).tobytes()
        sides = b"".join(bytes_field(2, int_field(1, side)) for side in shape)
        entry = int_field(1, kind) + bytes_field(2, sides) + int_field(3, shard)
        entry += int_field(4, files[shard].tell()) + int_field(5, len(raw))
        entry += fixed32_field(6, masked(crc32c(raw))) if checksums else b""
        entries.append((name.encode(), entry))
        files[shard].write(raw)
    for file in files:
        file.close()
    prefix.with_name(f"{prefix.name}.index").write_bytes(_table(entries))


def _table(entries: list[tuple[bytes, bytes]], per_block: int = 50) -> bytes:
    out, index = b"", []
    for start in range(0, len(entries), per_block):
        part = entries[start : start + per_block]
        handle, out = _with_block(out, _block(part))
        index.append((part[-1][0] + b"\x00", handle))
    meta, out = _with_block(out, _block([]))
    handle, out = _with_block(out, _block(index))
    return out + (meta + handle).ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def _with_block(out: bytes, block: bytes) -> tuple[bytes, bytes]:
    crc = masked(crc32c(block + b"\0")).to_bytes(4, "little")
    return varint(len(out)) + varint(len(block)), out + block + b"\0" + crc


def _block(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    out, last, restarts = b"", b"", [0]
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % 16 == 0 and number:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + b"".join(each.to_bytes(4, "little") for each in [*restarts, len(restarts)])


def object_graph(paths: Mapping[str, tuple[str, str]]) -> bytes:
    """A TrackableObjectGraph: path of attributes → (full name, key); paths of one key are one object."""
    nodes: list[tuple[dict[str, int], bytes]] = [({}, b"")]
    objects: dict[str, int] = {}
    for path, (name, key) in paths.items():
        at = 0
        *scopes, last = path.split("/")
        for scope in scopes:
            if scope not in nodes[at][0]:
                nodes[at][0][scope] = len(nodes)
                nodes.append(({}, b""))
            at = nodes[at][0][scope]
        if key not in objects:
            objects[key] = len(nodes)
            values = zip((1, 2, 3), ("VARIABLE_VALUE", name, key), strict=True)
            value = b"".join(bytes_field(number, each.encode()) for number, each in values)
            nodes.append(({}, bytes_field(2, value)))
        nodes[at][0][last] = objects[key]
    out = b""
    for children, value in nodes:
        links = [
            bytes_field(1, int_field(1, child) + bytes_field(2, name.encode()))
            for name, child in children.items()
        ]
        out += bytes_field(1, b"".join(links) + value)
    return out


class EditableNode:
    """A node of a graph, to be changed in place."""

    def __init__(self, data: memoryview) -> None:
        message = Message(data)
        self.name, self.op, self.inputs = message.text(1), message.text(2), message.texts(3)
        self.attributes = {each.text(1): bytes(each.blob(2)) for each in message.messages(5)}

    def set(self, key: str, value: Any) -> None:
        if isinstance(value, bool):
            self.attributes[key] = int_field(5, value)
        elif isinstance(value, float):
            self.attributes[key] = float_field(4, value)
        elif isinstance(value, str):
            self.attributes[key] = bytes_field(2, value.encode())
        elif isinstance(value, np.ndarray):
            kind = {"float32": 1, "int32": 3}[value.dtype.name]
            shape = b"".join(bytes_field(2, int_field(1, side)) for side in value.shape)
            tensor = int_field(1, kind) + bytes_field(2, shape) + bytes_field(4, value.tobytes())
            self.attributes[key] = bytes_field(8, tensor)
        else:
            self.attributes[key] = bytes_field(1, ints_field(3, value))

    def calls(self, key: str, function: str) -> None:
        self.attributes[key] = bytes_field(10, bytes_field(1, function.encode()))

    def encoded(self) -> bytes:
        out = bytes_field(1, self.name.encode()) + bytes_field(2, self.op.encode())
        out += b"".join(bytes_field(3, each.encode()) for each in self.inputs)
        for key, value in sorted(self.attributes.items()):
            out += bytes_field(5, bytes_field(1, key.encode()) + bytes_field(2, value))
        return out

    @classmethod
    def new(cls, name: str, op: str, inputs: Iterable[str] = ()) -> EditableNode:
        node = cls(memoryview(bytes_field(1, name.encode()) + bytes_field(2, op.encode())))
        node.inputs = list(inputs)
        return node

    def copied(self, renamed: Callable[[str], str]) -> EditableNode:
        copy = EditableNode(memoryview(self.encoded()))
        copy.name, copy.inputs = renamed(self.name), [renamed(each) for each in self.inputs]
        return copy


class EditableGraph:
    """The graph of a ``saved_model.pb`` without what training, saving and restoring need."""

    def __init__(self, path: Path) -> None:
        self._raw = dict(_nodes(path))
        self._edited: dict[str, EditableNode] = {}
        self.functions: dict[str, bytes] = {}

    @property
    def names(self) -> list[str]:
        return [*self._raw, *(name for name in self._edited if name not in self._raw)]

    def __getitem__(self, name: str) -> EditableNode:
        if name not in self._edited:
            self._edited[name] = EditableNode(self._raw[name])
        return self._edited[name]

    def add(self, node: EditableNode) -> None:
        self._edited[node.name] = node

    def drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._raw.pop(name, None)
            self._edited.pop(name, None)

    def rewire(self, changed: Mapping[str, str]) -> None:
        """Read another output: ``{"node" or "node:1": "other:2"}``."""
        for name in self.names:
            if any(each in changed for each in self[name].inputs):
                self[name].inputs = [changed.get(each, each) for each in self[name].inputs]

    def both(self, name: str) -> list[EditableNode]:
        """A node and its copy in the loop over scales."""
        found = [self[each] for each in (name, f"while/{name}") if each in self._raw]
        assert found, name
        return found

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = [
            self._edited[name].encoded() if name in self._edited else self._raw[name] for name in self.names
        ]
        graph = b"".join(bytes_field(1, bytes(each)) for each in raw)
        graph += bytes_field(2, b"".join(bytes_field(1, each) for each in self.functions.values()))
        path.write_bytes(int_field(1, 1) + bytes_field(2, bytes_field(2, graph)))
        return path


def function(
    name: str, nodes: Iterable[EditableNode], arguments: Iterable[str], returns: Iterable[str]
) -> bytes:
    """A FunctionDef; its outputs are called out0, out1, …"""
    returns = list(returns)
    signature = bytes_field(1, name.encode())
    signature += b"".join(bytes_field(2, bytes_field(1, each.encode())) for each in arguments)
    signature += b"".join(bytes_field(3, bytes_field(1, f"out{n}".encode())) for n in range(len(returns)))
    body = bytes_field(1, signature) + b"".join(bytes_field(3, node.encoded()) for node in nodes)
    for number, reference in enumerate(returns):
        body += bytes_field(4, bytes_field(1, f"out{number}".encode()) + bytes_field(2, reference.encode()))
    return body


def into_function(graph: EditableGraph, names: Iterable[str], call: str) -> None:
    """Move nodes into a function, and call it."""
    moved, arguments, returns = {name: graph[name] for name in names}, {}, {}

    def inside(reference: str) -> str:
        name, _, port = reference.partition(":")
        return f"{name}:output:{port or 0}"

    for node in moved.values():
        inputs = [each for each in node.inputs if not each.startswith("^")]
        for each in inputs:
            if each.partition(":")[0] not in moved:
                arguments.setdefault(each, f"argument_{len(arguments)}")
        node.inputs = [arguments.get(each) or inside(each) for each in inputs]
    graph.drop(moved)
    for name in graph.names:
        for each in graph[name].inputs:
            if each.partition(":")[0] in moved:
                returns.setdefault(each, f"{call}:{len(returns)}")
    graph.rewire(returns)
    node = EditableNode.new(call, "PartitionedCall", arguments)
    node.calls("f", f"__inference_{call}")
    graph.add(node)
    graph.functions[call] = function(
        f"__inference_{call}", moved.values(), arguments.values(), map(inside, returns)
    )


def functional_loop(graph: EditableGraph, op: str = "StatelessWhile") -> None:
    """TF1's loop of Enter, Merge, Switch, NextIteration and Exit as one operation with a body."""
    inner = {name: graph[name] for name in graph.names if name.startswith("while/")}
    control = {"Enter", "Merge", "Switch", "NextIteration", "Exit", "LoopCond"}
    merges = [node for node in inner.values() if node.op == "Merge"]
    given = [inner[node.inputs[0]].inputs[0] for node in merges]
    switches = {node.inputs[0]: node.name for node in inner.values() if node.op == "Switch"}
    values = {f"{switches[node.name]}:1": f"value_{number}" for number, node in enumerate(merges)}
    constants = {
        node.name: node.inputs[0]
        for node in inner.values()
        if node.op == "Enter" and "is_constant" in node.attributes
    }
    values |= {name: f"constant_{number}" for number, name in enumerate(constants)}
    merged = {node.name for node in merges}
    body = [node for node in inner.values() if node.op not in control and not merged & set(node.inputs)]

    def inside(reference: str) -> str:
        name, _, port = reference.partition(":")
        return values.get(reference) or f"{name}:output:{port or 0}"

    for node in body:
        node.inputs = [inside(each) for each in node.inputs if not each.startswith("^")]
    returns = [inside(inner[node.inputs[1]].inputs[0]) for node in merges]
    exits = {switches[node.name]: number for number, node in enumerate(merges)}
    changed = {node.name: f"while:{exits[node.inputs[0]]}" for node in inner.values() if node.op == "Exit"}
    graph.drop(inner)
    graph.rewire(changed)
    loop = EditableNode.new("while", op, [*given, *constants.values()])
    loop.calls("cond", "while_cond")
    loop.calls("body", "while_body")
    graph.add(loop)
    graph.functions["body"] = function(
        "while_body", body, values.values(), [*returns, *(values[name] for name in constants)]
    )
    graph.functions["cond"] = function("while_cond", [], values.values(), ["value_0"])


def with_101_layers(graph: EditableGraph) -> None:
    """17 more units in block 3 of a graph of ResNet-50, and the names of ResNet-101."""
    middle, last = "resnet_v1_50/block3/unit_5/", "resnet_v1_50/block3/unit_6/"
    for name in graph.names:
        if middle in name:
            for unit in range(6, 23):

                def shifted(text: str, unit: int = unit) -> str:
                    text = text.replace("block3/unit_5/", f"block3/unit_{unit}/")
                    return text.replace(
                        "block3/unit_4/bottleneck_v1/Relu", f"block3/unit_{unit - 1}/bottleneck_v1/Relu"
                    )

                graph.add(graph[name].copied(lambda text, s=shifted: "101:" + s(text)))
    for name in graph.names:
        node = graph[name]
        if not name.startswith("101:"):
            tail = name.replace(last, "resnet_v1_50/block3/unit_23/")
            inputs = [each.replace(last, "resnet_v1_50/block3/unit_23/") for each in node.inputs]
            if last in name:
                inputs = [
                    each.replace("block3/unit_5/bottleneck_v1/Relu", "block3/unit_22/bottleneck_v1/Relu")
                    for each in inputs
                ]
            node.name, node.inputs = tail, inputs
        node.name = node.name.removeprefix("101:").replace("resnet_v1_50", "resnet_v1_101")
        node.inputs = [
            each.removeprefix("101:").replace("resnet_v1_50", "resnet_v1_101") for each in node.inputs
        ]


def shapes_of_101_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Variables of ResNet-101 from those of ResNet-50."""
    out = {}
    for name, shape in shapes.items():
        new = name.replace("resnet_v1_50", "resnet_v1_101")
        if "block3/unit_5/" in new:
            out |= {new.replace("unit_5", f"unit_{unit}"): shape for unit in range(5, 23)}
        else:
            out[new.replace("block3/unit_6/", "block3/unit_23/")] = shape
    return out


@lru_cache(maxsize=4)
def _nodes(path: Path) -> list[tuple[str, memoryview]]:
    data = path.read_bytes()
    nodes = [(Message(raw).text(1), raw) for raw in next(Message(data).messages(2)).message(2).blobs(1)]
    left_out = ("save/", "/Initializer/", "/Regularizer/", "/Assign")
    return [(name, raw) for name, raw in nodes if not any(part in name for part in left_out)]
