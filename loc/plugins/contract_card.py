"""Parts of the contract checks that all kinds of plug-ins share: the card, building and calling."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from pydantic import ValidationError

from loc.errors import ContractError, LocError
from loc.plugins.protocols import Arrays, PluginConfig, WeightFile

Array = np.ndarray
#: What to do about results that differ from call to call.
SEEDS = "give every random generator a seed, and reset what a call changes"


def check_card(cls: Any, *, numbers: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> str:
    """Check the class attributes that all kinds share; returns the name used in messages."""
    name = getattr(cls, "__name__", repr(cls))
    rules: dict[str, tuple[str, Any]] = {
        "Config": (
            "a subclass of PluginConfig",
            lambda v: isinstance(v, type) and issubclass(v, PluginConfig),
        ),
        "licence": ("a sentence or an SPDX identifier", lambda v: isinstance(v, str) and v != ""),
        "paper": ("a citation", lambda v: isinstance(v, str) and v != ""),
        "weights": (
            "a tuple of WeightFile",
            lambda v: isinstance(v, tuple) and all(isinstance(each, WeightFile) for each in v),
        ),
    }
    for key in ("version", *numbers):
        rules[key] = ("an int of at least 1", lambda v: type(v) is int and v >= 1)
    for key in flags:
        rules[key] = ("True or False", lambda v: isinstance(v, bool))
    for key, (expected, is_good) in rules.items():
        if not hasattr(cls, key):
            raise ContractError(f"{name}: the class attribute {key} is missing", f"{key} is {expected}")
        if not is_good(getattr(cls, key)):
            raise ContractError(f"{name}: {key} must be {expected}, got {getattr(cls, key)!r}")
    return str(name)


def check_choices(name: str, cls: Any, **choices: tuple[str, ...]) -> None:
    """Check class attributes that are one of a few words."""
    for key, allowed in choices.items():
        if getattr(cls, key, None) not in allowed:
            raise ContractError(
                f"{name}: {key} must be one of {', '.join(allowed)}, got {getattr(cls, key, None)!r}"
            )


def build(cls: Any, config: PluginConfig | dict[str, Any] | None, *, device: str, dtype: str) -> Any:
    """An instance, from a validated config, a dict of options, or the defaults."""
    try:
        options = config if isinstance(config, PluginConfig) else cls.Config.model_validate(config or {})
    except ValidationError as error:
        raise ContractError(
            f"{cls.__name__}: its Config refuses {config or 'its own defaults'}: {error}",
            "every option needs a default",
        ) from error
    return call(cls.__name__, "__init__", lambda _: cls(options, device=device, dtype=dtype), None)


def call(name: str, what: str, function: Any, argument: Any) -> Any:
    """Call a part of a plug-in; whatever it raises becomes a ContractError that names the plug-in."""
    try:
        return function(argument)
    except ContractError as error:
        raise ContractError(f"{name}: {error.message}", error.next_step) from error
    except LocError:
        raise
    except Exception as error:  # a third party's code may raise anything
        raise ContractError(f"{name}: {what} raised {type(error).__name__}: {error}") from error


def as_shown(cls: Any, images: Array, device: str) -> Any:
    """Images as the runtime hands them out: a tensor on the device, or an array."""
    if getattr(cls, "parallel", "batch") == "process":
        return images
    import torch

    return torch.from_numpy(images).to(device)


def check_states(name: str, first: Arrays, second: Arrays) -> None:
    """Check what ``fit`` returned twice for the same images."""
    good = isinstance(first, dict) and all(
        isinstance(key, str) and isinstance(value, np.ndarray) and value.dtype != object
        for key, value in first.items()
    )
    if not good:
        raise ContractError(f"{name}: fit must return a dict of NumPy arrays (it is saved as .npz)")
    if sorted(first) != sorted(second) or not all(np.array_equal(first[key], second[key]) for key in first):
        raise ContractError(f"{name}: fit is not repeatable: the same images give another state", SEEDS)


def check_ranked(
    name: str, cls: Any, config: PluginConfig | dict[str, Any] | None, rows: Any, count: int
) -> Array:
    """Check rows that a plug-in ranks itself; returns ``(count, 1)`` float64, equal for equal rows."""
    good = isinstance(rows, list) and len(rows) == count
    if not good or any(getattr(row, "dtype", None) != np.uint8 or row.ndim != 1 for row in rows):
        raise ContractError(f"{name}: must return a list of {count} one-dimensional uint8 arrays")
    options = config if isinstance(config, PluginConfig) else cls.Config.model_validate(config or {})
    database = np.empty(count, object)
    database[:] = rows
    rank = call(name, "ranking", lambda given: cls.ranking(options, given), database)
    order, scores = call(name, "ranking", lambda given: rank(given, count), database)
    if order.shape != (count, count) or scores.shape != (count, count):
        raise ContractError(f"{name}: its ranking gives {order.shape} of {count} images for {count} queries")
    if (np.diff(scores, axis=1)[order[:, 1:] >= 0] > 0).any():
        raise ContractError(f"{name}: its ranking is not sorted by score, best first")
    missed = [row for row in range(count) if order[row, 0] not in (row, -1)]
    if missed:
        raise ContractError(f"{name}: {len(missed)} of {count} images are not the first that they find")
    return np.array([[zlib.crc32(row.tobytes())] for row in rows], np.float64)


def check_rows(name: str, rows: Any, count: int) -> Array:
    """Check global descriptors of ``count`` images and return them."""
    if (
        not isinstance(rows, np.ndarray)
        or rows.dtype != np.float32
        or rows.shape[:1] != (count,)
        or rows.ndim != 2
    ):
        got = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ContractError(f"{name}: must return a float32 array ({count}, d), got {got}")
    if not np.isfinite(rows).all():
        raise ContractError(f"{name}: a descriptor holds NaN or infinity", "divide by max(norm, tiny)")
    norms = np.linalg.norm(rows, axis=1)
    if not ((np.abs(norms - 1) < 1e-3) | (norms == 0)).all():
        raise ContractError(
            f"{name}: rows must have unit L2 norm (or be all zero), got norms from"
            f" {norms.min():.3g} to {norms.max():.3g}"
        )
    return rows
