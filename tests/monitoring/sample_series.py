"""Series of every metric that a dashboard queries, for promtool.

v1 serves; v2 is compared with it.
"""

VERSIONS = 'model_version="v1"|model_version="v2"'
BOUNDS = '{v}, bound="low"|{v}, bound="high"'
SERVERS = 'server="a:8001"|server="b:8001"'
PAIR = 'model_version="v2", baseline="v1"'
BUCKETS = ("0.05", "0.5", "5", "+Inf")

# Labels of each series, one series after another, and the metrics that have them; without
# the prefix srp4ctr_.
METRICS: dict[str, tuple[str, ...]] = {
    VERSIONS: (
        "matured_impressions",
        "online_click_rate",
        "online_click_rate_at_top",
        "click_mean_reciprocal_rank",
        "calibration_ratio",
        "live_log_loss_nats",
        "live_normalized_entropy",
        "live_auc",
        "live_auc_expected",
        "expected_calibration_error",
        "label_coverage",
        "provisional_impressions",
        "provisional_click_rate",
        "scored_requests_total",
        "scored_candidates_total",
        "encoder_runs_total",
        "serving_cpu_seconds_total",
        "inference_flops_total",
        "reencode_flops_total",
        "request_duration_seconds_bucket",
        "feature_age_seconds_bucket",
        *(
            "item_cache_age_seconds",
            "score_psi",
            "training_serving_skew",
            "serving_crashes_total",
            "bundle_created_seconds",
        ),
        "bundle_window_start_seconds",
        "bundle_window_end_seconds",
        "bundle_sampled_negatives",
        "live_request_auc",
        "live_auc_position_corrected",
    ),
    BOUNDS.replace("{v}", 'model_version="v1"'): (
        "online_click_rate_at_top_bound",
        "calibration_ratio_bound",
        "live_auc_bound",
        "live_request_auc_bound",
    ),
    'model_version="v1"': ("serving_model",),
    'model_version="v1", place="1-20"|model_version="v1", place="none"': (
        "next_items_total",
    ),
    'model_version="v1", outcome="answered"|model_version="v1", outcome="other_call"': (
        "native_calls_total",
    ),
    PAIR: (
        "click_rate_difference",
        "compared_impressions",
        "verdict",
        "canary_share",
        "sample_ratio_evidence",
    ),
    f'{PAIR}, arm="canary"|{PAIR}, arm="serving"': ("experiment_users",),
    BOUNDS.replace("{v}", PAIR): ("click_rate_difference_bound",),
    'model_version="v1", bin="0"|model_version="v2", bin="0"': (
        "calibration_bin_score",
        "calibration_bin_click_rate",
    ),
    'step="rank_clicks"': ("step_runs_total",),
    'step="rank_clicks", phase="queue"|step="rank_clicks", phase="request"': (
        "step_seconds_total",
    ),
    'ensemble="rank_clicks", outcome="success"|ensemble="rank_clicks", outcome="failure"': (
        "served_requests_total",
    ),
    'model_version="v1", reason="too_many"': ("refused_requests_total",),
    'model_version="v1", status="ok"': (
        "requests_by_status_total",
        "candidates_by_status_total",
    ),
    'model_version="v1", outcome="answered"|model_version="v1", outcome="unread_context"': (
        "native_calls_total",
    ),
    'model_version="v1", feature="item_clicks"': ("feature_psi",),
    'model_version="v1", where="live"|model_version="v1", where="training"': (
        "unseen_item_share",
        "cold_user_share",
    ),
    'model_version="v1", metric="auc"|model_version="v1", metric="log_loss"'
    '|model_version="v1", metric="gauc"|model_version="v1", metric="calibration"'
    '|model_version="v1", metric="less_best_rule"': ("bundle_metric",),
    'currency="USD"': ("price_per_core_hour", "price_per_gpu_hour"),
    'group="srp4ctr-sequences"': ("consumer_lag_records",),
    'reason="publish"': ("probe_failures_total",),
    'operation="read_topics"': ("retries_total",),
    'reason="not_json"': ("events_rejected_total",),
    'type="click"': ("events_total",),
    'clicked="true"': ("labels_total",),
    'instance="intake:9104"': ("intake_broker_up",),
    'outcome="accepted"': ("intake_events_total",),
    'status="200"': ("intake_requests_total",),
    'gate="calibration"': ("refresh_gate_passed",),
    'source="labels"': ("source_up",),
    SERVERS: ("server_up", "server_ready"),
    "": (
        "event_to_sequence_seconds_bucket",
        "probe_seconds_bucket",
        "store_write_seconds_bucket",
        "label_maturity_lag_seconds_bucket",
        "intake_request_seconds_bucket",
        "stream_lag_records",
        "probe_age_seconds",
        "serving_model_age_seconds",
        "label_impressions_waiting",
        "label_unmatched_clicks",
        "label_evicted_early",
        "feature_check_rows",
        "feature_check_wrong_rows",
        "feature_check_age_seconds",
        "feature_check_behind_seconds",
        "feature_check_largest_difference",
        "refresh_age_seconds",
        "refresh_interval_seconds",
        "figures_behind_seconds",
        "refresh_duration_seconds",
        "refresh_failed",
        "store_lost_at_seconds",
    ),
}
OF_SERVERS = (
    "requests:rate5m",
    "availability:ratio_rate5m",
    "queue_seconds:mean5m",
    "request_duration_seconds:p99_5m",
    "missing_features:ratio_rate5m",
    "score_psi:max",
    "feature_psi:max",
    "price_per_million_candidates:rate5m",
)
RECORDED: dict[str, tuple[str, ...]] = {
    SERVERS: tuple(f"server:srp4ctr_server_{server}" for server in OF_SERVERS),
    VERSIONS: (
        "model_version:srp4ctr_cpu_seconds_per_1000_candidates:rate5m",
        "model_version:srp4ctr_price_per_million_candidates:rate5m",
        "model_version:srp4ctr_reencode_price_per_million_candidates:rate5m",
        "model_version:srp4ctr_encoder_runs_per_request:rate5m",
        "model_version:srp4ctr_encoder_reuse_share:rate5m",
        "model_version:srp4ctr_native_share:rate5m",
        "model_version:srp4ctr_flops_per_request:rate5m",
        "model_version:srp4ctr_flops_per_1000_candidates:rate5m",
        "model_version:srp4ctr_reencode_flops_ratio:rate5m",
        "model_version:srp4ctr_request_duration_seconds:p50_5m",
        "model_version:srp4ctr_request_duration_seconds:p99_5m",
    ),
    "": (
        "srp4ctr:gpu_seconds:rate5m",
        "srp4ctr:gpu_energy_joules:rate5m",
        *(f"srp4ctr:server_{server}" for server in OF_SERVERS),
    ),
    'currency="USD"': ("srp4ctr:gpu_price_per_1000_requests:rate5m",),
    PAIR: ("model_version:srp4ctr_clicks_gained_per_extra_price",),
    'step="rank_clicks"': ("step:srp4ctr_step_seconds:mean5m",),
}
# Prometheus's own.
BUILT_IN = (
    'up{job="monitor"}',
    'ALERTS{alertname="A", alertstate="firing", severity="page"}',
)


def input_series() -> list[dict[str, str]]:
    """Return ten minutes of every series, a sample each fifteen seconds."""
    names = {
        each: labels.split("|")
        for found, prefix in ((METRICS, "srp4ctr_"), (RECORDED, ""))
        for labels, metrics in found.items()
        for each in (prefix + metric for metric in metrics)
    }
    series = [{"series": name, "values": "1+0x40"} for name in BUILT_IN]
    for name, label_sets in names.items():
        for labels in label_sets:
            series += _series(name, labels)
    return series


def _series(name: str, labels: str) -> list[dict[str, str]]:
    job = ", ".join(filter(None, ('job="monitor"', labels)))
    if name.endswith("_bucket"):
        return [
            {"series": f'{name}{{{job}, le="{le}"}}', "values": f"0+{step * 10}x40"}
            for step, le in enumerate(BUCKETS, 1)
        ]
    values = "0+10x40" if name.endswith("_total") else "1+0x40"
    return [{"series": f"{name}{{{job}}}", "values": values}]
