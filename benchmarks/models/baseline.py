"""What the deep baselines share: SRP4CTR's tokens, counters, context and head.

``Baseline`` reads no history; ``baselines.py`` has those that do. Logistic regression
stands beside it.

Shapes: B requests, L history, N candidates, D width, V the reading's width.
"""

import torch
from torch import Tensor, nn

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


class LogisticRegression(ClickModel):
    """logit = w · counters + the weights of item, attributes and context."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__()
        self.items = _weights(sizes.item_rows)
        self.attributes = _weights(sizes.attribute_rows)
        self.context = ContextEmbedding()
        self.request_features = NumericFeatures(columns.REQUEST.width)
        self.candidate_features = NumericFeatures(sizes.candidate_width)
        self.user_fields = user_fields(sizes)
        self.of_request = nn.Linear(request_width(self), 1)
        self.of_candidate = nn.Linear(self.candidate_features.encoded_width, 1)

    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return logits (B, N), one for both; the position is not looked at."""
        del positions
        request = self.of_request(request_vector(self, tensors))  # (B, 1)
        request = request + self.context.bias(tensors["context_rows"])
        features = self.candidate_features(tensors["candidate_features"])
        parts = [self.of_candidate(features).squeeze(-1)]
        parts += [self.items(tensors["candidate_item_rows"]).squeeze(-1)]
        parts += [self.attributes(tensors["candidate_attribute_rows"]).sum(-2).squeeze(-1)]
        logits: Tensor = request + torch.stack(parts).sum(0)
        return Scores(click=logits, ranking=logits)


def _weights(rows: int) -> nn.Embedding:
    table = nn.Embedding(rows, 1, padding_idx=0)
    nn.init.zeros_(table.weight)
    return table


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
        self.user_fields = user_fields(sizes)
        features_width = sizes.attribute_width + self.candidate_features.encoded_width
        self.head = Crosses(
            config,
            user_width=request_width(self),
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
        request = request_vector(self, tensors)
        numbers = self.head(request, torch.cat(parts, dim=-1), where)
        # No bias of users' fields: with one, as SRP4CTR has, DCNv2, DIN and BST lose .0004
        # of AUC on KuaiRand-Pure (one seed each, two of DCNv2).
        logit = numbers.click + self.context.bias(tensors["context_rows"])
        return self.head.trained(numbers, logit)

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


def user_fields(sizes: TableSizes) -> UserFields | None:
    """Return the vectors of users' attributes, where the data have some."""
    return UserFields(sizes.user_fields) if sizes.user_fields else None


def request_width(model: "LogisticRegression | Baseline") -> int:
    """Return how wide ``request_vector`` is."""
    own = model.user_fields.width if model.user_fields else 0
    return model.request_features.encoded_width + CONTEXT_WIDTH + own


def request_vector(model: "LogisticRegression | Baseline", tensors: Tensors) -> Tensor:
    """Return the request's counters, its context's and user's vectors (B, …)."""
    parts = [model.request_features(tensors["request_features"])]
    parts.append(model.context(tensors["context_rows"]))
    if model.user_fields:
        parts.append(model.user_fields(tensors["user_attribute_rows"]))
    return torch.cat(parts, dim=-1)
