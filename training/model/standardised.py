"""Counters on one scale: each feature minus its training mean, over its deviation.

In: raw features. Out: features of mean 0 and deviation 1 on the training set. The means
travel in the weights, so that callers send raw features and cannot send the wrong scale.
"""

import torch
from torch import Tensor, nn

_LIMIT = 5.0  # deviations; a counter far from anything seen must not drive the logit


class Standardised(nn.Module):
    """Standardises the last axis of its input; identity until ``fit`` is called."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, rows: Tensor) -> None:
        """Take mean and deviation from ``rows`` (any number, width)."""
        if len(rows) == 0:
            return
        deviation = rows.double().std(dim=0, correction=0)
        scale = torch.where(deviation < 1e-6, torch.ones_like(deviation), 1.0 / deviation)
        self.mean.copy_(rows.double().mean(dim=0))
        self.scale.copy_(scale)

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` (..., width), standardised and limited."""
        scaled: Tensor = (features - self.mean) * self.scale
        return scaled.clamp(-_LIMIT, _LIMIT)
