"""Histories → click model: what users did with the items that they met next.

In: windows of behaviours, and slates with labels. Out: a model whose encoder, candidate
stream and head predict clicks before they have seen a label. A window is cut at random: the
behaviours before the cut are the history, the items after it the candidates. A behaviour is
no label. It counts as the labelled impressions say: by the share of clicks among those
whose user did the same with the item. In a feed a short view counts as no click, a long one
as a click. Where every behaviour follows a click there is nothing to learn.

Shapes: R requests, B windows, L history, N candidates, K actions, V codes of values.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from srp4ctr.features import columns
from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS
from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import (
    HISTORY_NAMES,
    Slates,
    Windows,
    history_lengths,
    newest,
    torch_rows,
)
from srp4ctr.training.loop.train_step import Counts, Objective, Sums
from srp4ctr.training.loop.trainer import FitOptions, Stage, fit
from srp4ctr.training.model.click_model import ClickModel
from srp4ctr.training.model.dropout import uniform, without_ids
from srp4ctr.training.objectives.finetuning import batch_size, optimiser_of
from srp4ctr.training.objectives.pretraining import ITEMS, without_newest

STAGE = "pre-train on feedback"
CANDIDATES = 16  # N
EPOCHS = 1
_LEAST_BEHAVIORS = 4  # of a window: a history, and more than one candidate
_LEAST_IMPRESSIONS = 50  # that an action's share of clicks is taken from
_LEAST_SPREAD = 0.1  # of behaviours' shares: their standard deviation
_MAX_REQUESTS = 50_000  # the newest, that shares are taken from
_MAX_WINDOWS = 50_000  # evenly from all, that their spread is taken from
_PLACES = {field.name: place for place, field in enumerate(BEHAVIOR_FIELDS)}
_SIZES = {field.name: field.size for field in BEHAVIOR_FIELDS}
_ACTION, _VALUE = _PLACES["action"], _PLACES["value"]
_IN_HISTORY = columns.CANDIDATE.place("item_in_sequence")
Floats = NDArray[np.float64]


def pretrain_on_feedback(
    model: ClickModel,
    windows: Windows,
    slates: Slates,
    config: RefreshConfig,
    options: FitOptions,
) -> tuple[float, ...]:
    """Train ``model`` on ``windows``, in place; return the loss of each epoch.

    None are trained, where ``config.pretraining`` is not ``both`` or behaviours say the
    same of clicks, by the labels of ``slates``.
    """
    if config.pretraining != "both":
        return ()
    shares = click_shares(slates)
    if _spread(windows, shares) < _LEAST_SPREAD:
        return ()
    torch.manual_seed(config.seed)
    objective = FeedbackObjective(model, windows, slates, shares, config)
    stage = Stage(
        name=STAGE,
        objective=objective,
        optimiser=optimiser_of(model, config),
        rows=len(objective.rows),
        batch_rows=batch_size(config, len(objective.rows)),
        epochs=EPOCHS,
        seed=config.seed * 3 + 2,
        config=config,
    )
    return fit(stage, options)


def click_shares(slates: Slates) -> Floats:
    """Return the share of clicks (K, V) of impressions whose user did this; NaN: unknown.

    What a user did with an item is read from the history of the user's last request, if it
    is not in that of the impression itself. Of an action with a value that is too rare, the
    share is that of the action.
    """
    slates = slates.take(slice(-_MAX_REQUESTS, None))
    tensors, shown = slates.tensors, slates.shown
    users, user = np.unique(slates.user_ids, return_inverse=True)
    last = np.zeros(len(users), dtype=np.int64)
    last[user] = np.arange(len(user))  # requests are by time: the last one stays
    histories = np.asarray(tensors[ITEMS][last]).astype(np.int64)  # (U, L)
    items = np.asarray(tensors["candidate_item_rows"]).astype(np.int64)  # (R, N)
    width = 1 + int(max(histories.max(initial=0), items.max(initial=0)))
    owner, place = np.nonzero(histories)
    done = (owner * width + histories[owner, place])[::-1]  # the newest first
    done, first = np.unique(done, return_index=True)
    codes = np.asarray(tensors["history_behavior_codes"][last])
    codes = codes[owner, place][::-1][first].astype(np.int64)
    wanted = (user[:, None] * width + items)[shown]
    at = np.minimum(np.searchsorted(done, wanted), max(len(done) - 1, 0))
    is_met = done[at] == wanted if len(done) else np.zeros(len(wanted), dtype=np.bool_)
    is_met &= items[shown] >= FIRST_KNOWN_ROW  # unknown items share rows
    is_met &= tensors["candidate_features"][..., _IN_HISTORY][shown] == 0  # else: earlier
    clicked = slates.clicked[shown][is_met]
    of_pair = codes[at[is_met], _ACTION], codes[at[is_met], _VALUE]
    counts, clicks = (np.zeros((_SIZES["action"], _SIZES["value"])) for _ in range(2))
    np.add.at(counts, of_pair, 1.0)
    np.add.at(clicks, of_pair, clicked)
    by_action = _share(clicks.sum(axis=1), counts.sum(axis=1))
    found = _share(clicks, counts)
    return np.where(np.isnan(found), by_action[:, None], found)


def _share(clicks: Floats, counts: Floats) -> Floats:
    enough = counts >= _LEAST_IMPRESSIONS
    shares: Floats = np.full(counts.shape, np.nan)
    return np.divide(clicks, counts, out=shares, where=enough)


def _spread(windows: Windows, shares: Floats) -> float:
    """Return the standard deviation of behaviours' ``shares``; 0.0 where none is known."""
    some = slice(None, None, 1 + len(windows) // _MAX_WINDOWS)
    codes = np.asarray(windows.tensors["history_behavior_codes"][some])
    met = codes[np.asarray(windows.tensors[ITEMS][some]) != 0]
    known = shares[met[:, _ACTION], met[:, _VALUE]]
    known = known[~np.isnan(known)]
    return float(known.std()) if len(known) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackBatch:
    """Histories and the items that came after them."""

    tensors: dict[str, Tensor]
    shares: Tensor
    """(B, N): of clicks, for what the user did with each candidate."""
    known: Tensor
    """(B, N): whether there is one. Items of the history are no candidates."""


class FeedbackObjective(Objective):
    """Predict what users did with the items that they met next, as clicks."""

    def __init__(
        self,
        model: ClickModel,
        windows: Windows,
        slates: Slates,
        shares: Floats,
        config: RefreshConfig,
    ) -> None:
        super().__init__()
        self.model, self.windows, self.config = model, windows, config
        lengths = history_lengths(windows.tensors)
        self.rows = np.flatnonzero(lengths >= _LEAST_BEHAVIORS)
        self.lengths = lengths[self.rows][:, None]
        self.target_counts = np.minimum(self.lengths[:, 0] / 2.0, CANDIDATES)
        device = next(model.parameters()).device
        self._shares = torch.from_numpy(shares).float().to(device)
        # A window is of no request: it has no counters, context or user's attributes.
        one = torch_rows(slates.tensors, np.zeros(1, dtype=np.int64), device)
        self._absent = {n: torch.zeros_like(t) for n, t in one.items()}
        features = self._absent["candidate_features"]  # (1, any, C)
        self._absent["candidate_features"] = features[:, :1].expand(1, CANDIDATES, -1)

    def batch(self, rows: NDArray[np.int64], longest: NDArray[np.int64]) -> FeedbackBatch:
        """Return windows ``rows``, cut to the ``longest``, each into history and items."""
        device, tensors = self._shares.device, self.windows.tensors
        whole = newest(torch_rows(tensors, self.rows[rows], device), int(longest[0]))
        met = (whole[ITEMS] != 0).sum(1)  # (B,)
        least = (met // 4).clamp(min=1)
        drawn = uniform(len(met), device=device) * (met - 1 - least).clamp(min=1)
        dropped = met - least - drawn.long()
        after = torch.arange(CANDIDATES, device=device)
        length = whole[ITEMS].shape[1]
        place = (length - dropped[:, None] + after).clamp(max=length - 1)  # (B, N)
        found = {name: _picked(whole[name], place) for name in HISTORY_NAMES}
        history = without_newest(whole, dropped)
        items = found[ITEMS].masked_fill(after >= dropped[:, None], 0)
        codes = found["history_behavior_codes"]
        shares = self._shares[codes[..., _ACTION], codes[..., _VALUE]]
        is_known = (items >= FIRST_KNOWN_ROW) & ~shares.isnan()
        is_known &= ~(items[:, :, None] == history[ITEMS][:, None, :]).any(-1)
        # An item met twice is one candidate, by the behaviour that says most of a click.
        same = (items[:, :, None] == items[:, None, :]) & is_known[:, None, :]
        is_known &= ~same.tril(-1).any(-1)
        shares = torch.where(same, shares.nan_to_num()[:, None, :], 0.0).amax(-1)
        return FeedbackBatch(
            tensors={
                **{n: t.expand(len(met), *t.shape[1:]) for n, t in self._absent.items()},
                **history,
                "candidate_item_rows": items * is_known,
                "candidate_attribute_rows": found["history_attribute_rows"]
                * is_known[..., None],
            },
            shares=shares,
            known=is_known,
        )

    def counts(self, batch: FeedbackBatch) -> Counts:
        """Return how many candidates ``batch`` has."""
        return {"feedback": batch.known.sum().float()}

    def forward(self, batch: FeedbackBatch) -> Sums:
        """Return the cross entropy of clicks, with shares in the place of labels."""
        share = self.config.dropped_ids if self.training else 0.0
        logits = self.model(without_ids(batch.tensors, share)).click
        each = functional.binary_cross_entropy_with_logits
        known = batch.known
        return {"feedback": each(logits[known], batch.shares[known], reduction="sum")}


def _picked(tensor: Tensor, place: Tensor) -> Tensor:
    """Return ``tensor`` (B, L, …) at ``place`` (B, N): (B, N, …)."""
    trailing = tensor.shape[2:]
    index = place.reshape(*place.shape, *(1,) * len(trailing)).expand(-1, -1, *trailing)
    return tensor.gather(1, index)
