"""What the deep baselines share: SRP4CTR's tokens, counters, context and head.

``Baseline`` reads no history; ``baselines.py`` has those that do.

Shapes: B requests, L history, N candidates, D width, V the reading's width.
"""

import torch
from torch import Tensor

from srp4ctr.features import columns
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import ClickModel, Tensors
from srp4ctr.training.model.embeddings import (
    CONTEXT_WIDTH,
    ContextEmbedding,
    NumericFeatures,
    TableSizes,
    TokenEmbedding,
    UserFields,
)
from srp4ctr.training.model.heads.crosses import Crosses
from srp4ctr.training.model.heads.scores import Scores


class Baseline(ClickModel):
    """DCNv2 over counters, ids, attributes and context: crosses and an MLP.

    Subclasses add a reading of the history.
    """

    def __init__(
        self, config: ModelConfig, sizes: TableSizes, reading_width: int = 0
    ) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(config, sizes)
        self.context = ContextEmbedding()
        self.request_features = NumericFeatures(columns.REQUEST.width)
        self.candidate_features = NumericFeatures(sizes.candidate_width)
        self.user_fields = UserFields(sizes.user_fields) if sizes.user_fields else None
        user_width = self.user_fields.width if self.user_fields else 0
        features_width = sizes.attribute_width + self.candidate_features.encoded_width
        self.head = Crosses(
            config,
            user_width=self.request_features.encoded_width + CONTEXT_WIDTH + user_width,
            candidate_width=reading_width + config.width + features_width,
        )

    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return logits (B, N)."""
        rows = tensors["candidate_item_rows"]
        attributes = tensors["candidate_attribute_rows"]
        parts = self.readings(tensors)
        parts += [self.embedding.items(rows), self.embedding.attributes.means(attributes)]
        parts += [self.candidate_features(tensors["candidate_features"])]
        where = torch.zeros_like(rows) if positions is None else positions
        request = self._request_vector(tensors)
        numbers = self.head(request, torch.cat(parts, dim=-1), where)
        # No bias of users' fields: with one, as SRP4CTR has, DCNv2, DIN and BST lose .0004
        # of AUC on KuaiRand-Pure (one seed each, two of DCNv2).
        logit = numbers.click + self.context.bias(tensors["context_rows"])
        return self.head.trained(numbers, logit)

    def _request_vector(self, tensors: Tensors) -> Tensor:
        """Return the request's counters, its context's and user's vectors (B, …)."""
        parts = [self.request_features(tensors["request_features"])]
        parts.append(self.context(tensors["context_rows"]))
        if self.user_fields:
            parts.append(self.user_fields(tensors["user_attribute_rows"]))
        return torch.cat(parts, dim=-1)

    def fast_parameters(self) -> list[Tensor]:
        """Return the biases of positions, and what is of the context."""
        return [self.head.click.position_bias.weight, *super().fast_parameters()]

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return what the history says of each candidate: (B, N, …), V wide in all."""
        del tensors
        return []

    def history_tokens(self, tensors: Tensors) -> Tensor:
        """Return a token (B, L, D) per behaviour."""
        return self.embedding.behaviors(
            tensors["history_item_rows"],
            tensors["history_attribute_rows"],
            tensors["history_behavior_codes"],
        )

    def candidate_tokens(self, tensors: Tensors) -> Tensor:
        """Return a token (B, N, D) per candidate."""
        return self.embedding.candidates(
            tensors["candidate_item_rows"], tensors["candidate_attribute_rows"]
        )
