"""Sequence → encoder: FG-BERT's cloze tasks on behaviours before the training boundary.

In: windows of L behaviours (``HISTORY_TENSORS``). Out: the stage that trains the encoder.
Two mask sets are drawn independently for each window: item-related fields (id and
attributes together) and behaviour-related fields (all of them together); see
``masking.py``.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srp4ctr.features.tensors.vocabulary import FIRST_OOV_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import (
    HISTORY_NAMES,
    Windows,
    history_lengths,
    newest,
    torch_rows,
)
from srp4ctr.training.loop.trainer import Stage
from srp4ctr.training.model.encoder import BehaviorEncoder
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.id_dropout import id_dropper
from srp4ctr.training.objectives.masking import Masks, draw_masks, hide, ids_only, prefixes
from srp4ctr.training.objectives.objective import Counts, Objective, Terms
from srp4ctr.training.objectives.pretraining_heads import MaskedHeads
from srp4ctr.training.objectives.sampled_softmax import Proposal

STAGE = "pre-train"
ITEMS = "history_item_rows"
WEIGHT_DECAY = 0.01


def stage_of(
    model: SRP4CTR,
    windows: Windows,
    config: RefreshConfig,
    heads: MaskedHeads | None = None,
) -> Stage:
    """Return the stage that trains ``model.encoder`` on ``windows``.

    ``heads`` are for a caller that keeps them; otherwise they are dropped with the stage.
    """
    torch.manual_seed(config.seed)
    heads = heads or MaskedHeads(config.model, model.embedding)
    if (num_rows := model.embedding.items.num_embeddings) > config.max_full_softmax_items:
        heads.proposal = _proposal(windows, num_rows, config.sampled_items)
    heads.to(next(model.parameters()).device)
    objective = MaskedObjective(model.encoder, heads, windows, config)
    return Stage(
        name=STAGE,
        objective=objective,
        optimiser=torch.optim.AdamW(
            objective.parameters(),
            lr=config.pretrain_learning_rate,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        ),
        rows=len(windows),
        batch_rows=config.batch_users,
        epochs=config.pretrain_epochs,
        seed=config.seed * 2,
        config=config,
    )


class MaskedObjective(Objective):
    """Predict hidden elements of windows: the heads' losses at the hidden positions."""

    catalogue: Tensor

    def __init__(
        self,
        encoder: BehaviorEncoder,
        heads: MaskedHeads,
        windows: Windows,
        config: RefreshConfig,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads
        self.windows = windows
        self.config = config
        self.lengths = history_lengths(windows.tensors)[:, None]
        drawn = config.mask_ratio * self.lengths[:, 0].astype(np.float64)
        self.target_counts = drawn + config.last_masked_share * (1.0 - config.mask_ratio)
        self.register_buffer("catalogue", _catalogue(windows, heads, config), False)

    def batch(
        self, rows: NDArray[np.int64], longest: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        """Return windows ``rows``, cut to the ``longest`` history."""
        device = self.heads.item_bias.device
        history = newest(torch_rows(self.windows.tensors, rows, device), int(longest[0]))
        return ids_only(history) if self.config.pretraining == "bert" else history

    def counts(self, batch: dict[str, Tensor]) -> Counts:
        """Return how many targets ``forward`` hides of ``batch``, by the same draws."""
        history, masks = self._drawn(batch)
        return self.heads.counts(history, self._targets(history, masks))

    def forward(self, batch: dict[str, Tensor]) -> Terms:
        """Hide some of ``batch`` (histories), and return the terms of predicting it."""
        return self.terms(*self._drawn(batch))

    def _drawn(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Masks]:
        """Return ``batch``, some of its windows cut to a prefix, and its masks."""
        config = self.config
        history = prefixes(batch, config.prefix_share)
        masks = draw_masks(
            history[ITEMS],
            config.mask_ratio,
            config.pretraining,
            config.last_masked_share,
        )
        return history, masks

    def _targets(self, history: dict[str, Tensor], masks: Masks) -> Masks:
        """Return ``masks`` without items outside the vocabulary.

        Such an item has a hashed row: there is nothing to predict.
        """
        known = history[ITEMS] >= FIRST_OOV_ROW + self.config.num_oov_rows
        return replace(masks, items=masks.items & known)

    def terms(self, history: dict[str, Tensor], masks: Masks) -> Terms:
        """Return the heads' terms at the positions of ``history`` that ``masks`` hide."""
        config = self.config
        by_id_only = config.pretraining == "bert"
        share = 0.0 if by_id_only else config.id_dropout
        drop = id_dropper(share, config.num_oov_rows)
        seen = hide({**history, **{ITEMS: drop(history[ITEMS])}}, masks)
        states = self.encoder(*(seen[name] for name in HISTORY_NAMES))["last_states"]
        targets = self._targets(history, masks)

        def vectors(rows: Tensor) -> Tensor:
            attributes = self.catalogue[rows]
            return self.encoder.embedding.item_vectors(drop(rows), attributes)

        terms: Terms = self.heads(states[:, 1:], history, targets, vectors)
        return terms


def _catalogue(windows: Windows, heads: MaskedHeads, config: RefreshConfig) -> Tensor:
    """Return the attribute rows (I, A) of each item in ``windows``; 0 for the others."""
    rows, attributes = (windows.tensors[name] for name in HISTORY_NAMES[:2])
    found = np.zeros((len(heads.item_bias), attributes.shape[-1]), dtype=np.int64)
    if config.pretraining != "bert":
        found[rows] = attributes
    return torch.from_numpy(found)


def _proposal(windows: Windows, num_rows: int, draws: int) -> Proposal:
    """Return a proposal by how often each item is in ``windows``."""
    rows = windows.tensors["history_item_rows"]
    counts = np.bincount(rows[rows != 0], minlength=num_rows)
    return Proposal(torch.from_numpy(counts), draws)
