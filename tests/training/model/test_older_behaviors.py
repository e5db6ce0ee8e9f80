"""Histories of six, of which the newest three are encoded one by one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import HISTORY_NAMES, Windows, newest
from srp4ctr.training.export.bundle_writer import count_flops, sizes_of
from srp4ctr.training.export.onnx_export import export, outputs
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.model.transformer import NUM_POOLED
from srp4ctr.training.objectives.pretraining import (
    ITEMS,
    MaskedHeads,
    MaskedObjective,
    hide,
    pretrain,
)
from srp4ctr.triton_repo.serving.onnx_scorer import Scorer
from tests.training.conftest import LENGTH, SIZES, TINY

ENCODED = 3
LONG = replace(TINY, encoded_length=ENCODED)
Maker = Callable[..., dict[str, Tensor]]


@pytest.fixture
def a_long_model() -> SRP4CTR:
    torch.manual_seed(0)
    model = SRP4CTR(LONG, SIZES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def full(requests: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: tensor[row : row + 1].clone() for name, tensor in requests.items()}


@torch.no_grad()
def test_an_older_behaviour_changes_the_score(
    a_long_model: SRP4CTR, requests_of: Maker
) -> None:
    request = full(requests_of(), 1)
    assert (request["history_item_rows"] != 0).all()
    other = {name: tensor.clone() for name, tensor in request.items()}
    other["history_item_rows"][0, 0] += 1
    before, after = (a_long_model(each).click for each in (request, other))
    assert not torch.allclose(before, after, atol=1e-4)


@torch.no_grad()
def test_padding_in_place_of_older_behaviours_is_as_none(
    a_long_model: SRP4CTR, requests_of: Maker
) -> None:
    request = full(requests_of(), 1)
    for name in HISTORY_NAMES:
        request[name][:, :-ENCODED] = 0
    cut = newest(request, ENCODED)
    assert torch.allclose(a_long_model(request).click, a_long_model(cut).click, atol=1e-6)


@torch.no_grad()
def test_pooled_states_stand_before_the_newest_and_sizes_say_so(
    a_long_model: SRP4CTR, requests_of: Maker
) -> None:
    encoded = a_long_model.encode(requests_of())
    states = 1 + NUM_POOLED + ENCODED
    assert sizes_of(LONG, SIZES)["S"] == states
    assert encoded["state_mask"].shape[1] == states
    assert encoded["state_mask"][0].tolist() == [1.0] * (1 + NUM_POOLED) + [0.0] * ENCODED
    assert encoded["layer_keys"].shape[2] == encoded["layer_values"].shape[2] == states


def test_a_model_of_short_histories_has_nothing_to_pool_with(a_model: SRP4CTR) -> None:
    assert a_model.encoder.older is None
    assert sizes_of(TINY, SIZES)["S"] == 1 + LENGTH
    every = replace(TINY, encoded_length=LENGTH)
    assert SRP4CTR(every, SIZES).state_dict().keys() == a_model.state_dict().keys()


def test_an_older_behaviour_costs_the_same_whatever_their_number() -> None:
    def flops(length: int) -> int:
        sizes = replace(SIZES, length=length)
        return count_flops(SRP4CTR(LONG, sizes), sizes_of(LONG, sizes), 5).encoder

    one, two, three = (flops(length) for length in (100, 200, 300))
    assert 0 < two - one == three - two


@torch.no_grad()
@pytest.mark.parametrize("length", [1, ENCODED, ENCODED + 1, LENGTH])
def test_onnx_answers_as_torch_does_for_every_length(
    a_long_model: SRP4CTR, requests_of: Maker, tmp_path: Path, length: int
) -> None:
    requests = newest(requests_of(count=4), length)
    export(a_long_model, sizes_of(LONG, SIZES), tmp_path)
    wanted = a_long_model.score({**requests, **a_long_model.encode(requests)})
    made = outputs(tmp_path)({name: each.numpy() for name, each in requests.items()})
    np.testing.assert_allclose(made["click_probability"], wanted.click, atol=1e-5)
    np.testing.assert_allclose(made["ranking_score"], wanted.ranking, atol=1e-5)


@torch.no_grad()
def test_requests_of_short_and_long_histories_are_scored_together(
    a_long_model: SRP4CTR, requests_of: Maker, tmp_path: Path
) -> None:
    requests = requests_of(count=5)
    export(a_long_model, sizes_of(LONG, SIZES), tmp_path)
    sizes = sizes_of(LONG, SIZES)
    card = BundleManifest(version="v1", created_at_ms=0, sizes=sizes)
    bundle.write_card(tmp_path, card)
    wanted = a_long_model.score({**requests, **a_long_model.encode(requests)})
    given = {name: tensor.numpy() for name, tensor in requests.items()}
    made = Scorer(tmp_path, 0, lambda *_: None)(given)
    np.testing.assert_allclose(made["click_probability"], wanted.click, atol=1e-5)


def test_pretraining_predicts_the_newest_behaviours_and_trains_the_pooling(
    windows: Windows, recipe: RefreshConfig
) -> None:
    config = replace(recipe, model=LONG)
    torch.manual_seed(0)
    model = SRP4CTR(LONG, SIZES)
    heads = MaskedHeads(LONG, model.embedding)
    objective = MaskedObjective(model.encoder, heads, windows, config)
    torch.manual_seed(4)  # hides some older behaviours, too
    batch = objective.batch(np.arange(8), np.array([LENGTH]))
    assert batch.targets.items.shape[1] == ENCODED
    seen = hide(batch.history, batch.masks)
    for rows, shown, hidden in zip(
        batch.history[ITEMS], seen[ITEMS], batch.masks.items, strict=True
    ):
        # An older behaviour with a hidden item would give the answer away.
        assert not set(rows[hidden].tolist()) & set(shown.tolist())
    assert batch.masks.items[:, :-ENCODED].any()
    assert len(batch.with_states["history_item_rows"][0]) == ENCODED
    assert model.encoder.older is not None
    before = model.encoder.older.queries.detach().clone()
    longer = replace(config, pretrain_epochs=20, pretrain_learning_rate=1e-2)
    losses = pretrain(model, windows, longer, FitOptions())
    assert np.mean(losses[-5:]) < np.mean(losses[:5])  # one of 24 windows is noise
    assert not torch.equal(model.encoder.older.queries, before)


def test_a_length_that_nothing_fits_in_is_a_mistake() -> None:
    for name in ("encoded_length", "num_layers", "num_queries"):
        with pytest.raises(MistakeError, match=f"{name} is 0; at least 1"):
            ModelConfig(**{name: 0})
