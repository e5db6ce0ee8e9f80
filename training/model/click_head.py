"""The click head: user, request and candidate → a logit.

In: the querying transformer's summaries, candidate states, item embeddings, counters.
Out: a logit per candidate, and its calibrated probability.

Shapes: B requests, N candidates, W user side's width, V candidate side's width.
"""

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.dropout import Dropout

MAX_POSITION = 63  # deeper positions share one bias


class CrossLayer(nn.Module):
    """DCNv2: x' = x0 * (W x + b) + x, with W of low rank."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, rank, bias=False)
        self.widen = nn.Linear(rank, width)
        nn.init.zeros_(self.widen.weight)  # starts as the identity

    def forward(self, first: Tensor, current: Tensor) -> Tensor:
        """Return the next layer's input, of the same shape as both."""
        crossed: Tensor = first * self.widen(self.narrow(current)) + current
        return crossed


class ClickHead(nn.Module):
    """DCNv2 crosses and an MLP over [user side ; candidate side] of each candidate.

    The user side is projected once per request, and shared by its candidates.
    """

    calibration_scale: Tensor
    calibration_bias: Tensor

    def __init__(self, config: ModelConfig, user_width: int, candidate_width: int) -> None:
        super().__init__()
        width = config.head_width
        self.user = nn.Linear(user_width, width)
        self.candidate = nn.Linear(candidate_width, width)
        self.crosses = nn.ModuleList(
            CrossLayer(2 * width, width // 2) for _ in range(config.num_cross_layers)
        )
        self.hidden = nn.Linear(2 * width, width)
        self.deeper = nn.Linear(width, width // 2)
        self.out = nn.Linear(2 * width + width // 2, 1)
        self.dropout = Dropout(config.dropout)
        self.position_bias = nn.Embedding(MAX_POSITION + 1, 1)
        nn.init.zeros_(self.position_bias.weight)
        self.register_buffer("calibration_scale", torch.ones(()))
        self.register_buffer("calibration_bias", torch.zeros(()))

    def forward(self, user: Tensor, candidates: Tensor, positions: Tensor) -> Tensor:
        """Return logits (B, N) of ``user`` (B, W), ``candidates`` (B, N, V), positions."""
        sides = self._sides(user, candidates)  # (B, N, 2 head widths)
        crossed = sides
        for layer in self.crosses:
            crossed = layer(sides, crossed)
        hidden = self.dropout(nn.functional.gelu(self.hidden(sides)))
        deeper = nn.functional.gelu(self.deeper(hidden))
        logits = self.out(torch.cat([crossed, deeper], dim=-1))  # (B, N, 1)
        bias = self.position_bias(positions.clamp(max=MAX_POSITION))
        summed: Tensor = (logits + bias).squeeze(-1)
        return summed

    def probability(self, logits: Tensor) -> Tensor:
        """Return sigmoid(scale * logit + bias): Platt's scaling, fitted after training."""
        scaled = logits * self.calibration_scale + self.calibration_bias
        return torch.sigmoid(scaled)

    def _sides(self, user: Tensor, candidates: Tensor) -> Tensor:
        ours = self.user(user)[:, None, :].expand(-1, candidates.shape[1], -1)
        theirs = self.candidate(candidates)
        sides: Tensor = self.dropout(torch.cat([ours, theirs], dim=-1))
        return sides
