"""What can be trained and judged: any model from the schema's tensors to a logit each.

In: the tensors of ``features/schema.py`` by name. Out: a logit per candidate. SRP4CTR and
every baseline are one, so that all learn from the same slates, by the same loop.

Shapes: B requests, N candidates.
"""

import abc
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from training.config import RefreshConfig
from training.model.numeric_features import NumericFeatures

Tensors = Mapping[str, Tensor]


class ClickModel(nn.Module, abc.ABC):
    """A model of clicks: fine-tuning fits its scales, then its weights."""

    request_features: NumericFeatures
    """The scale of the request's counters; the training set's, by ``fit``."""
    candidate_features: NumericFeatures
    """The scale of the candidates' counters."""

    @abc.abstractmethod
    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Tensor:
        """Return uncalibrated logits (B, N) of the schema's inputs.

        ``positions`` (B, N) are those at which training showed the candidates. Serving
        gives none: every candidate is scored as if it stood at the top.
        """

    def parameter_groups(self, config: RefreshConfig) -> list[dict[str, Any]]:
        """Return what fine-tuning trains, each ``params`` with its ``lr``: here all."""
        return [{"params": list(self.parameters()), "lr": config.finetune_learning_rate}]
