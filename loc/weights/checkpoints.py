"""Checkpoints of torch that hold more than tensors: arrays, and objects of which only the arrays are wanted.

:func:`torch.load` with ``weights_only`` refuses what it does not know. Here it knows stand-ins for NumPy's
arrays, which check what they are given, and for classes named by the caller, which keep attributes and have
no behaviour. Nothing of the named packages is imported, and no code of the file runs.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loc.errors import WeightsError
from loc.weights.tensors import read_file

#: Kinds of dtype whose bytes mean numbers or text; "O" would mean addresses.
_PLAIN_KINDS = "?biufcSU"


def read_checkpoint(path: Path, classes: Sequence[str] = ()) -> Any:
    """What a checkpoint holds; arrays as ``numpy.ndarray``, objects of ``classes`` as dicts of attributes.

    Args:
        classes: full names that may stand in the file, e.g. ``sklearn.decomposition.pca.PCA``.

    Raises:
        WeightsError: no such file, damaged, or it names anything else.
    """
    import torch

    if path.suffix == ".safetensors":
        return read_file(path)
    known = [*_NUMPY, *(_named(name, _Attributes) for name in classes)]
    with torch.serialization.safe_globals(known):
        try:
            return _plain(read_file(path))
        except (pickle.UnpicklingError, ValueError, TypeError, IndexError) as error:
            raise WeightsError(
                f"{path} cannot be read as weights: {error}", "it is damaged: fetch it again"
            ) from error


class _Attributes:
    """Stands in for an object: its attributes, and nothing that acts."""

    attributes: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = dict(state)


class _Dtype:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if isinstance(state[1], str):
            self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        dtype = np.dtype(self.code)
        if dtype.kind not in _PLAIN_KINDS or dtype.fields is not None:
            raise pickle.UnpicklingError(f"an array of {self.code!r} is not plain data")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _Array:
    """Stands in for ``numpy.ndarray``: takes its state and checks it."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(raw, dtype.plain())
        self.array = flat.reshape(shape, order="F" if fortran else "C").copy(order="K")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype.plain(), count=1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode``: how Python 3 writes bytes into a pickle that Python 2 can read."""
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _named(name: str, value: Any) -> Any:
    """A stand-in under the name that a file gives the real thing."""
    module, _, last = name.rpartition(".")
    if isinstance(value, type):
        return type(last, (value,), {"__module__": module, "__qualname__": last})

    def stand_in(*arguments: Any) -> Any:
        return value(*arguments)

    stand_in.__module__, stand_in.__name__, stand_in.__qualname__ = module, last, last
    return stand_in


_NUMPY = [
    _Array,  # what _reconstruct makes
    _named("numpy.ndarray", _Array),
    _named("numpy.dtype", _Dtype),
    _named("_codecs.encode", _encode),
    *(
        _named(f"{package}.multiarray._reconstruct", _reconstruct)
        for package in ("numpy.core", "numpy._core")
    ),
    *(_named(f"{package}.multiarray.scalar", _scalar) for package in ("numpy.core", "numpy._core")),
]


def _plain(value: Any) -> Any:
    """The value with arrays and dicts in place of their stand-ins."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _Attributes):
        return _plain(value.attributes)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
