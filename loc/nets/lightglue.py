"""The network of LightGlue, for one pair at a time or for padded batches of pairs of unequal size.

P. Lindenberger, P.-E. Sarlin and M. Pollefeys, LightGlue: Local Feature Matching at Light Speed, ICCV 2023.

A pair stops at the layer where enough of its points are confident, and points that are confident and
unmatchable are dropped, both by the pair's own numbers. A lone pair is computed on what is left of it. A
batch keeps its shape to the end, (pairs, padded points): dropped points are masked like padding, a pair that
stops is only read out, places without a pair are filled. So every product has the same shape whoever a pair's
neighbours are, and its numbers do not depend on them to the last bit: in half precision, products of other
shapes round differently enough to change a match.

Three things are folded into the weights when they are loaded: queries, keys and values lie one after another,
with the two numbers that a rotation turns half a head apart; the projection of the attention's output is
multiplied into the layer that reads it; and both sides' cross-attention uses fused attention, so that no
matrix of all pairs of points is stored before the final one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

LAYERS = 9
_DIM, _HEADS = 256, 4
_HEAD = _DIM // _HEADS


class Encoded(NamedTuple):
    """Points of one image as the network sees them first.

    ``x (n, 256)`` float32, and ``turn (2, n, 32)``: cosine and sine of the angles by which queries and keys
    are rotated, so that attention depends on relative positions.
    """

    x: torch.Tensor
    turn: torch.Tensor


class Shape(NamedTuple):
    """Of a padded batch: pairs, and points of either side."""

    pairs: int
    first: int
    second: int


class Thresholds(NamedTuple):
    """When to stop and what to drop; see :class:`loc.matchers.lightglue.LightGlueConfig`."""

    depth_confidence: float
    width_confidence: float
    min_score: float

    def confident(self, layer: int) -> float:
        """How confident a point must be after a layer to count: the authors' schedule."""
        return 0.8 + 0.1 * math.exp(-4.0 * layer / LAYERS)


def shapes(input_dim: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights, with the layers' newer names.

    Args:
        input_dim: length of the descriptors.
    """

    def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    out: dict[str, tuple[int, ...]] = {"posenc.Wr.weight": (_HEAD // 2, 2)}
    if input_dim != _DIM:
        out |= linear("input_proj", _DIM, input_dim)
    for number in range(LAYERS):
        own, cross = (f"transformers.{number}.{kind}_attn" for kind in ("self", "cross"))
        out |= linear(f"{own}.Wqkv", 3 * _DIM, _DIM) | linear(f"{own}.out_proj", _DIM, _DIM)
        for name in ("to_qk", "to_v", "to_out"):
            out |= linear(f"{cross}.{name}", _DIM, _DIM)
        for block in (own, cross):
            out |= linear(f"{block}.ffn.0", 2 * _DIM, 2 * _DIM) | linear(f"{block}.ffn.3", _DIM, 2 * _DIM)
            out |= {f"{block}.ffn.1.weight": (2 * _DIM,), f"{block}.ffn.1.bias": (2 * _DIM,)}
        out |= linear(f"log_assignment.{number}.final_proj", _DIM, _DIM)
        out |= linear(f"log_assignment.{number}.matchability", 1, _DIM)
        if number < LAYERS - 1:
            out |= linear(f"token_confidence.{number}.token.0", 1, _DIM)
    return out


class LightGlueNet:
    """LightGlue with its weights on a device.

    Args:
        state: tensors by the names of :func:`shapes`.
        device: where to compute.
        dtype: of the products and of attention; what a layer adds to, confidences and the final assignment
            are float32 in any case.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], *, device: str, dtype: torch.dtype) -> None:
        weights = _Weights(state, device, dtype)
        self._dtype = dtype
        self._project = weights.linear("input_proj") if "input_proj.weight" in state else None
        self._frequencies = weights.exact("posenc.Wr.weight")
        self._layers = [_Layer(weights, f"transformers.{number}") for number in range(LAYERS)]
        self._assign = [weights.exact_linear(f"log_assignment.{n}.final_proj") for n in range(LAYERS)]
        self._matchable = [weights.exact_linear(f"log_assignment.{n}.matchability") for n in range(LAYERS)]
        self._sure = [weights.exact_linear(f"token_confidence.{n}.token.0") for n in range(LAYERS - 1)]

    def encode(self, xy: torch.Tensor, descriptors: torch.Tensor, image_wh: tuple[int, int]) -> Encoded:
        """What of one image does not depend on its partner.

        Args:
            xy: ``(n, 2)`` float32 px, centre origin.
            descriptors: ``(n, input_dim)`` float32.
        """
        import torch

        size = xy.new_tensor(image_wh)
        angles = (xy - size / 2) / (size.max() / 2) @ self._frequencies.T
        x = descriptors if self._project is None else self._project(descriptors).float()
        return Encoded(x, torch.stack([angles.cos(), angles.sin()]))

    def match(
        self, pairs: Sequence[tuple[Encoded, Encoded]], thresholds: Thresholds, shape: Shape | None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Matches of pairs of images that have points: ``(m, 2)`` int64 rows, ascending, and ``(m,)`` scores.

        Args:
            pairs: as many as ``shape`` has place for, or less; one if it is None.
            shape: of the padded batch; None: the pair as it is.
        """
        import torch

        filled = [*pairs, *[pairs[0]] * (shape.pairs - len(pairs))] if shape else pairs
        lengths = (shape.first, shape.second) if shape else (None, None)
        sides = [_Side.of([pair[n] for pair in filled], lengths[n], self._dtype) for n in (0, 1)]
        totals = sides[0].alive.sum(1) + sides[1].alive.sum(1)
        found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        waiting = torch.arange(len(filled), device=totals.device) < len(pairs)
        for layer in range(LAYERS):
            sides = self._layers[layer](sides)
            stop, sides = self._judge(layer, sides, totals, thresholds)
            for number in torch.nonzero(stop & waiting)[:, 0].tolist():
                found[number] = self._matches(
                    layer, [side.only(number) for side in sides], thresholds.min_score
                )
            waiting &= ~stop
            if len(found) == len(pairs):
                break
            sides = [side.compact() for side in sides]
        return [found[number] for number in range(len(pairs))]

    def _judge(
        self, layer: int, sides: list[_Side], totals: torch.Tensor, thresholds: Thresholds
    ) -> tuple[torch.Tensor, list[_Side]]:
        """Which pairs stop after this layer, and which points of the others go on."""
        import torch

        stop = torch.full_like(totals, layer == LAYERS - 1, dtype=torch.bool)
        by_depth, by_width = thresholds.depth_confidence > 0, thresholds.width_confidence > 0
        if layer == LAYERS - 1 or not (by_depth or by_width):
            return stop, sides
        doubtful = [torch.zeros_like(side.alive) for side in sides]
        if by_depth:
            least = thresholds.confident(layer)
            doubtful = [self._sure[layer](side.x)[..., 0].sigmoid() < least for side in sides]
            count = sum(((each & side.alive).sum(1) for each, side in zip(doubtful, sides, strict=True)))
            stop = 1 - count / totals > thresholds.depth_confidence
        if by_width:
            least = 1 - thresholds.width_confidence
            kept = [
                side.alive & (each | (self._matchable[layer](side.x)[..., 0].sigmoid() > least))
                for each, side in zip(doubtful, sides, strict=True)
            ]
            # A pair that stops now is assigned with all of its points.
            sides = [
                side._replace(alive=torch.where(stop[:, None], side.alive, each))
                for each, side in zip(kept, sides, strict=True)
            ]
            stop = stop | (kept[0].sum(1) == 0) | (kept[1].sum(1) == 0)
        return stop, sides

    def _matches(self, layer: int, sides: list[_Side], min_score: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Mutual best entries of the assignment matrix of one pair whose score is above a bound.

        An entry is the product of two softmaxes of the similarities, along rows and along columns, and of
        both points' matchabilities.
        """
        import torch
        from torch.nn.functional import logsigmoid

        first, second = (self._assign[layer](side.x[0]) / _DIM**0.25 for side in sides)
        log = first @ second.T
        if sides[0].masked:
            log[~sides[0].alive[0]] = -torch.inf
            log[:, ~sides[1].alive[0]] = -torch.inf
        rows, columns = (
            logsigmoid(self._matchable[layer](side.x[0])[:, 0]) - log.logsumexp(1 - number)
            for number, side in enumerate(sides)
        )
        log.mul_(2).add_(rows[:, None]).add_(columns)
        if sides[0].masked:  # a softmax over nothing is NaN
            log[~sides[0].alive[0]] = -torch.inf
            log[:, ~sides[1].alive[0]] = -torch.inf
        best, partner = log.max(1)
        scores = best.exp()
        mutual = log.argmax(0)[partner] == torch.arange(len(partner), device=partner.device)
        row = torch.nonzero(mutual & (scores > min_score))[:, 0]
        return torch.stack([sides[0].rows[0, row], sides[1].rows[0, partner[row]]], 1), scores[row]


class _Side(NamedTuple):
    """One side of a batch: the same image of every pair.

    ``x (b, n, 256)`` float32; ``turn (2, b, n, 32)``; ``rows (b, n)``: numbers of the points in their image;
    ``alive (b, n)``: neither padding nor dropped; ``masked``: what layers see may not all be alive.
    """

    x: torch.Tensor
    turn: torch.Tensor
    rows: torch.Tensor
    alive: torch.Tensor
    masked: bool

    @classmethod
    def of(cls, images: Sequence[Encoded], length: int | None, dtype: torch.dtype) -> _Side:
        """Images padded to a length, or a single one as it is."""
        import torch
        from torch.nn.functional import pad

        counts = torch.tensor([len(image.x) for image in images], device=images[0].x.device)
        n = len(images[0].x) if length is None else length
        rows = torch.arange(n, device=counts.device).expand(len(images), n)
        return cls(
            torch.stack([pad(image.x, (0, 0, 0, n - len(image.x))) for image in images]),
            torch.stack([pad(image.turn, (0, 0, 0, n - len(image.x))) for image in images], 1).to(dtype),
            rows,
            rows < counts[:, None],
            length is not None,
        )

    @property
    def mask(self) -> torch.Tensor | None:
        """``(b, 1, 1, n)``: what attention may look at."""
        return self.alive[:, None, None] if self.masked else None

    def only(self, number: int) -> _Side:
        """One of the pairs."""
        pair = slice(number, number + 1)
        return _Side(self.x[pair], self.turn[:, pair], self.rows[pair], self.alive[pair], self.masked)

    def compact(self) -> _Side:
        """A lone pair's side without the points that were dropped; a batch keeps its shape."""
        import torch

        if self.masked or bool(self.alive.all()):
            return self
        kept = torch.nonzero(self.alive[0])[:, 0]
        return _Side(self.x[:, kept], self.turn[:, :, kept], self.rows[:, kept], self.alive[:, kept], False)


class _Linear(NamedTuple):
    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import linear

        return linear(x.to(self.weight.dtype), self.weight, self.bias)


class _Weights:
    """Tensors by name, as layers."""

    def __init__(self, state: Mapping[str, torch.Tensor], device: str, dtype: torch.dtype) -> None:
        self._state, self._device, self._dtype = state, device, dtype

    def exact(self, name: str) -> torch.Tensor:
        """A tensor as float32."""
        return self._state[name].to(self._device)

    def exact_linear(self, name: str) -> _Linear:
        return _Linear(self.exact(f"{name}.weight"), self.exact(f"{name}.bias"))

    def linear(self, name: str) -> _Linear:
        return self.cast(self.exact_linear(name))

    def cast(self, linear: _Linear) -> _Linear:
        """In the precision of the products."""
        return _Linear(*(tensor.to(self._dtype).contiguous() for tensor in linear))


class _Update:
    """What a block makes of a point and of what it attended to: a residual update."""

    def __init__(self, weights: _Weights, block: str, out: str) -> None:
        import torch

        first, message = weights.exact_linear(f"{block}.ffn.0"), weights.exact_linear(f"{block}.{out}")
        of_x, of_message = first.weight[:, :_DIM], first.weight[:, _DIM:]
        folded = torch.cat([of_x, of_message @ message.weight], 1)
        self._first = weights.cast(_Linear(folded, first.bias + of_message @ message.bias))
        self._norm = weights.linear(f"{block}.ffn.1")
        self._second = weights.linear(f"{block}.ffn.3")

    def __call__(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import gelu, layer_norm

        hidden = self._first(torch.cat([x.to(context.dtype), context], 2))
        hidden = gelu(layer_norm(hidden, (2 * _DIM,), *self._norm))
        return x + self._second(hidden)


class _Layer:
    """Self-attention within each image, then cross-attention between the two."""

    def __init__(self, weights: _Weights, name: str) -> None:
        own, cross = f"{name}.self_attn", f"{name}.cross_attn"
        self._own_in = weights.cast(_regrouped(weights.exact_linear(f"{own}.Wqkv")))
        self._own_out = _Update(weights, own, "out_proj")
        both = [weights.exact_linear(f"{cross}.{part}") for part in ("to_qk", "to_v")]
        self._cross_in = weights.cast(_stacked(both))
        self._cross_out = _Update(weights, cross, "to_out")

    def __call__(self, sides: list[_Side]) -> list[_Side]:
        sides = [side._replace(x=self._own_out(side.x, self._looked_within(side))) for side in sides]
        read = [_heads(self._cross_in(side.x)) for side in sides]
        (key0, value0), (key1, value1) = ([each.select(2, part) for part in (0, 1)] for each in read)
        contexts = (
            _attend(key0, key1, value1, sides[1].mask),
            _attend(key1, key0, value0, sides[0].mask),
        )
        return [
            side._replace(x=self._cross_out(side.x, context))
            for side, context in zip(sides, contexts, strict=True)
        ]

    def _looked_within(self, side: _Side) -> torch.Tensor:
        import torch

        read = _heads(self._own_in(side.x))
        cos, sin = side.turn[:, :, :, None, None]
        even, odd = read[:, :, :2].chunk(2, 4)
        turned = torch.cat([even * cos - odd * sin, odd * cos + even * sin], 4)
        return _attend(turned[:, :, 0], turned[:, :, 1], read[:, :, 2], side.mask)


def _heads(read: torch.Tensor) -> torch.Tensor:
    """``(b, n, parts, heads, 64)`` of ``(b, n, parts * 256)``."""
    return read.view(*read.shape[:2], -1, _HEADS, _HEAD)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """``(b, n, 256)`` from ``(b, n, heads, 64)``, by torch's fused attention."""
    from torch.nn.functional import scaled_dot_product_attention

    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


def _regrouped(linear: _Linear) -> _Linear:
    """Rows of ``(head, 32, even and odd, q k v)`` to those of queries, keys and values, one after another.

    Queries and keys are ``(head, even and odd, 32)`` then, values ``(head, 64)`` as before.
    """
    import torch

    parts = []
    for tensor in linear:
        of_head = tensor.view(_HEADS, _HEAD // 2, 2, 3, -1)
        turned = of_head[:, :, :, :2].permute(3, 0, 2, 1, 4).flatten(0, 3)
        parts.append(torch.cat([turned, of_head[:, :, :, 2].flatten(0, 2)]))
    return _Linear(parts[0], parts[1][:, 0])


def _stacked(linears: Sequence[_Linear]) -> _Linear:
    """Layers that read the same, as one."""
    import torch

    return _Linear(*(torch.cat(parts) for parts in zip(*linears, strict=True)))
