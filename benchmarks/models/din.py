"""Deep Interest Network (Zhou et al., KDD 2018): each candidate weighs each behaviour.

The attention MLP reads [behaviour ; candidate ; difference ; product] through layers of 80
and 40; its weights are not normalised, so that a strong interest stays strong.

Shapes: B requests, L history, N candidates, D width.
"""

import torch
from torch import Tensor, nn

from benchmarks.models.inputs import Baseline
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import Tensors
from srp4ctr.training.model.embeddings import TableSizes


class DIN(Baseline):
    """The sum of the history's tokens, weighted again for each candidate."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=config.width)
        self.of_behavior = nn.Linear(config.width, 80)
        self.of_candidate = nn.Linear(config.width, 80)
        self.of_product = nn.Linear(config.width, 80, bias=False)
        self.narrow = nn.Sequential(
            nn.PReLU(), nn.Linear(80, 40), nn.PReLU(), nn.Linear(40, 1)
        )

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the weighted sums (B, N, D).

        A linear layer over [h ; c ; h - c ; h * c] is one over h, one over c and one over
        the product: the first is only the user's, computed once for all candidates.
        """
        history = self.history_tokens(tensors)  # (B, L, D)
        candidates = self.candidate_tokens(tensors)  # (B, N, D)
        product = history[:, None] * candidates[:, :, None]  # (B, N, L, D)
        hidden = self.of_product(product) + self.of_behavior(history)[:, None]
        hidden = hidden + self.of_candidate(candidates)[:, :, None]  # (B, N, L, 80)
        weights = self.narrow(hidden).squeeze(-1)  # (B, N, L)
        present = (tensors["history_item_rows"] != 0)[:, None]
        weights = torch.where(present, weights, 0.0)
        return [weights @ history]
