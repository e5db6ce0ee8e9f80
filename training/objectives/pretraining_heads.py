"""The heads of pre-training: the hidden item, its attributes, its behaviour.

In: last states and what was hidden. Out: losses by name, each a sum and a count. These
heads are dropped after pre-training; only the encoder and its tables are kept. A full
softmax of 64 windows holds 1,000 numbers per item: 200,000 items take gigabytes, so that
the item is then predicted among a sample.

Shapes: B windows, W newest behaviours (those with states of their own, L at most), P hidden
positions, I item rows, K drawn rows, A attribute slots, D width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srp4ctr.features.tensors.item_fields import FieldPlace, places
from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS, Field
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.loop.train_step import Counts, Sums
from srp4ctr.training.model.embeddings import TokenEmbedding

_IGNORED = -100  # of cross_entropy
# What a user did with an item. How long it took says little of the item, and much of its
# neighbours: an encoder that predicts it learns their rhythm and not what users like.
_PREDICTED = tuple((f, e) for f, e in enumerate(BEHAVIOR_FIELDS) if e.kind != "gap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Where fields are hidden, each (B, L), or of the newest W behaviours (B, W)."""

    items: Tensor
    """Ids with their attributes."""
    behaviors: Tensor
    """All fields of the behaviour."""
    attributes: Tensor
    """Attributes alone: nowhere that ``items`` is. The id may be an unknown item's."""

    def newest(self, length: int) -> "Masks":
        """Return the masks of the newest ``length`` behaviours."""
        return Masks(
            items=self.items[:, -length:],
            behaviors=self.behaviors[:, -length:],
            attributes=self.attributes[:, -length:],
        )


Vectors = Callable[[Tensor], Tensor]
"""Item rows (K,) → what a state is multiplied with to say how likely each is, (K, D)."""


class Proposal(nn.Module):
    """Samples item rows by their frequency, with the expected count of each. One is added
    to each frequency, so that any row can be sampled.
    """

    cumulative: Tensor
    log_expected: Tensor

    def __init__(self, counts: Tensor, draws: int) -> None:
        super().__init__()
        shares = (counts + 1).double() / (counts + 1).sum()  # (I,)
        self.draws = draws
        self.register_buffer("cumulative", shares.cumsum(0), persistent=False)
        expected = (shares * draws).log().float()
        self.register_buffer("log_expected", expected, persistent=False)

    def draw(self) -> Tensor:
        """Return rows (K,), with replacement."""
        points = torch.rand(self.draws, device=self.cumulative.device)
        rows = torch.searchsorted(self.cumulative, points.double(), right=True)
        return rows.clamp(max=len(self.cumulative) - 1)


def full_softmax(states: Tensor, rows: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Return the cross entropy (P,) of ``rows`` (P,), by ``states`` (P, D), over I rows."""
    logits = states @ table.T + bias  # (P, I)
    return nn.functional.cross_entropy(logits, rows, reduction="none")


def sampled_softmax(
    states: Tensor, rows: Tensor, vectors: Vectors, bias: Tensor, proposal: Proposal
) -> Tensor:
    """Return an estimate of the same from rows that ``proposal`` samples for all positions.
    A sampled row's logit is reduced by the logarithm of its expected count (logQ), so that
    the denominator is unbiased. The hidden row is in it once, uncorrected, and not among
    the sampled ones.
    """
    drawn = proposal.draw()  # (K,)
    own = (states * vectors(rows)).sum(-1) + bias[rows]  # (P,)
    corrected = bias[drawn] - proposal.log_expected[drawn]
    others = states @ vectors(drawn).T + corrected  # (P, K)
    others = others.masked_fill(drawn == rows[:, None], -torch.inf)
    return torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own


class MaskedHeads(nn.Module):
    """An item softmax tied to the token embeddings, and after a transform a head per field.

    Four groups have equal weights: the item, the mean of its fields, the mean of the fields
    of an item whose id is shown, the mean of the behaviour's fields. The third teaches an
    id's vector what the item is (S3-Rec's associated attributes, Zhou et al., CIKM 2020).
    A loss is divided by the logarithm of its number of classes, so that it begins near 1;
    that of a multi-valued field also by the item's number of values.
    """

    def __init__(self, config: ModelConfig, embedding: TokenEmbedding) -> None:
        super().__init__()
        width = config.width
        self.transform = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)
        )
        self.item_bias = nn.Parameter(torch.zeros(embedding.items.num_embeddings))
        self.item_fields = _heads(width, embedding.item_fields)
        self.behavior_fields = _heads(width, [field for _, field in _PREDICTED])
        self.places = places(embedding.item_fields)
        self.proposal: Proposal | None = None
        """Set for a large catalogue: the item softmax is then over a sample."""

    def forward(
        self, states: Tensor, history: dict[str, Tensor], masks: Masks, vectors: Vectors
    ) -> Sums:
        """Return the losses of what ``masks`` hide of ``history``, by ``states`` (B, W, D).

        ``vectors`` returns the embeddings of items. Every head is evaluated; the sum of one
        without targets is 0.
        """
        rows = history["history_item_rows"][masks.items]  # (P,)
        sums = {"item": self.item_loss(states[masks.items], rows, vectors)}
        attributes = history["history_attribute_rows"]  # (B, W, A)
        for group, mask in _with_attributes(masks):
            hidden = self.transform(states[mask])  # (P, D)
            sums |= self._field_losses(group, hidden, attributes[mask])
        hidden = self.transform(states[masks.behaviors])
        codes = history["history_behavior_codes"][masks.behaviors]  # (P, F)
        for (f, field), head in zip(_PREDICTED, self.behavior_fields, strict=True):
            loss = nn.functional.cross_entropy(head(hidden), codes[:, f], reduction="sum")
            share = len(_PREDICTED) * math.log(field.size)
            sums[f"behavior {field.name}"] = loss / share
        return sums

    def counts(self, history: dict[str, Tensor], masks: Masks) -> Counts:
        """Return how many targets each of these losses has."""
        behaviors = masks.behaviors.sum().float()
        counts = {"item": masks.items.sum().float()}
        for group, mask in _with_attributes(masks):
            attributes = history["history_attribute_rows"][mask]  # (P, A)
            for place in self.places:
                is_known = (attributes[:, place.slots] > MASK_ROW).any(1)
                counts[f"{group} {place.field.name}"] = is_known.float().sum()
        return counts | {f"behavior {field.name}": behaviors for _, field in _PREDICTED}

    def _field_losses(
        self, group: str, transformed: Tensor, attributes: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of ``attributes`` (P, A) by transformed states (P, D)."""
        sums = {}
        for place, head in zip(self.places, self.item_fields, strict=True):
            loss = field_loss(head(transformed), attributes[:, place.slots], place)
            share = len(self.places) * math.log(place.field.size + 1)
            sums[f"{group} {place.field.name}"] = loss / share
        return sums

    def item_loss(self, hidden: Tensor, rows: Tensor, vectors: Vectors) -> Tensor:
        """Return the cross entropy of ``rows`` (P) by states (P, D), summed."""
        bias, items = self.item_bias, len(self.item_bias)
        if self.proposal is None:
            table = vectors(torch.arange(items, device=bias.device))
            losses = full_softmax(hidden, rows, table, bias)
        else:
            losses = sampled_softmax(hidden, rows, vectors, bias, self.proposal)
        return losses.sum() / math.log(items)


def _with_attributes(masks: Masks) -> tuple[tuple[str, Tensor], ...]:
    """Return where attributes are hidden: with their items' ids, and alone."""
    return ("item", masks.items), ("shown", masks.attributes)


def field_loss(logits: Tensor, rows: Tensor, place: FieldPlace) -> Tensor:
    """Return the loss of an item field's ``rows`` (P, slots) by ``logits`` (P, size).

    Cross entropy over the field's own range; of a multi-valued field binary cross entropy
    of each value. An item without a known value is left out.
    """
    if not place.field.has_several:
        wanted = torch.where(rows[:, 0] > MASK_ROW, rows[:, 0] - place.first_row, _IGNORED)
        return nn.functional.cross_entropy(logits, wanted, reduction="sum")
    known = (rows > MASK_ROW).sum(1)  # (P,)
    columns = (rows - place.first_row + 1).clamp(min=0)  # 0: no value
    present = logits.new_zeros(len(rows), place.field.size + 1).scatter_(1, columns, 1.0)
    each = nn.functional.binary_cross_entropy_with_logits(
        logits, present[:, 1:], reduction="none"
    )
    return (each.sum(1) * (known > 0) / known.clamp(min=1)).sum()


def _heads(width: int, fields: Sequence[Field]) -> nn.ModuleList:
    heads = nn.ModuleList(nn.Linear(width, field.size) for field in fields)
    for field, head in zip(fields, heads, strict=True):
        if field.has_several:  # values are rare: at 1/2 each, their sum would be large
            assert isinstance(head, nn.Linear)
            nn.init.constant_(head.bias, -math.log(field.size))
    return heads
