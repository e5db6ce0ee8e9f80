from dataclasses import replace
from math import nan

from prometheus_client import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from features.check_report import FeatureCheck
from monitoring.gauges import METRICS, View, families, figures
from monitoring.live_quality import LiveQuality
from monitoring.serving_cost import RUNS, SUCCESSES, CounterKey, Flops, ServingTotals
from tests.monitoring.conftest import a_label
from training.refresh_status import RefreshStatus

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


def a_view() -> View:
    live = LiveQuality(window_ms=3_600_000, label_window_ms=1000)
    live.add(a_label("i1", clicked=True, position=0), partition=0)
    live.add(a_label("i2", score=0.25), partition=0)
    totals = ServingTotals()
    totals.add({CounterKey(RUNS, "rank_clicks"): 1.0, CounterKey(SUCCESSES, "x"): 1.0})
    totals.add(
        {
            CounterKey(RUNS, "rank_clicks"): 3.0,
            CounterKey(RUNS, "behavior_encoder_v7"): 2.0,
            CounterKey("nv_inference_queue_duration_us", "rank_clicks"): 2e6,
            CounterKey(SUCCESSES, "rank_clicks"): 3.0,
        }
    )
    return View(
        qualities=live.quality(),
        totals=totals,
        flops=Flops(folded=5.0, unfolded=50.0),
        serving_version="v7",
        source_up={"labels": True, "triton": False},
        feature_check=CHECK,
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


def test_the_page_shows_quality_cost_and_who_serves() -> None:
    page = page_of(a_view())
    for line in (
        'srp4ctr_online_click_rate{model_version="v7"} 0.5',
        'srp4ctr_online_click_rate_at_top{model_version="v7"} 1.0',
        'srp4ctr_calibration_ratio{model_version="v7"} 0.75',
        'srp4ctr_live_auc{model_version="v7"} 1.0',
        'srp4ctr_matured_impressions{model_version="v7"} 2.0',
        'srp4ctr_serving_model{model_version="v7"} 1.0',
        'srp4ctr_served_requests_total{ensemble="rank_clicks",outcome="success"} 3.0',
        "srp4ctr_encoder_runs_total 2.0",
        "srp4ctr_encoder_runs_per_request 1.0",
        'srp4ctr_step_seconds_total{phase="queue",step="rank_clicks"} 2.0',
        "srp4ctr_inference_flops_total 5.0",
        "srp4ctr_unfolded_flops_total 50.0",
        'srp4ctr_source_up{source="triton"} 0.0',
        "srp4ctr_feature_check_rows 600.0",
        "srp4ctr_feature_check_wrong_rows 3.0",
        "srp4ctr_feature_check_edits 7.0",
        "srp4ctr_feature_check_largest_difference 0.25",
        "srp4ctr_feature_check_behind_seconds 1.5",
        "srp4ctr_feature_check_age_seconds 60.0",
        "srp4ctr_refresh_age_seconds 30.0",
        "srp4ctr_refresh_interval_seconds 3600.0",
        "srp4ctr_refresh_duration_seconds 12.5",
        "srp4ctr_refresh_failed 1.0",
        'srp4ctr_refresh_gate_passed{gate="auc"} 1.0',
        'srp4ctr_refresh_gate_passed{gate="champion_auc"} 0.0',
    ):
        assert line in page


def test_a_figure_that_is_not_known_is_left_out() -> None:
    view = a_view()
    unknown = replace(view.qualities[0], auc=nan)
    page = page_of(replace(view, qualities=(unknown,)))
    assert not [line for line in page if line.startswith("srp4ctr_live_auc{")]


def test_every_figure_is_of_a_declared_metric_with_its_labels() -> None:
    declared = {name: labels for name, _, labels in METRICS}
    for figure in figures(a_view()):
        assert len(figure.labels) == len(declared[figure.metric])


def test_no_user_item_or_request_is_a_label() -> None:
    names = {label for _, _, labels in METRICS for label in labels}
    assert not [name for name in names if name.endswith("_id")]


def test_every_declared_metric_is_shown_sometime() -> None:
    assert {name for name, _, _ in METRICS} == {f.metric for f in figures(a_view())}
