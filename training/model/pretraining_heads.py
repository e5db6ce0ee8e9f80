"""What pre-training asks of the encoder: the masked item, its attributes, the behaviour.

In: last states at masked positions. Out: losses, each a sum and a count. These heads end
with pre-training; only the encoder and its tables go on.

Shapes: P masked positions, I item rows, V attribute rows, A attribute slots, D width,
F behaviour fields.
"""

import math

import torch
from torch import Tensor, nn

from features.vocabulary import MASK_ROW
from training.config import ModelConfig
from training.model.embeddings import FIELD_SIZES, TokenEmbedding


class MaskedHeads(nn.Module):
    """Three heads over one transform: item softmax, attribute labels, behaviour fields."""

    def __init__(self, config: ModelConfig, embedding: TokenEmbedding) -> None:
        super().__init__()
        width = config.width
        self.transform = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)
        )
        self.item_bias = nn.Parameter(torch.zeros(embedding.items.num_embeddings))
        self.attribute_bias = nn.Parameter(torch.zeros(embedding.attributes.num_embeddings))
        self.fields = nn.ModuleList(nn.Linear(width, size) for size in FIELD_SIZES)

    def item_term(
        self, states: Tensor, rows: Tensor, table: nn.Embedding
    ) -> tuple[Tensor, Tensor]:
        """Return the cross entropy of ``rows`` (P) over all items, tied to the table.

        In units of log(I), so that it weighs like the other heads at the start.
        """
        logits = self.transform(states) @ table.weight.T + self.item_bias  # (P, I)
        loss = nn.functional.cross_entropy(logits, rows, reduction="sum")
        return loss / math.log(table.num_embeddings), _count(rows)

    def attribute_term(
        self, states: Tensor, rows: Tensor, table: nn.Embedding
    ) -> tuple[Tensor, Tensor]:
        """Return the binary cross entropy of each value being among ``rows`` (P, A).

        Summed over values and divided by log(V): an item has a few values of many. An item
        whose values are unknown or hidden is not asked for.
        """
        known = (rows > MASK_ROW).any(1)
        states, rows = states[known], rows[known]
        logits = self.transform(states) @ table.weight.T + self.attribute_bias  # (P, V)
        present = torch.zeros_like(logits).scatter_(1, rows, 1.0)
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits[:, 2:], present[:, 2:], reduction="sum"
        )  # rows 0 and 1 are no values
        return loss / math.log(table.num_embeddings + 1), _count(rows)

    def behavior_term(self, states: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over fields of the cross entropy of ``codes`` (P, F)."""
        transformed = self.transform(states)
        losses = [
            nn.functional.cross_entropy(head(transformed), codes[:, f], reduction="sum")
            for f, head in enumerate(self.fields)
        ]
        return torch.stack(losses).mean(), _count(codes)


def _count(foretold: Tensor) -> Tensor:
    return torch.tensor(float(len(foretold)), device=foretold.device)
