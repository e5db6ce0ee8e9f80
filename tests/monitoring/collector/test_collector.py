from dataclasses import replace
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from srp4ctr.features.bundles.drift_reference import COLD_USER, SCORE, UNSEEN_ITEM
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.metrics import (
    ANSWERS,
    ANSWERS_US,
    CANDIDATES,
    CPU_US,
    FEATURE_AGE,
    FEATURE_AGE_MS,
    FIGURES,
    ITEM_STATUS,
    NATIVE_CALLS,
    NATIVE_COMPARISONS,
    NATIVE_LOADS,
    NATIVE_MISMATCHES,
    NEXT_ITEMS,
    REFUSED,
    REQUEST_STATUS,
    TABLE_AGE_MS,
    TABLE_READS,
)
from srp4ctr.monitoring.collector.bundle_cache import BundleFacts
from srp4ctr.monitoring.collector.collector import MachinePrices, View, families, figures
from srp4ctr.monitoring.cost.triton_counters import (
    RUNS,
    SUCCESSES,
    CostCard,
    CounterKey,
    Flops,
    ServingTotals,
)
from srp4ctr.monitoring.cost.triton_servers import TritonServer
from srp4ctr.monitoring.quality.ab_test import Difference
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.quality.drift import FeatureDrift
from srp4ctr.monitoring.quality.live_quality import LiveQuality
from srp4ctr.monitoring.quality.pending_labels import ProvisionalCounts
from srp4ctr.monitoring.quality.position_auc import PositionAuc
from srp4ctr.monitoring.quality.quality_sums import ModelQuality
from srp4ctr.monitoring.quality.sample_ratio import SampleRatio
from srp4ctr.streams.events.experiments import Experiment
from srp4ctr.training.refresh.reports import RefreshStatus, ServedReport
from tests.monitoring.conftest import a_label

CHECK = FeatureCheck(
    checked_at_ms=5_000,
    rows=600,
    wrong_sequences=2,
    edits=7,
    wrong_counters=1,
    largest_difference=0.25,
    behind_s=1.5,
)
REFRESH = RefreshStatus(
    ended_at_ms=9_000,
    seconds=12.5,
    error="ConnectionError: no Triton answers",
    last_success_ms=35_000,
    interval_s=3600.0,
    gates={"auc": True, "champion_auc": False},
)


BUNDLE = BundleFacts(
    version="v7",
    created_at_ms=40_000,
    window_start_ms=10_000,
    window_end_ms=30_000,
    metrics={"auc": 0.75},
    cost=CostCard(),
    is_sampled=False,
    reference=None,
)


AN_AUC = PositionAuc(
    value=0.75, interval=Interval(low=0.5, high=0.875), expected=0.625, is_corrected=True
)


def some_quality() -> tuple[ModelQuality, ...]:
    live = LiveQuality(window_ms=3_600_000, label_window_ms=1000)
    live.add(a_label("i1", clicked=True, position=0), partition=0)
    live.add(a_label("i2", score=0.25), partition=0)
    few = live.quality()  # too few for an AUC
    return tuple(replace(each, auc=AN_AUC) for each in few)


def some_totals() -> ServingTotals:
    ranker = "click_ranker_v7"
    totals = ServingTotals()
    totals.add({CounterKey(RUNS, "rank_clicks"): 1.0, CounterKey(SUCCESSES, "x"): 1.0})
    totals.add(
        {
            CounterKey(RUNS, "rank_clicks"): 3.0,
            CounterKey(RUNS, "behavior_encoder_v7"): 2.0,
            CounterKey(RUNS, "click_head_v7"): 4.0,
            CounterKey("nv_inference_queue_duration_us", "rank_clicks"): 2e6,
            CounterKey(SUCCESSES, "rank_clicks"): 3.0,
            CounterKey(CPU_US, ranker): 5e5,
            CounterKey(CANDIDATES, ranker): 300.0,
            CounterKey(ANSWERS, ranker, "0.005"): 2.0,
            CounterKey(ANSWERS, ranker, "0.01"): 1.0,
            CounterKey(ANSWERS_US, ranker): 12_000.0,
            CounterKey(FEATURE_AGE, ranker, "+Inf"): 1.0,
            CounterKey(FEATURE_AGE_MS, ranker): 4000.0,
            CounterKey(TABLE_AGE_MS, ranker): 1500.0,
            CounterKey(TABLE_READS, ranker): 3.0,
            CounterKey(REQUEST_STATUS, ranker, "cold_user"): 1.0,
            CounterKey(ITEM_STATUS, ranker, "ok"): 300.0,
            CounterKey(REFUSED, ranker, "shape"): 2.0,
            CounterKey(NEXT_ITEMS, ranker, "1-20"): 5.0,
            CounterKey(NATIVE_CALLS, ranker, "answered"): 2.0,
            CounterKey(NATIVE_LOADS, ranker): 1.0,
            CounterKey(NATIVE_COMPARISONS, ranker): 9.0,
            CounterKey(NATIVE_MISMATCHES, ranker, "status"): 4.0,
        }
    )
    return totals


def a_server(drift: dict[str, Any]) -> TritonServer:
    drifts = tuple(
        FeatureDrift(model_version="v7", feature=feature, **drift)
        for feature in (SCORE, "item_click_rate_168h")
    )
    return TritonServer(
        name="t1:8001", is_up=True, is_ready=True, totals=some_totals(), drifts=drifts
    )


def a_view() -> View:
    drift: dict[str, Any] = {"psi": 0.3, "training_share": 0.1, "live_share": 0.4}
    pair: dict[str, Any] = {"model_version": "v8", "baseline": "v7", "impressions": 900}
    return View(
        window_s=3600.0,
        label_window_s=1800.0,
        window_end_ms=62_000,
        qualities=some_quality(),
        provisional={"v7": ProvisionalCounts(open=4, clicked=1, overdue=2)},
        differences=(
            Difference(**pair, click_rate=0.02, interval=Interval(low=0.01, high=0.03)),
        ),
        sample_ratios=(
            SampleRatio(
                experiment=Experiment("v8", "v7", 0.2), of_canary=20, of_serving=80
            ),
        ),
        totals=some_totals(),
        servers=(a_server(drift),),
        flops={"v7": Flops(encode_once=5.0, reencode=50.0)},
        prices=MachinePrices(currency="EUR", core=0.04, gpu=0.9),
        feature_drifts=tuple(
            FeatureDrift(model_version="v7", feature=feature, **drift)
            for feature in (SCORE, COLD_USER, UNSEEN_ITEM, "item_click_rate_168h")
        ),
        serving_version="v7",
        bundles=(BUNDLE,),
        source_up={"labels": True, "triton": False},
        consumer_lag={"srp4ctr-sequences": 12},
        labels_behind_s=2.5,
        feature_check=CHECK,
        served_check=ServedReport(checked_at_ms=60_000, requests=9, mean_shift={"v7": 0.5}),
        crashes={"v7": 0, "v8": 3},
        refresh=REFRESH,
        now_ms=65_000,
    )


def page_of(view: View) -> list[str]:
    class Fixed(Collector):
        def collect(self) -> list[object]:  # type: ignore[override]
            return list(families(view))

    registry = CollectorRegistry()
    registry.register(Fixed())
    return generate_latest(registry).decode().splitlines()


LINES = (
    "srp4ctr_label_window_seconds 1800.0",
    "srp4ctr_window_end_seconds 62.0",
    "srp4ctr_figures_behind_seconds 2.5",
    'srp4ctr_online_click_rate{model_version="v7"} 0.5',
    'srp4ctr_online_click_rate_at_top{model_version="v7"} 1.0',
    'srp4ctr_calibration_ratio{model_version="v7"} 0.75',
    'srp4ctr_live_auc{model_version="v7"} 0.75',
    'srp4ctr_live_auc_bound{bound="high",model_version="v7"} 0.875',
    'srp4ctr_live_auc_expected{model_version="v7"} 0.625',
    'srp4ctr_live_auc_position_corrected{model_version="v7"} 1.0',
    'srp4ctr_matured_impressions{model_version="v7"} 2.0',
    'srp4ctr_serving_model{model_version="v7"} 1.0',
    'srp4ctr_served_requests_total{ensemble="rank_clicks",outcome="success"} 3.0',
    'srp4ctr_encoder_runs_total{model_version="v7"} 2.0',
    'srp4ctr_scored_requests_total{model_version="v7"} 4.0',
    'srp4ctr_scored_candidates_total{model_version="v7"} 300.0',
    'srp4ctr_serving_cpu_seconds_total{model_version="v7"} 0.5',
    'srp4ctr_price_per_core_hour{currency="EUR"} 0.04',
    'srp4ctr_item_cache_age_seconds{model_version="v7"} 0.5',
    'srp4ctr_requests_by_status_total{model_version="v7",status="cold_user"} 1.0',
    'srp4ctr_refused_requests_total{model_version="v7",reason="shape"} 2.0',
    'srp4ctr_next_items_total{model_version="v7",place="1-20"} 5.0',
    'srp4ctr_native_calls_total{model_version="v7",outcome="answered"} 2.0',
    'srp4ctr_native_failed_loads_total{model_version="v7"} 1.0',
    'srp4ctr_native_comparisons_total{model_version="v7"} 9.0',
    'srp4ctr_native_mismatches_total{model_version="v7",output="status"} 4.0',
    'srp4ctr_live_normalized_entropy{model_version="v7"} 0.7075187496394219',
    'srp4ctr_expected_calibration_error{model_version="v7"} 0.375',
    'srp4ctr_calibration_bin_click_rate{bin="1",model_version="v7"} 1.0',
    'srp4ctr_label_coverage{model_version="v7"} 0.5',
    'srp4ctr_provisional_click_rate{model_version="v7"} 0.25',
    'srp4ctr_click_rate_difference{baseline="v7",model_version="v8"} 0.02',
    'srp4ctr_verdict{baseline="v7",model_version="v8"} 1.0',
    'srp4ctr_canary_share{baseline="v7",model_version="v8"} 0.2',
    'srp4ctr_experiment_users{arm="canary",baseline="v7",model_version="v8"} 20.0',
    'srp4ctr_experiment_users{arm="serving",baseline="v7",model_version="v8"} 80.0',
    'srp4ctr_quality_regression{baseline="v7",model_version="v8"} 0.0',
    'srp4ctr_score_psi{model_version="v7"} 0.3',
    'srp4ctr_feature_psi{feature="item_click_rate_168h",model_version="v7"} 0.3',
    'srp4ctr_cold_user_share{model_version="v7",where="training"} 0.1',
    'srp4ctr_unseen_item_share{model_version="v7",where="live"} 0.4',
    "srp4ctr_serving_model_age_seconds 35.0",
    'srp4ctr_bundle_metric{metric="auc",model_version="v7"} 0.75',
    'srp4ctr_consumer_lag_records{group="srp4ctr-sequences"} 12.0',
    'srp4ctr_training_serving_skew{model_version="v7"} 0.5',
    "srp4ctr_encoder_runs_per_request 1.0",
    'srp4ctr_step_seconds_total{phase="queue",step="rank_clicks"} 2.0',
    'srp4ctr_inference_flops_total{model_version="v7"} 5.0',
    'srp4ctr_reencode_flops_total{model_version="v7"} 50.0',
    'srp4ctr_source_up{source="triton"} 0.0',
    "srp4ctr_feature_check_rows 600.0",
    "srp4ctr_feature_check_wrong_rows 3.0",
    "srp4ctr_feature_check_edits 7.0",
    "srp4ctr_feature_check_largest_difference 0.25",
    "srp4ctr_feature_check_behind_seconds 1.5",
    "srp4ctr_feature_check_age_seconds 60.0",
    'srp4ctr_serving_crashes_total{model_version="v7"} 0.0',
    'srp4ctr_serving_crashes_total{model_version="v8"} 3.0',
    "srp4ctr_refresh_age_seconds 30.0",
    "srp4ctr_refresh_interval_seconds 3600.0",
    "srp4ctr_refresh_duration_seconds 12.5",
    "srp4ctr_refresh_failed 1.0",
    'srp4ctr_refresh_gate_passed{gate="auc"} 1.0',
    'srp4ctr_refresh_gate_passed{gate="champion_auc"} 0.0',
)


def test_the_page_shows_quality_cost_and_the_serving_version() -> None:
    page = page_of(a_view())
    assert [line for line in LINES if line not in page] == []


def test_a_histogram_is_cumulative_as_prometheus_wants_it() -> None:
    page = page_of(a_view())
    for bound, count in (("0.003", 0.0), ("0.005", 2.0), ("0.01", 3.0), ("+Inf", 3.0)):
        labels = f'le="{bound}",model_version="v7"'
        assert f"srp4ctr_request_duration_seconds_bucket{{{labels}}} {count}" in page
    assert 'srp4ctr_request_duration_seconds_sum{model_version="v7"} 0.012' in page
    assert 'srp4ctr_request_duration_seconds_count{model_version="v7"} 3.0' in page
    assert 'srp4ctr_feature_age_seconds_sum{model_version="v7"} 4.0' in page


def test_a_figure_that_is_not_known_is_left_out() -> None:
    view = a_view()
    unknown = replace(view.qualities[0], auc=PositionAuc())
    page = page_of(replace(view, qualities=(unknown,)))
    assert not [line for line in page if line.startswith("srp4ctr_live_auc")]


def test_every_figure_is_of_a_declared_metric_with_its_labels() -> None:
    declared = {spec.name: spec.labels for spec in FIGURES}
    for figure in figures(a_view()):
        assert len(figure.labels) == len(declared[figure.metric])


def test_every_declared_metric_has_a_figure() -> None:
    assert {spec.name for spec in FIGURES} == {f.metric for f in figures(a_view())}


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    """So no alert and no panel judges them by it."""
    sampled = replace(BUNDLE, is_sampled=True)
    lines = page_of(replace(a_view(), bundles=(sampled,)))
    assert 'srp4ctr_bundle_sampled_negatives{model_version="v7"} 1.0' in lines
    of_probabilities = ("calibration", "log_loss", "entropy")
    samples = [line for line in lines if not line.startswith("#")]
    assert not [x for x in samples if any(name in x for name in of_probabilities)]
    assert 'srp4ctr_live_auc{model_version="v7"} 0.75' in lines
    assert 'srp4ctr_live_auc_expected{model_version="v7"} 0.625' in lines  # of ratios
