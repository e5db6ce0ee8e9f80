from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.models.baselines import BASELINES
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import metrics
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.objectives.finetuning import finetune, serving_logits


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns_which_items_are_clicked(
    name: str, slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = BASELINES[name](recipe.model, sizes)
    config = replace(recipe, finetune_epochs=40, finetune_learning_rate=2e-2)
    finetune(model, slates, config, FitOptions())
    logits = serving_logits(model, slates).click
    assert metrics.auc(slates.clicked[slates.shown], logits[slates.shown]) > 0.9


@pytest.mark.parametrize("name", ["din", "bst", "sasrec"])
def test_a_candidate_does_not_change_the_others_scores(
    name: str, slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = BASELINES[name](recipe.model, sizes)
    before = serving_logits(model, slates).click
    tensors = {key: array.copy() for key, array in slates.tensors.items()}
    tensors["candidate_item_rows"][:, 0] = 5
    after = serving_logits(model, replace(slates, tensors=tensors)).click
    np.testing.assert_allclose(after[:, 1:], before[:, 1:], rtol=1e-5, atol=1e-6)
    assert not np.allclose(after[:, 0], before[:, 0])
