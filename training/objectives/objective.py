"""The objective of a stage: sums and counts of each term of its loss, for any rows.

In: rows of the stage's examples. Out: terms that can be added up over parts of a batch and
over processes before they are divided; so the loss of a batch is the same however it is
split.
"""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Term = tuple[Tensor, Tensor]
"""The sum of the losses of some targets, and their number, which may be 0."""
Terms = Mapping[str, Term]
"""By name, always the same names. The loss is Σ sum / count."""
Counts = Mapping[str, Tensor]
"""The counts of ``Terms``."""


class Objective(nn.Module, abc.ABC):
    """A module over all that the stage trains, whose output is the terms of the loss."""

    lengths: NDArray[np.int64]
    """How long each example's sequences are: (rows, kinds), the costliest kind last."""
    target_counts: NDArray[np.float64]
    """How many targets each example has, (rows,), or is expected to have. A batch has the
    weight of its targets: each target counts the same, also where rows of similar lengths
    share a batch."""

    @abc.abstractmethod
    def batch(self, rows: NDArray[np.int64], longest: NDArray[np.int64]) -> Any:
        """Return examples ``rows`` (perhaps none), sequences cut to ``longest`` (kinds)."""

    @abc.abstractmethod
    def counts(self, batch: Any) -> Counts:
        """Return the counts of what ``forward`` returns, from labels and masks only.

        No model runs. It draws what ``forward`` draws before the model, in that order.
        """

    @abc.abstractmethod
    def forward(self, batch: Any) -> Terms:
        """Return the terms of the loss of what ``batch`` returned."""


def loss_of(terms: Terms, counts: Counts | None = None) -> Tensor:
    """Return Σ sum / count; ``counts`` are of the whole batch, ``terms`` of a part."""
    own = {name: count for name, (_, count) in terms.items()}
    counts = counts or own
    each = [mean_of((total, counts[name])) for name, (total, _) in terms.items()]
    return torch.stack(each).sum()


def mean_of(term: Term) -> Tensor:
    """Return sum / count; 0 of none."""
    total, count = term
    return total / count.clamp(min=1)
