"""Multi-head attention as plain matrix products: exact in torch, in ONNX and in FLOPs.

Shapes: B requests, T queries, S states, D width, H heads.
"""

import math

import torch
from torch import Tensor, nn

from srp4ctr.training.model.dropout import Dropout

_HIDDEN = -1e9  # added to the score of a padded state: its weight underflows to 0


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
