"""What a click model is: the schema's tensors → the scores of each candidate.

SRP4CTR and all baselines are click models, trained on the same slates by the same loop.

Shapes: B requests, N candidates.
"""

import abc
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.embeddings import ContextEmbedding, NumericFeatures
from srp4ctr.training.model.heads.scores import Scores

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
        rest = [parameter for parameter in self.parameters() if id(parameter) not in placed]
        return [{"params": rest, "lr": rate}, {"params": fast, "lr": rate * FAST_RATE}]
