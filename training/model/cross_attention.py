"""Uni cross-attention: candidates attend to the history, never the history to them.

In: candidate tokens and the encoder's keys and values. Out: a state per candidate. The cost
of a candidate is its own query, output and feed-forward; it neither projects the history
nor attends to another candidate. Hence one encoding serves all candidates of a request.

Shapes: B requests, N candidates, S states, E layers, D width.
"""

from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.attention import FeedForward, attend
from srp4ctr.training.model.dropout import Dropout
from srp4ctr.training.model.encoder import BehaviorEncoder, EncoderLayer


class UniCrossLayer(nn.Module):
    """One encoder layer's shape with weights of its own, but the encoder's keys, values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.num_heads
        self.query = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.feed_forward = FeedForward(width, config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.output_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, candidates: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the next candidate states (B, N, D) from (B, S, D) keys and values."""
        gathered = attend(self.query(candidates), keys, values, mask, self.heads)
        states = self.attention_norm(candidates + self.dropout(self.output(gathered)))
        widened = self.dropout(self.feed_forward(states))
        following: Tensor = self.output_norm(states + widened)
        return following

    def copy_from(self, layer: EncoderLayer) -> None:
        """Start as the pre-trained layer with one more token."""
        for name, module in self.named_children():
            module.load_state_dict(getattr(layer, name).state_dict())


class UniCrossAttention(nn.Module):
    """A uni cross-attention layer above each encoder layer's keys and values.

    Without ``use_cross_attention`` there are no layers, and candidates stay as they are.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        depths = range(config.num_layers if config.use_cross_attention else 0)
        self.layers = nn.ModuleList(UniCrossLayer(config) for _ in depths)
        self.reads = [n if config.use_all_layers else config.num_layers - 1 for n in depths]

    def forward(
        self, candidates: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Return candidate states (B, N, D); ``keys`` and ``values`` are (B, E, S, D)."""
        for n, layer in zip(self.reads, self.layers, strict=True):
            candidates = layer(candidates, keys[:, n], values[:, n], mask)
        return candidates

    def copy_from(self, encoder: BehaviorEncoder) -> None:
        """Initialise every layer from the encoder's layer of the same depth."""
        for own, layer in zip(self.layers, encoder.layers, strict=False):
            assert isinstance(own, UniCrossLayer)
            assert isinstance(layer, EncoderLayer)
            own.copy_from(layer)
