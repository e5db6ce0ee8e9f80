from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from srp4ctr.features.tensors.item_fields import places
from srp4ctr.features.tensors.schema import Field
from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW, FIRST_OOV_ROW, MASK_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Windows, torch_rows
from srp4ctr.training.loop.train_step import loss_of
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives import pretraining
from srp4ctr.training.objectives.pretraining import (
    MaskedHeads,
    MaskedObjective,
    Masks,
    draw_masks,
    field_loss,
    ids_only,
    pretrain,
)


def loss_at(objective: MaskedObjective, history: dict[str, Tensor], masks: Masks) -> Tensor:
    batch = objective.masked(history, masks)
    return loss_of(objective(batch), objective.counts(batch))


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
    loss = loss_at(objective, history, Masks(items=none, behaviors=none, attributes=none))
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("hidden", ["items", "behaviors", "attributes"])
def test_each_mask_set_alone_gives_a_loss(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes, hidden: str
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    history = torch_rows(windows.tensors, torch.arange(8).numpy(), torch.device("cpu"))
    rows = history["history_item_rows"]
    nowhere = torch.zeros_like(rows, dtype=torch.bool)
    masks = dict.fromkeys(("items", "behaviors", "attributes"), nowhere)
    masks[hidden] = rows != 0
    objective = MaskedObjective(model.encoder, heads, windows, recipe)
    assert float(loss_at(objective, history, Masks(**masks)).detach()) > 0.1


@pytest.mark.parametrize("sampled_items", [None, 3])
def test_all_that_pretraining_reads_is_on_the_models_device(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes, sampled_items: int | None
) -> None:
    model = SRP4CTR(recipe.model, sizes).to("meta")  # for lack of a GPU
    config = replace(recipe, sampled_items=sampled_items)
    objective = pretraining._stage(model, windows, config, None).objective
    found = {name: each.device.type for name, each in objective.named_buffers()}
    assert "catalogue" in found
    assert set(found.values()) == {"meta"}


def test_rows_that_unknown_items_share_have_no_attributes(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    rows = windows.tensors["history_item_rows"].astype(np.int64)
    assert ((rows > FIRST_OOV_ROW) & (rows < FIRST_KNOWN_ROW)).any()
    catalogue = MaskedObjective(model.encoder, heads, windows, recipe).catalogue
    assert not catalogue[:FIRST_KNOWN_ROW].any()
    assert catalogue.any()


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
def test_a_variant_trains_only_its_own_heads(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes, arm: str
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    history = torch_rows(windows.tensors, torch.arange(8).numpy(), torch.device("cpu"))
    history = ids_only(history) if arm == "bert" else history
    masks = draw_masks(history["history_item_rows"], 0.9, arm)
    objective = MaskedObjective(model.encoder, heads, windows, recipe)
    loss_at(objective, history, masks).backward()  # type: ignore[no-untyped-call]
    taught = {
        name.split(".")[0]
        for name, parameter in heads.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
    expected = {
        "bert": {"item_bias"},
        "items": {"transform", "item_bias", "item_fields"},
        "behaviors": {"transform", "behavior_fields"},
    }
    assert taught == expected[arm]


def test_every_head_begins_at_about_its_share_of_one(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    history = torch_rows(windows.tensors, torch.arange(8).numpy(), torch.device("cpu"))
    everywhere = history["history_item_rows"] != 0
    states = torch.randn(*everywhere.shape, recipe.model.width) * 0.1
    table = torch.randn(sizes.item_rows, recipe.model.width) * 0.05
    masks = Masks(items=everywhere, behaviors=everywhere, attributes=everywhere)
    sums = heads(states, history, masks, lambda rows: table[rows])
    counts = heads.counts(history, masks)
    groups = {"item": 0.0, "item ": 0.0, "shown ": 0.0, "behavior ": 0.0}
    for name, loss in sums.items():
        group = name if name == "item" else name[: name.index(" ") + 1]
        groups[group] += float(loss.detach()) / float(counts[name])
    assert all(0.8 < loss < 1.8 for loss in groups.values()), groups


def test_an_item_is_predicted_with_its_attributes_unless_there_are_only_ids(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    heads = MaskedHeads(recipe.model, model.embedding)
    attributes = windows.tensors["history_attribute_rows"]
    is_known = windows.tensors["history_item_rows"].astype(np.int64) >= FIRST_KNOWN_ROW
    met = np.argwhere(attributes.any(axis=-1) & is_known)[:1].T  # the first with a value
    rows = torch.from_numpy(windows.tensors["history_item_rows"][*met]).long()
    windows.tensors["history_attribute_rows"][
        windows.tensors["history_item_rows"] == int(rows)
    ] = attributes[*met]  # an item has its attributes wherever it stands
    attributes = attributes[*met]
    found, vectors = {}, []
    heads.register_forward_pre_hook(lambda _, given: vectors.append(given[3]))
    for arm in ("bert", "items"):
        config = replace(recipe, pretraining=arm, id_dropout=0.0)
        objective = MaskedObjective(model.encoder, heads, windows, config)
        objective(objective.batch(np.arange(4), np.array([6])))
        found[arm] = vectors[-1](rows)
    known = torch.from_numpy(attributes).long()
    torch.testing.assert_close(found["items"], model.embedding.item_vectors(rows, known))
    torch.testing.assert_close(
        found["bert"], model.embedding.item_vectors(rows, torch.zeros_like(known))
    )


def test_an_item_without_a_value_is_left_out() -> None:
    price = Field(name="price", kind="numeric", size=3)
    genres = Field(name="genres", kind="multi", size=4, slots=2)
    first, second = places([price, genres])
    rows = torch.tensor([[3, 6, 8], [0, 0, 0], [MASK_ROW] * 3])
    logits = torch.randn(3, 4)
    loss = field_loss(logits[:, :3], rows[:, first.slots], first)
    torch.testing.assert_close(loss, cross_entropy(logits[:1, :3], torch.tensor([1])))
    loss = field_loss(logits, rows[:, second.slots], second)
    present = torch.tensor([0.0, 1.0, 0.0, 1.0])
    each = binary_cross_entropy_with_logits(logits[0], present, reduction="sum")
    torch.testing.assert_close(loss, each / 2)  # over its two values


@pytest.mark.parametrize(
    ("rows", "sampled_items", "draws"),
    [(100, None, None), (100, 20, 20), (50_001, None, 8192), (50_001, 20, 20)],
)
def test_a_sample_is_drawn_where_it_is_set_or_the_catalogue_is_large(
    windows: Windows,
    recipe: RefreshConfig,
    sizes: TableSizes,
    rows: int,
    sampled_items: int | None,
    draws: int | None,
) -> None:
    model = SRP4CTR(recipe.model, replace(sizes, item_rows=rows))
    heads = MaskedHeads(recipe.model, model.embedding)
    config = replace(recipe, pretrain_epochs=1, sampled_items=sampled_items)
    pretrain(model, windows, config, FitOptions(), heads)
    drawn = heads.proposal.draw() if heads.proposal else None
    assert (None if drawn is None else len(drawn)) == draws


def test_a_large_catalogue_is_trained_on_a_sample_in_little_memory(
    windows: Windows, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    config = replace(recipe, pretrain_epochs=1, sampled_items=500)
    kept = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept = max(kept, tensor.numel())
        return tensor

    model = SRP4CTR(config.model, replace(sizes, item_rows=200_000))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        (loss,) = pretrain(model, windows, config, FitOptions())
    assert 0.0 < loss < 10.0
    # Not a number per item and position: the table itself is the largest thing kept.
    assert kept <= 200_000 * config.model.width
    assert MaskedHeads(config.model, model.embedding).proposal is None
