"""Click models and their head: the schema's tensors → two logits per candidate.

SRP4CTR and all baselines are click models, trained on the same slates by the same loop.
The head crosses the user's side with each candidate's, and its bias of positions is left
out by serving. One logit becomes a probability, the other one orders a request's
candidates: no single score does both best.

Shapes: B requests, N candidates, W user side's width, V candidate side's width.
"""

import abc
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.model.dropout import Dropout
from srp4ctr.training.model.embeddings import ContextEmbedding, NumericFeatures

MAX_POSITION = 63  # deeper positions share one bias
NUM_CROSS_LAYERS = 2
T = TypeVar("T")


class Scores(NamedTuple, Generic[T]):
    """What a click model says of each candidate, (B, N) each."""

    click: T
    """The logit, or the probability, of a click."""
    ranking: T
    """Orders the candidates of a request."""


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
            CrossLayer(2 * width, width // 2) for _ in range(NUM_CROSS_LAYERS)
        )
        self.hidden = nn.Linear(2 * width, width)
        self.deeper = nn.Linear(width, width // 2)
        self.out = nn.Linear(2 * width + width // 2, 1)
        # Zeros: ranks by the click at first.
        self.ranking = nn.Parameter(torch.zeros(1, 2 * width + width // 2))
        self.dropout = Dropout(config.dropout)
        self.position_bias = nn.Embedding(MAX_POSITION + 1, 1)
        nn.init.zeros_(self.position_bias.weight)
        self.register_buffer("calibration_scale", torch.ones(()))
        self.register_buffer("calibration_bias", torch.zeros(()))

    def forward(
        self, user: Tensor, candidates: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, N) of ``user`` (B, W), ``candidates`` (B, N, V), positions.

        The second are what ``scores_of`` corrects the order by.
        """
        sides = self._sides(user, candidates)  # (B, N, 2 head widths)
        crossed = sides
        for layer in self.crosses:
            crossed = layer(sides, crossed)
        hidden = self.dropout(nn.functional.gelu(self.hidden(sides)))
        deeper = nn.functional.gelu(self.deeper(hidden))
        both = torch.cat([crossed, deeper], dim=-1)
        bias = self.position_bias(positions.clamp(max=MAX_POSITION))
        logits: Tensor = self.out(both) + bias  # (B, N, 1)
        return logits.squeeze(-1), nn.functional.linear(both, self.ranking).squeeze(-1)

    def probability(self, logits: Tensor) -> Tensor:
        """Return sigmoid(scale * logit + bias): Platt's scaling, fitted after training."""
        scaled = logits * self.calibration_scale + self.calibration_bias
        return torch.sigmoid(scaled)

    def _sides(self, user: Tensor, candidates: Tensor) -> Tensor:
        ours = self.user(user)[:, None, :].expand(-1, candidates.shape[1], -1)
        theirs = self.candidate(candidates)
        sides: Tensor = self.dropout(torch.cat([ours, theirs], dim=-1))
        return sides


def scores_of(logits: Tensor, correction: Tensor) -> Scores[Tensor]:
    """Return the logits (B, N) of clicks, and what orders candidates: ln p + a correction.

    Without a correction the listwise loss is best at the true probabilities, if a slate
    has one click (ListCE of Bai et al., Regression Compatible Listwise Objectives, CIKM
    2023): there is little to correct. The loss does not train the logits themselves, so
    that it costs them no calibration; what lies below is trained by both losses.
    """
    probabilities = nn.functional.logsigmoid(logits.detach())
    return Scores(click=logits, ranking=probabilities + correction)


Tensors = Mapping[str, Tensor]
# The bias of a position or context is one number far from 0 with thousands of impressions:
# at the common rate a short training does not reach it, and relevance absorbs it.
FAST_RATE = 10.0


class ClickModel(nn.Module, abc.ABC):
    """A model of clicks: fine-tuning fits its scales, then its weights."""

    request_features: NumericFeatures
    """The scale of the request's counters; the training set's, by ``fit``."""
    candidate_features: NumericFeatures
    """The scale of the candidates' counters."""
    context: ContextEmbedding

    @abc.abstractmethod
    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return uncalibrated logits (B, N) of the schema's inputs.

        ``positions`` (B, N) are those at which training showed the candidates. Serving
        passes none: every candidate is scored as if it were at the top.
        """

    def shift_logits(self, offset: float) -> None:
        """Add ``offset`` to all logits: where negatives are sampled, a model begins there.

        A model without such a number learns it.
        """

    def fast_parameters(self) -> list[Tensor]:
        """Return what is trained at ``FAST_RATE`` times the rate: few, frequent rows."""
        return list(self.context.parameters())

    def parameter_groups(self, config: RefreshConfig) -> list[dict[str, Any]]:
        """Return what fine-tuning trains, each ``params`` with its ``lr``: here all."""
        fast, rate = self.fast_parameters(), config.finetune_learning_rate
        placed = {id(parameter) for parameter in fast}
        rest = [each for each in self.parameters() if id(each) not in placed]
        return [{"params": rest, "lr": rate}, {"params": fast, "lr": rate * FAST_RATE}]
