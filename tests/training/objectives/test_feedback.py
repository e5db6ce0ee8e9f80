"""What users did with the next items of their histories trains the click model."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from srp4ctr.features import columns
from srp4ctr.features.tensors.vocabulary import FIRST_OOV_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives import feedback
from srp4ctr.training.objectives.feedback import (
    FeedbackObjective,
    click_shares,
    pretrain_on_feedback,
)
from tests.training.conftest import LENGTH
from tests.training.feeds import (
    LONG_VIEW,
    NO_VALUE,
    VIEW,
    feed_slates,
    watched_windows,
    windows_of,
)


@pytest.fixture
def feed() -> Slates:
    """Labels of a feed, and what came of them."""
    return feed_slates()


@pytest.fixture
def watched() -> Windows:
    """Windows of the same feed."""
    return watched_windows()


def test_an_action_says_of_a_click_what_labelled_impressions_say(feed: Slates) -> None:
    shares = click_shares(feed)
    assert shares[LONG_VIEW, NO_VALUE] > 0.95  # one item may be shown twice to a user
    assert shares[VIEW, NO_VALUE] < 0.05
    assert np.isnan(shares[3, NO_VALUE])  # no user did it


def test_a_rare_value_counts_as_its_action_and_a_rare_action_as_unknown(
    feed: Slates, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert click_shares(feed)[LONG_VIEW, 7] == click_shares(feed)[LONG_VIEW, NO_VALUE]
    monkeypatch.setattr(feedback, "_LEAST_IMPRESSIONS", 10_000)
    assert np.isnan(click_shares(feed)).all()


def test_what_was_done_before_an_impression_says_nothing_of_it(feed: Slates) -> None:
    features = feed.tensors["candidate_features"].copy()
    features[..., columns.CANDIDATE.place("item_in_sequence")] = 1.0
    again = replace(feed, tensors={**feed.tensors, "candidate_features": features})
    assert np.isnan(click_shares(again)).all()


def test_unknown_items_that_share_a_row_are_not_one_item(feed: Slates) -> None:
    shared = {
        name: np.where(feed.tensors[name] != 0, FIRST_OOV_ROW, 0)
        for name in ("history_item_rows", "candidate_item_rows")
    }
    unknown = replace(feed, tensors={**feed.tensors, **shared})
    assert np.isnan(click_shares(unknown)).all()


def test_without_histories_nothing_is_known(slates: Slates) -> None:
    empty = {
        name: np.zeros_like(slates.tensors[name])
        for name in ("history_item_rows", "history_behavior_codes")
    }
    blank = replace(slates, tensors={**slates.tensors, **empty})
    assert np.isnan(click_shares(blank)).all()
    assert np.isnan(click_shares(blank.take(slice(0, 0)))).all()


def test_the_model_predicts_clicks_before_it_has_seen_a_label(
    watched: Windows, feed: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    model = SRP4CTR(recipe.model, sizes)
    config = replace(recipe, finetune_learning_rate=0.02, id_dropout=0.0)
    losses = pretrain_on_feedback(model, watched, feed, config, FitOptions())
    assert len(losses) == feedback.EPOCHS
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in feed.tensors.items()}
    tensors = {n: t if t.is_floating_point() else t.long() for n, t in tensors.items()}
    with torch.no_grad():
        logits = model.eval()(tensors).click.numpy()
    is_even = feed.tensors["candidate_item_rows"] % 2 == 0
    assert logits[is_even].mean() > logits[~is_even].mean() + 0.5


Arm = Literal["none", "items"]


@pytest.mark.parametrize("arm", ["none", "items"])
def test_nothing_is_trained_by_other_recipes(
    watched: Windows, feed: Slates, recipe: RefreshConfig, sizes: TableSizes, arm: Arm
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    config = replace(recipe, pretraining=arm)
    assert pretrain_on_feedback(model, watched, feed, config, FitOptions()) == ()


def test_nothing_is_trained_where_all_behaviours_say_the_same(
    watched: Windows, feed: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    codes = watched.tensors["history_behavior_codes"]
    alike = np.where(codes[..., 0] != 0, LONG_VIEW, 0)
    same = windows_of(watched.tensors["history_item_rows"], alike)
    model = SRP4CTR(recipe.model, sizes)
    assert pretrain_on_feedback(model, same, feed, recipe, FitOptions()) == ()


def test_a_batch_is_the_beginning_of_a_window_and_what_came_after_it(
    watched: Windows, feed: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    objective = FeedbackObjective(model, watched, feed, click_shares(feed), recipe)
    batch = objective.batch(np.arange(64), np.array([LENGTH]))
    whole = watched.tensors["history_item_rows"][objective.rows[:64]]
    candidates = batch.tensors["candidate_item_rows"].numpy()
    for row, history in enumerate(batch.tensors["history_item_rows"].numpy()):
        before, every = history[history != 0], whole[row][whole[row] != 0]
        assert 1 <= len(before) <= len(every) - 2
        assert before.tolist() == every[: len(before)].tolist()
        shown = candidates[row][batch.known[row].numpy()]
        left = [i for i in every[len(before) :].tolist() if i not in before]
        assert shown.tolist() == [*dict.fromkeys(left)]  # each once, in their order
        is_even = shown % 2 == 0
        shares = batch.shares[row][batch.known[row]].numpy()
        assert (shares[is_even] > 0.9).all()
        assert (shares[~is_even] < 0.1).all()


def test_an_item_met_twice_counts_by_what_says_most_of_a_click(
    feed: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    items = np.tile(np.array([[23, 25, 29, 29, 29, 29]]), (8, 1))
    actions = np.tile([VIEW, VIEW, VIEW, LONG_VIEW, VIEW, VIEW], (8, 1))
    model = SRP4CTR(recipe.model, sizes)
    shares = click_shares(feed)
    windows = windows_of(items, np.array(actions))
    objective = FeedbackObjective(model, windows, feed, shares, recipe)
    batch = objective.batch(np.arange(8), np.array([LENGTH]))
    is_nine = batch.known & (batch.tensors["candidate_item_rows"] == 29)
    assert is_nine.any()
    assert (is_nine.sum(1) <= 1).all()
    torch.testing.assert_close(
        batch.shares[is_nine], torch.full_like(batch.shares[is_nine], shares[20, 1])
    )


def test_an_unknown_item_is_no_candidate(
    feed: Slates, recipe: RefreshConfig, sizes: TableSizes
) -> None:
    items = np.tile([23, 25, 29, FIRST_OOV_ROW, FIRST_OOV_ROW, 31], (8, 1))
    windows = windows_of(items, np.full((8, LENGTH), LONG_VIEW))
    model = SRP4CTR(recipe.model, sizes)
    objective = FeedbackObjective(model, windows, feed, click_shares(feed), recipe)
    batch = objective.batch(np.arange(8), np.array([LENGTH]))
    candidates = batch.tensors["candidate_item_rows"]
    assert batch.known.any()
    assert not (candidates == FIRST_OOV_ROW).any()
    assert (candidates == 31).any(1).all()
