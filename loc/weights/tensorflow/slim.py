"""A DELF or DELG graph of TF-Slim, read from its outputs down to the image: every fact that it holds.

The network stands twice in such a graph, before the loop over image scales and in it. Both are read, layer
by layer, and must agree. Whatever can differ between releases becomes a fact of the converted file; what
would be another network is an error that names the node.
H. Noh et al., DELF, ICCV 2017; B. Cao et al., DELG, ECCV 2020; tensorflow/models research/delf.
"""

from __future__ import annotations

from collections.abc import Collection

from loc.errors import WeightsError
from loc.weights.tensorflow.graph import Graph
from loc.weights.tensorflow.node import Node
from loc.weights.tensorflow.norms import ADDITIONS, FUSED
from loc.weights.tensorflow.trunk import GIVEN, SUPPRESSIONS, Reading, TrunkReader

#: Units of the four blocks.
UNITS = {"resnet_v1_50": (3, 4, 6, 3), "resnet_v1_101": (3, 4, 23, 3)}
_OUTPUTS = ("boxes", "features", "scales", "scores", "global_descriptors")
#: Operations with weights.
_LAYERS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchMatMulV2")
_DIVISIONS = ("RealDiv", "Div")


class SlimGraph(TrunkReader):
    """Reads one graph; see :func:`read_graph`."""

    def read(self) -> Reading:
        """Facts and variables of the whole graph."""
        local = "features" in self.graph
        overall = "global_descriptors" in self.graph
        if not local and not overall:
            raise WeightsError(
                f"{self.graph.path} has none of the outputs 'features' and 'global_descriptors'",
                "it is no DELF or DELG model",
            )
        maps: list[Node] = []
        if local:
            maps = self._attention()
            self._selection(maps)
        if overall:
            self._pooling()
        self._check_complete([name for name in _OUTPUTS if name in self.graph])
        kind = "delg" if overall and local else ("global" if overall else "delf")
        self.found.facts |= {"kind": kind, "layers": {}}
        for key, (value, _) in sorted(self._said.items()):
            group, _, name = key.rpartition(":")
            (self.found.facts.setdefault(group, {}) if group else self.found.facts)[name] = value
        self._check_units()
        return self.found

    # Heads -------------------------------------------------------------------------------------------

    def _attention(self) -> list[Node]:
        """Attention heads, from their softplus down to the trunk; returns the maps of the features."""
        ends = [node for node in self.graph.upstream(["scores"], _never) if node.op == "Softplus"]
        if not ends:
            self.graph.refuse(self.graph.node("scores"), "does not depend on a softplus")
        maps = []
        for end in ends:
            below = self._biased("attention.conv2", self.graph.source(end, 0))
            below = self._normalized("attention.conv1", self.graph.expect(below, "Relu"))
            if self._is_unit(below):
                self._note("local:attention_input", "trunk", end)
                maps.append(below)
                self._trunk(below, "block3")
                continue
            self._note("local:attention_input", "autoencoder", end)
            reduced = self._biased("autoencoder.conv2", self.graph.source(self._relu(below), 0))
            trunk = self._biased("autoencoder.conv1", reduced)
            maps.append(reduced)
            self._trunk(trunk, "block3")
        return maps

    def _selection(self, maps: list[Node]) -> None:
        """What follows the maps: boxes, threshold, suppression."""
        graph, borders = self.graph, {node.name for node in maps}

        def stop(node: Node) -> bool:
            return node.name in borders or node.op == "Softplus" or node.op in SUPPRESSIONS

        seen = {node.name for node in graph.upstream(["features"], stop)}
        if not borders <= seen:
            graph.refuse(graph.node("features"), f"does not come from {sorted(borders - seen)[0]!r}")
        self._unchanged("scores", {node.name for node in graph.upstream(["scores"], stop) if stop(node)})
        self._unchanged("features", borders)
        self._unchanged("scales", operations=(*_DIVISIONS, "Reciprocal", "Inv"))
        self._boxes(self._unchanged("boxes", operations=_DIVISIONS))
        nodes = list(graph.upstream(["boxes", "scores"], lambda node: node.op == "Softplus"))
        compared = [node for node in nodes if node.op in ("Greater", "GreaterEqual", "Less", "LessEqual")]
        for node in compared:
            if graph.source(node, 1).name == "input_abs_thres":
                graph.expect(node, "GreaterEqual")
        suppressions = [node for node in nodes if node.op in SUPPRESSIONS]
        if not suppressions:
            graph.refuse(graph.node("boxes"), "depends on no NonMaxSuppression")
        for node in suppressions:
            self._suppression(node)

    def _unchanged(
        self, output: str, ends: Collection[str] = (), operations: Collection[str] = ()
    ) -> list[Node]:
        """What computes an output, if it is one of these nodes or operations; nothing else may change it."""
        found = []
        for node in self.graph.computing(output):
            if node.name in ends or node.op in operations:
                found.append(node)
            elif node.op != "Fill" and not (node.op == "Const" and not self.graph.constant(node).size):
                self.graph.refuse(node, f"is a {node.op}, which changes {output} after the network")
        return found

    def _boxes(self, quotients: list[Node]) -> None:
        """Constants of the receptive field: ``(stride * (y, x, y, x) + offsets) / scale``."""
        graph = self.graph
        if not quotients:
            graph.refuse(graph.node("boxes"), "depends on no constants of a receptive field")
        for quotient in quotients:
            node = graph.expect(graph.source(quotient, 0), *ADDITIONS)
            sides = {graph.source(node, position).op: position for position in (0, 1)}
            if sides.keys() != {"Const", "Mul"}:
                graph.refuse(node, "computes boxes in an unknown way")
            offsets, cells = graph.source(node, sides["Const"]), graph.source(node, sides["Mul"])
            values = graph.constant(offsets)
            factors = [graph.source(cells, position) for position in (0, 1)]
            stride = [self._number(each) for each in factors if each.op == "Const"]
            computed = any(each.op in ("Mul", *ADDITIONS, *_DIVISIONS) for each in factors)
            if values.shape != (4,) or values[0] != values[1] or values[2] != values[3]:
                graph.refuse(node, "computes boxes in an unknown way")
            if (
                len(stride) != 1
                or computed
                or any(each.op not in GIVEN for each in graph.computing(graph.source(quotient, 1).name))
            ):
                graph.refuse(quotient, "computes boxes in an unknown way")
            self._note("local:box_stride", stride[0], cells)
            self._note("local:box_offsets", [float(values[0]), float(values[2])], offsets)

    def _pooling(self) -> None:
        """Global heads: whitening, generalized mean, trunk."""

        def stop(node: Node) -> bool:
            return node.op in ("MatMul", "Conv2D")

        graph = self.graph
        ends = [node for node in graph.upstream(["global_descriptors"], stop) if stop(node)]
        if not ends:
            graph.refuse(graph.node("global_descriptors"), "depends on no whitening layer")
        biases = [node for node in graph.upstream(["global_descriptors"], stop) if node.op == "BiasAdd"]
        self._unchanged("global_descriptors", {node.name for node in biases})
        for end in ends:
            above = [each for each in biases if self._reshaped(graph.source(each, 0)) is end]
            if len(above) != 1:
                graph.refuse(end, "is a whitening without a bias")
            self._layers_read.add(end.name)
            self._keep("whitening.weight", graph.source(end, 1), end)
            self._keep("whitening.bias", graph.source(above[0], 1), above[0])
            if end.op == "MatMul" and (
                end.flag("transpose_a", default=False) or end.flag("transpose_b", default=False)
            ):
                graph.refuse(end, "multiplies a transposed matrix")
            root = graph.expect(self._reshaped(graph.source(end, 0)), "Pow")
            mean = graph.expect(self._reshaped(graph.source(root, 0)), "Mean")
            axes = sorted(graph.constant(graph.source(mean, 1)).ravel().tolist())
            if axes != [1, 2]:
                graph.refuse(mean, f"averages over the axes {axes}, expected rows and columns")
            power = graph.expect(graph.source(mean, 0), "Pow")
            clamp = graph.expect(graph.source(power, 0), "Maximum")
            exponent, inverse = self._number(graph.source(power, 1)), self._number(graph.source(root, 1))
            if abs(exponent * inverse - 1) > 1e-6:
                graph.refuse(root, f"takes the power {inverse:g} of a mean of powers {exponent:g}")
            self._note("pooling:power", exponent, power)
            self._note("pooling:least", self._number(graph.source(clamp, 1)), clamp)
            self._trunk(graph.source(clamp, 0), "block4")

    def _check_complete(self, outputs: list[str]) -> None:
        """Every layer that the outputs depend on has been read, in each of its copies."""
        for node in self.graph.upstream(outputs, _never):
            if (node.op in _LAYERS or node.op in FUSED) and node.name not in self._layers_read:
                self.graph.refuse(node, f"is a {node.op} that has no place in DELF or DELG")

    def _check_units(self) -> None:
        backbone = self.found.facts.get("backbone", "")
        if backbone not in UNITS:
            raise WeightsError(
                f"{self.graph.path} is built on {backbone!r}", f"known are {', '.join(sorted(UNITS))}"
            )
        blocks = 3 if self.found.facts["kind"] == "delf" else 4
        expected = {
            f"block{block}.{unit}"
            for block, units in enumerate(UNITS[backbone][:blocks], start=1)
            for unit in range(units)
        }
        got = {name.rpartition(".conv")[0] for name in self.found.facts["layers"] if name.startswith("block")}
        got = {name.removesuffix(".shortcut") for name in got}
        if got != expected:
            raise WeightsError(
                f"{self.graph.path}: the network has other units than {backbone}:"
                f" missing {sorted(expected - got)}, unknown {sorted(got - expected)}",
                "is it another release?",
            )


def read_graph(graph: Graph) -> Reading:
    """Facts and variables of a DELF, DELG or global-only model.

    Raises:
        WeightsError: naming the node at which the graph is another network than these.
    """
    return SlimGraph(graph).read()


def _never(_: Node) -> bool:
    return False
