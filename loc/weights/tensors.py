"""Reading tensors from files that may be hostile: no code in them ever runs."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loc.errors import WeightsError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
#: What torch raises on damaged or crafted files, beside ``pickle.UnpicklingError``.
_DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    OverflowError,
    struct.error,
    OSError,
)


def read_file(path: Path) -> Any:
    """What a safetensors file or a checkpoint of torch holds, on the CPU.

    Raises:
        WeightsError: the file is missing, damaged, or a pickle with anything but tensors and plain
            containers in it (which could run code, and is not opened).
    """
    import torch

    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}", "see: loc weights list")
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise _damaged(path, error) from error
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise WeightsError(
                f"{path} holds more than tensors, and opening it could run code: {_global(error)}",
                "it was not opened; ask its authors for a file of plain tensors (safetensors)",
            ) from error
        raise _damaged(path, error) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def read_state(path: Path, *, under: str | None = None, optional: bool = False) -> dict[str, Any]:
    """The state dict of a file, by name.

    Args:
        under: key of the state dict inside the checkpoint (``model``, ``state_dict``, …).
        optional: the file may be the state dict itself.

    Raises:
        WeightsError: as :func:`read_file`; or there is no state dict.
    """
    data = read_file(path)
    if under is not None and not (optional and isinstance(data, dict) and under not in data):
        if not isinstance(data, dict) or under not in data:
            raise WeightsError(
                f"{path} is no checkpoint of this network: it has no {under!r}",
                f"it has: {_some(data) if isinstance(data, dict) else type(data).__name__}",
            )
        data = data[under]
    if not isinstance(data, dict):
        raise WeightsError(
            f"{path} is no checkpoint of this network: it holds {type(data).__name__}, not tensors by name",
            "is it the file of another model or release?",
        )
    return {str(key): value for key, value in data.items()}


def read_tensors(
    path: Path, shapes: Mapping[str, Shape], *, under: str | None = None, ignore: tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, each float32 and checked by name and shape.

    Args:
        shapes: every tensor the network has.
        under: key of the state dict inside the checkpoint (``model``, ``state_dict``, …).
        ignore: prefixes of tensors that may be there and are not used.

    Raises:
        WeightsError: as :func:`read_state`; or tensors are missing, unknown, of another shape or no plain
            numbers (listed).
    """
    return fitted(read_state(path, under=under), shapes, path, ignore=ignore)


def fitted(
    state: Mapping[str, Any], shapes: Mapping[str, Shape], path: Path, *, ignore: tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    """A state dict that is in memory, checked as by :func:`read_tensors`; ``path`` is for messages."""
    import torch

    found = {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    found = {
        key: value for key, value in found.items() if key in shapes or not key.startswith(ignore or "\0")
    }
    missing, unknown = sorted(set(shapes) - set(found)), sorted(set(found) - set(shapes))
    wrong = [
        f"{key} is {tuple(found[key].shape)}, expected {shape}"
        for key, shape in sorted(shapes.items())
        if key in found and tuple(found[key].shape) != tuple(shape)
    ]
    odd = [key for key in sorted(set(shapes) & set(found)) if not _is_plain(found[key])]
    if missing or unknown or wrong or odd:
        parts = [("missing", missing), ("unknown", unknown), ("of another shape", wrong)]
        parts.append(("sparse, quantized, complex or without values", odd))
        said = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in parts if names)
        raise WeightsError(
            f"{path} does not fit this network: {said}", "is it the file of another model or release?"
        )
    # Counters (of BatchNorm) stay integers; everything that is computed with is float32.
    tensors = {key: found[key].float() if found[key].is_floating_point() else found[key] for key in shapes}
    broken = [
        key for key, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    if broken:
        raise WeightsError(f"{path} holds NaN or infinity in {_some(broken)}", "fetch it again")
    return tensors


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it holds ordinary numbers, here: not sparse, quantized, complex or a placeholder."""
    import torch

    stored = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return stored and not (tensor.is_quantized or tensor.is_complex())


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} cannot be read as weights: {' '.join(str(error).split())[:200] or type(error).__name__}",
        "it is damaged or no weights file: delete it and fetch it again (loc weights fetch)",
    )


def _global(error: Exception) -> str:
    """What the pickle asked for, from torch's long message."""
    text = " ".join(str(error).split())
    start = text.find("GLOBAL ")
    return text[start : start + 120].split(" was not")[0] if start >= 0 else text[:120]


def _some(names: Any, limit: int = 6) -> str:
    names = list(names)
    shown = ", ".join(map(str, names[:limit]))
    return f"{shown}, …" if len(names) > limit else shown
