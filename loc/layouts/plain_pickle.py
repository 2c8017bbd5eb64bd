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
from typing import Any

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
_MAX_BYTES = 2**30


def read_plain_pickle(path: Path) -> Any:
    """What a pickle of plain data holds; NumPy arrays as ``numpy.ndarray``.

    Pickles of Python 2 are read with latin-1 text, as NumPy's need it.

    Raises:
        DataError: no such file, more than a GiB, damaged, or it names anything but plain data.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: no ground truth is")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check the path") from error
    try:
        _check_memo(data)
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load(), {})
    except _DAMAGE as error:
        raise DataError(
            f"{path} is no pickle of plain data: {error}",
            "only lists, dicts, strings, numbers and arrays are read; a .json or .mat file works too",
        ) from error


class _Array:
    """Stands in for ``numpy.ndarray`` while a pickle is read: takes its state and checks it."""

    array: np.ndarray

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes | list[Any]]) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, list):
            if not dtype.objects:
                raise pickle.UnpicklingError("an array of numbers holds a list")
            flat = np.empty(len(data), object)
            flat[:] = [_plain(item, {}) for item in data]
        else:
            flat = np.frombuffer(_as_bytes(data), dtype.plain())
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


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    """How protocol 5 writes a contiguous array."""
    out = _Array()
    out.__setstate__((1, shape, dtype, order == "F", bytes(data)))
    return out


def _no_bytes() -> bytes:
    """``bytes()``: how old protocols write empty ones; with a number it would reserve memory."""
    return b""


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return np.frombuffer(_as_bytes(data), dtype.plain(), count=1)[0]


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode``: how Python 3 writes bytes into a pickle that Python 2 can read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as text in {encoding!r}")
    return text.encode("latin1")


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else data


def _known_names() -> dict[tuple[str, str], Callable[..., Any]]:
    """What a pickle may name, and what stands for it here."""
    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }
    for package in ("numpy.core", "numpy._core"):
        known[f"{package}.multiarray", "_reconstruct"] = _reconstruct
        known[f"{package}.multiarray", "scalar"] = _scalar
        known[f"{package}.numeric", "_frombuffer"] = _from_buffer
    for package in ("builtins", "__builtin__"):
        known |= {(package, "set"): set, (package, "frozenset"): frozenset, (package, "bytes"): _no_bytes}
    return known


class _Unpickler(pickle.Unpickler):
    _known = _known_names()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not plain data") from None


def _check_memo(data: bytes) -> None:
    """Refuse an index that makes the unpickler reserve memory out of proportion to the file."""
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
        out = {key: _plain(item, seen) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        out = type(value)(_plain(item, seen) for item in value)
    elif isinstance(value, _Dtype):
        raise pickle.UnpicklingError("a bare dtype is not plain data")
    seen[id(value)] = out
    return out
