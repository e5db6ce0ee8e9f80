"""SRP4CTR without one of its parts, to see what it is worth; by name in ``ABLATIONS``.

They are trained as SRP4CTR is, from the same pre-trained encoder, and are not served.

Shapes: B requests, N candidates, S states, E layers, M queries, D width.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import Tensors
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.heads.crosses import Crosses
from srp4ctr.training.model.heads.scores import Scores
from srp4ctr.training.model.products import masked_mean
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.model.transformer import BehaviorEncoder, Encoded
from srp4ctr.training.objectives.pretraining import ids_only


class IdsOnly(SRP4CTR):
    """SRP4CTR that sees no attribute and no action: ids, counters and context."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, replace(sizes, user_fields=()))

    def encode(self, history: Tensors) -> dict[str, Tensor]:
        """Return ``STATE_TENSORS`` of the items' ids."""
        return super().encode(ids_only(dict(history)))

    def logits(self, inputs: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return logits (B, N) that know no attribute."""
        nothing = torch.zeros_like(inputs["candidate_attribute_rows"])
        return super().logits({**inputs, "candidate_attribute_rows": nothing}, positions)


class NewestOnly(SRP4CTR):
    """SRP4CTR that reads no older behaviours than those it encodes one by one."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, replace(sizes, length=config.encoded_length))
        self.encoder = _NewestEncoder(config, self.embedding)


class _NewestEncoder(BehaviorEncoder):
    def read(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Encoded:
        """Return the newest behaviours as the last layer reads them."""
        history = (item_rows, attribute_rows, codes)
        return super().read(*(each[:, -self.encoded :] for each in history))


class WithoutCrossAttention(SRP4CTR):
    """Candidates attend to no behaviour.

    Where users have attributes, products with the history's mean are left.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes)
        self.cross_attention.layers = nn.ModuleList()


class LastLayerOnly(SRP4CTR):
    """Candidates read the encoder's last layer alone, in each of theirs.

    So do products, where users have attributes.
    """

    def logits(self, inputs: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return logits (B, N) of the last layer's keys and values (B, E, S, D)."""
        last = {
            name: inputs[name][:, -1:].expand_as(inputs[name])
            for name in ("layer_keys", "layer_values")
        }
        return super().logits({**inputs, **last}, positions)


class WithoutQuerying(SRP4CTR):
    """The mean of the values that the queries read instead of the queries' vectors."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes)
        saved = (config.num_queries - 1) * config.width
        self.head = Crosses(
            config,
            user_width=self.head.user.in_features - saved,
            candidate_width=self.head.candidate.in_features,
        )
        self.querying = MeanState()  # type: ignore[assignment]


class MeanState(nn.Module):
    """Replaces the querying transformer."""

    def forward(
        self, request: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the mean (B, 1, D) of the valid ``values``; the rest is unread."""
        return masked_mean(values, mask)[:, None]


class WithoutProducts(SRP4CTR):
    """The head reads no products of fields; as SRP4CTR where users have no attributes."""

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes)
        saved = sum(self.products.widths) if self.products else 0
        self.head = Crosses(
            config,
            user_width=self.head.user.in_features,
            candidate_width=self.head.candidate.in_features - saved,
        )
        self.products = None


ABLATIONS: Mapping[str, Callable[[ModelConfig, TableSizes], SRP4CTR]] = {
    "srp4ctr-no-cross-attention": WithoutCrossAttention,
    "srp4ctr-no-querying": WithoutQuerying,
    "srp4ctr-last-layer": LastLayerOnly,
    "srp4ctr-no-products": WithoutProducts,
}
