"""Variables of DELF's TF2 trainer by their place in the model, however a file names them.

``model.save_weights`` keys a variable by the attributes that lead to it (``backbone/conv1/kernel``),
``tf.train.Checkpoint(model=…)`` puts ``model/`` before that, and ``tf.saved_model.save`` numbers them
(``_model/variables/7``). All of them hold the object graph, which says what each key is: the message of
tensorflow/core/protobuf/trackable_object_graph.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loc.errors import WeightsError
from loc.weights.tensorflow.bundle import Bundle
from loc.weights.tensorflow.wire import Message, WireError

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
#: Attributes of the object that is the model.
_MODEL = {"backbone", "attention"}
#: Layers whose names are not those of their attributes.
_LAYERS = {
    "attention/conv1": "attn_conv1",
    "attention/conv2": "attn_conv2",
    "autoencoder/conv1": "autoenc_conv1",
    "autoencoder/conv2": "autoenc_conv2",
    "desc_classification": "desc_fc",
    "attn_classification": "att_fc",
}


@dataclass(frozen=True)
class _Object:
    children: dict[str, int]
    name: str
    key: str


def variables(bundle: Bundle, wanted: Mapping[str, tuple[int, ...] | None]) -> dict[str, str]:
    """The key of each variable that the bundle has, by its path from the model.

    The attributes that lead to it are followed. A file that has them not (only lists of variables) is read
    by the full names that its variables had, which end with the names of layers; two of one such name are
    told apart by their shapes.

    Args:
        wanted: shapes of paths such as ``backbone/l2a/conv2a/kernel``; None: any.

    Raises:
        WeightsError: the object graph is damaged.
    """
    found = {path: path + SUFFIX for path in wanted if path + SUFFIX in bundle.entries}
    if found or OBJECT_GRAPH not in bundle.entries:
        return found
    objects = _objects(bundle)
    models = [each for each in objects if each.children.keys() >= _MODEL]
    by_name: dict[tuple[str, ...], list[str]] = {}
    for each in objects:
        parts = each.name.split("/")
        by_name.setdefault(tuple(parts[-2:]), []).append(each.key)
        by_name.setdefault((parts[-1],), []).append(each.key)
    for path, shape in wanted.items():
        keys = {key for model in models if (key := _followed(objects, model, path.split("/")))}
        if not keys:
            keys = {key for key in by_name.get(layer_name(path), []) if key in bundle.entries}
            keys = {key for key in keys if shape in (None, bundle.entries[key].shape)}
        if len(keys) > 1:
            raise _damaged(bundle, f"{path} is {' and '.join(sorted(keys))}")
        for key in keys & bundle.entries.keys():  # one at most
            found[path] = key
    return found


def _objects(bundle: Bundle) -> list[_Object]:
    out = []
    try:
        for node in Message(bundle.read_string(OBJECT_GRAPH)).messages(1):
            children = {each.text(2): each.number(1) for each in node.messages(1)}
            values = [each for each in node.messages(2) if each.text(1) == "VARIABLE_VALUE"]
            name, key = (values[0].text(2), values[0].text(3)) if values else ("", "")
            out.append(_Object(children, name, key))
    except WireError as error:
        raise _damaged(bundle, str(error)) from error
    if any(not 0 <= child < len(out) for each in out for child in each.children.values()):
        raise _damaged(bundle, "it names an object that it does not hold")
    return out


def _followed(objects: list[_Object], at: _Object, path: Iterable[str]) -> str:
    """The key at the end of a path of attributes; empty if it does not lead to a variable."""
    for part in path:
        if part not in at.children:
            return ""
        at = objects[at.children[part]]
    return at.key


def layer_name(path: str) -> tuple[str, ...]:
    """What a variable's full name ends with: the name of its layer, if it has one, and its own.

    >>> layer_name("backbone/l4a/bn_shortcut/gamma"), layer_name("attention/conv1/bias")
    (('bn4a_branch1', 'gamma'), ('attn_conv1', 'bias'))
    """
    *scope, own = path.split("/")
    if not scope:
        return (own,)
    if len(scope) == 3:  # a layer of a unit of the backbone
        layer = scope[2].replace("_shortcut", "1")
        kind, branch = ("bn", layer[2:]) if layer.startswith("bn") else ("res", layer[4:])
        return f"{kind}{scope[1][1:]}_branch{branch}", own
    return _LAYERS.get("/".join(scope), scope[-1]), own


def _damaged(bundle: Bundle, what: str) -> WeightsError:
    return WeightsError(
        f"the object graph of {bundle.prefix} cannot be read: {what}", "it is damaged: fetch the file again"
    )
