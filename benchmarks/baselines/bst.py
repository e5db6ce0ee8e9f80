"""Behavior Sequence Transformer (Chen et al., 2019): history and candidate in one encoder.

Each candidate joins the history as its last token, so the encoder runs anew for each: the
cost that SRP4CTR's folding avoids. One block, which its authors found best.

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
        joint = torch.cat([history[request], offered], dim=1)  # (K, L + 1, D)
        valid = (tensors["history_item_rows"] != 0).to(joint.dtype)[request]
        mask = torch.cat([valid, torch.ones_like(valid[:, :1])], dim=1)
        block = self.block
        states = block(joint, block.key(joint), block.value(joint), mask)
        placed = torch.zeros_like(candidates)
        placed[request, place] = states[:, -1]
        return [placed]
