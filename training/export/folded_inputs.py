"""Tables and counters of the trained model → the same, times the projection they go to.

In: SRP4CTR in evaluation mode. Out: modules that make tokens and the head's inputs as sums
of rows, with at most one product. Shapes are those of ``training/model/embeddings.py``; H
is the head's width, U the spans of all W counters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.features.tensors import item_fields
from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.export.folded_layers import Pair
from srp4ctr.training.model.embeddings import ITEM_FIELD_WIDTH, NumericFeatures
from srp4ctr.training.model.srp4ctr import SRP4CTR

_LIMIT = 5.0  # of NumericFeatures


class Tokens(nn.Module):
    """The history's tokens before their LayerNorm: sums of rows of folded tables."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        embedding = model.embedding
        parts = _parts(model)
        self.items = embedding.items.weight @ parts[0]
        self.attributes = _Attributes(model, parts[1])
        codes = [
            _weight(table)[:-1] @ part  # without the row of [MASK]
            for table, part in zip(embedding.fields, parts[2:], strict=True)
        ]
        codes[0] = codes[0] + embedding.project.bias
        self.codes = torch.cat(codes)
        sizes = [0, *(field.size for field in BEHAVIOR_FIELDS[:-1])]
        self.first = torch.tensor(sizes).cumsum(0)

    def forward(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Tensor:
        """Return (B, L, D)."""
        of_codes = functional.embedding(codes + self.first, self.codes).sum(-2)
        tokens = functional.embedding(item_rows, self.items) + of_codes
        summed: Tensor = tokens + self.attributes(attribute_rows)
        return summed


class _Attributes(nn.Module):
    """Each field's mean times the field's part of a projection, summed over the fields."""

    def __init__(self, model: SRP4CTR, weight: Tensor) -> None:
        """``weight`` (G, any) is of the fields side by side."""
        super().__init__()
        rows, places = model.embedding.attributes.weight, model.embedding.places
        parts = torch.split(weight, ITEM_FIELD_WIDTH) if len(weight) else ()
        slots = item_fields.num_slots(model.embedding.item_fields)
        table = torch.zeros(len(rows), weight.shape[1])
        same = torch.zeros(slots, slots)
        for place, part in zip(places, parts, strict=False):
            own = slice(place.first_row, place.first_row + place.field.size)
            table[own] = rows[own] @ part
            # An item whose attributes are all [MASK] reads this row once for each field.
            table[MASK_ROW] += rows[MASK_ROW] @ part / len(places)
            same[place.slots, place.slots] = 1.0
        self.table = table
        self.same = same  # 1 for two slots of one field
        self.is_mean = any(place.field.slots > 1 for place in places)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, T, any) of (B, T, A)."""
        found = functional.embedding(rows, self.table)  # (B, T, A, any)
        if self.is_mean:
            present = rows.clamp(max=1).to(found.dtype)
            found = found * (present @ self.same).clamp(min=1.0).reciprocal()[..., None]
        return found.sum(-2)


class CandidateItems(nn.Module):
    """What depends on a candidate's item alone, but for LayerNorms."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        embedding = model.embedding
        items, attributes, *codes = _parts(model)
        of_head = head_parts(model)
        self.table = embedding.items.weight
        self.weight = torch.cat([items, of_head["item"]], dim=1)
        self.widths = [len(items), of_head["item"].shape[1]]
        both = torch.cat([attributes, of_head["attributes"]], dim=1)
        self.attributes = _Attributes(model, both)
        hidden = [
            _weight(table)[-1] @ c for table, c in zip(embedding.fields, codes, strict=True)
        ]
        constant = sum(hidden, embedding.project.bias + embedding.candidate_slot)
        self.constant = constant
        """What all tokens of candidates have besides: [MASK] for a behaviour's fields."""

    def forward(self, item_rows: Tensor, attribute_rows: Tensor, batch: int) -> Pair:
        """Return item vectors (B, T, D), and their part of the head's input (B T, H)."""
        ids = functional.embedding(item_rows, self.table)  # (B, T, D)
        attributes = self.attributes(attribute_rows).reshape(-1, sum(self.widths))
        both = torch.addmm(attributes, ids.reshape(-1, self.widths[0]), self.weight)
        vectors, of_head = torch.split(both, self.widths, dim=1)
        return vectors.reshape(batch, -1, self.widths[0]), of_head


class Spans(nn.Module):
    """``NumericFeatures`` as one clipped line for each column, from 0 to 1."""

    def __init__(self, features: NumericFeatures) -> None:
        super().__init__()
        width, spans = features.edges.shape
        ones = torch.eye(width)
        # A product with 0 and 1 copies each feature, exactly, in a single pass.
        self.copies = torch.cat([ones, ones.repeat_interleave(spans, dim=1)], dim=1)
        lower = features.mean - _LIMIT / features.scale
        slopes = features.scale / (2.0 * _LIMIT)
        self.lower = -torch.cat([lower, features.edges.flatten()])
        self.slopes = torch.cat([slopes, features.slopes.flatten()])
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        """Return flat lines (B, W + U) of (B, W), or (B T, W + U) of (B, T, W)."""
        flat = features.reshape(-1, self.width)
        lines = torch.addmm(self.lower, flat, self.copies) * self.slopes
        return lines.clamp(0.0, 1.0)

    def folded(self, weight: Tensor, bias: Tensor) -> Pair:
        """Return a layer (W + U and more, any) on ``NumericFeatures`` as one on lines."""
        count = len(self.slopes)
        stretched, rest = weight[:count].clone(), weight[count:]
        bias = bias - _LIMIT * stretched[: self.width].sum(0)
        bias = bias - 0.5 * stretched[self.width :].sum(0)
        stretched[: self.width] *= 2.0 * _LIMIT
        return torch.cat([stretched, rest]), bias


def _parts(model: SRP4CTR) -> Sequence[Tensor]:
    """Return the projection's parts (any, D): of item, attributes, behaviour's fields."""
    embedding = model.embedding
    attributes = len(embedding.places) * ITEM_FIELD_WIDTH
    widths = [_weight(each).shape[1] for each in (embedding.items, *embedding.fields)]
    sizes = [widths[0], attributes, *widths[1:]]
    return torch.split(embedding.project.weight.t(), sizes)


def head_parts(model: SRP4CTR) -> dict[str, Tensor]:
    """Return the parts (any, H) of the head's projection of candidates."""
    width = model.embedding.project.out_features
    attributes = len(model.embedding.places) * ITEM_FIELD_WIDTH
    widths = {"states": width, "matched": 1, "item": width, "attributes": attributes}
    widths["spans"] = model.candidate_features.encoded_width
    parts = torch.split(model.head.candidate.weight.t(), list(widths.values()))
    return dict(zip(widths, parts, strict=True))


def _weight(table: nn.Module) -> Tensor:
    assert isinstance(table, nn.Embedding)
    return table.weight
