"""Sequence → encoder: FG-BERT's cloze tasks on behaviours before the training boundary.

In: windows of behaviours (``HISTORY_TENSORS``). Out: a trained encoder. Three mask sets are
drawn independently for each window: item-related fields (id and attributes together),
behaviour-related fields (all of them together), and attributes of items whose ids are
shown. Of a long window only the newest behaviours are predicted, those with states of their
own.

Shapes: B windows, L history, W of it with states, A attribute slots, F behaviour fields.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW, MASK_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import (
    HISTORY_NAMES,
    Windows,
    history_lengths,
    in_parts,
    newest,
    torch_rows,
)
from srp4ctr.training.loop.row_adamw import RowAdamW
from srp4ctr.training.loop.train_step import Counts, Objective, Sums
from srp4ctr.training.loop.trainer import FitOptions, Stage, fit
from srp4ctr.training.model.dropout import (
    draw_salt,
    id_dropper,
    uniform,
    uniform_of,
)
from srp4ctr.training.model.embeddings import LARGE_CATALOGUE, MASK_CODES
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.model.transformer import BehaviorEncoder
from srp4ctr.training.objectives.pretraining_heads import MaskedHeads, Masks, Proposal

STAGE = "pre-train"
ITEMS = "history_item_rows"
WEIGHT_DECAY = 0.01
MASK_RATIO = 0.2  # of the positions, in each of the three mask sets
_SAMPLED_ITEMS = 8192  # with which a hidden item of a large catalogue is compared


def pretrain(
    model: SRP4CTR,
    windows: Windows,
    config: RefreshConfig,
    options: FitOptions,
    heads: MaskedHeads | None = None,
) -> tuple[float, ...]:
    """Train ``model.encoder`` on ``windows``, in place; return the loss of each epoch.

    ``heads`` are for a caller that keeps them. Afterwards the candidate stream starts from
    the encoder's weights: also where ``config.pretraining`` is ``none``, so that variants
    differ in pre-training only.
    """
    losses: tuple[float, ...] = ()
    if config.pretraining != "none":
        losses = fit(_stage(model, windows, config, heads), options)
    model.cross_attention.copy_from(model.encoder)
    return losses


def _stage(
    model: SRP4CTR, windows: Windows, config: RefreshConfig, heads: MaskedHeads | None
) -> Stage:
    torch.manual_seed(config.seed)
    heads = heads or MaskedHeads(config.model, model.embedding)
    num_rows, sampled = model.embedding.items.num_embeddings, config.sampled_items
    if sampled is None and num_rows > LARGE_CATALOGUE:
        sampled = _SAMPLED_ITEMS
    if sampled is not None:
        heads.proposal = _proposal(windows, num_rows, sampled)
    heads.to(next(model.parameters()).device)
    objective = MaskedObjective(model.encoder, heads, windows, config)
    return Stage(
        name=STAGE,
        objective=objective,
        optimiser=RowAdamW(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedBatch:
    """Windows (B, L), where they are masked, and what is predicted."""

    history: dict[str, Tensor]
    masks: Masks
    targets: Masks
    """What of ``masks`` is to be predicted, of the newest W behaviours."""

    @property
    def with_states(self) -> dict[str, Tensor]:
        """The newest W behaviours of ``history``."""
        return newest(self.history, self.targets.items.shape[1])


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
        hidden = np.minimum(self.lengths[:, 0], encoder.encoded)
        drawn = MASK_RATIO * hidden.astype(np.float64)
        self.target_counts = drawn + config.last_masked_share * (1.0 - MASK_RATIO)
        self.register_buffer("catalogue", _catalogue(windows, heads, config), False)

    def batch(self, rows: NDArray[np.int64], longest: NDArray[np.int64]) -> MaskedBatch:
        """Return windows ``rows``, cut to the ``longest`` history, and what is hidden."""
        config, device = self.config, self.heads.item_bias.device
        history = newest(torch_rows(self.windows.tensors, rows, device), int(longest[0]))
        if config.pretraining == "bert":
            history = ids_only(history)
        history = prefixes(history, config.prefix_share)
        last = config.last_masked_share
        masks = draw_masks(history[ITEMS], MASK_RATIO, config.pretraining, last)
        return self.masked(history, masks)

    def masked(self, history: dict[str, Tensor], masks: Masks) -> MaskedBatch:
        """Return ``history`` with ``masks``, and what of it is predicted.

        An item outside the vocabulary has a hashed row: there is nothing to predict.
        """
        targets = masks.newest(self.encoder.encoded)  # what has states of its own
        rows = history[ITEMS][:, -self.encoder.encoded :]
        known = rows >= FIRST_KNOWN_ROW  # (B, W)
        targets = replace(targets, items=targets.items & known)
        return MaskedBatch(history=history, masks=masks, targets=targets)

    def counts(self, batch: MaskedBatch) -> Counts:
        """Return how many targets of each kind ``batch`` has."""
        return self.heads.counts(batch.with_states, batch.targets)

    def forward(self, batch: MaskedBatch) -> Sums:
        """Return the heads' losses at the positions that ``batch`` hides."""
        config, history = self.config, batch.history
        share = 0.0 if config.pretraining == "bert" else config.dropped_ids
        drop = id_dropper(share)
        seen = hide({**history, **{ITEMS: drop(history[ITEMS])}}, batch.masks)
        states = self.encoder.predictions(*(seen[name] for name in HISTORY_NAMES))
        of_targets = states[:, -batch.targets.items.shape[1] :]  # (B, W, D)

        def vectors(rows: Tensor) -> Tensor:
            attributes = self.catalogue[rows]
            return self.encoder.embedding.item_vectors(drop(rows), attributes)

        sums: Sums = self.heads(of_targets, batch.with_states, batch.targets, vectors)
        return sums


def _catalogue(windows: Windows, heads: MaskedHeads, config: RefreshConfig) -> Tensor:
    """Return the attribute rows (I, A) of each item in ``windows``; 0 for the others, and
    for the rows that unknown items share.
    """
    rows, attributes = (windows.tensors[name] for name in HISTORY_NAMES[:2])
    found = np.zeros((len(heads.item_bias), attributes.shape[-1]), dtype=np.int64)
    if config.pretraining != "bert":
        for part in in_parts(len(rows)):
            found[rows[part]] = attributes[part]
    found[:FIRST_KNOWN_ROW] = 0
    return torch.from_numpy(found).to(heads.item_bias.device)


def _proposal(windows: Windows, num_rows: int, draws: int) -> Proposal:
    """Return a proposal by how often each item is in ``windows``."""
    rows = windows.tensors["history_item_rows"]
    counts = np.zeros(num_rows, dtype=np.int64)
    for part in in_parts(len(rows)):
        some = rows[part]
        counts += np.bincount(some[some != 0], minlength=num_rows)
    return Proposal(torch.from_numpy(counts), draws)


def draw_masks(
    item_rows: Tensor, ratio: float, arm: str = "both", last_share: float = 0.3
) -> Masks:
    """Return independent sets, each about ``ratio`` of the positions, padding never.

    ``arm`` is ``RefreshConfig.pretraining``: a set that it does not use is empty. In
    ``last_share`` of the windows the newest item's elements are also hidden. Elements of
    one item are hidden together: a click next to the hidden rating of the same item would
    give the answer away.
    """
    items, behaviors, attributes = (
        _draw(item_rows, ratio, share) for share in (last_share, last_share, 0.0)
    )
    return Masks(
        items=items & (arm != "behaviors"),
        behaviors=behaviors & (arm in ("behaviors", "both")),
        attributes=attributes & ~items & (arm in ("items", "both")),
    )


def hide(history: dict[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Return ``history`` with [MASK] in the fields that ``masks`` hide; input unchanged."""
    rows = history["history_item_rows"]
    attributes = history["history_attribute_rows"]
    codes = history["history_behavior_codes"]
    of_attributes = masks.items | masks.attributes
    hidden_codes = torch.tensor(MASK_CODES, device=codes.device)
    return {
        "history_item_rows": rows.masked_fill(masks.items, MASK_ROW),
        # In every slot, so that the mean over any field's slots is [MASK] too.
        "history_attribute_rows": attributes.masked_fill(
            of_attributes[..., None], MASK_ROW
        ),
        "history_behavior_codes": torch.where(
            masks.behaviors[..., None], hidden_codes, codes
        ),
    }


def prefixes(history: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return ``history`` with a ``share`` of its windows cut to their beginning.

    A window is cut after a random behaviour, and keeps at least two: one to be predicted
    from the other. So a user gives as many examples as it had requests.
    """
    rows = history["history_item_rows"]  # (B, L)
    windows, device = len(rows), rows.device
    is_cut = uniform(windows, device=device) < share
    most = ((rows != 0).sum(1) - 2).clamp(min=0)
    drawn = (uniform(windows, device=device) * (most + 1)).long()
    return without_newest(history, torch.where(is_cut, drawn, 0))


def without_newest(history: dict[str, Tensor], dropped: Tensor) -> dict[str, Tensor]:
    """Return ``history`` without its newest ``dropped`` (B,) behaviours.

    What is left moves to the end, where a history's newest behaviour is.
    """
    windows, length = history[ITEMS].shape
    source = torch.arange(length, device=dropped.device) - dropped[:, None]  # (B, L)
    is_padding, source = source < 0, source.clamp(min=0)
    moved = {}
    for name, tensor in history.items():
        trailing = (1,) * (tensor.dim() - 2)
        index = source.reshape(windows, length, *trailing).expand_as(tensor)
        padding = is_padding.reshape(windows, length, *trailing)
        moved[name] = tensor.gather(1, index).masked_fill(padding, 0)
    return moved


def ids_only(history: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``history`` with [MASK] in all fields but the item's id, as in plain BERT."""
    everywhere = torch.ones_like(history["history_item_rows"], dtype=torch.bool)
    all_of_it = Masks(items=everywhere, behaviors=everywhere, attributes=everywhere)
    hidden = hide(history, all_of_it)
    return hidden | {"history_item_rows": history["history_item_rows"]}


def _draw(item_rows: Tensor, ratio: float, last_share: float) -> Tensor:
    """Return one set (B, L), drawn per distinct item of each window."""
    windows, device = len(item_rows), item_rows.device
    of_window = (uniform(windows, 1, device=device) * 2**24).long() << 32  # (B, 1)
    drawn = uniform_of(item_rows + of_window, draw_salt()) < ratio
    last_too = uniform(windows, 1, device=device) < last_share
    is_last = item_rows == item_rows[:, -1:]
    chosen: Tensor = drawn | (is_last & last_too)
    return chosen & (item_rows != 0)
