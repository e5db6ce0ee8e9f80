from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srp4ctr.features import columns
from srp4ctr.features.tensors.schema import Field
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import HISTORY_NAMES, Slates
from srp4ctr.training.evaluation import quality
from srp4ctr.training.loop.train_step import loss_of
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.click_model import ClickModel, Tensors
from srp4ctr.training.model.embeddings import ContextEmbedding, NumericFeatures, TableSizes
from srp4ctr.training.model.heads.ranking import RankingHead
from srp4ctr.training.model.heads.scores import Scores
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import (
    ClickObjective,
    batch_size,
    finetune,
    serving_logits,
    start_at_draws,
)
from tests.training.conftest import random_slates


def test_finetuning_learns_which_items_are_clicked(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes)
    longer = replace(recipe, finetune_epochs=30, finetune_learning_rate=1e-2)
    finetune(model, slates, replace(longer, encoder_learning_rate_scale=1.0), FitOptions())
    shown, (click, ranking) = slates.shown, serving_logits(model, slates)
    assert quality.auc(slates.clicked[shown], click[shown]) > 0.95
    requests = np.nonzero(shown)[0]
    assert quality.gauc(slates.clicked[shown], ranking[shown], requests) > 0.95


class ItemBias(ClickModel):
    """The smallest click model: a number per item."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.request_features = NumericFeatures(columns.REQUEST.width, spans=4)
        self.candidate_features = NumericFeatures(columns.CANDIDATE.width, spans=4)
        self.context = ContextEmbedding()
        self.bias = nn.Embedding(items, 1)

    def forward(self, tensors: Tensors, positions: Tensor | None = None) -> Scores[Tensor]:
        """Return the items' numbers, wherever they stand."""
        biases: Tensor = self.bias(tensors["candidate_item_rows"]).squeeze(-1)
        return Scores(click=biases, ranking=biases)


def test_any_click_model_is_trained_by_the_same_stage(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = ItemBias(sizes.item_rows)
    longer = replace(recipe, finetune_epochs=30, finetune_learning_rate=0.3)
    finetune(model, slates, longer, FitOptions())
    for logits in serving_logits(model, slates):
        assert quality.auc(slates.clicked[slates.shown], logits[slates.shown]) > 0.95
    assert model.candidate_features.mean.any()


def test_each_parameter_is_trained_once_and_pretrained_ones_slower(
    recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    slower = replace(recipe, finetune_learning_rate=1.0, encoder_learning_rate_scale=0.5)
    groups = model.parameter_groups(slower)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rates)
    assert set(rates) == {id(p) for p in model.parameters()}
    named = dict(model.named_parameters())
    expected = {
        "head.scores.click.out.weight": 1.0,
        "encoder.layers.1.key.weight": 0.5,
        "embedding.project.weight": 0.5,
        "embedding.items.weight": 0.5,
    }
    assert {name: rates[id(named[name])] for name in expected} == expected


def cold_slates(towns: NDArray[np.int64]) -> Slates:
    """Return slates of users without a history: in town 2 they click on even items."""
    made = random_slates(len(towns))
    tensors = {**made.tensors, "user_attribute_rows": towns[:, None]}
    noise = ("request_features", "context_rows", "candidate_features")
    for name in (*HISTORY_NAMES, *noise, "candidate_attribute_rows"):
        tensors[name] = np.zeros_like(tensors[name])
    clicked = (made.tensors["candidate_item_rows"] % 2 == 0) & (towns == 2)[:, None]
    return replace(made, tensors=tensors, clicked=clicked.astype(np.float32))


def test_a_cold_users_scores_follow_from_the_attributes(
    recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    town = Field(name="town", kind="categorical", size=2)
    model = SRP4CTR(recipe.model, replace(sizes, user_fields=(town,)))
    here, elsewhere = cold_slates(np.tile([2, 3], 40)), cold_slates(np.tile([3, 2], 40))
    longer = replace(recipe, finetune_epochs=30, finetune_learning_rate=1e-2)
    finetune(model, here, replace(longer, encoder_learning_rate_scale=1.0), FitOptions())
    logits, moved = (serving_logits(model, each).click for each in (here, elsewhere))
    assert quality.auc(here.clicked[here.shown], logits[here.shown]) > 0.95
    assert quality.auc(elsewhere.clicked[here.shown], moved[here.shown]) > 0.95
    in_town = here.tensors["user_attribute_rows"] == 2
    is_even = here.tensors["candidate_item_rows"] % 2 == 0
    assert np.all(((logits > moved) == in_town)[is_even])


@pytest.mark.parametrize("freeze", ["item_table", "encoder"])
def test_what_is_frozen_stays_as_it_was(
    slates: Slates,
    recipe: RefreshConfig,
    sizes: TableSizes,
    freeze: Literal["item_table", "encoder"],
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    finetune(model, slates, replace(recipe, freeze=freeze), FitOptions())
    after = model.state_dict()

    def is_kept(name: str) -> bool:
        return torch.equal(before[name], after[name])

    assert is_kept("embedding.items.weight")
    assert is_kept("encoder.layers.0.key.weight") == (freeze == "encoder")
    assert not is_kept("head.scores.click.out.weight")


def test_padding_does_not_teach(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    def trained(clicked_padding: float) -> torch.Tensor:
        torch.manual_seed(0)
        model = SRP4CTR(recipe.model, sizes)
        tensors = {name: array.copy() for name, array in slates.tensors.items()}
        tensors["candidate_item_rows"][::2, 3:] = 0
        clicked = np.where(tensors["candidate_item_rows"] == 0, clicked_padding, 0.0)
        padded = replace(slates, tensors=tensors, clicked=clicked.astype(np.float32))
        finetune(model, padded, recipe, FitOptions())
        return model.head.click.out.weight.detach()

    assert torch.equal(trained(0.0), trained(1.0))


def test_scoring_a_slate_of_fewer_items_leaves_the_rest_at_zero(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    tensors = {name: array.copy() for name, array in slates.tensors.items()}
    tensors["candidate_item_rows"][:, 2:] = 0
    for logits in serving_logits(model, replace(slates, tensors=tensors)):
        assert logits.shape == slates.clicked.shape
        assert not logits[:, 2:].any()


def a_page_with_favourites(sizes: TableSizes) -> tuple[Slates, NDArray[np.float64]]:
    """Return slates, and the relevance (R, N) planted in them.

    A click's logit is relevance plus a bonus of its position, 3 at the top; the page put
    there what it favoured, whatever the relevance. Nothing else differs between slates.
    """
    generator = np.random.default_rng(0)
    bonus = np.array([3.0, 2.0, 1.0, 0.5, 0.0])
    relevance, favour = (
        generator.permutation(np.linspace(-3.0, 0.0, sizes.item_rows)) for _ in range(2)
    )
    seen = random_slates(count=500, candidates=len(bonus))
    rows = seen.tensors["candidate_item_rows"]
    favoured = favour[rows] + generator.normal(size=rows.shape)
    rows = np.take_along_axis(rows, np.argsort(-favoured, axis=1), axis=1)
    likely = 1.0 / (1.0 + np.exp(-(relevance[rows] + bonus)))
    clicked = (generator.random(rows.shape) < likely).astype(np.float32)
    tensors = {name: np.zeros_like(array) for name, array in seen.tensors.items()}
    tensors["candidate_item_rows"] = rows
    return replace(seen, clicked=clicked, tensors=tensors), relevance[rows]


def test_serving_ranks_by_relevance_and_not_by_where_the_page_put_it(
    recipe: RefreshConfig, sizes: TableSizes
) -> None:
    slates, relevance = a_page_with_favourites(sizes)
    longer = replace(
        recipe,
        finetune_epochs=5,
        finetune_learning_rate=1e-2,
        encoder_learning_rate_scale=1.0,
        batch_requests=32,
    )

    def trained(positions: NDArray[np.int64]) -> tuple[SRP4CTR, list[float]]:
        """Return the model, and how its served scores correlate with relevance."""
        torch.manual_seed(0)
        model = SRP4CTR(recipe.model, sizes)
        finetune(model, replace(slates, positions=positions), longer, FitOptions())
        served = [logit.ravel() for logit in serving_logits(model, slates)]
        return model, np.corrcoef([relevance.ravel(), *served])[0, 1:].tolist()

    model, with_positions = trained(slates.positions)
    _, without_positions = trained(np.zeros_like(slates.positions))
    bias = model.head.click.position_bias.weight.detach()
    assert float(bias[0] - bias[4]) == pytest.approx(3.0, abs=0.3)
    for right, wrong in zip(with_positions, without_positions, strict=True):
        assert right > wrong + 0.03


def test_what_orders_a_slate_costs_the_probability_nothing(
    slates: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    """The listwise loss does not move the last layer of the logits."""

    def gradient(weight: float) -> Tensor:
        torch.manual_seed(0)
        model = SRP4CTR(replace(recipe.model, dropout=0.0), sizes)
        config = replace(recipe, slate_loss_weight=weight, id_dropout=0.0)
        objective = ClickObjective(model, slates, config)
        rows = np.arange(len(slates))
        batch = objective.batch(rows, objective.lengths.max(axis=0))
        loss = loss_of(objective(batch), objective.counts(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        ranking = model.head.scores["ranking"]
        assert isinstance(ranking, RankingHead)
        of_order, found = ranking.weight.grad, model.head.click.out.weight.grad
        assert of_order is not None
        assert found is not None
        assert bool(of_order.any()) == (weight > 0)
        return found

    torch.testing.assert_close(gradient(5.0), gradient(0.0))


POPULARITY = np.array([0.5, 0.3, 0.15, 0.05])  # of items: of being clicked, and drawn


def slates_drawn_by_popularity(count: int = 600) -> Slates:
    """Slates of a click and one negative, both drawn by POPULARITY, in the last rows."""
    chance, slates = np.random.default_rng(0), random_slates(count, 2)
    pairs = [
        chance.choice(len(POPULARITY), 2, replace=False, p=POPULARITY)
        for _ in range(4 * count)
    ]
    # As drawn apart: without replacement, the second is likelier if the first is popular.
    weights = np.array([1.0 - POPULARITY[first] for first, _ in pairs])
    chosen = chance.choice(len(pairs), count, p=weights / weights.sum())
    items = np.array(pairs)[chosen]
    rows = slates.tensors["candidate_item_rows"].max() - items
    return replace(
        slates,
        tensors={**slates.tensors, "candidate_item_rows": rows},
        clicked=np.tile(np.array([1.0, 0.0], dtype=np.float32), (count, 1)),
        log_draw=np.log(POPULARITY)[items].astype(np.float32),
    )


@pytest.mark.parametrize("score", ["click", "ranking"])
def test_sampled_slates_train_the_probability_of_being_the_next_click(
    recipe: RefreshConfig, sizes: TableSizes, score: str
) -> None:
    """Each of the two losses, though the slates say nothing of popularity."""
    torch.manual_seed(0)
    slates, model = slates_drawn_by_popularity(), ItemBias(sizes.item_rows)
    weight = {"click": 0.0, "ranking": 1e4}[score]
    longer = replace(
        recipe, finetune_epochs=30, finetune_learning_rate=0.1, slate_loss_weight=weight
    )
    finetune(model, slates, longer, FitOptions())
    last = int(slates.tensors["candidate_item_rows"].max())
    learned = model.bias.weight.detach().numpy()[last - np.arange(len(POPULARITY)), 0]
    differences = np.diff(np.log(POPULARITY))
    np.testing.assert_allclose(np.diff(learned), differences, atol=0.35)


def test_a_model_of_sampled_slates_starts_at_the_mean_log_draw(
    sizes: TableSizes, recipe: RefreshConfig
) -> None:
    torch.manual_seed(0)
    model, slates = SRP4CTR(recipe.model, sizes), slates_drawn_by_popularity(40)
    before = serving_logits(model, slates).click
    start_at_draws(model, slates)
    moved = serving_logits(model, slates).click - before
    np.testing.assert_allclose(moved, slates.log_draw.mean(), rtol=1e-4)


def test_a_model_of_impressions_starts_where_it_is(
    slates: Slates, sizes: TableSizes, recipe: RefreshConfig
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes)
    before = model.head.click.out.bias.clone()
    start_at_draws(model, slates)
    assert torch.equal(before, model.head.click.out.bias)


@pytest.mark.parametrize(
    ("requests", "size"),
    [(0, 8), (20, 8), (5_200, 8), (12_000, 16), (22_000, 32), (45_000, 64), (10**7, 64)],
)
def test_a_short_log_is_trained_in_small_batches(requests: int, size: int) -> None:
    assert batch_size(RefreshConfig(), requests) == size
    assert batch_size(RefreshConfig(batch_requests=48), requests) == 48
