from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.loop.distributed import ALONE
from srp4ctr.training.loop.train_step import Counts, Objective, Sums, TrainStep
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import ClickObjective
from srp4ctr.training.objectives.pretraining import (
    MASK_RATIO,
    MaskedHeads,
    MaskedObjective,
    draw_masks,
)

TARGETS = np.array([1, 1, 3, 3])  # of each row


class Slope(Objective):
    """Each target's loss is the slope itself, so its gradient is its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))
        self.lengths = TARGETS[:, None]
        self.target_counts = TARGETS.astype(np.float64)

    def batch(self, rows: NDArray[np.int64], longest: NDArray[np.int64]) -> Any:
        return torch.from_numpy(TARGETS[rows])

    def counts(self, batch: Any) -> Counts:
        return {"slope": batch.sum()}

    def forward(self, batch: Any) -> Sums:
        return {"slope": self.slope * batch.sum() / 100}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_targets_count_alike_whatever_batch_they_share(accumulate: int) -> None:
    objective = Slope()
    optimiser = torch.optim.SGD(objective.parameters(), lr=1.0)
    config = RefreshConfig(accumulate=accumulate)
    train_step = TrainStep.of(objective, optimiser, ALONE, config)
    moved: list[Tensor] = []
    for rows in (np.array([0, 1]), np.array([2, 3])):
        before = objective.slope.detach().clone()
        train_step.run(rows, seed=0)
        moved.append(before - objective.slope.detach())
    assert float(moved[1] / moved[0]) == pytest.approx(3.0)  # three targets for each
    assert float(sum(moved)) / 2 == pytest.approx(0.01)  # a mean, as it is with one batch


def test_target_counts_are_what_the_terms_count(
    slates: Slates, windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    clicks = ClickObjective(model, slates, recipe)
    assert np.array_equal(clicks.target_counts, slates.shown.sum(axis=1))
    heads = MaskedHeads(recipe.model, model.embedding)
    masked = MaskedObjective(model.encoder, heads, windows, recipe)
    torch.manual_seed(0)
    rows = torch.from_numpy(windows.tensors["history_item_rows"].astype(np.int64))
    last = recipe.last_masked_share
    drawn = [draw_masks(rows, MASK_RATIO, "items", last).items.sum() for _ in range(300)]
    mean = float(torch.stack(drawn).double().mean())
    assert mean == pytest.approx(masked.target_counts.sum(), rel=0.03)


@pytest.mark.parametrize("pretraining", ["both", "bert", "items", "behaviors"])
def test_every_sum_has_its_count(
    slates: Slates,
    windows: Windows,
    recipe: RefreshConfig,
    sizes: TableSizes,
    pretraining: Literal["both", "bert", "items", "behaviors"],
) -> None:
    config = replace(recipe, pretraining=pretraining, prefix_share=0.5)
    model = SRP4CTR(config.model, sizes)
    heads = MaskedHeads(config.model, model.embedding)
    objectives: list[tuple[Objective, int]] = [
        (ClickObjective(model, slates, config), len(slates)),
        (MaskedObjective(model.encoder, heads, windows, config), len(windows)),
    ]
    for objective, size in objectives:
        batch = objective.batch(np.arange(size), objective.lengths.max(axis=0))
        sums, counts = objective(batch), objective.counts(batch)
        assert sums.keys() == counts.keys()
        assert {n for n, total in sums.items() if total} == {n for n in sums if counts[n]}
        assert any(count > 0 for count in counts.values())
