"""Names and shapes of the tensors of DELF and DELG: ours, TF-Slim's and those of the TF2 trainer.

A converted file has the names of :func:`network_shapes`; the shapes there are TensorFlow's (convolutions
HWIO, dense layers input x output), as that is what is checked before anything is turned around.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loc.weights.tensorflow.slim import UNITS
from loc.weights.tensorflow.trunk import NORM_PARTS, norm_name

Shape = tuple[int, ...]

#: Of a local feature before its PCA: channels of block 3.
LOCAL_VALUES = 1024
_KERAS_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
#: Epsilon of Keras' batch norm, which its trainer leaves at the default of the library.
_KERAS_EPSILON = 1e-3


def layers(backbone: str, blocks: int) -> Iterator[tuple[str, Shape]]:
    """Convolutions of the trunk and their shapes, HWIO."""
    yield "stem.conv", (7, 7, 3, 64)
    channels = 64
    for block, units in enumerate(UNITS[backbone][:blocks]):
        base = 64 << block
        for unit in range(units):
            name = f"block{block + 1}.{unit}"
            yield f"{name}.conv1", (1, 1, channels, base)
            yield f"{name}.conv2", (3, 3, base, base)
            yield f"{name}.conv3", (1, 1, base, 4 * base)
            if unit == 0:
                yield f"{name}.shortcut.conv", (1, 1, channels, 4 * base)
            channels = 4 * base


def network_shapes(
    backbone: str, *, local: bool, autoencoder: bool, whitening: bool, biased: bool = False
) -> dict[str, Shape]:
    """Every tensor of a network in TensorFlow's shape.

    Args:
        local: with the attention head.
        biased: convolutions before a batch norm have a bias too (Keras).
    """
    shapes: dict[str, Shape] = {}
    convolutions = list(layers(backbone, 4 if whitening else 3))
    if local:
        convolutions.append(("attention.conv1", (1, 1, 1024, 512)))
    for name, shape in convolutions:
        shapes[f"{name}.weight"] = shape
        if biased:
            shapes[f"{name}.bias"] = shape[3:]
        shapes |= {f"{norm_name(name)}.{part}": shape[3:] for part in NORM_PARTS}
    if local:
        shapes |= {"attention.conv2.weight": (1, 1, 512, 1), "attention.conv2.bias": (1,)}
    if autoencoder:
        shapes |= {"autoencoder.conv1.weight": (1, 1, 1024, 128), "autoencoder.conv1.bias": (128,)}
        shapes |= {"autoencoder.conv2.weight": (1, 1, 128, 1024), "autoencoder.conv2.bias": (1024,)}
    if whitening:
        shapes |= {"whitening.weight": (2048, 2048), "whitening.bias": (2048,)}
    return shapes


def keras_names(shapes: dict[str, Shape]) -> dict[str, str]:
    """Our name → path of a variable in the model of the TF2 trainer (R/training/model/resnet50.py)."""
    return {name: _keras_name(name) for name in shapes}


def _keras_name(name: str) -> str:
    scope, _, part = name.rpartition(".")
    norm = scope.rpartition(".")[2].startswith("bn")
    attribute = (
        dict(zip(NORM_PARTS, _KERAS_NORM, strict=True))[part]
        if norm
        else {"weight": "kernel", "bias": "bias"}[part]
    )
    head, _, rest = scope.partition(".")
    if head == "stem":
        path = "backbone/bn_conv1" if norm else "backbone/conv1"
    elif head == "whitening":
        path = "backbone/embedding_layer"
    elif head in ("attention", "autoencoder"):
        path = f"{head}/{rest.replace('bn1', 'bn_conv1')}"
    else:
        unit, _, layer = rest.partition(".")
        stage = f"backbone/l{int(head[-1]) + 1}{chr(ord('a') + int(unit))}"
        if layer.startswith("shortcut"):
            path = f"{stage}/{'bn' if norm else 'conv'}_shortcut"
        else:
            path = f"{stage}/{'bn' if norm else 'conv'}2{'abc'[int(layer[-1]) - 1]}"
    return f"{path}/{attribute}"


def keras_facts(kind: str) -> dict[str, Any]:
    """Facts of a network of the TF2 trainer: its checkpoints hold no graph, so these are the code's defaults.

    ``block3_strides`` is on by default: the map of block 3 is sub-sampled after its last unit.
    """
    facts: dict[str, dict[str, Any]] = {}
    for name, shape in layers("resnet_v1_50", 4 if kind == "delg" else 3):
        strided = name in {
            f"block{block}.0.{layer}" for block in (2, 3) for layer in ("conv1", "shortcut.conv")
        }
        stride = 2 if strided or name == "stem.conv" else 1
        pad: Any = "same" if shape[0] > 1 else [0, 0]
        facts[name] = {"stride": stride, "pad": pad, "epsilon": _KERAS_EPSILON}
    facts["pool"] = {"stride": 2, "pad": [0, 0]}
    facts["block3.pool"] = {"stride": 2, "pad": [0, 0]}
    for name in ("attention.conv1", "attention.conv2", "autoencoder.conv1", "autoencoder.conv2"):
        if kind == "delg" or name.startswith("attention"):
            facts[name] = {"stride": 1, "pad": "same"}
    facts["attention.conv1"]["epsilon"] = _KERAS_EPSILON
    local = {
        "attention_input": "autoencoder" if kind == "delg" else "trunk",
        "box_offsets": [-145.0, 145.0],
        "box_stride": 32.0,
        "nms_iou": 1.0,
    }
    return {
        "kind": kind,
        "layers": facts,
        "local": local,
        "pooling": {"power": 3.0, "least": 1e-6} if kind == "delg" else None,
        "backbone": "resnet_v1_50",
        "input_offset": 128.0,
        "input_scale": 128.0,
        "resize": "half_pixel",
    }
