"""The transformers: FG-BERT over the history, uni cross-attention, querying transformer.

FG-BERT encodes the history and its side information, nothing of the request. Candidates
attend to the keys and values of its layers, never the history to them: a candidate costs
its own query, output and feed-forward, and one encoding serves all candidates of a request.
Trained queries attend to the last layer's, once per request; they read no candidate. So
what that layer makes of the behaviours is computed for pre-training alone: of its products
serving needs a sixth, the keys and values.

Of a long history only the newest behaviours are encoded one by one. Older ones are pooled
by trained queries (Set Transformer's pooling by attention, Lee et al., ICML 2019): their
cost is linear in the length, and the pooled states stand in the sequence before the rest.

Attention is plain matrix products: exact in torch, in ONNX and in FLOPs.

What serving runs follows in the second half: fewer and larger products, whose weights are
products of the trained ones, made once: a bias that the next layer reads, a projection of
all states that few queries read. There states are flat, (B T, D), so that a product and
what is added to it are one operator.

Shapes: B requests, L history, W of it encoded one by one, O = L - W older, P pooled states,
S = 1 + P + W states (slot 0 is the trained null slot, valid even when the history is empty;
a model for at most W behaviours has no pooled states: S = 1 + L), T queries of any kind,
N candidates, E layers, H heads, A attribute slots, F behaviour fields, M trained queries,
R request features, D width.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.dropout import Dropout
from srp4ctr.training.model.embeddings import TokenEmbedding

_HIDDEN = -1e9  # added to the score of a padded state: its weight underflows to 0
NUM_POOLED = 16  # P
Pair = tuple[Tensor, Tensor]  # weight (in, out) and bias (out,)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int
) -> Tensor:
    """Return what each query (B, T, D) gathers from ``values`` (B, S, D): (B, T, D).

    ``mask`` (B, S) is 1 where a state may be seen. At least one must be, else the result
    is an average over padding.
    """
    q, k, v = (_split(x, heads) for x in (queries, keys, values))  # (B, H, T or S, D/H)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    hidden = (1.0 - mask)[:, None, None, :] * _HIDDEN  # (B, 1, 1, S)
    gathered: Tensor = torch.softmax(scores + hidden, dim=-1) @ v  # (B, H, T, D/H)
    return gathered.transpose(1, 2).flatten(2)  # (B, T, D)


def _split(states: Tensor, heads: int) -> Tensor:
    """Return (B, T, D) as (B, H, T, D/H)."""
    batch, length, width = states.shape
    return states.reshape(batch, length, heads, width // heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with GELU between; the hidden layer is four times as wide."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., D) for (..., D)."""
        hidden: Tensor = nn.functional.gelu(self.widen(states))
        narrowed: Tensor = self.narrow(self.dropout(hidden))
        return narrowed


class TransformerLayer(nn.Module):
    """One post-LN layer; the encoder's project keys and values of their own input."""

    def __init__(self, config: ModelConfig, with_keys: bool) -> None:
        super().__init__()
        width = config.width
        self.heads = config.num_heads
        self.query = nn.Linear(width, width)
        if with_keys:
            self.key = nn.Linear(width, width)
            self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.feed_forward = FeedForward(width, config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.output_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(self, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Return the next states (B, T, D), from (B, S, D) keys and values."""
        gathered = attend(self.query(states), keys, values, mask, self.heads)
        states = self.attention_norm(states + self.dropout(self.output(gathered)))
        widened = self.dropout(self.feed_forward(states))
        following: Tensor = self.output_norm(states + widened)
        return following


class AttentionBlock(nn.Module):
    """Multi-head attention with projections of its own, a residual and a LayerNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T, D) of (B, T, D), ``states`` (B, S, D) and ``mask`` (B, S)."""
        keys, values = self.key(states), self.value(states)
        gathered = attend(self.query(queries), keys, values, mask, self.heads)
        normed: Tensor = self.norm(queries + self.dropout(self.output(gathered)))
        return normed


class OlderBehaviors(nn.Module):
    """Trained queries that pool the tokens of older behaviours."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(NUM_POOLED, config.width))
        self.attention = AttentionBlock(config)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return pooled states (B, P, D) of ``tokens`` (B, 1 + O, D), the null token first.

        ``mask`` is (B, 1 + O): a history without older behaviours has the null token.
        """
        queries = self.queries.repeat(tokens.shape[0], 1, 1)
        pooled: Tensor = self.attention(queries, tokens, mask)
        return pooled


def num_states(config: ModelConfig, length: int) -> int:
    """Return S for histories of ``length``."""
    encoded = config.encoded_length
    return 1 + length if length <= encoded else 1 + NUM_POOLED + encoded


class Encoded(NamedTuple):
    """Histories, up to the encoder's last layer."""

    states: Tensor
    """(B, S, D): what the last layer reads."""
    keys: list[Tensor]
    """Of each layer, (B, S, D)."""
    values: list[Tensor]
    mask: Tensor
    """(B, S): 1 where a state may be seen."""


class BehaviorEncoder(nn.Module):
    """The history's tokens through E layers, keeping each layer's keys and values."""

    def __init__(self, config: ModelConfig, embedding: TokenEmbedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoded = config.encoded_length
        """W, at most: of a shorter history, what there is."""
        is_long = len(embedding.slots) > self.encoded
        self.older = OlderBehaviors(config) if is_long else None
        self.null_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(config, with_keys=True) for _ in range(config.num_layers)
        )

    def forward(
        self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor
    ) -> dict[str, Tensor]:
        """Return ``STATE_TENSORS`` of histories (B, L), (B, L, A) and (B, L, F).

        Candidates and queries read keys and values alone: what the last layer makes of the
        behaviours is not computed.
        """
        read = self.read(item_rows, attribute_rows, codes)
        return {
            "layer_keys": torch.stack(read.keys, dim=1),  # (B, E, S, D)
            "layer_values": torch.stack(read.values, dim=1),
            "state_mask": read.mask,
        }

    def predictions(
        self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor
    ) -> Tensor:
        """Return the states (B, S, D) after all layers: what pre-training predicts from."""
        read = self.read(item_rows, attribute_rows, codes)
        states: Tensor = self.layers[-1](
            read.states, read.keys[-1], read.values[-1], read.mask
        )
        return states

    def read(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Encoded:
        """Return histories as the last layer reads them."""
        states, mask = self._first_states(item_rows, attribute_rows, codes)
        all_keys, all_values = [], []
        for depth, layer in enumerate(self.layers):
            assert isinstance(layer, TransformerLayer)
            keys, values = layer.key(states), layer.value(states)  # (B, S, D) each
            all_keys.append(keys)
            all_values.append(values)
            if depth < len(self.layers) - 1:
                states = layer(states, keys, values, mask)
        return Encoded(states, all_keys, all_values, mask)

    def _first_states(
        self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the first layer reads, (B, S, D), and its mask (B, S)."""
        tokens = self.embedding.behaviors(item_rows, attribute_rows, codes)  # (B, L, D)
        null = self.null_token.expand(tokens.shape[0], 1, -1)  # (B, 1, D)
        valid = (item_rows != 0).to(tokens.dtype)  # (B, L)
        always = torch.ones_like(valid[:, :1])  # (B, 1)
        first, shown = [null], [always]
        if self.older is not None:
            of_older = torch.cat([null, tokens[:, : -self.encoded]], dim=1)
            seen = torch.cat([always, valid[:, : -self.encoded]], dim=1)  # (B, 1 + O)
            first.append(self.older(of_older, seen))
            shown.append(always.expand(-1, NUM_POOLED))
        states = torch.cat([*first, tokens[:, -self.encoded :]], dim=1)  # (B, S, D)
        mask = torch.cat([*shown, valid[:, -self.encoded :]], dim=1)  # (B, S)
        return states, mask


class UniCrossAttention(nn.Module):
    """A uni cross-attention layer above each encoder layer's keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(config, with_keys=False) for _ in range(config.num_layers)
        )

    def forward(
        self, candidates: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Return candidate states (B, N, D); ``keys`` and ``values`` are (B, E, S, D)."""
        for depth, layer in enumerate(self.layers):
            candidates = layer(candidates, keys[:, depth], values[:, depth], mask)
        return candidates

    def copy_from(self, encoder: BehaviorEncoder) -> None:
        """Start every layer as the encoder's of the same depth with one more token."""
        for own, layer in zip(self.layers, encoder.layers, strict=False):
            for name, module in own.named_children():
                module.load_state_dict(getattr(layer, name).state_dict())


class QueryingTransformer(nn.Module):
    """Queries attend to each other, then to the encoder's last layer, as candidates do."""

    def __init__(self, config: ModelConfig, request_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(config.num_queries, config.width) * 0.02)
        self.initial = nn.Linear(request_width, config.width)
        self.self_attention = AttentionBlock(config)
        self.reading = TransformerLayer(config, with_keys=False)

    def forward(
        self, request: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Return (B, M, D) of ``request`` (B, R), keys and values (B, S, D), their mask."""
        queries = self.queries + self.initial(request)[:, None, :]  # (B, M, D)
        every = torch.ones_like(queries[..., 0])  # (B, M)
        queries = self.self_attention(queries, queries, every)
        summaries: Tensor = self.reading(queries, keys, values, mask)
        return summaries


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

    A residual plus a product is one product then; a reader of the states subtracts the
    bias in its own bias.
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


def folded_layers(layers: nn.ModuleList) -> tuple[list["FoldedLayer"], Tensor]:
    """Return ``TransformerLayer``s folded, and the bias that the first one's input has."""
    known = [layer for layer in layers if isinstance(layer, TransformerLayer)]
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
