"""Example → score: train the whole model on clicks, one encoding per slate.

In: slates with matured labels, and any click model, pre-trained or new. Out: the stage that
trains it in place; the model sets the learning rate of each group of parameters.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Batch, Slates, slate_batch, slate_lengths
from srp4ctr.training.dataset.bucket_sampler import in_order
from srp4ctr.training.loop.trainer import Stage
from srp4ctr.training.model.click_model import ClickModel
from srp4ctr.training.objectives.click_loss import click_counts, click_terms
from srp4ctr.training.objectives.id_dropout import without_ids
from srp4ctr.training.objectives.objective import Counts, Objective, Terms

STAGE = "fine-tune"
WEIGHT_DECAY = 0.01
SCORING_ROWS = 512  # requests at once when only scoring
MAX_SCALED = 100_000  # requests, evenly from all, that the features' scales are taken from


def stage_of(model: ClickModel, slates: Slates, config: RefreshConfig) -> Stage:
    """Return the stage that trains ``model`` on ``slates``; fit its features' scales."""
    device = next(model.parameters()).device
    some = slates.take(slice(None, None, 1 + len(slates) // MAX_SCALED))
    candidates = np.array(some.tensors["candidate_features"][some.shown])
    requests = np.array(some.tensors["request_features"])  # torch needs a writable copy
    model.candidate_features.fit(torch.from_numpy(candidates).to(device))
    model.request_features.fit(torch.from_numpy(requests).to(device))
    return Stage(
        name=STAGE,
        objective=ClickObjective(model, slates, config),
        optimiser=torch.optim.AdamW(
            model.parameter_groups(config), weight_decay=WEIGHT_DECAY, fused=True
        ),
        rows=len(slates),
        batch_rows=config.batch_requests,
        epochs=config.finetune_epochs,
        seed=config.seed * 2 + 1,
        config=config,
    )


class ClickObjective(Objective):
    """Predict which impressions of the slates are clicked: a model and its loss."""

    def __init__(self, model: ClickModel, slates: Slates, config: RefreshConfig) -> None:
        super().__init__()
        self.model = model
        self.slates = slates
        self.config = config
        self.lengths = slate_lengths(slates)
        self.target_counts = slates.shown.sum(axis=1).astype(np.float64)

    def batch(self, rows: NDArray[np.int64], longest: NDArray[np.int64]) -> Batch:
        """Return slates ``rows``, cut to the ``longest`` slate and history."""
        return slate_batch(self.slates, rows, longest, next(self.parameters()).device)

    def counts(self, batch: Batch) -> Counts:
        """Return the number of impressions and slates in the terms of ``batch``."""
        return click_counts(batch.clicked, batch.shown, self.config)

    def forward(self, batch: Batch) -> Terms:
        """Return the terms of the loss of the impressions shown in ``batch``."""
        config = self.config
        share = config.id_dropout if self.training else 0.0
        tensors = without_ids(batch.tensors, share, config.num_oov_rows)
        logits = self.model(tensors, batch.positions)
        return click_terms(logits, batch.clicked, batch.shown, config)


@torch.no_grad()
def serving_logits(model: ClickModel, slates: Slates) -> NDArray[np.float32]:
    """Return uncalibrated logits (R, N) as in serving: at the default position."""
    device = next(model.parameters()).device
    model.eval()
    logits = np.zeros(slates.clicked.shape, dtype=np.float32)
    lengths = slate_lengths(slates)
    alike = np.lexsort(lengths.T)  # together, so that little is padding
    for rows in in_order(alike, SCORING_ROWS):
        batch = slate_batch(slates, rows, lengths[rows].max(axis=0), device)
        scored = model(batch.tensors).cpu().numpy()
        logits[rows, : scored.shape[1]] = scored
    return logits
