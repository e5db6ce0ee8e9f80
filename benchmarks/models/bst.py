"""Behavior Sequence Transformer (Chen et al., 2019): history and candidate in one encoder.

Each candidate joins the history as its last token, and its own state after one block,
which its authors found best, is what the head reads. As published the states of the whole
history are read as well, again for each candidate; here nothing else of the block is
computed, and the history's keys and values once per request: BST at its cheapest.

Shapes: B requests, L history, N candidates, H heads, D width.
"""

import math

import torch
from torch import Tensor

from benchmarks.models.inputs import Baseline
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import Tensors
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.transformer import TransformerLayer

_HIDDEN = -1e9  # added to the score of padding


class BST(Baseline):
    """The candidate's own state after self-attention over [history ; candidate]."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=config.width)
        self.block = TransformerLayer(config, with_keys=True)

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the candidates' states (B, N, D)."""
        history = self.history_tokens(tensors)  # (B, L, D)
        candidates = self.candidate_tokens(tensors)  # (B, N, D)
        valid = (tensors["history_item_rows"] != 0).to(history.dtype)
        block = self.block
        gathered = block.output(self._gathered(candidates, history, valid))
        states = block.attention_norm(candidates + block.dropout(gathered))
        widened = block.dropout(block.feed_forward(states))
        return [block.output_norm(states + widened)]

    def _gathered(self, candidates: Tensor, history: Tensor, valid: Tensor) -> Tensor:
        """Return what each candidate attends to of the history and itself (B, N, D)."""
        block = self.block
        queries, own_keys, own_values = (
            self._heads(project(candidates))
            for project in (block.query, block.key, block.value)
        )  # (B, H, N, D/H) each
        keys, values = self._heads(block.key(history)), self._heads(block.value(history))
        far = queries @ keys.transpose(-1, -2)  # (B, H, N, L)
        near = (queries * own_keys).sum(-1, keepdim=True)
        scores = torch.cat([far, near], dim=-1) / math.sqrt(queries.shape[-1])
        hidden = torch.nn.functional.pad((1.0 - valid) * _HIDDEN, (0, 1))
        weights = torch.softmax(scores + hidden[:, None, None], dim=-1)
        gathered = weights[..., :-1] @ values + weights[..., -1:] * own_values
        return gathered.transpose(1, 2).flatten(2)

    def _heads(self, states: Tensor) -> Tensor:
        """Return (B, T, D) as (B, H, T, D/H)."""
        rows, tokens, _ = states.shape
        return states.reshape(rows, tokens, self.block.heads, -1).transpose(1, 2)
