"""The click's head: a logit that becomes the probability of a click.

In training it knows the position at which a candidate was shown; serving scores every
candidate as if it were at the top. Shapes are those of ``head.py``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.features.tensors.schema import PROBABILITY_TENSORS
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.heads.head import Head

MAX_POSITION = 63  # deeper positions share one bias


class ClickHead(Head):
    """A linear logit, a bias of its position, and Platt's scaling, fitted afterwards."""

    tensor = PROBABILITY_TENSORS[0]
    term = "by_impression"
    calibration_scale: Tensor
    calibration_bias: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 1)
        self.position_bias = nn.Embedding(MAX_POSITION + 1, 1)
        nn.init.zeros_(self.position_bias.weight)
        self.register_buffer("calibration_scale", torch.ones(()))
        self.register_buffer("calibration_bias", torch.zeros(()))

    def forward(self, last: Tensor, positions: Tensor) -> Tensor:
        """Return the logit of a click."""
        bias = self.position_bias(positions.clamp(max=MAX_POSITION))
        logits: Tensor = self.out(last) + bias  # (B, N, 1)
        return logits.squeeze(-1)

    def score(self, number: Tensor, click_logit: Tensor) -> Tensor:
        """Return the logit as the model completed it."""
        del number
        return click_logit

    def answer(self, score: Tensor) -> Tensor:
        """Return sigmoid(scale * logit + bias): Platt's scaling, fitted after training."""
        return torch.sigmoid(score * self.calibration_scale + self.calibration_bias)

    def column(self) -> tuple[Tensor, Tensor]:
        """Return the logit's weights, and its bias at the top."""
        return self.out.weight[0], (self.out.bias + self.position_bias.weight[0])[0]

    def served(self, number: Tensor, click_logit: Tensor) -> Tensor:
        """Return the calibrated probability."""
        del number
        return self.answer(click_logit)

    @classmethod
    def loss(
        cls, score: Tensor, clicked: Tensor, shown: Tensor, config: RefreshConfig
    ) -> Tensor:
        """Return the log loss of the impressions, which makes a logit a probability."""
        is_early = config.fake_negative_weighted
        of = fake_negative_weighted_loss if is_early else log_loss
        return of(score[shown], clicked[shown])

    @classmethod
    def count(cls, clicked: Tensor, shown: Tensor) -> Tensor:
        """Return the number of impressions."""
        del clicked
        return shown.sum().float()


def log_loss(logits: Tensor, clicked: Tensor) -> Tensor:
    """Return -(y ln p + (1 - y) ln(1 - p)), summed over impressions."""
    each = functional.binary_cross_entropy_with_logits
    return each(logits, clicked, reduction="sum")


def fake_negative_weighted_loss(logits: Tensor, clicked: Tensor) -> Tensor:
    """Return the loss of impressions that were non-clicks at first, summed.

    For the newest impressions, later clicks are unknown. So each impression is a negative
    at once, and each click, when it comes, an additional positive. Such a stream has a
    click rate of p / (1 + p); weights without gradients correct it (Ktena et al.,
    Addressing Delayed Feedback for Continuous Training, RecSys 2019)::

        -(1 + p) y ln p - (1 - p) (1 + p) ln(1 - p)

    ``clicked`` are the clicks so far; both terms are in one batch.
    """
    with torch.no_grad():
        p = torch.sigmoid(logits)
    positive = (1.0 + p) * clicked * -functional.logsigmoid(logits)
    negative = (1.0 - p) * (1.0 + p) * -functional.logsigmoid(-logits)
    return (positive + negative).sum()
