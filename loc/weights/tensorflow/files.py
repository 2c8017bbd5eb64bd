"""Converted weights on disk, and the archives of DELF and DELG that they are made from on first use."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from loc.errors import WeightsError
from loc.weights.card import WeightFile
from loc.weights.files import cache_folder, find, locate, sha256_of
from loc.weights.tensorflow.convert import Converted, convert
from loc.weights.tensorflow.facts import Facts, NetworkFacts
from loc.weights.tensorflow.layout import LOCAL_VALUES, layers, network_shapes
from loc.weights.tensors import fitted

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_HOST = "https://storage.googleapis.com/delf/"
_LICENCE = "Apache-2.0 (tensorflow/models; the authors state no other for the weights)"
_PAPERS = {
    "delf": "H. Noh et al., Large-Scale Image Retrieval with Attentive Deep Local Features, ICCV 2017",
    "delg": "B. Cao et al., Unifying Deep Local and Global Features for Image Search, ECCV 2020",
    "codebook": "M. Teichmann et al., Detect-to-Retrieve, CVPR 2019",
    "global": "T. Weyand et al., Google Landmarks Dataset v2, CVPR 2020",
}
_KEY = "loc.facts"
Kind = Literal["delf", "delg", "global", "codebook"]


@dataclass(frozen=True)
class Model:
    """A converted network: its tensors, float32 in torch's layout on the CPU, and its facts."""

    tensors: dict[str, torch.Tensor]
    facts: NetworkFacts


def release(name: str, kind: Kind) -> WeightFile:
    """The card of a released archive. Its output could be compared with that of random weights only."""
    return WeightFile(
        f"{_HOST}{name}.tar.gz",
        None,
        _LICENCE,
        _PAPERS[kind],
        note="converted when first used; by hand: loc weights convert",
        output_checked=False,
    )


def card(name: str, releases: tuple[WeightFile, ...]) -> WeightFile:
    """The file that stands for ``name``: a converted one in a weights folder, else the released archive.

    Raises:
        WeightsError: it is neither.
    """
    converted = f"{name}.safetensors"
    own = WeightFile(converted, None, "that of its source", "", note="converted", output_checked=False)
    path = find(own)
    if path is not None:  # the user's own: not pinned, as it may be converted again
        return replace(own, sha256=sha256_of(path))
    for file in releases:
        if file.name == f"{name}.tar.gz":
            return file
    raise WeightsError(
        f"no weights are called {name!r}: there is no {converted} in a weights folder, and no release of that"
        f" name; released are {', '.join(file.name.removesuffix('.tar.gz') for file in releases)}",
        f"convert yours and name the folder with --weights-dir: loc weights convert ARCHIVE -o {converted}",
    )


def open_model(file: WeightFile) -> Model:
    """The network of a card; an archive is converted into the cache when it is first used.

    Raises:
        WeightsError: as :func:`loc.weights.files.locate` and :func:`convert`; or the file is damaged.
    """
    return load(converted_file(file))


def converted_file(file: WeightFile) -> Path:
    """Where the converted file of a card is; made in the cache when an archive is first used."""
    path = locate(file)
    if path.suffix == ".safetensors":
        return path
    stem = path.name.removesuffix(".tar.gz")
    made = cache_folder() / f"{stem}-{sha256_of(path)[:12]}.safetensors"
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(made.with_name(f".{made.name}.lock")):
            if not made.is_file():
                log.warning("converting %s (SHA-256 %s)", path, sha256_of(path))
                save(convert(path), made)
    except OSError as error:
        raise WeightsError(
            f"cannot write {made}: {error.strerror}",
            "choose another cache with LOC_CACHE_DIR, or convert by hand: loc weights convert",
        ) from error
    return made


def load(path: Path) -> Model:
    """A network out of a converted file, its tensors checked by name and shape.

    Raises:
        WeightsError: the file is damaged, was not made by ``loc weights convert``, or is no network.
    """
    facts, tensors = read_converted(path)
    if not isinstance(facts, NetworkFacts):
        raise WeightsError(f"{path} holds a {facts.kind}, no network", "see: loc weights convert --help")
    convolutions = {name for name, _ in layers(facts.backbone, 4 if facts.pooling else 3)} | {"pool"}
    convolutions |= {"attention.conv1", "attention.conv2"} if facts.local else set()
    convolutions |= {"autoencoder.conv1", "autoencoder.conv2"} if facts.has_autoencoder else set()
    if missing := sorted(convolutions - facts.layers.keys()):
        raise WeightsError(f"{path} says nothing of the layers {', '.join(missing[:6])}", "convert it again")
    expected = network_shapes(
        facts.backbone,
        local=facts.local is not None,
        autoencoder=facts.has_autoencoder,
        whitening=facts.pooling is not None,
        biased="stem.conv.bias" in tensors,
    )
    shapes = {
        name: (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
        for name, shape in expected.items()
    }
    if "pca.mean" in tensors:
        dim = LOCAL_VALUES
        shapes |= {"pca.mean": (dim,), "pca.components": (dim, dim)}
        shapes |= {"pca.variances": (dim,)} if "pca.variances" in tensors else {}
    return Model(fitted(tensors, shapes, path), facts)


def save(converted: Converted, path: Path) -> None:
    """Write a converted file; it appears under its name when it is complete."""
    from safetensors.numpy import save as serialized

    metadata = {_KEY: converted.facts.model_dump_json()}
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not save_file: it leaves a file that nobody else may read.
        temporary.write_bytes(serialized(dict(sorted(converted.tensors.items())), metadata=metadata))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WeightsError(
            f"cannot write {path}: {error.strerror or error}", "choose another place with -o"
        ) from error


def read_converted(path: Path) -> tuple[Facts, dict[str, torch.Tensor]]:
    """The facts and tensors of a converted file, as they are.

    Raises:
        WeightsError: it is damaged, of another version, or was not made by ``loc weights convert``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if said is None:
            raise WeightsError(
                f"{path} does not say how its network is built",
                "make it with: loc weights convert ARCHIVE -o …",
            )
        facts: Facts = TypeAdapter(Facts).validate_python(json.loads(said))
        return facts, tensors
    except (SafetensorError, OSError, ValidationError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read as converted weights: {' '.join(str(error).split())[:200]}",
            "it is damaged or of another version: delete it and convert the archive again",
        ) from error
