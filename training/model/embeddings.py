"""The schema's inputs → vectors: tokens of behaviours and candidates, context, counters.

A token is concatenated fields, then one projection. Behaviours and candidates share every
table and the projection, so that the candidate stream begins where pre-training left off.
A value of the context that affects all clicks equally, as a page's number of items does,
has a bias of its own, as in the wide part of Wide & Deep (Cheng et al., 2016). Counters are
standardised and piecewise linear between their quantiles (Gorishniy et al., "On Embeddings
for Numerical Features in Tabular Deep Learning", 2022): breakpoints where the data are.

``Spans`` and ``FieldSums`` are what serving runs of counters and of attributes: their
weights are products with the layer that reads them, made once.

Shapes: B requests, L history, N candidates, T either, A attribute slots, D width,
F behaviour fields, G the item fields' widths together, X context rows, C its width,
U attribute slots of a user, V the user fields' widths together, W counters, Q spans.
"""

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from srp4ctr.features import columns
from srp4ctr.features.tensors import item_fields
from srp4ctr.features.tensors.item_fields import FieldPlace
from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS, NUM_CONTEXT_ROWS, Field
from srp4ctr.features.tensors.vocabulary import MASK_ROW, Vocabulary
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.dropout import Dropout

FIELD_SIZES = tuple(field.size for field in BEHAVIOR_FIELDS)
MASK_CODES = FIELD_SIZES  # one row past each field's codes stands for [MASK]
FIELD_WIDTH = 16  # at most 64 codes: wider tables were no better
ITEM_FIELD_WIDTH = 32
LARGE_CATALOGUE = 50_000
"""Item rows. Of more, a step moves those of its batch only, and the softmax is sampled."""
INITIAL_STD = 0.03
INITIAL_FIELD_STD = 0.005  # a candidate's are all [MASK]: they must not outweigh the item


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSizes:
    """The sizes of a vocabulary and of histories, which fix the model's shapes."""

    item_rows: int
    item_fields: tuple[Field, ...]
    length: int
    """L."""
    user_fields: tuple[Field, ...] = ()
    candidate_width: int = columns.CANDIDATE.width
    """Number of columns of candidate_features (C)."""
    number_width: int = 0
    """How many of these are of numbers that callers send (J)."""

    @classmethod
    def of(cls, words: Vocabulary, length: int) -> "TableSizes":
        """Return the sizes of a model with the vocabulary ``words``."""
        return cls(
            item_rows=words.num_item_rows,
            item_fields=words.field_shapes,
            length=length,
            user_fields=words.user_field_shapes,
            candidate_width=words.candidate_columns.layout.width,
            number_width=len(words.candidate_columns.layout.blocks["numbers"]),
        )

    @property
    def attribute_rows(self) -> int:
        """Rows of the attribute table."""
        return item_fields.num_rows(self.item_fields)

    @property
    def attribute_slots(self) -> int:
        """A."""
        return item_fields.num_slots(self.item_fields)

    @property
    def user_slots(self) -> int:
        """U."""
        return item_fields.num_slots(self.user_fields)

    @property
    def attribute_width(self) -> int:
        """G: the item fields side by side."""
        return len(self.item_fields) * ITEM_FIELD_WIDTH


class FieldVectors(nn.Embedding):
    """Vectors of the values of ``fields``."""

    def __init__(self, fields: Sequence[Field], width: int) -> None:
        super().__init__(item_fields.num_rows(fields), width, padding_idx=0)
        self.places = item_fields.places(fields)

    def means(self, rows: Tensor) -> Tensor:
        """Return each field's mean, side by side: (…, G) of ``rows`` (…, A).

        A field without a value gives zeros.
        """
        vectors = self(rows)  # (…, A, field width)
        present = (rows != 0).to(vectors.dtype)  # (…, A)
        means = [vectors[..., 0, :0]]  # there may be no fields at all
        for place in self.places:
            count = present[..., place.slots].sum(-1, keepdim=True).clamp(min=1.0)
            means.append(vectors[..., place.slots, :].sum(-2) / count)
        return torch.cat(means, dim=-1)


class TokenEmbedding(nn.Module):
    """e = LN(W [item ; its fields ; the behaviour's fields] + position)."""

    mask_codes: Tensor

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__()
        width = config.width
        self.items = nn.Embedding(
            sizes.item_rows,
            width,
            padding_idx=0,
            sparse=sizes.item_rows > LARGE_CATALOGUE,
        )
        self.item_fields = sizes.item_fields
        self.attributes = FieldVectors(sizes.item_fields, ITEM_FIELD_WIDTH)
        self.fields = nn.ModuleList(
            nn.Embedding(size + 1, FIELD_WIDTH, padding_idx=0) for size in FIELD_SIZES
        )
        joined = width + sizes.attribute_width + len(FIELD_SIZES) * FIELD_WIDTH
        self.project = nn.Linear(joined, width)
        # The history is padded on the left: a slot counts from the newest behaviour.
        self.slots = nn.Parameter(torch.zeros(sizes.length, width))
        self.candidate_slot = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)
        self.register_buffer("mask_codes", torch.tensor(MASK_CODES), persistent=False)
        for table in (self.items, self.attributes):
            _initialise(table, INITIAL_STD)
        for field in self.fields:
            _initialise(field, INITIAL_FIELD_STD)
        self._spread([width, sizes.attribute_width, *(FIELD_WIDTH for _ in FIELD_SIZES)])

    def behaviors(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Tensor:
        """Return the tokens (B, L, D) of (B, L), (B, L, A) and (B, L, F).

        Histories may be cut to their newest behaviours: shorter batches cost less.
        """
        length = item_rows.shape[1]
        slots = self.slots if length == len(self.slots) else self.slots[-length:]
        tokens = self._joined(item_rows, attribute_rows, codes) + slots
        dropped: Tensor = self.dropout(self.norm(tokens))
        return dropped

    def candidates(self, item_rows: Tensor, attribute_rows: Tensor) -> Tensor:
        """Return the tokens (B, N, D) of (B, N) and (B, N, A).

        Their behaviour fields are [MASK], as in pre-training, where an item's behaviour is
        predicted.
        """
        codes = self.mask_codes.expand(*item_rows.shape, -1)
        tokens = self._joined(item_rows, attribute_rows, codes) + self.candidate_slot
        dropped: Tensor = self.dropout(self.norm(tokens))
        return dropped

    def item_vectors(self, item_rows: Tensor, attribute_rows: Tensor) -> Tensor:
        """Return the item's part of a token, (…, T, D) of (…, T) and (…, T, A).

        This is the output layer of pre-training: a rare item is predicted by its
        attributes.
        """
        parts = [self.items(item_rows), self.attributes.means(attribute_rows)]
        joined = torch.cat(parts, dim=-1)
        vectors: Tensor = nn.functional.linear(
            joined, self.project.weight[:, : joined.shape[-1]]
        )
        return vectors

    @torch.no_grad()
    def _spread(self, widths: list[int]) -> None:
        """Initialise the projection as a rotation of each part: a token is their sum.

        torch's default makes all parts smaller, and rows train three times slower.
        """
        for part in torch.split(self.project.weight, widths, dim=1):
            if part.numel():
                nn.init.orthogonal_(part)
        nn.init.zeros_(self.project.bias)

    def _joined(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Tensor:
        parts = [self.items(item_rows), self.attributes.means(attribute_rows)]
        parts += [table(codes[..., f]) for f, table in enumerate(self.fields)]
        joined: Tensor = self.project(torch.cat(parts, dim=-1))  # (B, T, D)
        return joined


def _initialise(table: nn.Module, std: float) -> None:
    """Draw small rows, so that the tied softmax starts nearly uniform; 0 stays 0."""
    assert isinstance(table, nn.Embedding)
    with torch.no_grad():
        table.weight.normal_(std=std)
        table.weight[0].zero_()


CONTEXT_WIDTH = 16  # C
INITIAL_CONTEXT_STD = 0.3


class ContextEmbedding(nn.Module):
    """Sums over the context's rows: of vectors, and of biases that start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(NUM_CONTEXT_ROWS, CONTEXT_WIDTH, padding_idx=0)
        self.biases = nn.Embedding(NUM_CONTEXT_ROWS, 1, padding_idx=0)
        nn.init.zeros_(self.biases.weight)
        with torch.no_grad():
            self.vectors.weight *= INITIAL_CONTEXT_STD

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, C) of ``rows`` (B, X)."""
        summed: Tensor = self.vectors(rows).sum(-2)
        return summed

    def bias(self, rows: Tensor) -> Tensor:
        """Return (B, 1), an addend of each candidate's logit."""
        summed: Tensor = self.biases(rows).sum(-2)
        return summed


USER_FIELD_WIDTH = 16


class UserFields(nn.Module):
    """A user's attributes: each field's vector, and as of the context a bias."""

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__()
        self.vectors = FieldVectors(fields, USER_FIELD_WIDTH)
        self.biases = FieldVectors(fields, 1)
        self.width = len(fields) * USER_FIELD_WIDTH
        """V."""
        nn.init.zeros_(self.biases.weight)
        with torch.no_grad():
            self.vectors.weight *= INITIAL_CONTEXT_STD

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, V) of ``rows`` (B, U)."""
        return self.vectors.means(rows)

    def bias(self, rows: Tensor) -> Tensor:
        """Return (B, 1), an addend of each candidate's logit."""
        return self.biases.means(rows).sum(-1, keepdim=True)


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
    """Return the biases of user fields next to their ``weight`` (V, any)."""
    biases = FieldSums(fields.biases, torch.ones(len(fields.biases.places), 1))
    made = FieldSums(fields.vectors, weight)
    made.table = torch.cat([biases.table, made.table], dim=1)
    return made


_LIMIT = 5.0  # deviations; a counter far from anything seen must not drive the logit
NUM_SPANS = 16
"""Q: a counter is cut at this number of its quantiles. EB-NeRD, counters alone, newest
seventh of the training week: none gives AUC .8154 / gAUC .7910, 16 .8176 / .7931, 32
.8183 / .7939 (LightGBM: .8199 / .7894)."""
_MAX_ROWS = 200_000  # quantiles of this many rows are near enough


class NumericFeatures(nn.Module):
    """Encodes the last axis of its input; ``fit`` takes scales from the training set."""

    mean: Tensor
    scale: Tensor
    edges: Tensor
    slopes: Tensor

    def __init__(self, width: int, spans: int = NUM_SPANS) -> None:
        super().__init__()
        self.encoded_width = width * (1 + spans)
        """The last axis of the output."""
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("edges", torch.zeros(width, spans))  # where each span begins
        self.register_buffer("slopes", torch.zeros(width, spans))

    def fit(self, rows: Tensor) -> None:
        """Take means, deviations and quantiles from ``rows`` (any number, W).

        A column of one value says nothing, whatever it is in serving: its scale is 0.
        """
        if len(rows) == 0:
            return
        deviation = rows.double().std(dim=0, correction=0)
        is_constant = deviation < 1e-6
        scale = torch.where(is_constant, 0.0, 1.0 / deviation.clamp(min=1e-6))
        self.mean.copy_(rows.double().mean(dim=0))
        self.scale.copy_(scale)
        some = rows[:: 1 + len(rows) // _MAX_ROWS].cpu().numpy()
        edges = np.stack([_edges(each, self.edges.shape[1]) for each in some.T])
        spans = np.diff(edges)  # (W, Q)
        # Many rows of one value make spans of width 0, which carry no information.
        slopes = np.divide(1.0, spans, out=np.zeros_like(spans), where=spans > 1e-6)
        self.edges.copy_(torch.from_numpy(edges[:, :-1]))
        self.slopes.copy_(torch.from_numpy(slopes))

    def forward(self, features: Tensor) -> Tensor:
        """Return (..., W (1 + Q)) of ``features`` (..., W)."""
        scaled = ((features - self.mean) * self.scale).clamp(-_LIMIT, _LIMIT)
        covered = ((features[..., None] - self.edges) * self.slopes).clamp(0.0, 1.0)
        return torch.cat([scaled, covered.flatten(-2) - 0.5], dim=-1)


def _edges(column: NDArray[np.floating[Any]], spans: int) -> NDArray[np.float64]:
    """Return the quantiles (Q + 1,) that cut ``column`` into ``spans`` parts.

    No value counts for more than one part. Of a column that is nearly always 0, as what a
    user did with one of many items, nearly all quantiles would be 0 otherwise.
    """
    shares = np.linspace(0.0, 1.0, spans + 1)
    values, counts = np.unique(column.astype(np.float64), return_counts=True)
    most = len(column) / spans
    if counts.max() <= most:
        quantiles: NDArray[np.float64] = np.quantile(column.astype(np.float64), shares)
        return quantiles
    reached = np.cumsum(np.minimum(counts, most))
    places = np.searchsorted(reached, shares * reached[-1])
    edges: NDArray[np.float64] = values[np.minimum(places, len(values) - 1)]
    return edges


_SMALLEST_SCALE = 1e-12  # of a constant column, whose line is left out


class Spans(nn.Module):
    """``NumericFeatures`` as one clipped line for each column and span, from 0 to 1.

    Lines that are flat are left out: those of columns that were constant in training, and
    of spans without width. So a column that a log never fills costs nothing.
    """

    def __init__(self, features: NumericFeatures) -> None:
        super().__init__()
        width, spans = features.edges.shape
        ones = torch.eye(width)
        slopes = torch.cat([features.scale / (2.0 * _LIMIT), features.slopes.flatten()])
        is_kept = slopes != 0.0
        is_kept[0] |= not is_kept.any()  # an empty product would be no product
        self.kept = torch.nonzero(is_kept).flatten()
        # A product with 0 and 1 copies each feature, exactly, in a single pass.
        copies = torch.cat([ones, ones.repeat_interleave(spans, dim=1)], dim=1)
        self.copies = copies[:, self.kept]
        lower = features.mean - _LIMIT / features.scale.clamp(min=_SMALLEST_SCALE)
        lower = torch.cat([lower, features.edges.flatten()])
        self.lower, self.slopes = -lower[self.kept], slopes[self.kept]
        self.width, self.lines = width, width * (1 + spans)

    def forward(self, features: Tensor) -> Tensor:
        """Return flat lines (B, U) of (B, W), or (B T, U) of (B, T, W)."""
        flat = features.reshape(-1, self.width)
        lines = torch.addmm(self.lower, flat, self.copies) * self.slopes
        return lines.clamp(0.0, 1.0)

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer (all lines and more, any) on ``NumericFeatures`` as one on lines.

        The input is scaled from -5 to 5 by the first W lines, and from -1/2 to 1/2 by the
        others; a flat line of a column is 0, and of a span -1/2.
        """
        stretched, rest = weight[: self.lines], weight[self.lines :]
        bias = bias - 0.5 * stretched[self.width :].sum(0)
        kept, is_column = stretched[self.kept], self.kept < self.width
        bias = bias - _LIMIT * (kept * (is_column & (self.slopes != 0.0))[:, None]).sum(0)
        kept = torch.where(is_column[:, None], 2.0 * _LIMIT * kept, kept)
        return torch.cat([kept, rest]), bias
