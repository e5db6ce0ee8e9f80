from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.models.baselines import BASELINES, CAN, PNN
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import quality
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import FieldVectors, TableSizes
from srp4ctr.training.objectives.finetuning import finetune, serving_logits

KINDS = ("item", "attribute")


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns_which_items_are_clicked(
    name: str, slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = BASELINES[name](recipe.model, sizes)
    config = replace(recipe, finetune_epochs=40, finetune_learning_rate=2e-2)
    finetune(model, slates, config, FitOptions())
    logits = serving_logits(model, slates).click
    assert quality.auc(slates.clicked[slates.shown], logits[slates.shown]) > 0.9


@pytest.mark.parametrize("name", ["pnn", "din", "can", "bst"])
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


def test_a_candidates_own_networks_read_the_history(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = CAN(recipe.model, sizes).eval()
    tensors = {name: torch.from_numpy(each) for name, each in slates.tensors.items()}
    with torch.no_grad():
        _, *made = model.readings(tensors)
        items, attributes = model.weights
        of_items, of_attributes = model.acted_on
        assert isinstance(attributes, FieldVectors)
        assert isinstance(of_attributes, FieldVectors)
        for row, place in ((0, 0), (1, 2), (3, 1)):
            there = tensors["history_item_rows"][row] != 0  # no padding
            shown = {name: tensors[f"candidate_{name}_rows"][row, place] for name in KINDS}
            met = {name: tensors[f"history_{name}_rows"][row][there] for name in KINDS}
            networks = [items(shown["item"])]
            networks += torch.split(attributes.means(shown["attribute"]), 160)
            read = [of_items(met["item"])]
            read += torch.split(of_attributes.means(met["attribute"]), 16, dim=-1)
            for found, network, behaviors in zip(made, networks, read, strict=True):
                first, second = network[:128].reshape(16, 8), network[128:].reshape(8, 4)
                expected = []
                for order in (1, 2, 3):
                    inner = torch.tanh(behaviors**order @ first)
                    expected += [inner.sum(0), (inner @ second).sum(0)]
                torch.testing.assert_close(found[row, place], torch.cat(expected))


def test_pnn_multiplies_the_mean_of_the_tokens(
    requests_of: Callable[..., dict[str, Tensor]], recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    tensors, row = requests_of(), 3
    model = PNN(recipe.model, sizes).eval()
    with torch.no_grad():
        mean, products = model.readings(tensors)
        shown = tensors["history_item_rows"][row] != 0
        tokens = model.history_tokens(tensors)[row][shown].mean(0)
        item = (
            model.embedding.items(tensors["candidate_item_rows"]),
            model.embedding.attributes.means(tensors["candidate_attribute_rows"]),
        )
        context = model.context(tensors["context_rows"])
        means = mean[:, 0]
        expected = model.products(item, (means, context, context[:, :0]))
    torch.testing.assert_close(means[row], tokens)
    torch.testing.assert_close(products, expected)
