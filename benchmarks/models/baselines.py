"""The deep models that SRP4CTR is compared with; ``BASELINES`` lists them by name.

They share its tokens, counters, context and head, and differ in how they read a history:
DIEN, PNN or CAN would each be one more class and one more line.

Shapes: B requests, L history, N candidates, H heads, D width, V the reading's width.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.models.sasrec import SASRecEncoder
from srp4ctr.features.tensors.schema import CANDIDATE_FEATURES, REQUEST_FEATURES
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import (
    ClickHead,
    ClickModel,
    Scores,
    Tensors,
    scores_of,
)
from srp4ctr.training.model.embeddings import (
    CONTEXT_WIDTH,
    ContextEmbedding,
    NumericFeatures,
    TableSizes,
    TokenEmbedding,
    UserFields,
)
from srp4ctr.training.model.transformer import TransformerLayer

_HIDDEN = -1e9  # added to the score of padding


class LogisticRegression(ClickModel):
    """logit = w · counters + the weights of item, attributes and context."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__()
        self.items = _weights(sizes.item_rows)
        self.attributes = _weights(sizes.attribute_rows)
        self.context = ContextEmbedding()
        self.request_features = NumericFeatures(len(REQUEST_FEATURES))
        self.candidate_features = NumericFeatures(len(CANDIDATE_FEATURES))
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
        self.request_features = NumericFeatures(len(REQUEST_FEATURES))
        self.candidate_features = NumericFeatures(len(CANDIDATE_FEATURES))
        self.user_fields = user_fields(sizes)
        features_width = sizes.attribute_width + self.candidate_features.encoded_width
        self.head = ClickHead(
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
        logits, correction = self.head(request, torch.cat(parts, dim=-1), where)
        return scores_of(logits + self.context.bias(tensors["context_rows"]), correction)

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


class DIN(Baseline):
    """The sum of the history's tokens, weighted again for each candidate.

    Deep Interest Network (Zhou et al., KDD 2018): the attention MLP reads [behaviour ;
    candidate ; difference ; product] through layers of 80 and 40; its weights are not
    normalised, so that a strong interest stays strong.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=config.width)
        self.of_behavior = nn.Linear(config.width, 80)
        self.of_candidate = nn.Linear(config.width, 80)
        self.of_product = nn.Linear(config.width, 80, bias=False)
        self.narrow = nn.Sequential(
            nn.PReLU(), nn.Linear(80, 40), nn.PReLU(), nn.Linear(40, 1)
        )

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the weighted sums (B, N, D).

        A linear layer over [h ; c ; h - c ; h * c] is one over h, one over c and one over
        the product: the first is only the user's, computed once for all candidates.
        """
        history = self.history_tokens(tensors)  # (B, L, D)
        candidates = self.candidate_tokens(tensors)  # (B, N, D)
        product = history[:, None] * candidates[:, :, None]  # (B, N, L, D)
        hidden = self.of_product(product) + self.of_behavior(history)[:, None]
        hidden = hidden + self.of_candidate(candidates)[:, :, None]  # (B, N, L, 80)
        weights = self.narrow(hidden).squeeze(-1)  # (B, N, L)
        present = (tensors["history_item_rows"] != 0)[:, None]
        weights = torch.where(present, weights, 0.0)
        return [weights @ history]


class BST(Baseline):
    """The candidate's own state after self-attention over [history ; candidate].

    Behavior Sequence Transformer (Chen et al., 2019): each candidate joins the history as
    its last token, and its own state after one block, which its authors found best, is
    what the head reads. As published the states of the whole history are read as well,
    again for each candidate; here nothing else of the block is computed, and the history's
    keys and values once per request: BST at its cheapest.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=config.width)
        self.block = TransformerLayer(config, with_keys=True)

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the candidates' states (B, N, D)."""
        history = self.history_tokens(tensors)  # (B, L, D)
        candidates = self.candidate_tokens(tensors)  # (B, N, D)
        valid = (tensors["history_item_rows"] != 0).to(history.dtype)
        block = self.block
        gathered = block.output(self._gathered(candidates, history, valid))
        states = block.attention_norm(candidates + block.dropout(gathered))
        widened = block.dropout(block.feed_forward(states))
        return [block.output_norm(states + widened)]

    def _gathered(self, candidates: Tensor, history: Tensor, valid: Tensor) -> Tensor:
        """Return what each candidate attends to of the history and itself (B, N, D)."""
        block = self.block
        queries, own_keys, own_values = (
            self._heads(project(candidates))
            for project in (block.query, block.key, block.value)
        )  # (B, H, N, D/H) each
        keys, values = self._heads(block.key(history)), self._heads(block.value(history))
        far = queries @ keys.transpose(-1, -2)  # (B, H, N, L)
        near = (queries * own_keys).sum(-1, keepdim=True)
        scores = torch.cat([far, near], dim=-1) / math.sqrt(queries.shape[-1])
        hidden = torch.nn.functional.pad((1.0 - valid) * _HIDDEN, (0, 1))
        weights = torch.softmax(scores + hidden[:, None, None], dim=-1)
        gathered = weights[..., :-1] @ values + weights[..., -1:] * own_values
        return gathered.transpose(1, 2).flatten(2)

    def _heads(self, states: Tensor) -> Tensor:
        """Return (B, T, D) as (B, H, T, D/H)."""
        rows, tokens, _ = states.shape
        return states.reshape(rows, tokens, self.block.heads, -1).transpose(1, 2)


class SASRecClicks(Baseline):
    """The dot product of SASRec's last state and each candidate."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=1)
        self.encoder = SASRecEncoder(config, sizes.item_rows, sizes.length)
        self.encoder.items = self.embedding.items  # one table for both sides

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the dot products (B, N, 1); an empty history has none: 0."""
        rows = tensors["history_item_rows"]  # (B, T)
        last = self.encoder(rows)[:, -1]  # (B, D): padding is on the left
        last = torch.where(rows[:, -1:] != 0, last, 0.0)
        items = self.embedding.items(tensors["candidate_item_rows"])  # (B, N, D)
        return [(items @ last[..., None]) / math.sqrt(items.shape[-1])]


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


BASELINES: Mapping[str, Callable[[ModelConfig, TableSizes], ClickModel]] = {
    "lr": LogisticRegression,
    "dcnv2": Baseline,
    "din": DIN,
    "bst": BST,
    "sasrec": SASRecClicks,
}
