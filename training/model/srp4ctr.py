"""SRP4CTR: encodes a history once, then scores any number of candidates with it.

In and out: the tensors of ``features/tensors/schema.py`` by name. ``encode`` and ``score``
are the two halves that serving runs apart; training runs ``forward``, which is both.

Shapes: B requests, N candidates, S states, M queries, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from srp4ctr.features import columns
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.model.click_model import FAST_RATE, ClickModel, Tensors
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
from srp4ctr.training.model.products import FieldProducts, masked_mean
from srp4ctr.training.model.transformer import (
    BehaviorEncoder,
    QueryingTransformer,
    UniCrossAttention,
)


class SRP4CTR(ClickModel):
    """The behaviour encoder and, above it, the candidate side and the heads."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__()
        width = config.width
        self.embedding = TokenEmbedding(config, sizes)
        self.encoder = BehaviorEncoder(config, self.embedding)
        self.cross_attention = UniCrossAttention(config)
        # Zero: what comes next is not yet what is clicked among the items shown. Started at
        # one, KuaiRand-Pure's AUC is .001 lower, with a tenth of its impressions .004.
        self.match_weight = nn.Parameter(torch.zeros(()))
        self.context = ContextEmbedding()
        self.request_features = NumericFeatures(columns.REQUEST.width)
        self.candidate_features = NumericFeatures(sizes.candidate_width)
        self.user_fields = UserFields(sizes.user_fields) if sizes.user_fields else None
        request_width = self.request_features.encoded_width + CONTEXT_WIDTH
        request_width += self.user_fields.width if self.user_fields else 0
        self.querying = QueryingTransformer(config, request_width)
        self.products = FieldProducts(config, sizes) if sizes.user_fields else None
        self.head = Crosses(
            config,
            user_width=config.num_queries * width + request_width,
            candidate_width=2 * width
            + 1
            + sizes.attribute_width
            + self.candidate_features.encoded_width
            + (sum(self.products.widths) if self.products else 0),
        )

    def encode(self, history: Tensors) -> dict[str, Tensor]:
        """Return ``STATE_TENSORS`` of ``HISTORY_TENSORS``: once per request."""
        encoded: dict[str, Tensor] = self.encoder(
            history["history_item_rows"],
            history["history_attribute_rows"],
            history["history_behavior_codes"],
        )
        return encoded

    def logits(self, inputs: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return uncalibrated logits (B, N) of ``HEAD_INPUTS``.

        ``positions`` (B, N) are those at which training showed the candidates. Serving
        passes none: every candidate is scored as if it were at the top.
        """
        item_rows = inputs["candidate_item_rows"]  # (B, N)
        if positions is None:
            positions = torch.zeros_like(item_rows)
        request = self._request_vectors(inputs)
        user = self._user_side(inputs, request)  # (B, M D + R)
        states, matched = self._candidate_states(inputs)
        candidates = self._candidate_side(inputs, request, states, matched)  # (B, N, V)
        numbers = self.head(user, candidates, positions)
        logit = numbers.click + self.match_weight * matched
        if self.user_fields:
            logit = logit + self.user_fields.bias(inputs["user_attribute_rows"])
        logit = logit + self.context.bias(inputs["context_rows"])
        return self.head.trained(numbers, logit)

    def score(self, inputs: Tensors) -> Scores[Tensor]:
        """Return calibrated probabilities (B, N) of ``HEAD_INPUTS``, and ranking scores.

        Padding is NaN in both.
        """
        padding = inputs["candidate_item_rows"] == 0
        answers = self.head.answers(self.logits(inputs))
        return Scores(*(answer.masked_fill(padding, torch.nan) for answer in answers))

    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return logits (B, N): encode and score in one call."""
        return self.logits({**tensors, **self.encode(tensors)}, positions)

    @torch.no_grad()
    def shift_logits(self, offset: float) -> None:
        """Add ``offset`` to the bias of the head."""
        self.head.click.out.bias.add_(offset)

    def fast_parameters(self) -> list[Tensor]:
        """Return the biases of positions and the parameters of the context."""
        return [self.head.click.position_bias.weight, *super().fast_parameters()]

    def parameter_groups(self, config: RefreshConfig) -> list[dict[str, Any]]:
        """Return what fine-tuning trains: pre-trained parts at a lower rate, or frozen."""
        table = self.embedding.items.weight
        layers = [p for layer in reversed(self.encoder.layers) for p in layer.parameters()]
        placed = {id(p) for p in (table, *layers)}
        tokens = [p for p in self.encoder.parameters() if id(p) not in placed]
        fast = self.fast_parameters()
        placed |= {id(p) for p in (*fast, *tokens)}
        rest = [p for p in self.parameters() if id(p) not in placed]
        rate = config.finetune_learning_rate
        groups = [{"params": rest, "lr": rate}, {"params": fast, "lr": rate * FAST_RATE}]
        if config.freeze != "encoder":
            tables = [] if config.freeze == "item_table" else [table]
            rate *= config.encoder_learning_rate_scale
            groups.append({"params": [*layers, *tokens, *tables], "lr": rate})
        return groups

    def _request_vectors(self, inputs: Tensors) -> tuple[Tensor, Tensor]:
        """Return the context (B, C), and the user's attributes (B, V).

        Of a model without user fields V is 0.
        """
        context = self.context(inputs["context_rows"])
        if self.user_fields is None:
            return context, context[:, :0]
        return context, self.user_fields(inputs["user_attribute_rows"])

    def _user_side(self, inputs: Tensors, vectors: tuple[Tensor, Tensor]) -> Tensor:
        features = self.request_features(inputs["request_features"])
        request = torch.cat([features, *vectors], dim=-1)  # (B, R)
        last = (inputs[name][:, -1] for name in ("layer_keys", "layer_values"))
        summaries = self.querying(request, *last, inputs["state_mask"])
        return torch.cat([summaries.flatten(1), request], dim=-1)

    def _candidate_states(self, inputs: Tensors) -> tuple[Tensor, Tensor]:
        """Return the candidates' states (B, N, D), and their match with the predicted item.

        A [MASK] is one more candidate: its state is pre-training's prediction of the next
        item; (B, N) is each candidate's match with it.
        """
        rows = inputs["candidate_item_rows"]  # (B, N)
        attributes = inputs["candidate_attribute_rows"]  # (B, N, A)
        hidden = torch.full_like(rows[:, :1], MASK_ROW)  # (B, 1)
        every = torch.full_like(attributes[:, :1], MASK_ROW)  # (B, 1, A)
        states = self.cross_attention(
            self.embedding.candidates(
                torch.cat([rows, hidden], dim=1), torch.cat([attributes, every], dim=1)
            ),
            inputs["layer_keys"],
            inputs["layer_values"],
            inputs["state_mask"],
        )  # (B, N + 1, D)
        vectors = self.embedding.item_vectors(rows, attributes)  # (B, N, D)
        matched = vectors @ states[:, -1, :, None]  # (B, N, 1)
        return states[:, :-1], matched.squeeze(-1)

    def _candidate_side(
        self,
        inputs: Tensors,
        request: tuple[Tensor, Tensor],
        states: Tensor,
        matched: Tensor,
    ) -> Tensor:
        items = self.embedding.items(inputs["candidate_item_rows"])  # (B, N, D)
        attributes = self.embedding.attributes.means(inputs["candidate_attribute_rows"])
        counters = self.candidate_features(inputs["candidate_features"])
        parts = [states, matched[..., None], items, attributes, counters]
        if self.products:
            # The first layer's values know one behaviour each, or what was pooled of the
            # older ones; the null token's is among them.
            mean = masked_mean(inputs["layer_values"][:, 0], inputs["state_mask"])
            parts.append(self.products((items, attributes), (mean, *request)))
        return torch.cat(parts, dim=-1)
