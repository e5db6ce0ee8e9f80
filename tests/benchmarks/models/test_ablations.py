"""What a model without one of its parts still reads, and what it no longer does."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.models.ablations import (
    ABLATIONS,
    LastLayerOnly,
    WithoutCrossAttention,
    WithoutProducts,
    WithoutQuerying,
)
from srp4ctr.training.model.srp4ctr import SRP4CTR
from tests.training.conftest import SIZES, TINY, random_requests

Build = Callable[..., SRP4CTR]


def made(build: Build) -> SRP4CTR:
    torch.manual_seed(0)
    return build(TINY, SIZES).eval()


def score(model: SRP4CTR, tensors: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.score({**tensors, **model.encode(tensors)}).click


@pytest.mark.parametrize("build", [WithoutCrossAttention, WithoutQuerying])
def test_the_history_still_counts_by_the_other_part(build: Build) -> None:
    model, tensors = made(build), random_requests()
    before = score(model, tensors)
    tensors["history_item_rows"][1] = 9
    after = score(model, tensors)
    assert not torch.allclose(before[1], after[1])
    assert torch.equal(before[2:], after[2:])


def test_without_cross_attention_a_candidate_is_its_own_token() -> None:
    model, tensors = made(WithoutCrossAttention), random_requests()
    states = model.encode(tensors)
    other = states | {name: states[name] + 1.0 for name in ("layer_keys", "layer_values")}
    with torch.no_grad():
        ours, theirs = (
            model._candidate_states({**tensors, **each}) for each in (states, other)
        )
    assert all(map(torch.equal, ours, theirs))


def test_only_the_last_layers_states_are_read() -> None:
    model, tensors = made(LastLayerOnly), random_requests()
    with torch.no_grad():
        states = model.encode(tensors)
        scores = model.score({**tensors, **states}).click
        for depth, is_read in ((0, False), (1, True)):
            keys = states["layer_keys"].clone()
            keys[:, depth] = torch.randn_like(keys[:, depth])
            changed = model.score({**tensors, **states, "layer_keys": keys}).click
            assert torch.equal(scores, changed) != is_read


def test_without_products_the_head_reads_that_much_less() -> None:
    tables = replace(SIZES, user_fields=SIZES.item_fields)
    whole, model = SRP4CTR(TINY, tables), WithoutProducts(TINY, tables)
    assert whole.products is not None
    less = [each.head.candidate.in_features for each in (whole, model)]
    assert less[0] - less[1] == sum(whole.products.widths)
    tensors = random_requests()
    shape = (len(tensors["context_rows"]), tables.user_slots)
    tensors["user_attribute_rows"] = torch.zeros(shape, dtype=torch.int64)
    assert torch.isfinite(score(model.eval(), tensors)).all()


@pytest.mark.parametrize("build", ABLATIONS.values())
def test_an_ablation_trains_all_that_it_has(build: Build) -> None:
    model = made(build).train()
    scores = model(random_requests())
    (scores.click.sum() + scores.ranking.sum()).backward()
    untrained = {name for name, each in model.named_parameters() if each.grad is None}
    # What the last layer makes of the behaviours is pre-training's alone.
    last = f"encoder.layers.{len(model.encoder.layers) - 1}."
    assert all(name.startswith(last) for name in untrained)
    assert not untrained & {f"{last}{each}.weight" for each in ("key", "value")}
