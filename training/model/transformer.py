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

Shapes: B requests, L history, W of it encoded one by one, O = L - W older, P pooled states,
S = 1 + P + W states (slot 0 is the trained null slot, valid even when the history is empty;
a model for at most W behaviours has no pooled states: S = 1 + L), T queries of any kind,
N candidates, E layers, H heads, A attribute slots, F behaviour fields, M trained queries,
R request features, D width.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.dropout import Dropout
from srp4ctr.training.model.embeddings import TokenEmbedding

_HIDDEN = -1e9  # added to the score of a padded state: its weight underflows to 0
NUM_POOLED = 16  # P


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
