import pytest

from monitoring.serving_cost import (
    FAILURES,
    RUNS,
    CostCard,
    CounterKey,
    ServingTotals,
    flops,
    served_versions,
)


def a_sample(**runs: float) -> dict[CounterKey, float]:
    return {CounterKey(RUNS, model): value for model, value in runs.items()}


def totals_of(*samples: dict[CounterKey, float]) -> ServingTotals:
    totals = ServingTotals()
    for sample in samples:
        totals.add(sample)
    return totals


def test_a_models_name_is_its_step_and_its_version() -> None:
    key = CounterKey(RUNS, "behavior_encoder_v12")
    assert (key.step, key.version) == ("behavior_encoder", "v12")
    assert CounterKey(RUNS, "rank_clicks").version is None


def test_a_counter_that_starts_anew_does_not_lose_what_was_counted() -> None:
    totals = totals_of(
        a_sample(rank_clicks=10), a_sample(rank_clicks=3), a_sample(rank_clicks=5)
    )
    assert totals.runs("rank_clicks") == 15


def test_an_unloaded_version_stays_in_the_total() -> None:
    totals = totals_of(
        a_sample(behavior_encoder_v6=10),
        a_sample(behavior_encoder_v6=12, behavior_encoder_v7=1),
        a_sample(behavior_encoder_v7=4),
    )
    assert totals.runs("behavior_encoder") == 16
    assert totals.runs_by_version("behavior_encoder") == {"v6": 12, "v7": 4}


def test_golden_requests_before_the_first_user_are_not_counted_as_his() -> None:
    totals = totals_of(a_sample(behavior_encoder_v7=8))
    assert totals.encoder_runs_per_request() is None
    totals.add(a_sample(behavior_encoder_v7=9, rank_clicks=1))
    totals.add(a_sample(behavior_encoder_v7=109, rank_clicks=101))
    assert totals.encoder_runs_per_request() == 1.0


def test_requests_of_a_single_sample_have_a_ratio_too() -> None:
    totals = totals_of(a_sample(behavior_encoder_v7=6, rank_clicks=5))
    assert totals.encoder_runs_per_request() == 1.2


def test_an_encoder_that_runs_for_every_candidate_shows() -> None:
    totals = totals_of(
        a_sample(behavior_encoder_v7=1, rank_clicks=1),
        a_sample(behavior_encoder_v7=201, rank_clicks=3),
    )
    assert totals.encoder_runs_per_request() == 100.0


def test_both_ensembles_ask_for_encodings() -> None:
    totals = totals_of(
        a_sample(behavior_encoder_v7=1, rank_clicks=1),
        a_sample(behavior_encoder_v7=11, rank_clicks=5, score_clicks=6),
    )
    assert totals.encoder_runs_per_request() == 1.0


def test_each_version_costs_what_its_own_card_says() -> None:
    totals = totals_of(
        a_sample(
            behavior_encoder_v6=2,
            click_head_v6=2,
            behavior_encoder_v7=1,
            click_head_v7=1,
        )
    )
    cards = {
        "v6": CostCard(encoder_flops=10.0, folded_flops=15.0, unfolded_flops=1000.0),
        "v7": CostCard(encoder_flops=20.0, folded_flops=22.0, unfolded_flops=3000.0),
    }
    spent = flops(totals, cards)
    assert (spent.folded, spent.unfolded) == (2 * 15.0 + 22.0, 5000.0)


def test_a_cached_encoding_costs_nothing() -> None:
    totals = totals_of(a_sample(behavior_encoder_v7=1, click_head_v7=10))
    cards = {"v7": CostCard(encoder_flops=20.0, folded_flops=22.0, unfolded_flops=1.0)}
    assert flops(totals, cards).folded == pytest.approx(20.0 + 10 * 2.0)


def test_versions_are_known_by_their_encoders() -> None:
    totals = totals_of(a_sample(behavior_encoder_v7=1, behavior_encoder_v6=1, other_v1=1))
    assert served_versions(totals) == ["v6", "v7"]


def test_a_counter_is_added_up_over_the_versions_of_a_step() -> None:
    totals = totals_of(
        {
            CounterKey(FAILURES, "click_head_v6"): 1.0,
            CounterKey(FAILURES, "click_head_v7"): 2.0,
        }
    )
    assert totals.by_step(FAILURES) == {"click_head": 3.0}
