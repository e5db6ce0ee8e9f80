"""Sequence → encoder: FG-BERT's cloze tasks on behaviours before the training boundary.

In: windows of L behaviours (``HISTORY_TENSORS``). Out: a trained encoder. Two mask sets
are drawn independently for each window: item-related fields (id and attributes together)
and behaviour-related fields (action, gap, value together); see ``masking.py``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batches import Arrays, torch_rows
from training.config import RefreshConfig
from training.fitting import FitOptions, Stage, fit
from training.masking import Masks, draw_masks, hide, ids_only
from training.model.pretraining_heads import MaskedHeads
from training.model.srp4ctr import SRP4CTR

STAGE = "pre-train"
WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """W windows of L behaviours each, newest last."""

    tensors: Arrays
    """``HISTORY_NAMES``, each with a leading axis W."""

    def __len__(self) -> int:
        return len(self.tensors["history_item_rows"])


def pretrain(
    model: SRP4CTR,
    windows: Windows,
    config: RefreshConfig,
    options: FitOptions,
    heads: MaskedHeads | None = None,
) -> tuple[float, ...]:
    """Train ``model.encoder`` on ``windows``, in place; return the loss of each epoch.

    Afterwards the candidate stream starts from the encoder's weights: also where
    ``config.pretraining`` is ``none``, so that arms differ in what was learnt alone.
    ``heads`` are for who wants to keep what foretells a hidden item; left out, they end
    with the stage.
    """
    torch.manual_seed(config.seed)
    heads = heads or MaskedHeads(config.model, model.embedding)
    heads.to(next(model.parameters()).device)
    losses: tuple[float, ...] = ()
    if config.pretraining != "none":
        losses = _fit(model, heads, windows, config, options)
    model.cross_attention.copy_from(model.encoder)
    return losses


def _fit(
    model: SRP4CTR,
    heads: MaskedHeads,
    windows: Windows,
    config: RefreshConfig,
    options: FitOptions,
) -> tuple[float, ...]:
    device = next(model.parameters()).device
    parameters = [*model.encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.pretrain_learning_rate, weight_decay=WEIGHT_DECAY
    )
    first_known_row = 2 + config.num_oov_rows

    def loss(rows: NDArray[np.int64]) -> Tensor:
        history = torch_rows(windows.tensors, rows, device)
        if config.pretraining == "bert":
            history = ids_only(history)
        masks = draw_masks(
            history["history_item_rows"], config.mask_ratio, config.pretraining
        )
        return masked_loss(model, heads, history, masks, first_known_row)

    stage = Stage(
        name=STAGE,
        modules={"encoder": model.encoder, "heads": heads},
        optimiser=optimiser,
        loss=loss,
        rows=len(windows),
        batch_rows=config.batch_users,
        epochs=config.pretrain_epochs,
        seed=config.seed * 2,
    )
    return fit(stage, options)


def masked_loss(
    model: SRP4CTR,
    heads: MaskedHeads,
    history: dict[str, Tensor],
    masks: Masks,
    first_known_row: int,
) -> Tensor:
    """Return the sum of the heads' losses at the hidden positions of ``history``.

    An item outside the vocabulary has a hashed row: there is nothing to foretell.
    """
    states = model.encode(hide(history, masks))["last_states"][:, 1:]  # (B, L, D)
    rows = history["history_item_rows"]
    known = masks.items & (rows >= first_known_row)
    losses = [states.sum() * 0.0]  # nothing masked in a tiny batch: a loss of zero
    if bool(known.any()):
        attributes = history["history_attribute_rows"][known]
        embedding = model.embedding
        losses.append(heads.item_loss(states[known], rows[known], embedding.items))
        losses.append(heads.attribute_loss(states[known], attributes, embedding.attributes))
    if bool(masks.behaviors.any()):
        codes = history["history_behavior_codes"][masks.behaviors]
        losses.append(heads.behavior_loss(states[masks.behaviors], codes))
    return torch.stack(losses).sum()
