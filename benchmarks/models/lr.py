"""Logistic regression: a weight a column and span, an item, an attribute, a context row.

Shapes: B requests, N candidates.
"""

import torch
from torch import Tensor, nn

from benchmarks.models.inputs import request_vector
from srp4ctr.features.tensors.schema import CANDIDATE_FEATURES, REQUEST_FEATURES
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import ClickModel, Tensors
from srp4ctr.training.model.embeddings import (
    CONTEXT_WIDTH,
    ContextEmbedding,
    NumericFeatures,
    TableSizes,
)


class LogisticRegression(ClickModel):
    """logit = w · counters + the weights of item, attributes and context."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__()
        self.items = _weights(sizes.item_rows)
        self.attributes = _weights(sizes.attribute_rows)
        self.context = ContextEmbedding()
        self.request_features = NumericFeatures(len(REQUEST_FEATURES), config.num_spans)
        self.candidate_features = NumericFeatures(len(CANDIDATE_FEATURES), config.num_spans)
        self.of_request = nn.Linear(self.request_features.encoded_width + CONTEXT_WIDTH, 1)
        self.of_candidate = nn.Linear(self.candidate_features.encoded_width, 1)

    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Tensor:
        """Return logits (B, N); the position is not looked at."""
        del positions
        request = self.of_request(request_vector(self, tensors))  # (B, 1)
        request = request + self.context.bias(tensors["context_rows"])
        features = self.candidate_features(tensors["candidate_features"])
        parts = [self.of_candidate(features).squeeze(-1)]
        parts += [self.items(tensors["candidate_item_rows"]).squeeze(-1)]
        parts += [self.attributes(tensors["candidate_attribute_rows"]).sum(-2).squeeze(-1)]
        logits: Tensor = request + torch.stack(parts).sum(0)
        return logits


def _weights(rows: int) -> nn.Embedding:
    table = nn.Embedding(rows, 1, padding_idx=0)
    nn.init.zeros_(table.weight)
    return table
