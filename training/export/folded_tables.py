"""Embedding tables of the trained model → tables that hold the next projection, too.

In: tables in evaluation mode. Out: modules that add up rows of a table times its part of
the projection: what tokens and the head read of items and behaviours.

Shapes: B requests, L history, T candidates, A attribute slots, D width, H the head's width,
G the item fields' widths together; V the user fields'; I item fields of
products, P wide.
"""

import functools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.features.tensors.item_fields import FieldPlace
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.model.embeddings import ITEM_FIELD_WIDTH, FieldVectors, UserFields
from srp4ctr.training.model.srp4ctr import SRP4CTR


class Tokens(nn.Module):
    """The history's tokens before their LayerNorm: sums of rows of folded tables."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        embedding = model.embedding
        parts = _parts(model)
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


class FieldSums(nn.Module):
    """Each field's mean times the field's part of a projection, summed over the fields."""

    def __init__(self, vectors: FieldVectors, weight: Tensor) -> None:
        """``weight`` (G, any) is of the fields side by side."""
        super().__init__()
        rows, self.places = vectors.weight, vectors.places
        parts = torch.split(weight, rows.shape[1]) if len(weight) else ()
        table = torch.zeros(len(rows), weight.shape[1])
        for place, part in zip(self.places, parts, strict=False):
            own = slice(place.first_row, place.first_row + place.field.size)
            table[own] = rows[own] @ part
            # An item whose attributes are all [MASK] reads this row once for each field.
            table[MASK_ROW] += rows[MASK_ROW] @ part / len(parts)
        self.table = table

    def forward(self, rows: Tensor) -> Tensor:
        """Return (…, any) of (…, A)."""
        if not self.places:
            return functional.embedding(rows[..., 0], self.table)  # padding: zeros
        return functools.reduce(
            operator.add, [self._mean(rows, place) for place in self.places]
        )

    def _mean(self, rows: Tensor, place: FieldPlace) -> Tensor:
        """Return the field's part of the sum."""
        if place.field.slots == 1:  # a sum over one would be a pass over all of them
            return functional.embedding(rows[..., place.first_slot], self.table)
        own = rows[..., place.slots]  # (…, slots)
        summed = functional.embedding(own, self.table).sum(-2)
        present = own.clamp(max=1).to(summed.dtype)
        count = present @ torch.ones(place.field.slots, 1)  # (…, 1)
        mean: Tensor = summed * count.clamp(min=1.0).reciprocal()
        return mean


def with_biases(fields: UserFields, weight: Tensor) -> FieldSums:
    """Return the biases of user fields, and beside them their ``weight`` (V, any)."""
    biases = FieldSums(fields.biases, torch.ones(len(fields.biases.places), 1))
    made = FieldSums(fields.vectors, weight)
    made.table = torch.cat([biases.table, made.table], dim=1)
    return made


class CandidateItems(nn.Module):
    """What depends on a candidate's item alone, but for LayerNorms."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        embedding = model.embedding
        items, attributes, *codes = _parts(model)
        of_head = head_parts(model)
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


def _parts(model: SRP4CTR) -> Sequence[Tensor]:
    """Return the projection's parts (any, D): of item, attributes, behaviour's fields."""
    embedding = model.embedding
    attributes = len(embedding.item_fields) * ITEM_FIELD_WIDTH
    widths = [_weight(each).shape[1] for each in (embedding.items, *embedding.fields)]
    sizes = [widths[0], attributes, *widths[1:]]
    return torch.split(embedding.project.weight.t(), sizes)


def head_parts(model: SRP4CTR) -> dict[str, Tensor]:
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
