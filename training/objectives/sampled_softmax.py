"""Predicts the hidden item: softmax over all items, or over a sample of them.

In: states at hidden positions, the items' vectors. Out: a cross entropy per position. A
full softmax of 64 windows holds 1,000 numbers per item: 200,000 items take gigabytes.

Shapes: P masked positions, I item rows, K drawn rows, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

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
