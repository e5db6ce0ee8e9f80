"""The querying transformer: trained queries read the user's history once per request.

In: the encoder's last states and the request's features. Out: M summaries of the user. It
reads no candidate, and so runs once per request for any number of items.

Shapes: B requests, S states, M queries, R request features, D width.
"""

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.attention import FeedForward, attend
from srp4ctr.training.model.dropout import Dropout


class _Attention(nn.Module):
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
        keys, values = self.key(states), self.value(states)
        gathered = attend(self.query(queries), keys, values, mask, self.heads)
        normed: Tensor = self.norm(queries + self.dropout(self.output(gathered)))
        return normed


class QueryingTransformer(nn.Module):
    """One block: queries attend to each other, then to the history, then a feed-forward."""

    def __init__(self, config: ModelConfig, request_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(config.num_queries, config.width) * 0.02)
        self.initial = nn.Linear(request_width, config.width)
        self.self_attention = _Attention(config)
        self.history_attention = _Attention(config)
        self.feed_forward = FeedForward(config.width, config.dropout)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, request: Tensor, last_states: Tensor, mask: Tensor) -> Tensor:
        """Return (B, M, D) of ``request`` (B, R), ``last_states`` (B, S, D), ``mask``."""
        queries = self.queries + self.initial(request)[:, None, :]  # (B, M, D)
        every = torch.ones_like(queries[..., 0])  # (B, M)
        queries = self.self_attention(queries, queries, every)
        queries = self.history_attention(queries, last_states, mask)
        summaries: Tensor = self.norm(queries + self.feed_forward(queries))
        return summaries


class MeanState(nn.Module):
    """Replaces the querying transformer in ablations."""

    def forward(self, request: Tensor, last_states: Tensor, mask: Tensor) -> Tensor:
        """Return the mean (B, 1, D) of the valid ``last_states``; ``request`` is unread."""
        valid = mask[..., None]  # (B, S, 1)
        mean: Tensor = (last_states * valid).sum(1, keepdim=True) / valid.sum(1, True)
        return mean
