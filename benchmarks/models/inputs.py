"""Defines what deep baselines share with SRP4CTR: tokens, counters, context, the head.

A baseline adds its own reading of the history, and nothing else, so that a difference
between two variants is a difference between two ways to read a history.

Shapes: B requests, L history, N candidates, D width, V the history reading's width.
"""

import torch
from torch import Tensor

from srp4ctr.features.tensors.schema import CANDIDATE_FEATURES, REQUEST_FEATURES
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import ClickHead, ClickModel, Tensors
from srp4ctr.training.model.embeddings import (
    CONTEXT_WIDTH,
    ContextEmbedding,
    NumericFeatures,
    TableSizes,
    TokenEmbedding,
)


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
        self.request_features = NumericFeatures(len(REQUEST_FEATURES), config.num_spans)
        self.candidate_features = NumericFeatures(len(CANDIDATE_FEATURES), config.num_spans)
        features_width = sizes.attribute_width + self.candidate_features.encoded_width
        self.head = ClickHead(
            config,
            user_width=self.request_features.encoded_width + CONTEXT_WIDTH,
            candidate_width=reading_width + config.width + features_width,
        )

    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Tensor:
        """Return logits (B, N)."""
        rows = tensors["candidate_item_rows"]
        attributes = tensors["candidate_attribute_rows"]
        parts = self.readings(tensors)
        parts += [self.embedding.items(rows), self.embedding.attribute_mean(attributes)]
        parts += [self.candidate_features(tensors["candidate_features"])]
        where = torch.zeros_like(rows) if positions is None else positions
        request = request_vector(self, tensors)
        logits: Tensor = self.head(request, torch.cat(parts, dim=-1), where)
        return logits + self.context.bias(tensors["context_rows"])

    def fast_parameters(self) -> list[Tensor]:
        """Return the biases of positions, and what is of the context."""
        return [self.head.position_bias.weight, *super().fast_parameters()]

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


def request_vector(model: ClickModel, tensors: Tensors) -> Tensor:
    """Return the request's counters and its context's vector (B, …)."""
    features = model.request_features(tensors["request_features"])
    return torch.cat([features, model.context(tensors["context_rows"])], dim=-1)
