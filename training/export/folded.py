"""Parts of the trained model → the same with fewer and larger products, to be exported.

In: modules of ``training/model`` in evaluation mode. Out: modules whose weights are
products of theirs, made once: a bias that the next layer reads, a projection of all states
that few queries read. States are flat, (B T, D), so that a product and what is added to it
are one operator. ``folded_tables.py`` has the tables.

Shapes are those of ``training/model``; W counters have U lines.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.training.model.embeddings import NumericFeatures
from srp4ctr.training.model.transformer import (
    AttentionBlock,
    FeedForward,
    OlderBehaviors,
    QueryingTransformer,
    TransformerLayer,
    attend,
)

_LIMIT = 5.0  # of NumericFeatures
_SMALLEST_SCALE = 1e-12  # of a constant column, whose line is left out
Pair = tuple[Tensor, Tensor]  # weight (in, out) and bias (out,)


class Attention(torch.autograd.Function):
    """``attend`` as one operator of onnxruntime's, which splits and joins the heads."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Return (B, T, D) of queries (B, T, D), keys and values (B, S, D), heads, mask.

        The mask is (B, S) of int32, or None.
        """
        q, k, v, heads, mask = inputs
        seen = torch.ones_like(k[..., 0]) if mask is None else mask.to(q.dtype)
        return attend(q, k, v, seen, heads)

    @staticmethod
    def symbolic(g: Any, *inputs: Any) -> Any:
        """Return the node."""
        *arrays, heads, mask = inputs
        if mask is not None:
            absent = g.op("prim::Constant")  # the bias of queries, keys and values
            absent.setType(torch._C.OptionalType.ofTensor())
            arrays += [absent, mask]
        name = "com.microsoft::MultiHeadAttention"
        made = g.op(name, *arrays, num_heads_i=heads)
        made.setType(arrays[0].type())
        return made


class FoldedLayer(nn.Module):
    """A ``TransformerLayer`` on flat states, which carry its attention's output bias.

    A residual plus a product is one product then; whoever reads the states takes the bias
    off again in a bias of its own.
    """

    def __init__(self, layer: TransformerLayer, next_bias: Tensor) -> None:
        super().__init__()
        shift = layer.output.bias
        self.heads = layer.heads
        self.query = _shifted(layer.query, shift)
        if hasattr(layer, "key"):
            self.key, self.value = _shifted(layer.key, shift), _shifted(layer.value, shift)
        self.output = layer.output.weight.t()
        self.attention_norm = layer.attention_norm
        self.widened = _Widened(layer.feed_forward)
        self.norm_bias = layer.attention_norm.bias + layer.feed_forward.narrow.bias
        self.output_norm = layer.output_norm
        self.output_bias = layer.output_norm.bias + next_bias

    def forward(
        self, flat: Tensor, keys: Tensor, values: Tensor, mask: Tensor, batch: int
    ) -> Tensor:
        """Return the next flat states (B T, D), from (B, S, D) keys and values."""
        queries = torch.addmm(self.query[1], flat, self.query[0])
        width = len(self.output)
        queries = queries.reshape(batch, -1, width)
        gathered = Attention.apply(queries, keys, values, self.heads, mask)
        flat = torch.addmm(flat, gathered.reshape(-1, width), self.output)
        flat = normed(flat, self.attention_norm, self.norm_bias)
        return normed(self.widened(flat), self.output_norm, self.output_bias)


class _Widened(nn.Module):
    """States that carry the second bias of ``FeedForward`` → states plus what it makes."""

    def __init__(self, layer: FeedForward) -> None:
        super().__init__()
        self.widen = _shifted(layer.widen, layer.narrow.bias)
        self.narrow = layer.narrow.weight.t()

    def forward(self, flat: Tensor) -> Tensor:
        """Return (B T, D) of the same."""
        hidden = functional.gelu(torch.addmm(self.widen[1], flat, self.widen[0]))
        return torch.addmm(flat, hidden, self.narrow)


class _Reading(nn.Module):
    """Attention that projects few queries in place of all the states that they read.

    A query's product with a projected state is the query, projected back, times the state
    itself; so is the sum of values. A bias of the keys moves all scores of a query alike.
    """

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.heads = block.heads
        outputs: Tensor = block.output.weight.t()
        width = len(outputs)
        each = width // self.heads
        keys = block.key.weight.reshape(self.heads, each, width)
        values = block.value.weight.reshape(self.heads, each, width)
        outputs = outputs.reshape(self.heads, each, width)
        queries = block.query.weight.reshape(self.heads, each, width)
        biases = block.query.bias.reshape(self.heads, 1, each)
        keys = keys * math.sqrt(self.heads)  # a product over D is scaled by 1 / sqrt(D)
        self.weight = (queries.transpose(1, 2) @ keys).transpose(0, 1).reshape(width, -1)
        self.bias = (biases @ keys).reshape(-1)
        self.read = (values.transpose(1, 2) @ outputs).reshape(-1, width)
        self.shift = block.output.bias + block.value.bias @ block.output.weight.t()
        """What the gathered states lack, for all queries alike."""

    def queries(self, flat: Tensor) -> Tensor:
        """Return flat queries (T, D) as (T, H D)."""
        return torch.addmm(self.bias, flat, self.weight)

    def forward(
        self, flat: Tensor, queries: Tensor, states: Tensor, mask: Tensor
    ) -> Tensor:
        """Return ``flat`` (B T, D) plus what ``queries`` (B, T H, D) read of (B, S, D)."""
        gathered = Attention.apply(queries, states, states, 1, mask)
        return torch.addmm(flat, gathered.reshape(-1, len(self.read)), self.read)


class FoldedPooling(nn.Module):
    """``OlderBehaviors``, whose queries are constants."""

    def __init__(self, block: OlderBehaviors) -> None:
        super().__init__()
        attention = block.attention
        self.reading = _Reading(attention)
        self.queries = block.queries + self.reading.shift
        self.of_queries = self.reading.queries(block.queries)
        self.norm = attention.norm

    def forward(self, tokens: Tensor, mask: Tensor, next_bias: Tensor) -> Tensor:
        """Return (B, P, D), which carry ``next_bias``, of (B, 1 + O, D) and (B, 1 + O)."""
        batch, width = tokens.shape[0], len(next_bias)
        queries = self.of_queries.reshape(1, -1, width).expand(batch, -1, -1)
        flat = self.queries[None].expand(batch, -1, -1).reshape(-1, width)
        flat = self.reading(flat, queries, tokens, mask)
        pooled = normed(flat, self.norm, self.norm.bias + next_bias)
        return pooled.reshape(batch, -1, width)


class FoldedQuerying(nn.Module):
    """``QueryingTransformer``."""

    def __init__(self, block: QueryingTransformer) -> None:
        super().__init__()
        own = block.self_attention
        self.heads = own.heads
        shift: Tensor = own.output.bias
        self.queries = block.queries + shift
        self.own = [_shifted(each, shift) for each in (own.query, own.key, own.value)]
        self.own_output = own.output.weight.t()
        self.own_norm, self.own_bias = own.norm, own.norm.bias + block.reading.output.bias
        self.reading = FoldedLayer(block.reading, torch.zeros(()))

    def forward(
        self, initial: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Return (B, M, D) of (B, D), keys and values (B, S, D), and (B, S)."""
        queries, batch = self.queries + initial[:, None], initial.shape[0]
        width = len(self.own_output)
        shape = batch, len(self.queries), width
        flat = queries.reshape(-1, width)
        q, k, v = (torch.addmm(b, flat, w).reshape(shape) for w, b in self.own)
        gathered = Attention.apply(q, k, v, self.heads, None)
        flat = torch.addmm(flat, gathered.reshape(-1, width), self.own_output)
        flat = normed(flat, self.own_norm, self.own_bias)
        summaries: Tensor = self.reading(flat, keys, values, mask, batch)
        return summaries.reshape(shape)


class Spans(nn.Module):
    """``NumericFeatures`` as one clipped line for each column and span, from 0 to 1.

    Lines that are flat are left out: those of columns that were constant in training, and
    of spans without width. So a column that a log never fills costs nothing.
    """

    def __init__(self, features: NumericFeatures) -> None:
        super().__init__()
        width, spans = features.edges.shape
        ones = torch.eye(width)
        slopes = torch.cat([features.scale / (2.0 * _LIMIT), features.slopes.flatten()])
        is_kept = slopes != 0.0
        is_kept[0] |= not is_kept.any()  # an empty product would be no product
        self.kept = torch.nonzero(is_kept).flatten()
        # A product with 0 and 1 copies each feature, exactly, in a single pass.
        copies = torch.cat([ones, ones.repeat_interleave(spans, dim=1)], dim=1)
        self.copies = copies[:, self.kept]
        lower = features.mean - _LIMIT / features.scale.clamp(min=_SMALLEST_SCALE)
        lower = torch.cat([lower, features.edges.flatten()])
        self.lower, self.slopes = -lower[self.kept], slopes[self.kept]
        self.width, self.lines = width, width * (1 + spans)

    def forward(self, features: Tensor) -> Tensor:
        """Return flat lines (B, U) of (B, W), or (B T, U) of (B, T, W)."""
        flat = features.reshape(-1, self.width)
        lines = torch.addmm(self.lower, flat, self.copies) * self.slopes
        return lines.clamp(0.0, 1.0)

    def folded(self, weight: Tensor, bias: Tensor) -> Pair:
        """Return a layer (all lines and more, any) on ``NumericFeatures`` as one on lines.

        The input is scaled from -5 to 5 by the first W lines, and from -1/2 to 1/2 by the
        others; a flat line of a column is 0, and of a span -1/2.
        """
        stretched, rest = weight[: self.lines], weight[self.lines :]
        bias = bias - 0.5 * stretched[self.width :].sum(0)
        kept, is_column = stretched[self.kept], self.kept < self.width
        bias = bias - _LIMIT * (kept * (is_column & (self.slopes != 0.0))[:, None]).sum(0)
        kept = torch.where(is_column[:, None], 2.0 * _LIMIT * kept, kept)
        return torch.cat([kept, rest]), bias


def folded_layers(layers: nn.ModuleList) -> tuple[list["FoldedLayer"], Tensor]:
    """Return ``TransformerLayer``s folded, and the bias that the first one's input has."""
    known = [each for each in layers if isinstance(each, TransformerLayer)]
    biases = [*(each.output.bias for each in known), torch.zeros(())]
    folded = [FoldedLayer(*pair) for pair in zip(known, biases[1:], strict=True)]
    return folded, biases[0]


def _shifted(layer: nn.Linear, shift: Tensor) -> Pair:
    """Return weight and bias of ``layer`` for inputs that carry ``shift``."""
    weight = layer.weight.t()
    return weight, layer.bias - shift @ weight


def normed(states: Tensor, norm: nn.LayerNorm, bias: Tensor) -> Tensor:
    """Return the LayerNorm of ``states`` (…, D) with ``bias`` in place of its own."""
    return functional.layer_norm(states, norm.normalized_shape, norm.weight, bias, norm.eps)
