"""SASRec as a click model: the next item's score, alongside the base features.

The causal encoder reads the history once; its last state's dot product with a candidate's
item embedding is all that the head learns of the history.

Shapes: B requests, L history, N candidates, D width.
"""

import math

import torch
from torch import Tensor

from benchmarks.models.inputs import Baseline
from benchmarks.models.sasrec import SASRecEncoder
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import Tensors
from srp4ctr.training.model.embeddings import TableSizes


class SASRecClicks(Baseline):
    """The dot product of SASRec's last state and each candidate."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=1)
        self.encoder = SASRecEncoder(config, sizes.item_rows, sizes.length)
        self.encoder.items = self.embedding.items  # one table for both sides

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the dot products (B, N, 1); an empty history has none: 0."""
        rows = tensors["history_item_rows"]  # (B, L)
        last = self.encoder(rows)[:, -1]  # (B, D): padding is on the left
        last = torch.where(rows[:, -1:] != 0, last, 0.0)
        items = self.embedding.items(tensors["candidate_item_rows"])  # (B, N, D)
        return [(items @ last[..., None]) / math.sqrt(items.shape[-1])]
