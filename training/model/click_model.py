"""What can be trained and judged: any model from the schema's tensors to a logit each.

In: the tensors of ``features/tensors/schema.py`` by name. Out: a logit per candidate.
SRP4CTR and every baseline are one, so that all learn from the same slates, by the same
loop.

Shapes: B requests, N candidates.
"""

import abc
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.context import ContextEmbedding
from srp4ctr.training.model.numeric_embedding import NumericFeatures

Tensors = Mapping[str, Tensor]
# A position's bias, or a context's, is one number far from 0, with thousands of impressions
# to learn from: at the rate of the rest a short training cannot bring it there, and
# relevance takes it.
FAST_RATE = 10.0


class ClickModel(nn.Module, abc.ABC):
    """A model of clicks: fine-tuning fits its scales, then its weights."""

    request_features: NumericFeatures
    """The scale of the request's counters; the training set's, by ``fit``."""
    candidate_features: NumericFeatures
    """The scale of the candidates' counters."""
    context: ContextEmbedding

    @abc.abstractmethod
    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Tensor:
        """Return uncalibrated logits (B, N) of the schema's inputs.

        ``positions`` (B, N) are those at which training showed the candidates. Serving
        gives none: every candidate is scored as if it stood at the top.
        """

    def fast_parameters(self) -> list[Tensor]:
        """Return what learns at ``FAST_RATE`` times the rate: few rows, each met often."""
        return list(self.context.parameters())

    def parameter_groups(self, config: RefreshConfig) -> list[dict[str, Any]]:
        """Return what fine-tuning trains, each ``params`` with its ``lr``: here all."""
        fast, rate = self.fast_parameters(), config.finetune_learning_rate
        placed = {id(parameter) for parameter in fast}
        rest = [each for each in self.parameters() if id(each) not in placed]
        return [{"params": rest, "lr": rate}, {"params": fast, "lr": rate * FAST_RATE}]
