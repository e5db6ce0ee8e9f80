"""Counters → standardised and piecewise-linear inputs, cut at their quantiles.

In: raw features. Out: each standardised, and piecewise linear (Gorishniy et al., "On
Embeddings for Numerical Features in Tabular Deep Learning", 2022): how much of each span
between two quantiles lies below it. A network then has breakpoints where the data are, as
trees do. Means and quantiles are saved with the weights: callers send raw features.

Shapes: W features, Q spans.
"""

import numpy as np
import torch
from torch import Tensor, nn

_LIMIT = 5.0  # deviations; a counter far from anything seen must not drive the logit
_MAX_ROWS = 200_000  # quantiles of so many rows are near enough


class NumericFeatures(nn.Module):
    """Encodes the last axis of its input; ``fit`` takes scales from the training set."""

    mean: Tensor
    scale: Tensor
    edges: Tensor
    slopes: Tensor

    def __init__(self, width: int, spans: int) -> None:
        super().__init__()
        self.encoded_width = width * (1 + spans)
        """The last axis of the output."""
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("edges", torch.zeros(width, spans))  # where each span begins
        self.register_buffer("slopes", torch.zeros(width, spans))

    def fit(self, rows: Tensor) -> None:
        """Take means, deviations and quantiles from ``rows`` (any number, W)."""
        if len(rows) == 0:
            return
        deviation = rows.double().std(dim=0, correction=0)
        scale = torch.where(deviation < 1e-6, torch.ones_like(deviation), 1.0 / deviation)
        self.mean.copy_(rows.double().mean(dim=0))
        self.scale.copy_(scale)
        some = rows[:: 1 + len(rows) // _MAX_ROWS].cpu().numpy()
        shares = np.linspace(0.0, 1.0, self.edges.shape[1] + 1)
        edges = np.quantile(some, shares, axis=0).T  # (W, Q + 1)
        spans = np.diff(edges)
        # Many rows of one value make spans of width 0, which carry no information.
        slopes = np.divide(1.0, spans, out=np.zeros_like(spans), where=spans > 1e-6)
        self.edges.copy_(torch.from_numpy(edges[:, :-1]))
        self.slopes.copy_(torch.from_numpy(slopes))

    def forward(self, features: Tensor) -> Tensor:
        """Return (..., W (1 + Q)) of ``features`` (..., W)."""
        scaled = ((features - self.mean) * self.scale).clamp(-_LIMIT, _LIMIT)
        covered = ((features[..., None] - self.edges) * self.slopes).clamp(0.0, 1.0)
        return torch.cat([scaled, covered.flatten(-2) - 0.5], dim=-1)
