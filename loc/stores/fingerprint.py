"""Fingerprints: what changed the numbers, in twelve hex digits.

A fingerprint covers everything that changes the numbers (method, options, resolved precision,
plug-in version, weights, stage version, fits) and nothing else (device, workers, paths).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np


def canonical_json(fields: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(fields: dict[str, Any]) -> str:
    """Twelve hex digits of the canonical JSON of ``fields``.

    >>> fingerprint({"b": 1, "a": [1.5, "x"]}) == fingerprint({"a": [1.5, "x"], "b": 1})
    True
    """
    return hashlib.sha256(_bytes(canonical_json(fields))).hexdigest()[:12]


def digest(parts: Iterable[Any]) -> str:
    """SHA-256 (32 hex digits) over strings and arrays (dtype, shape and bytes), in order."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype.str}{part.shape}".encode())
            sha.update(np.ascontiguousarray(part).tobytes())
        else:
            sha.update(_bytes(str(part)))
        sha.update(b"\0")
    return sha.hexdigest()[:32]


def _bytes(text: str) -> bytes:
    """UTF-8; the lone surrogates of a file name that is not UTF-8 pass, as different bytes each."""
    return text.encode("utf-8", "surrogatepass")
