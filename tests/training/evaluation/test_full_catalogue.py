"""Hit@K over the whole catalogue: as of each click, with serving's candidates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from srp4ctr.features.offline.event_tables import opened
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import cache
from srp4ctr.training.dataset.build import write_training_set
from srp4ctr.training.dataset.cache import TrainingSet
from srp4ctr.training.evaluation import full_catalogue, rules
from srp4ctr.training.evaluation.full_catalogue import MISSED, CatalogueRanks
from srp4ctr.training.export.retrieval import Pretrained
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.pretraining import MaskedHeads
from tests.training.logs import write_clicks

STREAMS = StreamConfig(sequence_length=6)
RULES = ("popular_2h", "popular_24h", "popular_all")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clicks")


@pytest.fixture(scope="module")
def dataset(log: Path) -> TrainingSet:
    """A training set of sampled slates, as a refresh reads it."""
    features = write_clicks(log)
    config = RefreshConfig(negatives="sampled", held_out_share=0.4, held_out_clicks=50)
    return cache.cached(
        log / "examples",
        "name",
        lambda folder: write_training_set(config, features, STREAMS, folder),
    )


@pytest.fixture
def model(recipe: RefreshConfig, dataset: TrainingSet) -> SRP4CTR:
    torch.manual_seed(0)
    return SRP4CTR(recipe.model, TableSizes.of(dataset.vocabulary, dataset.length))


@pytest.fixture
def pretrained(model: SRP4CTR, recipe: RefreshConfig) -> Pretrained:
    heads = MaskedHeads(recipe.model, model.embedding)
    found = Pretrained.of(model, heads, replace(recipe, pretraining="both"))
    assert found is not None
    return found


def test_a_judged_click_is_on_an_item_that_was_new_to_its_user(
    dataset: TrainingSet,
) -> None:
    clicks = dataset.catalogue_clicks
    assert clicks is not None
    assert len(clicks) == len(dataset.parts.judge) > 20
    np.testing.assert_array_equal(
        clicks.slates.request_at_ms, dataset.parts.judge.request_at_ms
    )
    assert not (clicks.sequences.item_keys == clicks.clicked_keys[:, None]).any()
    assert (clicks.sequences.occurred_at_ms < clicks.slates.request_at_ms[:, None]).all()


def test_a_candidate_has_the_features_that_the_slate_of_the_click_has(
    dataset: TrainingSet, model: SRP4CTR, pretrained: Pretrained
) -> None:
    """So the counters are as of the click, and training's code made them."""
    clicks = dataset.catalogue_clicks
    assert clicks is not None
    assert dataset.catalogue is not None
    expected = full_catalogue.expectations(pretrained, dataset.catalogue, clicks)
    candidates = full_catalogue.find_candidates(clicks, dataset.vocabulary, expected)
    rows = np.arange(len(clicks))
    tensors = full_catalogue.inputs_of(clicks, dataset.vocabulary, candidates, rows)
    judge, compared = dataset.parts.judge, 0
    for row in rows.tolist():
        [place] = np.flatnonzero(judge.clicked[row])
        for at in np.flatnonzero(candidates.keys[row] == clicks.clicked_keys[row]).tolist():
            compared += 1
            for name in ("item_rows", "attribute_rows", "features"):
                np.testing.assert_allclose(
                    tensors[f"candidate_{name}"][row, at],
                    judge.tensors[f"candidate_{name}"][row, place],
                    rtol=1e-5,
                    atol=1e-6,
                )
    assert compared > 20


def test_candidates_are_of_all_sources_and_none_was_used(
    dataset: TrainingSet, pretrained: Pretrained
) -> None:
    clicks = dataset.catalogue_clicks
    assert clicks is not None
    assert dataset.catalogue is not None
    expected = full_catalogue.expectations(pretrained, dataset.catalogue, clicks)
    for given in (expected, None):
        candidates = full_catalogue.find_candidates(clicks, dataset.vocabulary, given)
        used = clicks.sequences.item_keys
        present = candidates.keys != 0
        assert present.any(axis=1).all()
        same = candidates.keys[:, :, None] == used[:, None, :]
        assert not (same & present[..., None]).any()
        for keys in candidates.keys:
            assert len(np.unique(keys[keys != 0])) == (keys != 0).sum()


def test_rules_rank_by_the_clicks_before_each_click(
    log: Path, dataset: TrainingSet
) -> None:
    clicks = dataset.catalogue_clicks
    assert clicks is not None
    candidates = full_catalogue.find_candidates(clicks, dataset.vocabulary, None)
    assert tuple(candidates.ranks) == RULES
    with opened(log / "events") as opened_log:
        events = opened_log.rows(opened_log.events.select("item_key", "occurred_at"))
    keys, at_ms = events["item_key"].to_numpy(), events["occurred_at"].to_numpy()
    for row in range(len(clicks)):
        before = keys[at_ms < clicks.slates.request_at_ms[row]]
        before = before[~np.isin(before, clicks.sequences.item_keys[row])]
        items, counts = np.unique(before, return_counts=True)
        own = counts[items == clicks.clicked_keys[row]][0]
        rank = candidates.ranks["popular_all"][row]
        assert (counts > own).sum() <= rank < (counts >= own).sum() or rank == MISSED


def test_the_rank_of_a_click_is_how_many_score_higher(dataset: TrainingSet) -> None:
    clicks = dataset.catalogue_clicks
    assert clicks is not None
    candidates = full_catalogue.find_candidates(clicks, dataset.vocabulary, None)
    scores = np.random.default_rng(0).random(candidates.keys.shape).astype(np.float32)
    scores[candidates.keys == 0] = np.nan
    ranks = full_catalogue.ranks_of(scores, clicks, candidates)
    for row in range(len(clicks)):
        present = candidates.keys[row] != 0
        ordered = candidates.keys[row][present][np.argsort(-scores[row][present])].tolist()
        key = int(clicks.clicked_keys[row])
        expected = ordered.index(key) if key in ordered else MISSED
        assert ranks.model[row] == expected


def test_scores_are_of_every_candidate_and_padding_has_none(
    dataset: TrainingSet, model: SRP4CTR, pretrained: Pretrained
) -> None:
    ranks = full_catalogue.judge(model, pretrained, dataset)
    assert ranks is not None
    assert (ranks.model < MISSED).mean() > 0.5
    assert full_catalogue.judge(model, None, dataset) is not None
    nothing = replace(dataset, catalogue_clicks=None)
    assert full_catalogue.judge(model, pretrained, nothing) is None


def some_ranks(model: int, rule: int, users: int = 50) -> CatalogueRanks:
    """Return ranks of 200 clicks; of a tenth of them the other way round."""
    swapped = np.arange(200) % 10 == 0
    own = np.where(swapped, rule, model).astype(np.int64)
    other = np.where(swapped, model, rule).astype(np.int64)
    names = np.array([f"u{n % users}" for n in range(200)])
    missed = np.full(200, MISSED)
    by_rule = dict(zip(RULES, (missed, other, missed), strict=True))
    return CatalogueRanks(model=own, rules=by_rule, users=names)


@pytest.mark.parametrize(("model", "rule", "passed"), [(0, 99, True), (99, 0, False)])
def test_a_model_that_finds_fewer_clicks_than_popularity_is_refused(
    model: int, rule: int, passed: bool
) -> None:
    results = full_catalogue.results(some_ranks(model, rule))
    assert results[0].rule == "popular_24h"
    gate = rules.gate("v1", results)
    assert gate.passed is passed
    assert "Hit@10" in gate.note


def test_the_margin_of_error_is_over_users_and_all_rules() -> None:
    ranks = some_ranks(99, 0)
    [worst, *_] = full_catalogue.results(ranks)
    assert worst.gauc_difference.value == pytest.approx(-0.8)
    assert worst.gauc_difference.high is not None
    assert worst.gate_high is not None
    assert worst.gauc_difference.high < worst.gate_high < 0.0
    few = full_catalogue.results(some_ranks(99, 0, users=1))
    assert few[0].gate_high is None  # of one user: unknown
    assert rules.gate("v1", few).passed is None
