"""The request's context: a vector for the head, and a bias of every logit.

In: rows of hashed ``name=value`` pairs. A value that affects all clicks equally, as a
page's number of items does, has a weight of its own, as in the wide part of Wide & Deep
(Cheng et al., 2016). Values are few and frequent: they are trained at a higher rate.

Shapes: B requests, X context rows, C width.
"""

import torch
from torch import Tensor, nn

from srp4ctr.features.tensors.schema import NUM_CONTEXT_ROWS

CONTEXT_WIDTH = 16  # C
INITIAL_STD = 0.3


class ContextEmbedding(nn.Module):
    """Sums over the context's rows: of vectors, and of biases that start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(NUM_CONTEXT_ROWS, CONTEXT_WIDTH, padding_idx=0)
        self.biases = nn.Embedding(NUM_CONTEXT_ROWS, 1, padding_idx=0)
        nn.init.zeros_(self.biases.weight)
        with torch.no_grad():
            self.vectors.weight *= INITIAL_STD

    def forward(self, rows: Tensor) -> Tensor:
        """Return (B, C) of ``rows`` (B, X)."""
        summed: Tensor = self.vectors(rows).sum(-2)
        return summed

    def bias(self, rows: Tensor) -> Tensor:
        """Return (B, 1), an addend of each candidate's logit."""
        summed: Tensor = self.biases(rows).sum(-2)
        return summed
