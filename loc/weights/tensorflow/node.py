"""One operation of a graph: its inputs, attributes and constants.

Fields of the messages: tensorflow/core/framework/{node_def,attr_value,tensor,tensor_shape}.proto.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from loc.weights.tensorflow.wire import Message, WireError

Array = np.ndarray
_MOST_CONSTANTS = 1 << 16


class Node:
    """One operation."""

    def __init__(self, message: Message) -> None:
        self.name, self.op = message.text(1), message.text(2)
        #: What it reads, in order, as it is written (``node:output``); without control inputs.
        self.references = [each for each in message.texts(3) if not each.startswith("^")]
        #: Names of the nodes whose output it reads, in order.
        self.inputs = [each.partition(":")[0] for each in self.references]
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

    def function(self, key: str) -> str:
        """The name of a function of the library."""
        return self._attributes[key].message(10).text(1) if key in self._attributes else ""

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
