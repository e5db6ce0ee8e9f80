"""SASRec's encoder: each behaviour attends to what came before it, never to what follows.

W.-C. Kang, J. McAuley, Self-Attentive Sequential Recommendation, ICDM 2018. In: item rows
of histories. Out: a state per behaviour, whose dot product with an item's embedding says
how likely that item comes next. Trained by a softmax over the item that came next and items
drawn for the whole batch: with one negative per position, as published, it ends lower here
(Amazon Beauty, HR@10 .475, so .486).

Shapes: B histories, T behaviours, D width, K drawn items.
"""

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig

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
