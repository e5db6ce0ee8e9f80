"""Sequence → encoder: FG-BERT's cloze tasks on behaviours before the training boundary.

In: windows of behaviours (``HISTORY_TENSORS``). Out: a trained encoder. Three mask sets are
drawn independently for each window: item-related fields (id and attributes together),
behaviour-related fields (all of them together), and attributes of items whose ids are
shown. Of a long window only the newest behaviours are predicted, those with states of their
own.

Heads predict what is hidden, and are dropped afterwards; only the encoder and its tables
are kept. A full softmax of 64 windows holds 1,000 numbers per item: 200,000 items take
gigabytes, so that the item is then predicted among a sample.

Shapes: B windows, L history, W of it with states, P hidden positions, I item rows, K drawn
rows, A attribute slots, F behaviour fields, D width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srp4ctr.features.tensors.item_fields import FieldPlace, places
from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS, Field
from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW, MASK_ROW
from srp4ctr.training.config import ModelConfig, RefreshConfig
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
from srp4ctr.training.model.embeddings import (
    LARGE_CATALOGUE,
    MASK_CODES,
    TokenEmbedding,
)
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.model.transformer import BehaviorEncoder

STAGE = "pre-train"
ITEMS = "history_item_rows"
WEIGHT_DECAY = 0.01
MASK_RATIO = 0.2  # of the positions, in each of the three mask sets
_SAMPLED_ITEMS = 8192  # with which a hidden item of a large catalogue is compared
_IGNORED = -100  # of cross_entropy
# What a user did with an item. How long it took says little of the item, and much of its
# neighbours: an encoder that predicts it learns their rhythm and not what users like.
_PREDICTED = tuple((f, e) for f, e in enumerate(BEHAVIOR_FIELDS) if e.kind != "gap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Where fields are hidden, each (B, L), or of the newest W behaviours (B, W)."""

    items: Tensor
    """Ids with their attributes."""
    behaviors: Tensor
    """All fields of the behaviour."""
    attributes: Tensor
    """Attributes alone: nowhere that ``items`` is. The id may be an unknown item's."""

    def newest(self, length: int) -> "Masks":
        """Return the masks of the newest ``length`` behaviours."""
        return Masks(
            items=self.items[:, -length:],
            behaviors=self.behaviors[:, -length:],
            attributes=self.attributes[:, -length:],
        )


Vectors = Callable[[Tensor], Tensor]
"""Item rows (K,) → what a state is multiplied with to say how likely each is, (K, D)."""


class Proposal(nn.Module):
    """Samples item rows by their frequency, with the expected count of each. One is added
    to each frequency, so that any row can be sampled.
    """

    cumulative: Tensor
    log_expected: Tensor

    def __init__(self, counts: Tensor, draws: int) -> None:
        super().__init__()
        shares = (counts + 1).double() / (counts + 1).sum()  # (I,)
        self.draws = draws
        self.register_buffer("cumulative", shares.cumsum(0), persistent=False)
        expected = (shares * draws).log().float()
        self.register_buffer("log_expected", expected, persistent=False)

    def draw(self) -> Tensor:
        """Return rows (K,), with replacement."""
        points = torch.rand(self.draws, device=self.cumulative.device)
        rows = torch.searchsorted(self.cumulative, points.double(), right=True)
        return rows.clamp(max=len(self.cumulative) - 1)


def full_softmax(states: Tensor, rows: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Return the cross entropy (P,) of ``rows`` (P,), by ``states`` (P, D), over I rows."""
    logits = states @ table.T + bias  # (P, I)
    return nn.functional.cross_entropy(logits, rows, reduction="none")


def sampled_softmax(
    states: Tensor, rows: Tensor, vectors: Vectors, bias: Tensor, proposal: Proposal
) -> Tensor:
    """Return an estimate of the same from rows that ``proposal`` samples for all positions.
    A sampled row's logit is reduced by the logarithm of its expected count (logQ), so that
    the denominator is unbiased. The hidden row is in it once, uncorrected, and not among
    the sampled ones.
    """
    drawn = proposal.draw()  # (K,)
    own = (states * vectors(rows)).sum(-1) + bias[rows]  # (P,)
    corrected = bias[drawn] - proposal.log_expected[drawn]
    others = states @ vectors(drawn).T + corrected  # (P, K)
    others = others.masked_fill(drawn == rows[:, None], -torch.inf)
    return torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own


class MaskedHeads(nn.Module):
    """An item softmax tied to the token embeddings, and after a transform a head per field.

    Four groups have equal weights: the item, the mean of its fields, the mean of the fields
    of an item whose id is shown, the mean of the behaviour's fields. The third teaches an
    id's vector what the item is (S3-Rec's associated attributes, Zhou et al., CIKM 2020).
    A loss is divided by the logarithm of its number of classes, so that it begins near 1;
    that of a multi-valued field also by the item's number of values.
    """

    def __init__(self, config: ModelConfig, embedding: TokenEmbedding) -> None:
        super().__init__()
        width = config.width
        self.transform = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)
        )
        self.item_bias = nn.Parameter(torch.zeros(embedding.items.num_embeddings))
        self.item_fields = _heads(width, embedding.item_fields)
        self.behavior_fields = _heads(width, [field for _, field in _PREDICTED])
        self.places = places(embedding.item_fields)
        self.proposal: Proposal | None = None
        """Set for a large catalogue: the item softmax is then over a sample."""

    def forward(
        self, states: Tensor, history: dict[str, Tensor], masks: Masks, vectors: Vectors
    ) -> Sums:
        """Return the losses of what ``masks`` hide of ``history``, by ``states`` (B, W, D).

        ``vectors`` returns the embeddings of items. Every head is evaluated; the sum of one
        without targets is 0.
        """
        rows = history["history_item_rows"][masks.items]  # (P,)
        sums = {"item": self.item_loss(states[masks.items], rows, vectors)}
        attributes = history["history_attribute_rows"]  # (B, W, A)
        for group, mask in _with_attributes(masks):
            hidden = self.transform(states[mask])  # (P, D)
            sums |= self._field_losses(group, hidden, attributes[mask])
        hidden = self.transform(states[masks.behaviors])
        codes = history["history_behavior_codes"][masks.behaviors]  # (P, F)
        for (f, field), head in zip(_PREDICTED, self.behavior_fields, strict=True):
            loss = nn.functional.cross_entropy(head(hidden), codes[:, f], reduction="sum")
            share = len(_PREDICTED) * math.log(field.size)
            sums[f"behavior {field.name}"] = loss / share
        return sums

    def counts(self, history: dict[str, Tensor], masks: Masks) -> Counts:
        """Return how many targets each of these losses has."""
        behaviors = masks.behaviors.sum().float()
        counts = {"item": masks.items.sum().float()}
        for group, mask in _with_attributes(masks):
            attributes = history["history_attribute_rows"][mask]  # (P, A)
            for place in self.places:
                is_known = (attributes[:, place.slots] > MASK_ROW).any(1)
                counts[f"{group} {place.field.name}"] = is_known.float().sum()
        return counts | {f"behavior {field.name}": behaviors for _, field in _PREDICTED}

    def _field_losses(
        self, group: str, transformed: Tensor, attributes: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of ``attributes`` (P, A) by transformed states (P, D)."""
        sums = {}
        for place, head in zip(self.places, self.item_fields, strict=True):
            loss = field_loss(head(transformed), attributes[:, place.slots], place)
            share = len(self.places) * math.log(place.field.size + 1)
            sums[f"{group} {place.field.name}"] = loss / share
        return sums

    def item_loss(self, hidden: Tensor, rows: Tensor, vectors: Vectors) -> Tensor:
        """Return the cross entropy of ``rows`` (P) by states (P, D), summed."""
        bias, items = self.item_bias, len(self.item_bias)
        if self.proposal is None:
            table = vectors(torch.arange(items, device=bias.device))
            losses = full_softmax(hidden, rows, table, bias)
        else:
            losses = sampled_softmax(hidden, rows, vectors, bias, self.proposal)
        return losses.sum() / math.log(items)


def _with_attributes(masks: Masks) -> tuple[tuple[str, Tensor], ...]:
    """Return where attributes are hidden: with their items' ids, and alone."""
    return ("item", masks.items), ("shown", masks.attributes)


def field_loss(logits: Tensor, rows: Tensor, place: FieldPlace) -> Tensor:
    """Return the loss of an item field's ``rows`` (P, slots) by ``logits`` (P, size).

    Cross entropy over the field's own range; of a multi-valued field binary cross entropy
    of each value. An item without a known value is left out.
    """
    if not place.field.has_several:
        wanted = torch.where(rows[:, 0] > MASK_ROW, rows[:, 0] - place.first_row, _IGNORED)
        return nn.functional.cross_entropy(logits, wanted, reduction="sum")
    known = (rows > MASK_ROW).sum(1)  # (P,)
    columns = (rows - place.first_row + 1).clamp(min=0)  # 0: no value
    present = logits.new_zeros(len(rows), place.field.size + 1).scatter_(1, columns, 1.0)
    each = nn.functional.binary_cross_entropy_with_logits(
        logits, present[:, 1:], reduction="none"
    )
    return (each.sum(1) * (known > 0) / known.clamp(min=1)).sum()


def _heads(width: int, fields: Sequence[Field]) -> nn.ModuleList:
    heads = nn.ModuleList(nn.Linear(width, field.size) for field in fields)
    for field, head in zip(fields, heads, strict=True):
        if field.has_several:  # values are rare: at 1/2 each, their sum would be large
            assert isinstance(head, nn.Linear)
            nn.init.constant_(head.bias, -math.log(field.size))
    return heads


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
