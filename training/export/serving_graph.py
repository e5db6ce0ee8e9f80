"""Trained model → the two modules that are exported: its results, with less to compute.

In: SRP4CTR in evaluation mode. Out: ``ServingEncoder`` and ``ServingHead``, whose weights
are products of the model's, made once: a table times its part of the next projection, a
bias that the next layer reads. Histories may have any length up to L.

Shapes are those of ``training/model/transformer.py``; C is the context's width, H the
head's, of which the crosses have two; W counters have U spans; an item has I fields in
products and a request K, each P wide.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.features.tensors.schema import (
    HEAD_INPUTS,
    HEAD_OUTPUTS,
    RANKING_TENSORS,
    USER_TENSORS,
)
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.model.embeddings import (
    ITEM_FIELD_WIDTH,
    FieldSums,
    Spans,
    with_biases,
)
from srp4ctr.training.model.heads.crosses import FoldedCrosses
from srp4ctr.training.model.products import FoldedProducts, user_weight
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.model.transformer import (
    NUM_POOLED,
    Encoded,
    FoldedPooling,
    FoldedQuerying,
    Pair,
    folded_layers,
    normed,
)


class ServingEncoder(nn.Module):
    """``SRP4CTR.encode`` of ``ENCODER_INPUTS``."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        self.tokens = _Tokens(model)
        self.norm, self.slots = model.embedding.norm, model.embedding.slots
        self.width = model.embedding.project.out_features
        encoder = model.encoder
        self.layers, self.next_bias = folded_layers(encoder.layers)
        self.first_bias = self.norm.bias + self.next_bias
        self.null, self.encoded = encoder.null_token[None], encoder.encoded
        self.first = self.null + self.next_bias
        self.older = FoldedPooling(encoder.older) if encoder.older is not None else None

    def forward(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Any:
        """Return ``STATE_TENSORS`` of (B, L), (B, L, A) and (B, L, F)."""
        read = self._read(item_rows, attribute_rows, codes)
        stacked = (item_rows.shape[0], len(self.layers), -1, self.width)  # (B, E, S, D)
        keys, values = (
            torch.cat(each, dim=1).reshape(stacked) for each in (read.keys, read.values)
        )
        return keys, values, read.mask

    def prediction(
        self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor
    ) -> Tensor:
        """Return the state (B, D) of the newest behaviour after all layers."""
        read, batch = self._read(item_rows, attribute_rows, codes), item_rows.shape[0]
        newest = read.states.reshape(batch, -1, self.width)[:, -1]
        mask = read.mask.to(torch.int32)
        made: Tensor = self.layers[-1](newest, read.keys[-1], read.values[-1], mask, batch)
        return made

    def _read(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Encoded:
        """Return what ``BehaviorEncoder.read`` does; states are flat and carry a bias."""
        batch, length = item_rows.shape
        summed = self.tokens(item_rows, attribute_rows, codes)
        tokens = summed + self.slots[len(self.slots) - length :]  # (B, L, D)
        encoded, before = item_rows, 1
        if self.older is not None:
            encoded, before = item_rows[:, -self.encoded :], 1 + NUM_POOLED
        valid = functional.pad(encoded, (before, 0), value=1).clamp(max=1)  # (B, S)
        shown, mask = valid.to(tokens.dtype), valid.to(torch.int32)
        one = shown[:, :1]  # a row for each history
        states = [(one @ self.first)[:, None]]
        if self.older is not None:
            states.append(self._pooled(item_rows, tokens, one))
            tokens = tokens[:, -self.encoded :]
        states.append(normed(tokens, self.norm, self.first_bias))
        flat = torch.cat(states, dim=1).reshape(-1, self.width)
        shape, keys, values = (batch, -1, self.width), [], []
        for depth, layer in enumerate(self.layers):
            keys.append(torch.addmm(layer.key[1], flat, layer.key[0]).reshape(shape))
            values.append(torch.addmm(layer.value[1], flat, layer.value[0]).reshape(shape))
            if depth < len(self.layers) - 1:
                flat = layer(flat, keys[-1], values[-1], mask, batch)
        return Encoded(flat, keys, values, shown)

    def _pooled(self, item_rows: Tensor, tokens: Tensor, one: Tensor) -> Tensor:
        """Return the pooled states (B, P, D) of the older of ``tokens`` (B, L, D)."""
        assert self.older is not None
        older = normed(tokens[:, : -self.encoded], self.norm, self.norm.bias)
        older = torch.cat([(one @ self.null)[:, None], older], dim=1)  # (B, 1 + O, D)
        seen = functional.pad(item_rows[:, : -self.encoded], (1, 0), value=1)
        mask = seen.clamp(max=1).to(torch.int32)
        pooled: Tensor = self.older(older, mask, self.next_bias)
        return pooled


class ServingHead(nn.Module):
    """``SRP4CTR.score`` of ``HEAD_INPUTS``, and the outputs of its blocks.

    A [MASK] is the last of N + 1 candidates: see ``SRP4CTR``. No exploration, so every
    propensity is 1.
    """

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        self.width = model.embedding.project.out_features
        self.user = _UserSide(model)
        inputs = HEAD_INPUTS + (USER_TENSORS if model.user_fields else ())
        self.inputs = [spec.name for spec in inputs]
        context = model.context
        self.context = torch.cat([context.vectors.weight, context.biases.weight], dim=1)
        self.layers, first = folded_layers(model.cross_attention.layers)
        self.items = _CandidateItems(model)
        self.norm = model.embedding.norm
        self.first_bias = self.norm.bias + first
        self.candidate_features = Spans(model.candidate_features)
        parts, spans = _head_parts(model), self.candidate_features
        self.heads = FoldedCrosses(model.head, parts, spans, model.match_weight)
        products = parts["products"]
        self.products = FoldedProducts(model.products, products) if model.products else None

    def forward(self, *tensors: Tensor) -> Any:
        """Return ``HEAD_OUTPUTS`` and ``RANKING_TENSORS``."""
        given = dict(zip(self.inputs, tensors, strict=True))
        keys, values = given["layer_keys"], given["layer_values"]
        mask, batch = given["state_mask"].to(torch.int32), keys.shape[0]
        read = self._request(given, (keys[:, -1], values[:, -1], mask))
        items, attributes = (
            given[f"candidate_{name}_rows"] for name in ("item", "attribute")
        )
        vectors, of_items, own = self.items(  # (B, T, D), (B T, H), (B T, I P): T = N + 1
            functional.pad(items, (0, 1), value=MASK_ROW),
            functional.pad(attributes, (0, 0, 0, 1), value=MASK_ROW),
            batch,
        )
        tokens = normed(vectors + self.items.constant, self.norm, self.first_bias)
        flat = tokens.reshape(-1, self.width)
        for depth, layer in enumerate(self.layers):
            flat = layer(flat, keys[:, depth], values[:, depth], mask, batch)
        states = flat.reshape(batch, -1, self.width)
        matched = vectors @ states[:, -1, :, None]  # (B, N + 1, 1)
        counters = functional.pad(given["candidate_features"], (0, 0, 0, 1))
        spans = self.candidate_features(counters)
        theirs = of_items + self.heads.of_candidates(flat, matched, spans)
        if self.products is not None:
            theirs = self.products(theirs, own, read.fields, batch)
        numbers = self.heads(read.user, theirs, matched, batch)[:, :-1]
        logit = torch.where(items == 0, torch.nan, numbers[..., 0] + read.bias)
        made = self.heads.tensors(numbers, logit) | {
            "propensity": torch.ones_like(logit),
            "query_vectors": read.queries,
            "candidate_states": states[:, :-1],
        }
        return tuple(made[spec.name] for spec in HEAD_OUTPUTS + RANKING_TENSORS)

    def _request(
        self, given: dict[str, Tensor], history: tuple[Tensor, Tensor, Tensor]
    ) -> "_Request":
        """Return what all candidates share. ``history`` is that of ``_UserSide``."""
        context = functional.embedding(given["context_rows"], self.context).sum(1)
        bias, context = context[:, -1:], context[:, :-1]
        start, products = self.user.bias, None
        if self.products is not None:
            assert self.user.fields is not None  # both, or none
            of_user = self.user.fields(given["user_attribute_rows"])
            user_bias, more, fields = torch.split(of_user, self.user.field_widths, dim=1)
            bias, start = bias + user_bias, start + more
            first = given["layer_values"][:, 0], given["state_mask"]
            products = self.products.fields(first, context, fields)
        spans = self.user.spans(given["request_features"])
        request = torch.cat([spans, context], dim=1)
        queries, user = self.user(request, start, history)
        return _Request(bias=bias, queries=queries, user=user, fields=products)


class _Request(NamedTuple):
    """What depends on the request alone: once for all its candidates."""

    bias: Tensor  # (B, 1)
    queries: Tensor  # (B, M, D)
    user: Tensor  # (B, H)
    fields: Tensor | None
    """Of products: (B, K, P), if there are some."""


class _UserSide(nn.Module):
    """The request's summaries, and the user's part of the head: once per request."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        self.spans = Spans(model.request_features)
        weight: Tensor = model.head.user.weight.t()
        width = model.request_features.encoded_width + model.context.vectors.embedding_dim
        width += model.user_fields.width if model.user_fields else 0
        self.summaries = weight[:-width]
        weight, bias = self.spans.folded(weight[-width:], model.head.user.bias)
        initial = model.querying.initial
        own, own_bias = self.spans.folded(initial.weight.t(), initial.bias)
        weight, bias = torch.cat([own, weight], dim=1), torch.cat([own_bias, bias])
        self.querying = FoldedQuerying(model.querying)
        rows = len(weight) - (model.user_fields.width if model.user_fields else 0)
        self.weight, self.bias = weight[:rows], bias
        self.fields, self.field_widths = None, [1, weight.shape[1], 0]
        if model.products is not None:
            assert model.user_fields is not None  # both, or none
            projected = user_weight(model.products)
            self.field_widths[-1] = projected.shape[1]
            both = torch.cat([weight[rows:], projected], dim=1)
            self.fields = with_biases(model.user_fields, both)
        ours = self.summaries.shape[1]
        self.widths = [weight.shape[1] - ours, ours]

    def forward(
        self, request: Tensor, start: Tensor, history: tuple[Tensor, Tensor, Tensor]
    ) -> Pair:
        """Return query vectors (B, M, D), and the user's side of the head (B, H).

        ``start`` is the bias, or (B, any) with what the user fields add to it. ``history``
        are the last layer's keys and values (B, S, D), and their mask (B, S).
        """
        both = torch.addmm(start, request, self.weight)
        initial, user = torch.split(both, self.widths, dim=1)
        queries = self.querying(initial, *history)
        flat = queries.reshape(-1, len(self.summaries))
        return queries, torch.addmm(user, flat, self.summaries)


class _Tokens(nn.Module):
    """The history's tokens before their LayerNorm: sums of rows of folded tables."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        embedding = model.embedding
        parts = _token_parts(model)
        self.items = embedding.items.weight @ parts[0] + embedding.project.bias
        self.attributes = FieldSums(embedding.attributes, parts[1])
        self.codes = [
            _weight(table) @ part
            for table, part in zip(embedding.fields, parts[2:], strict=True)
        ]

    def forward(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Tensor:
        """Return (B, L, D)."""
        tokens = functional.embedding(item_rows, self.items)
        # One by one: onnxruntime's sum over a short axis takes twice as long.
        for place, table in enumerate(self.codes):
            tokens = tokens + functional.embedding(codes[..., place], table)
        summed: Tensor = tokens + self.attributes(attribute_rows)
        return summed


class _CandidateItems(nn.Module):
    """What depends on a candidate's item alone, but for LayerNorms."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        embedding = model.embedding
        items, attributes, *codes = _token_parts(model)
        of_head = _head_parts(model)
        self.table = embedding.items.weight
        parts = [items, of_head["item"]]
        of_attributes = [attributes, of_head["attributes"]]
        if model.products is not None:
            # A product's fields lie side by side: the id's, then each attribute as it is.
            own = model.products.item.weight.t()  # (D, P)
            parts.append(functional.pad(own, (0, len(attributes))))  # (D, I P)
            unit = torch.eye(len(attributes))
            of_attributes.append(functional.pad(unit, (own.shape[1], 0)))  # (G, I P)
        self.weight = torch.cat(parts, dim=1)
        self.widths = [each.shape[1] for each in parts]
        both = torch.cat(of_attributes, dim=1)
        self.attributes = FieldSums(embedding.attributes, both)
        hidden = [
            _weight(table)[-1] @ c for table, c in zip(embedding.fields, codes, strict=True)
        ]
        constant = sum(hidden, embedding.project.bias + embedding.candidate_slot)
        self.constant = constant
        """What all tokens of candidates have besides: [MASK] for a behaviour's fields."""

    def forward(
        self, item_rows: Tensor, attribute_rows: Tensor, batch: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return item vectors (B, T, D), their part of the head's input (B T, H), and the
        fields of their products (B T, I P), if there are some.
        """
        ids = functional.embedding(item_rows, self.table)  # (B, T, D)
        attributes = self.attributes(attribute_rows).reshape(-1, sum(self.widths))
        each = torch.addmm(attributes, ids.reshape(-1, self.widths[0]), self.weight)
        vectors, of_head, *fields = torch.split(each, self.widths, dim=1)
        vectors = vectors.reshape(batch, -1, self.widths[0])
        return vectors, of_head, fields[0] if fields else None


def _token_parts(model: SRP4CTR) -> Sequence[Tensor]:
    """Return the projection's parts (any, D): of item, attributes, behaviour's fields."""
    embedding = model.embedding
    attributes = len(embedding.item_fields) * ITEM_FIELD_WIDTH
    widths = [_weight(each).shape[1] for each in (embedding.items, *embedding.fields)]
    sizes = [widths[0], attributes, *widths[1:]]
    return torch.split(embedding.project.weight.t(), sizes)


def _head_parts(model: SRP4CTR) -> dict[str, Tensor]:
    """Return the parts (any, H) of the head's projection of candidates."""
    width = model.embedding.project.out_features
    attributes = len(model.embedding.item_fields) * ITEM_FIELD_WIDTH
    widths = {"states": width, "matched": 1, "item": width, "attributes": attributes}
    widths["spans"] = model.candidate_features.encoded_width
    widths["products"] = sum(model.products.widths) if model.products else 0
    parts = torch.split(model.head.candidate.weight.t(), list(widths.values()))
    return dict(zip(widths, parts, strict=True))


def _weight(table: nn.Module) -> Tensor:
    assert isinstance(table, nn.Embedding)
    return table.weight
