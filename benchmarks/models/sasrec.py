"""SASRec's encoder: each behaviour attends to what came before it, never to what follows.

W.-C. Kang, J. McAuley, Self-Attentive Sequential Recommendation, ICDM 2018. In: item rows
of histories. Out: a state per behaviour, whose dot product with an item's embedding says
how likely that item comes next. Trained by a softmax over the item that came next and items
drawn for the whole batch: with one negative per position, as published, it ends lower here
(Amazon Beauty, HR@10 .475, so .486). As a click model its last state's dot product with a
candidate's item embedding is all that the head knows of the history.

Shapes: B histories or requests, T behaviours, N candidates, D width, K drawn items.
"""

import math

import torch
from torch import Tensor, nn

from benchmarks.models.inputs import Baseline
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import Tensors
from srp4ctr.training.model.embeddings import TableSizes

INITIAL_STD = 0.02


class SASRecEncoder(nn.Module):
    """A causal transformer over item embeddings and positions; row 0 pads on the left."""

    def __init__(self, config: ModelConfig, item_rows: int, length: int) -> None:
        super().__init__()
        width = config.width
        self.items = nn.Embedding(item_rows, width, padding_idx=0)
        self.slots = nn.Parameter(torch.zeros(length, width))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(
            width,
            config.num_heads,
            dim_feedforward=4 * width,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, config.num_layers, enable_nested_tensor=False
        )
        nn.init.normal_(self.items.weight, std=INITIAL_STD)
        nn.init.normal_(self.slots, std=INITIAL_STD)

    def forward(self, item_rows: Tensor) -> Tensor:
        """Return the states (B, T, D) after each behaviour of ``item_rows`` (B, T)."""
        length = item_rows.shape[1]
        # Counted from the newest: padding is on the left.
        tokens = self.items(item_rows) + self.slots[-length:]
        places = torch.arange(length, device=item_rows.device)
        later = places[None, :] > places[:, None]  # (T, T)
        seen = (item_rows != 0)[:, None, :] & ~later  # (B, T, T)
        seen = seen | torch.eye(length, dtype=torch.bool, device=item_rows.device)
        hidden = (~seen).repeat_interleave(self.layers.layers[0].self_attn.num_heads, 0)
        states: Tensor = self.layers(self.dropout(self.norm(tokens)), mask=hidden)
        return states


class SASRecClicks(Baseline):
    """The dot product of SASRec's last state and each candidate."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=1)
        self.encoder = SASRecEncoder(config, sizes.item_rows, sizes.length)
        self.encoder.items = self.embedding.items  # one table for both sides

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the dot products (B, N, 1); an empty history has none: 0."""
        rows = tensors["history_item_rows"]  # (B, T)
        last = self.encoder(rows)[:, -1]  # (B, D): padding is on the left
        last = torch.where(rows[:, -1:] != 0, last, 0.0)
        items = self.embedding.items(tensors["candidate_item_rows"])  # (B, N, D)
        return [(items @ last[..., None]) / math.sqrt(items.shape[-1])]


def next_item_loss(encoder: SASRecEncoder, item_rows: Tensor, drawn_rows: Tensor) -> Tensor:
    """Return the summed cross entropy of what came next among it and ``drawn_rows`` (K).

    ``item_rows`` (B, T) are whole sequences; row 0 is no next item. Not the mean:
    where rows of alike lengths share a batch, it would weigh a short one's items more.
    """
    states = encoder(item_rows[:, :-1])
    following = item_rows[:, 1:]
    predicted = (following != 0) & (item_rows[:, :-1] != 0)
    states, following = states[predicted], following[predicted]  # (P, D), (P)
    right = (states * encoder.items(following)).sum(-1, keepdim=True)  # (P, 1)
    others = states @ encoder.items(drawn_rows).T  # (P, K)
    others = others.masked_fill(following[:, None] == drawn_rows, -torch.inf)
    logits = torch.cat([right, others], dim=1)
    return -torch.log_softmax(logits, dim=1)[:, 0].sum()
