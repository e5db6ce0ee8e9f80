"""Example → score: train the whole model on clicks, one encoding per slate.

In: slates with matured labels, and any click model, pre-trained or new. Out: its weights;
the model sets the learning rate of each group of parameters. The loss per impression makes
a logit a probability; the listwise loss trains what orders a slate: the item clicked
before those that were not.

Sampled slates draw popular items more often. Both losses subtract the log of the draw
probability from the scores, so that the scores themselves order items by the probability
of being the next click (Bengio & Senécal, IEEE TNN 2008; Yi et al., Sampling-Bias-Corrected
Neural Modeling for Large Corpus Item Recommendations, RecSys 2019).

Shapes: R requests, B of them in a batch, N candidates.
"""

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import (
    Batch,
    Slates,
    in_order,
    slate_batch,
    slate_lengths,
)
from srp4ctr.training.evaluation.calibration import fit_platt
from srp4ctr.training.evaluation.quality import log_losses
from srp4ctr.training.loop.row_adamw import RowAdamW
from srp4ctr.training.loop.train_step import Counts, Objective, Sums
from srp4ctr.training.loop.trainer import FitOptions, Stage, fit
from srp4ctr.training.model.click_model import ClickModel
from srp4ctr.training.model.dropout import without_ids
from srp4ctr.training.model.heads import scores
from srp4ctr.training.model.heads.scores import Scores

STAGE = "fine-tune"
WEIGHT_DECAY = 0.01
STEPS_OF_AN_EPOCH, BATCH_SIZES = 700, (8, 64)
SCORING_ROWS = 512  # requests at once when only scoring
MAX_SCALED = 100_000  # requests, evenly from all, that the features' scales are taken from


def finetune(
    model: ClickModel,
    slates: Slates,
    config: RefreshConfig,
    options: FitOptions,
    held_out: Slates | None = None,
) -> tuple[float, ...]:
    """Train ``model`` on ``slates``, in place; return the loss of each epoch.

    Features get their scales from the same ``slates``.
    """
    scale_features(model, slates)
    start_at_draws(model, slates)
    return train_on_clicks(model, slates, config, options, held_out)


def scale_features(model: ClickModel, slates: Slates) -> None:
    """Take the scales of the features of ``model`` from ``slates``."""
    device = next(model.parameters()).device
    some = slates.take(slice(None, None, 1 + len(slates) // MAX_SCALED))
    candidates = np.array(some.tensors["candidate_features"][some.shown])
    requests = np.array(some.tensors["request_features"])  # torch needs a writable copy
    model.candidate_features.fit(torch.from_numpy(candidates).to(device))
    model.request_features.fit(torch.from_numpy(requests).to(device))


def start_at_draws(model: ClickModel, slates: Slates) -> None:
    """Shift the logits of a new ``model`` by the mean log draw probability of ``slates``.

    Steps of the learning rate's size would need thousands for the same distance.
    """
    some = slates.take(slice(None, None, 1 + len(slates) // MAX_SCALED))
    if some.are_sampled:
        model.shift_logits(float(some.log_draw[some.shown].mean()))


def train_on_clicks(
    model: ClickModel,
    slates: Slates,
    config: RefreshConfig,
    options: FitOptions,
    held_out: Slates | None = None,
) -> tuple[float, ...]:
    """Do as ``finetune``, with the scales that the features of ``model`` have.

    Only for as many epochs as do ``held_out`` slates no harm, where there are some: from
    the second epoch on, a click model may learn items' ids by heart (Zhang et al., Towards
    Understanding the Overfitting Phenomenon of Deep Click-Through Rate Models, CIKM 2022).
    """
    stage = Stage(
        name=STAGE,
        objective=ClickObjective(model, slates, config),
        optimiser=optimiser_of(model, config),
        rows=len(slates),
        batch_rows=batch_size(config, len(slates)),
        epochs=config.finetune_epochs,
        seed=config.seed * 2 + 1,
        config=config,
        validate=functools.partial(request_losses, model, held_out)
        if held_out is not None and len(held_out) and config.finetune_epochs > 1
        else None,
    )
    return fit(stage, options)


def batch_size(config: RefreshConfig, requests: int) -> int:
    """Return the batch size for a log of this many ``requests``."""
    if config.batch_requests is not None:
        return config.batch_requests
    least, most = BATCH_SIZES
    wanted = max(requests / STEPS_OF_AN_EPOCH, 1.0)
    nearest: int = 2 ** round(math.log2(wanted))
    return min(max(nearest, least), most)


def optimiser_of(model: ClickModel, config: RefreshConfig) -> RowAdamW:
    """Return the optimiser of the whole ``model``, at the rates of its groups."""
    groups = model.parameter_groups(config)
    return RowAdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)


class ClickObjective(Objective):
    """Predict which impressions of the slates are clicked: a model and its loss."""

    def __init__(self, model: ClickModel, slates: Slates, config: RefreshConfig) -> None:
        super().__init__()
        self.model = model
        self.slates = slates
        self.config = config
        self.lengths = slate_lengths(slates)
        self.target_counts = self.lengths[:, 0].astype(np.float64)

    def batch(self, rows: NDArray[np.int64], longest: NDArray[np.int64]) -> Batch:
        """Return slates ``rows``, cut to the ``longest`` slate and history."""
        return slate_batch(self.slates, rows, longest, next(self.parameters()).device)

    def counts(self, batch: Batch) -> Counts:
        """Return the number of impressions, and of slates with a click."""
        return scores.counts(batch.clicked, batch.shown)

    def forward(self, batch: Batch) -> Sums:
        """Return the sums of the losses of the impressions shown in ``batch``."""
        config = self.config
        share = config.dropped_ids if self.training else 0.0
        tensors = without_ids(batch.tensors, share)
        found = Scores(*(s - batch.log_draw for s in self.model(tensors, batch.positions)))
        return scores.losses(found, batch.clicked, batch.shown, config)


@torch.no_grad()
def serving_logits(model: ClickModel, slates: Slates) -> Scores[NDArray[np.float32]]:
    """Return uncalibrated logits (R, N) as in serving: at the default position."""
    device = next(model.parameters()).device
    model.eval()
    found = Scores(*np.zeros((len(scores.HEADS), *slates.clicked.shape), np.float32))
    lengths = slate_lengths(slates)
    alike = np.lexsort(lengths.T)  # together, so that little is padding
    for rows in in_order(alike, SCORING_ROWS):
        batch = slate_batch(slates, rows, lengths[rows].max(axis=0), device)
        for target, scored in zip(found, model(batch.tensors), strict=True):
            target[rows, : scored.shape[1]] = scored.cpu().numpy()
    return found


def request_losses(model: ClickModel, slates: Slates) -> NDArray[np.float64]:
    """Return each request's log loss (R,), calibrated on the same ``slates``."""
    shown, clicked = slates.shown, slates.clicked[slates.shown]
    logits = (serving_logits(model, slates).click - slates.log_draw)[shown]
    probabilities = fit_platt(clicked, logits).probabilities(logits)
    losses = np.zeros(shown.shape)
    losses[shown] = log_losses(clicked, probabilities)
    summed: NDArray[np.float64] = losses.sum(axis=1)
    return summed
