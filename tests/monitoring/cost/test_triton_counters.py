import pytest
from prometheus_client.parser import text_string_to_metric_families

from srp4ctr.metrics import CANDIDATES, REFUSED, TABLE_AGE_MS, TABLE_READS
from srp4ctr.monitoring.cost.triton_counters import (
    FAILURES,
    RETIRES_AFTER,
    RUNS,
    CostCard,
    CounterKey,
    Flops,
    ServingTotals,
    flops,
    sample_of,
    served_versions,
)
from tests.monitoring.conftest import PAGE


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


def test_a_reset_counter_keeps_its_total() -> None:
    totals = totals_of(
        a_sample(rank_clicks=10), a_sample(rank_clicks=3), a_sample(rank_clicks=5)
    )
    assert totals.runs("rank_clicks") == 15


def test_a_restarted_monitor_counts_nothing_twice() -> None:
    before = totals_of(a_sample(rank_clicks=0), a_sample(rank_clicks=1000))
    assert before.runs("rank_clicks") == 1000
    after = ServingTotals()
    after.start_from(a_sample(rank_clicks=1000, behavior_encoder_v7=900))
    assert after.by_version(RUNS, "behavior_encoder") == {
        "v7": 0.0
    }  # a rate needs the series
    after.add(a_sample(rank_clicks=1010, behavior_encoder_v7=909))
    assert after.runs("rank_clicks") == 10
    assert after.encoder_runs_per_request() == 0.9


def test_an_unloaded_version_stays_in_the_total() -> None:
    totals = totals_of(
        a_sample(behavior_encoder_v6=10),
        a_sample(behavior_encoder_v6=12, behavior_encoder_v7=1),
        a_sample(behavior_encoder_v7=4),
    )
    assert totals.runs("behavior_encoder") == 16
    assert totals.by_version(RUNS, "behavior_encoder") == {"v6": 12, "v7": 4}


def test_golden_requests_before_the_first_user_are_not_counted() -> None:
    totals = totals_of(a_sample(behavior_encoder_v7=8))
    assert totals.encoder_runs_per_request() is None
    totals.add(a_sample(behavior_encoder_v7=9, rank_clicks=1))
    totals.add(a_sample(behavior_encoder_v7=109, rank_clicks=101))
    assert totals.encoder_runs_per_request() == 1.0


def test_requests_of_a_single_sample_have_a_ratio_too() -> None:
    totals = totals_of(a_sample(behavior_encoder_v7=6, rank_clicks=5))
    assert totals.encoder_runs_per_request() == 1.2


def test_encoding_per_candidate_raises_the_ratio() -> None:
    totals = totals_of(
        a_sample(behavior_encoder_v7=1, rank_clicks=1),
        a_sample(behavior_encoder_v7=201, rank_clicks=3),
    )
    assert totals.encoder_runs_per_request() == 100.0


def test_requests_of_both_ensembles_are_counted() -> None:
    totals = totals_of(
        a_sample(behavior_encoder_v7=1, rank_clicks=1),
        a_sample(behavior_encoder_v7=11, rank_clicks=5, score_clicks=6),
    )
    assert totals.encoder_runs_per_request() == 1.0


CARD = {
    "encoder_flops": 1000.0,
    "head_flops_per_1": 60.0,  # 50, and 10 per candidate
    "head_flops_per_100": 1050.0,
    "unfolded_flops_per_1": 1060.0,
}


def test_a_card_of_1_and_100_candidates_gives_the_cost_of_any_number() -> None:
    card = CostCard.of(CARD)
    assert (card.encoder, card.request, card.candidate) == (1000.0, 50.0, 10.0)
    assert CostCard.of({}) == CostCard()


def test_each_version_costs_what_its_own_card_says() -> None:
    runs = a_sample(
        behavior_encoder_v6=2, click_head_v6=2, behavior_encoder_v7=1, click_head_v7=1
    )
    candidates = {
        CounterKey(CANDIDATES, "click_ranker_v6"): 40.0,
        CounterKey(CANDIDATES, "click_ranker_v7"): 7.0,
    }
    cards = {"v6": CostCard.of(CARD), "v7": CostCard(encoder=5.0, reencode=9.0)}
    spent = flops(totals_of(runs | candidates), cards)
    assert spent["v6"] == Flops(encode_once=2 * 1050.0 + 400.0, reencode=40 * 1060.0)
    assert spent["v7"] == Flops(encode_once=5.0, reencode=63.0)


def test_a_cached_encoding_costs_nothing() -> None:
    totals = totals_of(a_sample(behavior_encoder_v7=1, click_head_v7=10))
    spent = flops(totals, {"v7": CostCard.of(CARD)})
    assert spent["v7"].encode_once == pytest.approx(1000.0 + 10 * 50.0)


def test_a_retired_version_keeps_its_counts_and_loses_its_name() -> None:
    totals = totals_of(a_sample(behavior_encoder_v6=10, behavior_encoder_v7=1))
    for _ in range(RETIRES_AFTER):
        totals.add(a_sample(behavior_encoder_v7=1))
    assert totals.by_version(RUNS, "behavior_encoder") == {"v7": 1}
    assert totals.runs("behavior_encoder") == 11
    totals.add(a_sample(behavior_encoder_v6=2, behavior_encoder_v7=1))  # rolled back to
    assert totals.by_version(RUNS, "behavior_encoder") == {"v6": 2, "v7": 1}
    assert totals.runs("behavior_encoder") == 13


def test_the_item_caches_age_is_of_the_newest_requests() -> None:
    ages, reads = (CounterKey(c, "click_ranker_v7") for c in (TABLE_AGE_MS, TABLE_READS))
    totals = totals_of({ages: 90_000.0, reads: 2.0}, {ages: 91_000.0, reads: 4.0})
    assert totals.item_cache_age_s == {"v7": 0.5}
    totals.add({ages: 91_000.0, reads: 4.0})  # no request
    assert totals.item_cache_age_s == {"v7": 0.5}


def test_a_labelled_counter_is_added_up_by_version_and_label() -> None:
    totals = totals_of(
        {
            CounterKey(REFUSED, "click_ranker_v6", "shape"): 2.0,
            CounterKey(REFUSED, "click_ranker_v7", "content"): 1.0,
        }
    )
    assert totals.labelled(REFUSED) == {("v6", "shape"): 2.0, ("v7", "content"): 1.0}


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


def test_the_inference_counters_are_read_from_tritons_page() -> None:
    """Failures are added up over their reasons."""
    sample = sample_of(text_string_to_metric_families(PAGE))
    assert sample[CounterKey(RUNS, "behavior_encoder_v7")] == 42.0
    assert sample[CounterKey(FAILURES, "rank_clicks")] == 3.0
    assert len(sample) == 3
