from dataclasses import replace

import pytest
import torch

from training.batches import torch_rows
from training.config import RefreshConfig
from training.fitting import FitOptions
from training.masking import Masks, draw_masks, ids_only
from training.model.embeddings import TableSizes
from training.model.pretraining_heads import MaskedHeads
from training.model.srp4ctr import SRP4CTR
from training.objective import loss_of
from training.pretraining import MaskedObjective, Windows, pretrain


def test_pretraining_lowers_its_loss(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes)
    longer = replace(recipe, pretrain_epochs=20, pretrain_learning_rate=1e-2)
    losses = pretrain(model, windows, longer, FitOptions())
    assert losses[-1] < 0.9 * losses[0]


def test_pretraining_hands_its_weights_to_the_candidate_stream(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    pretrain(model, windows, recipe, FitOptions())
    own, theirs = model.cross_attention.state_dict(), model.encoder.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())


def test_a_batch_without_a_hidden_position_costs_nothing(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    history = torch_rows(windows.tensors, torch.arange(2).numpy(), torch.device("cpu"))
    none = torch.zeros_like(history["history_item_rows"], dtype=torch.bool)
    objective = MaskedObjective(model.encoder, heads, windows, recipe)
    loss = loss_of(objective.terms(history, Masks(items=none, behaviors=none)))
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("hidden", ["items", "behaviors"])
def test_each_mask_set_alone_gives_a_loss(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes, hidden: str
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    history = torch_rows(windows.tensors, torch.arange(8).numpy(), torch.device("cpu"))
    rows = history["history_item_rows"]
    masks = {"items": torch.zeros_like(rows, dtype=torch.bool)}
    masks["behaviors"] = masks["items"]
    masks[hidden] = rows != 0
    objective = MaskedObjective(model.encoder, heads, windows, recipe)
    assert float(loss_of(objective.terms(history, Masks(**masks))).detach()) > 0.1


def test_without_pretraining_the_encoder_stays_and_the_candidate_stream_starts_as_it(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    before = {name: t.clone() for name, t in model.encoder.state_dict().items()}
    assert pretrain(model, windows, replace(recipe, pretraining="none"), FitOptions()) == ()
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, before[name])
    for name, tensor in model.cross_attention.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("arm", ["bert", "items", "behaviors"])
def test_an_arm_teaches_only_the_heads_that_it_asks(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes, arm: str
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    history = torch_rows(windows.tensors, torch.arange(8).numpy(), torch.device("cpu"))
    history = ids_only(history) if arm == "bert" else history
    masks = draw_masks(history["history_item_rows"], 0.5, arm)
    objective = MaskedObjective(model.encoder, heads, windows, recipe)
    loss_of(objective.terms(history, masks)).backward()  # type: ignore[no-untyped-call]
    taught = {
        name.split(".")[0].removesuffix("_bias")
        for name, parameter in heads.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
    asked = {
        "bert": {"transform", "item"},
        "items": {"transform", "item", "attribute"},
        "behaviors": {"transform", "fields"},
    }
    assert taught == asked[arm]
