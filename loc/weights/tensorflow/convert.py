"""From an archive of TensorFlow to one file of tensors with everything that is known about them.

What is read: the SavedModels of DELF, DELG and the global-only model (graph and variables), with the PCA
that lies beside them; checkpoints of DELF's TF2 trainer; the codebooks of Detect-to-Retrieve.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from loc.errors import DataError, WeightsError
from loc.weights.archives import unpack
from loc.weights.download import hash_of
from loc.weights.tensorflow.bundle import Bundle
from loc.weights.tensorflow.datum import read_datum
from loc.weights.tensorflow.facts import FORMAT, CodebookFacts, Facts, NetworkFacts
from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.layout import LOCAL_VALUES, Shape, keras_facts, keras_names, network_shapes
from loc.weights.tensorflow.objects import OBJECT_GRAPH, SUFFIX, variables
from loc.weights.tensorflow.slim import read_graph
from loc.weights.tensorflow.trainer import with_graph

Array = np.ndarray

_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")
_CODEBOOKS = ("clusters", f"codebook{SUFFIX}")
#: Tensors of training that no network needs.
_TRAINING = re.compile(
    r"(^|.*/)(global_step|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)(/\.ATTRIBUTES/VARIABLE_VALUE)?"
    r"|.*/(Momentum|RMSProp(_1)?|Adam(_1)?|Adagrad|ExponentialMovingAverage)"
    r"|attention_block/logits/.*|beta[12]_power|optimizer/.*|.*/\.OPTIMIZER_SLOT/.*"
    r"|(desc|attn)_classification/.*|(cosine_weights|scale_factor)/\.ATTRIBUTES/VARIABLE_VALUE"
)

#: Of the trainer's classifiers; their shapes depend on its classes.
_HEADS = dict.fromkeys(
    (
        *(f"{scope}_classification/{part}" for scope in ("desc", "attn") for part in ("kernel", "bias")),
        "cosine_weights",
        "scale_factor",
    )
)
#: Of what the facts of a trainer's network say.
_ASSUMED = (
    "strides, epsilons, resize and boxes are the defaults of the trainer's code; that its numbers are"
    " reproduced is unverified"
)
_READ = (
    "receptive field and pooling are the defaults of the trainer's code, the rest is read from the graph;"
    " that its numbers are reproduced is unverified"
)


@dataclass(frozen=True)
class Converted:
    """Tensors in torch's layout, float32, and the facts that go with them."""

    tensors: dict[str, Array]
    facts: Facts


@dataclass(frozen=True)
class _Read:
    tensors: dict[str, Array]
    facts: dict[str, Any]


def convert(source: Path) -> Converted:
    """Read an archive, the folder it unpacks to, or the prefix of a checkpoint.

    Raises:
        WeightsError: it is damaged, unsafe or none of the known kinds; or its tensors are missing, unknown
            or of another shape (all are listed).
    """
    if source.is_file() and source.name.endswith(_SUFFIXES):
        with tempfile.TemporaryDirectory(prefix="loc-weights-") as folder:
            unpack(source, Path(folder))
            found = _convert_folder(Path(folder), said=source)
        name = source.name[: -len(next(each for each in _SUFFIXES if source.name.endswith(each)))]
        return _named(found, name, _hash_of([source]))
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
        return _named(_convert_folder(source, said=source), source.resolve().name, _hash_of(files))
    prefix = source.with_suffix("") if source.suffix == ".index" else source
    index = prefix.with_name(prefix.name + ".index")
    if index.is_file():
        files = sorted(index.parent.glob(f"{prefix.name}.data-*"))
        return _named(_convert_checkpoint(Bundle(prefix)), prefix.name, _hash_of([index, *files]))
    raise WeightsError(
        f"{source} is no archive, folder or checkpoint of TensorFlow",
        f"give a {'|'.join(_SUFFIXES[:3])} file, the folder it unpacks to, or NAME.index",
    )


def _named(found: _Read, name: str, digest: str) -> Converted:
    facts = {"format": FORMAT, "release": name, "sha256": digest, **found.facts}
    model = CodebookFacts if facts["kind"] == "codebook" else NetworkFacts
    try:
        return Converted(found.tensors, model.model_validate(facts))
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(
            f"{name}: its graph says what cannot be: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            "it is damaged, or another release",
        ) from error


def _convert_folder(folder: Path, *, said: Path) -> _Read:
    models = sorted(folder.rglob("saved_model.pb"))
    if len(models) == 1:
        return _convert_model(models[0])
    indices = [] if models else sorted(folder.rglob("*.index"))
    if len(indices) == 1:
        return _convert_checkpoint(Bundle(indices[0].with_suffix("")))
    shown = ", ".join(str(path.relative_to(folder)) for path in models or indices)
    raise WeightsError(
        f"{said} holds {'several models: ' + shown if shown else 'no saved_model.pb and no *.index'}",
        "name one of them" if shown else "is it an archive of DELF, DELG or a codebook?",
    )


def _convert_model(path: Path) -> _Read:
    bundle = Bundle(path.parent / "variables" / "variables")
    if OBJECT_GRAPH in bundle.entries and (found := _convert_trainer(bundle)) is not None:
        facts = with_graph(found.facts, Graph(path))
        return found if facts is None else _Read(found.tensors, facts | {"assumed": _READ})
    reading = read_graph(Graph(path))
    kind = reading.facts["kind"]
    shapes = network_shapes(
        reading.facts["backbone"],
        local=kind != "global",
        autoencoder=reading.facts.get("local", {}).get("attention_input") == "autoencoder",
        whitening=kind != "delf",
    )
    if set(shapes) != set(reading.variables):
        raise WeightsError(
            f"{path}: the graph reads other layers than {kind} has:"
            f" {listed(set(shapes) ^ set(reading.variables))}",
            "is it another release?",
        )
    tensors = _read(bundle, reading.variables, shapes)
    return _Read(tensors | _pca(path.parent.parent / "pca"), reading.facts)


def _convert_checkpoint(bundle: Bundle) -> _Read:
    for key in _CODEBOOKS:
        if key in bundle.entries:
            shape = bundle.entries[key].shape
            if len(shape) != 2:
                raise WeightsError(
                    f"{bundle.prefix}: {key} has the shape {shape}, expected words x dimensions"
                )
            words = _read(bundle, {"codebook": key}, {"codebook": shape})
            return _Read(words, {"kind": "codebook", "words": shape[0], "dim": shape[1]})
    if (found := _convert_trainer(bundle)) is not None:
        return found
    raise WeightsError(
        f"{bundle.prefix} is no codebook and no checkpoint of DELF's trainer",
        "the variables of a SavedModel need its graph: give the folder of saved_model.pb; here are"
        f" {listed(bundle.entries)}",
    )


def _convert_trainer(bundle: Bundle) -> _Read | None:
    """A network of the TF2 trainer; None: the bundle has no variable of one."""
    whole = network_shapes("resnet_v1_50", local=True, autoencoder=True, whitening=True, biased=True)
    paths = keras_names(whole)
    found = variables(bundle, {paths[name]: shape for name, shape in whole.items()} | _HEADS)
    if not found.keys() & set(paths.values()):
        return None
    kind = "delg" if any(path.startswith("autoencoder/") for path in found) else "delf"
    shapes = network_shapes(
        "resnet_v1_50", local=True, autoencoder=kind == "delg", whitening=kind == "delg", biased=True
    )
    names = {name: found.get(paths[name], paths[name] + SUFFIX) for name in shapes}
    # The trainer builds all four stages even where only three are used.
    parts = ("backbone/l5", "backbone/embedding") if kind == "delf" else ()
    unused = [key for path, key in found.items() if path in _HEADS or path.startswith(parts or "\0")]
    tensors = _read(bundle, names, shapes, unused=unused)
    return _Read(tensors, {**keras_facts(kind), "assumed": _ASSUMED})


def _read(
    bundle: Bundle, names: Mapping[str, str], shapes: Mapping[str, Shape], unused: Iterable[str] = ()
) -> dict[str, Array]:
    """Tensors by our names, turned into torch's layout, after all names and shapes have been checked."""
    there = bundle.shapes()
    missing = [names[ours] for ours in shapes if names[ours] not in there]
    known = {*names.values(), *unused}
    unknown = [key for key in there if key not in known and not _TRAINING.fullmatch(key)]
    wrong = [
        f"{names[ours]} is {there[names[ours]]}, expected {shape}"
        for ours, shape in shapes.items()
        if names[ours] in there and _squeezed(there[names[ours]], shape) != shape
    ]
    if missing or unknown or wrong:
        parts = [("missing", missing), ("unknown", unknown), ("of another shape", wrong)]
        said = "; ".join(f"{len(each)} {what}: {listed(each)}" for what, each in parts if each)
        raise WeightsError(
            f"the tensors in {bundle.prefix} are not those of the network: {said}",
            "is it another model or release?",
        )
    tensors = {}
    for ours, shape in sorted(shapes.items()):
        values = bundle.read(names[ours]).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise WeightsError(f"{bundle.prefix}: {names[ours]} holds NaN or infinity", "fetch it again")
        tensors[ours] = _in_torch_layout(values.reshape(shape), ours)
    return tensors


def _squeezed(got: Shape, expected: Shape) -> Shape:
    """A dense layer may be stored as a 1 x 1 convolution."""
    return got[2:] if len(expected) == 2 and len(got) == 4 and got[:2] == (1, 1) else got


def _in_torch_layout(values: Array, name: str) -> Array:
    if values.ndim == 4:
        return np.ascontiguousarray(values.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(values.T) if name == "whitening.weight" else values


def _pca(folder: Path) -> dict[str, Array]:
    """The PCA beside a model: its mean, its components as rows, and variances if they are there."""
    if not folder.is_dir():
        return {}
    try:
        mean = read_datum(folder / "mean.datum").astype(np.float32).ravel()
        matrix = read_datum(folder / "pca_proj_mat.datum").astype(np.float32)
        others = [
            path
            for path in sorted(folder.glob("*.datum"))
            if path.name not in ("mean.datum", "pca_proj_mat.datum")
        ]
        if len(others) > 1:
            raise WeightsError(
                f"{folder} holds {', '.join(path.name for path in others)}",
                "one file of variances is expected",
            )
        variances = [read_datum(path).astype(np.float32).ravel() for path in others]
    except DataError as error:
        raise WeightsError(error.message, "unpack or fetch the archive again") from error
    dim = LOCAL_VALUES
    if mean.size != dim or matrix.size != dim * dim or any(each.size != dim for each in variances):
        sizes = [mean.shape, matrix.shape, *(each.shape for each in variances)]
        raise WeightsError(
            f"the PCA in {folder} is of another size: mean, components and variances are"
            f" {', '.join(' x '.join(map(str, size)) for size in sizes)}, for features of {dim} values",
            "put the pca folder of the same archive there, or take it away and set features.pca_dim=null",
        )
    tensors = {"pca.mean": mean, "pca.components": matrix.reshape(dim, dim)}
    if variances:
        tensors["pca.variances"] = variances[0]
    if not all(np.isfinite(each).all() for each in tensors.values()):
        raise WeightsError(f"the PCA in {folder} holds NaN or infinity", "fetch the archive again")
    return tensors


def _hash_of(files: Iterable[Path]) -> str:
    """SHA-256 of a file, or of the names and hashes of several."""
    hashes = []
    for path in files:
        try:
            hashes.append((path.name, hash_of(path)))
        except OSError as error:
            raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    if len(hashes) == 1:
        return hashes[0][1]
    return hashlib.sha256("\n".join(" ".join(each) for each in hashes).encode()).hexdigest()


def listed(names: Iterable[str]) -> str:
    """Some of the names, for a message."""
    names = sorted(names)
    return ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
