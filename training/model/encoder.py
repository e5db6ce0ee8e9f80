"""FG-BERT: a bidirectional transformer over the history and its side information.

In: the history's tensors, nothing of the request. Out: the states that serving may keep,
each layer's keys and values, the last states, and which of them are valid.

Shapes: B requests, L history, S = L + 1 states (slot 0 is the trained null slot, valid
even when the history is empty), E layers, A attribute slots, F behaviour fields, D width.
"""

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.attention import FeedForward, attend
from srp4ctr.training.model.dropout import Dropout
from srp4ctr.training.model.embeddings import TokenEmbedding


class EncoderLayer(nn.Module):
    """One post-LN layer; keys and values are projections of the layer's input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.feed_forward = FeedForward(width, config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.output_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(self, states: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Return the next states (B, S, D); ``keys``, ``values`` are this layer's own."""
        gathered = attend(self.query(states), keys, values, mask, self.heads)
        states = self.attention_norm(states + self.dropout(self.output(gathered)))
        widened = self.dropout(self.feed_forward(states))
        following: Tensor = self.output_norm(states + widened)
        return following


class BehaviorEncoder(nn.Module):
    """The history's tokens through E layers, keeping each layer's keys and values."""

    def __init__(self, config: ModelConfig, embedding: TokenEmbedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.null_token = nn.Parameter(torch.randn(config.width) * 0.02)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))

    def forward(
        self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor
    ) -> dict[str, Tensor]:
        """Return ``STATE_TENSORS`` of histories (B, L), (B, L, A) and (B, L, F)."""
        tokens = self.embedding.behaviors(item_rows, attribute_rows, codes)  # (B, L, D)
        null = self.null_token.expand(tokens.shape[0], 1, -1)  # (B, 1, D)
        states = torch.cat([null, tokens], dim=1)  # (B, S, D)
        valid = (item_rows != 0).to(states.dtype)  # (B, L)
        mask = torch.cat([torch.ones_like(valid[:, :1]), valid], dim=1)  # (B, S)
        all_keys, all_values = [], []
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            keys, values = layer.key(states), layer.value(states)  # (B, S, D) each
            states = layer(states, keys, values, mask)
            all_keys.append(keys)
            all_values.append(values)
        return {
            "layer_keys": torch.stack(all_keys, dim=1),  # (B, E, S, D)
            "layer_values": torch.stack(all_values, dim=1),
            "last_states": states,
            "state_mask": mask,
        }
