"""Pickles of plain data, read without running anything that is in them.

A pickle is a program: an ordinary unpickler calls whatever function it names. This one knows lists,
tuples, dicts, sets, strings, bytes, numbers, and NumPy arrays and scalars of numbers or text, which it
rebuilds itself from their bytes. Everything else is refused by name.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from loc.errors import DataError

#: What a malformed pickle makes an unpickler raise; nothing in the file runs, so nothing else can.
_DAMAGE = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
)
#: Kinds of dtype whose bytes mean numbers or text; "O" would mean addresses.
_PLAIN_KINDS = "?biufcSU"
#: What a dict may have as keys and a set as members, and what may stand by itself.
_SCALARS = (str, bytes, bytearray, bool, int, float, complex, type(None), np.generic)
#: Of a file, and of all arrays made from it: one text may be asked for as an array many times.
_MAX_BYTES = 2**30


def read_plain_pickle(path: Path) -> Any:
    """What a pickle of plain data holds; NumPy arrays as ``numpy.ndarray``.

    Pickles of Python 2 are read with latin-1 text, as NumPy's need it.

    Raises:
        DataError: no such file, more than a GiB, damaged, it names anything but plain data, or this Python
            has no unpickler in Python.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: no ground truth is")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    try:
        _check_sizes(data)
        return _plain(_unpickler(data).load(), {})
    except _DAMAGE as error:
        raise DataError(
            f"{path} is no pickle of plain data: {error}",
            "only lists, dicts, strings, numbers and arrays are read; a .json or .mat file works too",
        ) from error


class _Array:
    """Stands in for ``numpy.ndarray`` while a pickle is read: takes its state and checks it."""

    array: np.ndarray

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes | list[Any]]) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, list):
            if not dtype.objects:
                raise pickle.UnpicklingError("an array of numbers holds a list")
            flat = np.empty(len(data), object)
            for index, item in enumerate(data):  # as a whole, NumPy would take equal lists for rows
                flat[index] = _plain(item, {})
        else:
            flat = np.frombuffer(self._budget.bytes_of(data), dtype.plain())
        self.array = flat.reshape(shape, order="F" if fortran else "C").copy(order="K")


class _Dtype:
    """Stands in for ``numpy.dtype``: its code and byte order; no fields, no metadata."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.objects = code.startswith("O")
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if isinstance(state[1], str):
            self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        dtype = np.dtype(self.code)
        if dtype.kind not in _PLAIN_KINDS or dtype.fields is not None:
            raise pickle.UnpicklingError(f"an array of {self.code!r} is not plain data")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _Budget:
    """Makes arrays and bytes, and refuses to make more than a pickle of plain data has."""

    def __init__(self) -> None:
        self._left = _MAX_BYTES

    def bytes_of(self, data: Any) -> bytes:
        if not isinstance(data, str | bytes | bytearray):  # a number would reserve memory
            raise pickle.UnpicklingError("an array without bytes")
        self._left -= len(data)
        if self._left < 0:
            raise pickle.UnpicklingError(f"its arrays take more than {_MAX_BYTES >> 20} MiB")
        return data.encode("latin1") if isinstance(data, str) else bytes(data)

    def array(self, *_: Any) -> _Array:
        return _Array(self)

    def array_of(self, data: bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        """How protocol 5 writes a contiguous array."""
        out = _Array(self)
        out.__setstate__((1, shape, dtype, order == "F", data))  # type: ignore[arg-type]
        return out

    def scalar(self, dtype: _Dtype, data: bytes | str) -> Any:
        return np.frombuffer(self.bytes_of(data), dtype.plain(), count=1)[0]

    def encode(self, text: str, encoding: str) -> bytes:
        """``_codecs.encode``: how Python 3 writes bytes into a pickle that Python 2 can read."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes as text in {encoding!r}")
        return self.bytes_of(text)

    def no_bytes(self) -> bytes:
        """``bytes()``: how old protocols write empty ones; with a number it would reserve memory."""
        return b""

    def known(self) -> dict[tuple[str, str], Callable[..., Any]]:
        """What a pickle may name, and what stands for it here."""
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("_codecs", "encode"): self.encode,
            ("numpy", "ndarray"): self.array,
            ("numpy", "dtype"): _Dtype,
        }
        for package in ("numpy.core", "numpy._core"):
            known[f"{package}.multiarray", "_reconstruct"] = self.array
            known[f"{package}.multiarray", "scalar"] = self.scalar
            known[f"{package}.numeric", "_frombuffer"] = self.array_of
        for package in ("builtins", "__builtin__"):
            known |= {(package, "set"): set, (package, "frozenset"): frozenset}
            known[package, "bytes"] = self.no_bytes
        return known


class _Tuple(tuple[Any, ...]):
    """A tuple of a pickle, which is no key: the hash of a nested one can take hours, or all of the stack."""

    def __hash__(self) -> int:
        raise pickle.UnpicklingError("a tuple as a key is not plain data")


def _unpickler(data: bytes) -> pickle._Unpickler:
    """The standard library's unpickler in Python, of which two steps are replaced.

    It is private; CPython 3.10 to 3.13 have it, as the fallback of the one in C, whose steps are fixed.
    It is looked for when a pickle is read, so that other files need no Python that has it.
    """
    if not isinstance(getattr(getattr(pickle, "_Unpickler", None), "dispatch", None), dict):
        raise DataError(
            "this Python has no unpickler of its own language (pickle._Unpickler), so pickles are not read",
            "use a .json or .mat file in place of the .pkl, or CPython 3.10 to 3.13",
        )

    steps: dict[int, Any] = dict(pickle._Unpickler.dispatch)
    steps[pickle.BUILD[0]] = _checking_state(steps[pickle.BUILD[0]])
    for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
        steps[code[0]] = _making_tuple(steps[code[0]])

    known = _Budget().known()

    class Unpickler(pickle._Unpickler):
        dispatch: ClassVar[dict[int, Any]] = steps

        def find_class(self, module: str, name: str) -> Any:
            try:
                return known[module, name]
            except KeyError:
                raise pickle.UnpicklingError(
                    f"it asks for {module}.{name}, which is not plain data"
                ) from None

    return Unpickler(io.BytesIO(data), encoding="latin1")


def _making_tuple(step: Callable[[Any], None]) -> Callable[[Any], None]:
    def make_tuple(unpickler: Any) -> None:
        step(unpickler)
        unpickler.stack[-1] = _Tuple(unpickler.stack[-1])

    return make_tuple


def _checking_state(step: Callable[[Any], None]) -> Callable[[Any], None]:
    """State is for the stand-ins alone: a function or class of this module keeps its own."""

    def set_state(unpickler: Any) -> None:
        if not isinstance(unpickler.stack[-2], _Array | _Dtype):
            raise pickle.UnpicklingError("state of what has none is not plain data")
        step(unpickler)

    return set_state


def _check_sizes(data: bytes) -> None:
    """Refuse what makes an unpickler reserve memory out of proportion to the file.

    That what is announced is there, the walk through the steps tells by itself.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(data):
            raise pickle.UnpicklingError("it numbers its objects beyond its own size")


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """The value with arrays in place of their stand-ins; what is shared stays shared (it may be so often)."""
    if id(value) in seen:
        return seen[id(value)]
    out = value
    if isinstance(value, _Array):
        # Text is decoded here, where bytes that are none are an error of this file.
        out = value.array.astype(object) if value.array.dtype.kind in "SU" else value.array
    elif isinstance(value, dict):
        out = {_scalar(key): _plain(item, seen) for key, item in value.items()}
    elif isinstance(value, set | frozenset):
        out = type(value)(_scalar(member) for member in value)
    elif isinstance(value, list | tuple):
        out = (list if isinstance(value, list) else tuple)(_plain(item, seen) for item in value)
    elif isinstance(value, _Dtype):
        raise pickle.UnpicklingError("a bare dtype is not plain data")
    elif not isinstance(value, np.ndarray):  # those in arrays of objects are made already
        out = _scalar(value)
    seen[id(value)] = out
    return out


def _scalar(value: Any) -> Any:
    if not isinstance(value, _SCALARS):
        raise pickle.UnpicklingError(f"{type(value).__name__} is not plain data here")
    return value
