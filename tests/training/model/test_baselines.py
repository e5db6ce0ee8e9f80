from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.models.baselines import BASELINES, CAN, PNN
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


@pytest.mark.parametrize("name", ["pnn", "din", "can", "bst", "sasrec"])
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


def test_a_candidates_own_network_reads_the_items_of_the_history(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = CAN(recipe.model, sizes).eval()
    tensors = {name: torch.from_numpy(each) for name, each in slates.tensors.items()}
    with torch.no_grad():
        _, *made = model.readings(tensors)
        for row, place in ((0, 0), (1, 2), (3, 1)):
            weights = model.networks.weight[tensors["candidate_item_rows"][row, place]]
            first, second = weights[:128].reshape(16, 8), weights[128:].reshape(8, 4)
            behaviors = tensors["history_item_rows"][row]
            read = model.acted_on.weight[behaviors[behaviors != 0]]  # no padding
            for order, found in enumerate(made, start=1):
                expected = (torch.tanh(read**order @ first) @ second).sum(0)
                torch.testing.assert_close(found[row, place], expected)


def test_each_pair_of_fields_has_its_product(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = PNN(recipe.model, sizes).eval()
    tensors = {name: torch.from_numpy(each) for name, each in slates.tensors.items()}
    width = model.of_item.out_features
    with torch.no_grad():
        mean, made = model.readings(tensors)
        row = 3
        tokens = model.history_tokens(tensors)[row][tensors["history_item_rows"][row] != 0]
        torch.testing.assert_close(mean[row, 0], tokens.mean(0))
        item = model.embedding.items(tensors["candidate_item_rows"][row, 0])
        rows = tensors["candidate_attribute_rows"][row, 0]
        attributes = torch.split(model.embedding.attributes.means(rows), width)
        fields = [model.of_item(item), *attributes]
        fields.append(model.of_history(mean[row, 0]))
        fields.append(model.of_context(model.context(tensors["context_rows"][row])))
    expected = [a @ b for i, a in enumerate(fields) for b in fields[i + 1 :]]
    torch.testing.assert_close(made[row, 0], torch.stack(expected))
