"""Example → score: train the whole model on clicks, one encoding per slate.

In: slates with matured labels, and any click model, pre-trained or fresh. Out: the model,
trained in place, each group of its parameters at the rate that the model asks for.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batches import Slates, slate_batch
from training.click_loss import click_loss
from training.config import RefreshConfig
from training.fitting import FitOptions, Stage, fit
from training.id_dropout import without_ids
from training.model.click_model import ClickModel

STAGE = "fine-tune"
WEIGHT_DECAY = 0.01
SCORING_ROWS = 512  # requests at once when only scoring


def finetune(
    model: ClickModel, slates: Slates, config: RefreshConfig, options: FitOptions
) -> tuple[float, ...]:
    """Train ``model`` on ``slates``, in place; return the log loss of each epoch."""
    device = next(model.parameters()).device
    shown = slates.shown
    features = torch.from_numpy(slates.tensors["candidate_features"][shown])
    model.candidate_features.fit(features.to(device))
    model.request_features.fit(
        torch.from_numpy(slates.tensors["request_features"]).to(device)
    )

    def loss(rows: NDArray[np.int64]) -> Tensor:
        batch = slate_batch(slates, rows, device)
        tensors = without_ids(batch.tensors, config.id_dropout, config.num_oov_rows)
        logits = model(tensors, batch.positions)
        return click_loss(logits, batch.clicked, batch.shown, config)

    stage = Stage(
        name=STAGE,
        modules={"model": model},
        optimiser=torch.optim.AdamW(
            model.parameter_groups(config), weight_decay=WEIGHT_DECAY
        ),
        loss=loss,
        rows=len(slates),
        batch_rows=config.batch_requests,
        epochs=config.finetune_epochs,
        seed=config.seed * 2 + 1,
    )
    return fit(stage, options)


@torch.no_grad()
def serving_logits(model: ClickModel, slates: Slates) -> NDArray[np.float32]:
    """Return uncalibrated logits (R, N) as serving makes them: at the default position."""
    device = next(model.parameters()).device
    model.eval()
    logits = np.zeros(slates.clicked.shape, dtype=np.float32)
    for start in range(0, len(slates), SCORING_ROWS):
        rows = np.arange(start, min(start + SCORING_ROWS, len(slates)))
        batch = slate_batch(slates, rows, device)
        scored = model(batch.tensors).cpu().numpy()
        logits[rows, : scored.shape[1]] = scored
    return logits
