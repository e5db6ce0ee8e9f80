"""Turn behaviours and candidates into tokens: fields side by side, then one projection.

In: rows and codes of ``features/schema.py``. Out: one token per behaviour or candidate.
Behaviours and candidates share every table and the projection, so that the candidate
stream begins where pre-training left off.

Shapes: B requests, L history, N candidates, T either, A attribute slots, D width,
F behaviour fields.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from features.schema import NUM_GAP_BUCKETS, NUM_VALUE_BUCKETS
from streams.events import NUM_ACTION_CODES
from training.config import ModelConfig
from training.model.dropout import ChannelDropout

FIELD_SIZES = (NUM_ACTION_CODES, NUM_GAP_BUCKETS, NUM_VALUE_BUCKETS)
MASK_CODES = FIELD_SIZES  # one row past each field's codes stands for [MASK]
FIELD_WIDTH = 16  # at most 64 codes: wider tables learn nothing more
INITIAL_STD = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSizes:
    """Rows of the vocabulary's tables and the history's length: they fix the shapes."""

    item_rows: int
    attribute_rows: int
    length: int
    """L."""


class TokenEmbedding(nn.Module):
    """e = LN(W [item ; attributes ; action ; gap ; value] + position)."""

    mask_codes: Tensor

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__()
        width = config.width
        self.items = nn.Embedding(sizes.item_rows, width, padding_idx=0)
        self.attributes = nn.Embedding(sizes.attribute_rows, width, padding_idx=0)
        self.fields = nn.ModuleList(
            nn.Embedding(size + 1, FIELD_WIDTH, padding_idx=0) for size in FIELD_SIZES
        )
        self.project = nn.Linear(2 * width + len(FIELD_SIZES) * FIELD_WIDTH, width)
        # The history is padded on the left: a slot counts from the newest behaviour.
        self.slots = nn.Parameter(torch.zeros(sizes.length, width))
        self.candidate_slot = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width)
        self.dropout = ChannelDropout(config.dropout)
        self.register_buffer("mask_codes", torch.tensor(MASK_CODES), persistent=False)
        for table in (self.items, self.attributes, *self.fields):
            _initialise(table)

    def behaviors(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Tensor:
        """Return the tokens (B, L, D) of (B, L), (B, L, A) and (B, L, F).

        Histories may be cut to the newest: a batch without long ones costs less.
        """
        length = item_rows.shape[1]
        slots = self.slots if length == len(self.slots) else self.slots[-length:]
        tokens = self._joined(item_rows, attribute_rows, codes) + slots
        dropped: Tensor = self.dropout(self.norm(tokens))
        return dropped

    def candidates(self, item_rows: Tensor, attribute_rows: Tensor) -> Tensor:
        """Return the tokens (B, N, D) of (B, N) and (B, N, A).

        Their behaviour fields are [MASK]: pre-training has met that case, an item whose
        behaviour is to be foretold.
        """
        codes = self.mask_codes.expand(*item_rows.shape, -1)
        tokens = self._joined(item_rows, attribute_rows, codes) + self.candidate_slot
        dropped: Tensor = self.dropout(self.norm(tokens))
        return dropped

    def attribute_mean(self, attribute_rows: Tensor) -> Tensor:
        """Return the mean embedding (B, T, D) of (B, T, A) rows; no rows give zeros."""
        present = (attribute_rows != 0).sum(-1, keepdim=True).clamp(min=1)  # (B, T, 1)
        mean: Tensor = self.attributes(attribute_rows).sum(-2) / present
        return mean

    def _joined(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Tensor:
        parts = [self.items(item_rows), self.attribute_mean(attribute_rows)]
        parts += [table(codes[..., f]) for f, table in enumerate(self.fields)]
        joined: Tensor = self.project(torch.cat(parts, dim=-1))  # (B, T, D)
        return joined


def _initialise(table: nn.Module) -> None:
    """Draw small rows, so that the tied softmax starts nearly uniform; 0 stays 0."""
    assert isinstance(table, nn.Embedding)
    with torch.no_grad():
        table.weight.normal_(std=INITIAL_STD)
        table.weight[0].zero_()
