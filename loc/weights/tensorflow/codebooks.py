"""Codebooks of visual words from files: Detect-to-Retrieve's released ones, converted ones, and NumPy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from loc.errors import WeightsError
from loc.weights.card import WeightFile
from loc.weights.tensorflow.facts import CodebookFacts
from loc.weights.tensorflow.files import card, converted_file, read_converted, release

Array = np.ndarray

#: Learned on the other set's images, so that none is tested on what it was learned on.
CODEBOOKS = tuple(
    release(f"{images}_codebook_{words}", "codebook")
    for words in (65536, 1024)
    for images in ("rparis6k", "roxford5k")
)
_ENDINGS = (".npy", ".safetensors")


def codebook_path(name: str) -> Path | None:
    """The file that ``name`` names; None: it names a release, or a converted one in a weights folder."""
    return Path(name) if name.endswith(_ENDINGS) else None


def codebook_files(name: str) -> tuple[WeightFile, ...]:
    """The weights that ``name`` needs; none for a file of the user's own.

    Raises:
        WeightsError: no weights are called so.
    """
    return () if codebook_path(name) is not None else (card(name, CODEBOOKS),)


def open_codebook(name: str) -> Float32[Array, "k d"]:
    """The words of a release, of NAME in a weights folder, or of a file (``.npy``, ``.safetensors``).

    Raises:
        WeightsError: it is nowhere, damaged, or no array (words, dimension) of finite numbers.
    """
    path = codebook_path(name) or converted_file(codebook_files(name)[0])
    words = _array(path) if path.suffix == ".npy" else _converted(path)
    if words.ndim != 2 or not words.size or words.dtype.kind != "f" or not np.isfinite(words).all():
        raise WeightsError(
            f"{path} holds {words.dtype} {words.shape}, no codebook",
            "a codebook is an array (words, dimension) of finite floats",
        )
    return words.astype(np.float32)


def _array(path: Path) -> Array:
    try:
        loaded: Array = np.load(path, allow_pickle=False)
        return loaded
    except (OSError, ValueError, EOFError) as error:
        raise WeightsError(
            f"the codebook {path} cannot be read: {error}", "check globals.codebook"
        ) from error


def _converted(path: Path) -> Array:
    facts, tensors = read_converted(path)
    if not isinstance(facts, CodebookFacts) or "codebook" not in tensors:
        raise WeightsError(f"{path} holds a {facts.kind}, no codebook", "check globals.codebook")
    return tensors["codebook"].numpy()
