"""Behavior Sequence Transformer (Chen et al., 2019): history and candidate in one encoder.

Each candidate joins the history as its last token, and its own state after one block,
which its authors found best, is what the head reads. As published the states of the whole
history are read beside it, anew for each candidate; here nothing else of the block is
computed, and the history's keys and values once a request: BST at its cheapest.

Shapes: B requests, L history, N candidates, K the candidates that are no padding, D width.
"""

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.baselines.inputs import Baseline
from training.config import ModelConfig
from training.model.click_model import Tensors
from training.model.embeddings import TableSizes
from training.model.encoder import EncoderLayer


class BST(Baseline):
    """The candidate's own state after self-attention over [history ; candidate]."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=config.width)
        # Dropout belongs to a request's rows, and here a row is a candidate: the tokens'
        # and the head's must do.
        self.block = EncoderLayer(replace(config, dropout=0.0))

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the candidates' states (B, N, D)."""
        history = self.history_tokens(tensors)  # (B, L, D)
        candidates = self.candidate_tokens(tensors)  # (B, N, D)
        request, place = torch.nonzero(
            tensors["candidate_item_rows"] != 0, as_tuple=True
        )  # (K,) each
        offered = candidates[request, place][:, None]  # (K, 1, D)
        keys, values = (
            torch.cat([projected(history)[request], projected(offered)], dim=1)
            for projected in (self.block.key, self.block.value)
        )  # (K, L + 1, D) each
        valid = (tensors["history_item_rows"] != 0).to(keys.dtype)[request]
        mask = torch.cat([valid, torch.ones_like(valid[:, :1])], dim=1)
        states = self.block(offered, keys, values, mask)  # (K, 1, D)
        placed = torch.zeros_like(candidates)
        placed[request, place] = states[:, 0]
        return [placed]
