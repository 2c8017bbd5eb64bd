"""What the graph of a SavedModel of DELF's TF2 trainer says, in the place of the trainer's defaults.

Layers are known by the variables that they read, wherever in the graph they stand: Keras names a kernel
after its layer.
"""

from __future__ import annotations

from typing import Any

from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.layout import keras_names
from loc.weights.tensorflow.node import Node
from loc.weights.tensorflow.norms import FUSED, norm_at
from loc.weights.tensorflow.objects import layer_name
from loc.weights.tensorflow.trunk import SUPPRESSIONS, TrunkReader, short

#: Distance of two cells of block 3 before it is sub-sampled, px: what the trainer's boxes count in.
_BLOCK3_PX = 16.0


class TrainerGraph(TrunkReader):
    """Reads one graph; see :func:`with_graph`."""

    def read(self, assumed: dict[str, Any]) -> dict[str, Any]:
        """Facts that are written in the graph, by their names there; none if the network is not in it."""
        graph = self.graph
        ours = {layer_name(path): name for name, path in keras_names(_kernels(assumed)).items()}
        epsilons = self._epsilons()
        for node in graph.nodes.values():
            if node.op != "Conv2D":
                continue
            kernel = graph.source(node, 1)
            named = graph.variable(kernel) if kernel.op == "VarHandleOp" else ""
            layer = ours.get(tuple(named.split("/")[-2:]))
            if layer is not None:
                self._convolution(layer.removesuffix(".weight"), node, epsilons.get(node.name))
        if not self._said:
            return {}
        for node in graph.nodes.values():
            if node.op == "MaxPool":
                self._pool(node)
            elif node.op == "ResizeBilinear":
                self._preprocessing(node)
            elif node.op in SUPPRESSIONS:
                self._suppression(node)
        return {key: value for key, (value, _) in self._said.items()}

    def _epsilons(self) -> dict[str, float]:
        """Of the batch norm after a convolution, by the convolution's node."""
        out = {}
        for node in self.graph.nodes.values():
            norm = norm_at(self.graph, node) if node.op in FUSED else None
            if norm is not None:
                biased = norm.source.op == "BiasAdd"
                conv = self.graph.source(norm.source, 0) if biased else norm.source
                out[conv.name] = short(norm.epsilon)
        return out

    def _pool(self, node: Node) -> None:
        names: dict[tuple[int, ...], str] = {(1, 3, 3, 1): "pool", (1, 1, 1, 1): "block3.pool"}
        if node.numbers("ksize") not in names:
            self.graph.refuse(node, f"pools {node.numbers('ksize')}, expected 3 x 3 or single cells")
        self._plain(node)
        padding: Any = "same" if node.text("padding") == "SAME" else [0, 0]
        self._note(
            f"layers:{names[node.numbers('ksize')]}", {"stride": self._stride(node), "pad": padding}, node
        )


def with_graph(assumed: dict[str, Any], graph: Graph) -> dict[str, Any] | None:
    """Facts of a network of the trainer: those of the graph, and the assumed ones where it says nothing.

    Args:
        assumed: the trainer's defaults, as :func:`loc.weights.tensorflow.layout.keras_facts` gives them.

    Returns:
        None if the network is not in the graph.

    Raises:
        WeightsError: its copies contradict each other, or it has a layer that the trainer's have not; names
            the node.
    """
    said = TrainerGraph(graph).read(assumed)
    if not said:
        return None
    read = {key.removeprefix("layers:"): value for key, value in said.items() if key.startswith("layers:")}
    step = read.setdefault("block3.pool", {"stride": 1, "pad": [0, 0]})["stride"]
    # Where the map is not sub-sampled, block 4 begins with the stride instead; features do not need block 4.
    later = [name for name in ("block4.0.conv1", "block4.0.shortcut.conv") if name in assumed["layers"]]
    block4 = {name: assumed["layers"][name] | {"stride": 2 // step} for name in later}
    layers = assumed["layers"] | block4 | read
    local = assumed["local"] | {"box_stride": _BLOCK3_PX * step}
    local |= {"nms_iou": said["local:nms_iou"]} if "local:nms_iou" in said else {}
    overall = {key: said[key] for key in ("resize", "input_offset", "input_scale") if key in said}
    return assumed | overall | {"layers": layers, "local": local}


def _kernels(facts: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The weights of all layers that have some."""
    return {f"{name}.weight": () for name in facts["layers"] if not name.endswith("pool")}
