"""Every metric: its name, unit, help text, labels and bounds; and what creates metrics.

A new metric is an entry here, and one line where it moves: ``counter("srp4ctr_…")`` in a
process with a page of its own, a ``Figure`` in the monitor, a count in the serving step.
``tests/test_metrics.py`` compares Python, C, dashboards, rules, tests and pages with these
tables. All rooms import this module; it imports none of them.

A name ends in its unit: ``_seconds``, ``_records``, ``_share``. A name in ``_total`` is a
counter, a metric with bounds a histogram, any other a gauge; every count of the serving
step is a counter. No label has a user, an item or a request as its value.
"""

from dataclasses import dataclass
from itertools import chain

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric, as its page exposes it."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without the infinite one."""


# Fine around 50 ms, the bound of the objective, and around a request's usual latency.
ANSWER_BOUNDS = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
)
AGE_BOUNDS = (1, 5, 30, 120, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)
# Fine around 10 ms: a request of 100 candidates takes 2–5 ms on two cores.
_CALL_BOUNDS = (
    0.001,
    0.002,
    0.003,
    0.004,
    0.005,
    0.006,
    0.008,
    0.010,
    0.012,
    0.015,
    0.020,
    0.030,
    0.050,
    0.100,
    0.250,
    0.500,
    1.0,
)
_INTAKE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG_BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_PROBE_BOUNDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20)
_STORE_BOUNDS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
)

# Of processes that retry calls.
RETRIES = (
    Spec(
        "srp4ctr_retries_total",
        "Calls that were made again because a server did not answer, by operation.",
        ("operation",),
    ),
)
STREAM_WORKER = (
    Spec("srp4ctr_events_total", "Events folded, by type.", ("type",)),
    Spec("srp4ctr_stream_lag_records", "Records on the topic not yet folded."),
    Spec(
        "srp4ctr_event_to_sequence_seconds",
        "From an event's publication until the store had acknowledged its effect.",
        bounds=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60),
    ),
    Spec(
        "srp4ctr_store_write_seconds",
        "Time of one coalesced write to the store.",
        bounds=_STORE_BOUNDS,
    ),
    Spec("srp4ctr_users_rebuilt_total", "Users whose rows were rebuilt."),
    Spec(
        "srp4ctr_label_impressions_waiting", "Impressions and early clicks held for labels."
    ),
    Spec("srp4ctr_label_unmatched_clicks", "Clicks dropped without an impression."),
    Spec(
        "srp4ctr_label_evicted_early",
        "Impressions evicted before a late click could come.",
    ),
    Spec("srp4ctr_events_rejected_total", "Rejected messages.", ("reason",)),
    Spec("srp4ctr_labels_total", "Labels published.", ("clicked",)),
    Spec(
        "srp4ctr_skipped_offsets_total",
        "Offsets that Kafka dropped before a consumer group had read them.",
        ("group",),
    ),
    Spec("srp4ctr_item_updates_total", "Item updates stored."),
    Spec(
        "srp4ctr_store_losses_total",
        "Partitions whose rows the store had lost, and which are read again or rebuilt.",
    ),
    Spec(
        "srp4ctr_store_lost_at_seconds",
        "Unix time at which this worker last found rows lost; 0 for never.",
    ),
    Spec("srp4ctr_log_rows_total", "Rows written to the raw log.", ("topic",)),
    Spec(
        "srp4ctr_log_files_merged_total",
        "Files of the raw log that were merged into bigger ones.",
        ("topic",),
    ),
)
INTAKE = (
    Spec(
        "srp4ctr_intake_requests_total",
        "Requests of the HTTP intake, by status.",
        ("status",),
    ),
    Spec(
        "srp4ctr_intake_events_total",
        "Events of the HTTP intake: accepted, unacknowledged, or why they were rejected.",
        ("outcome",),
    ),
    Spec(
        "srp4ctr_intake_request_seconds",
        "From a request's arrival until its answer, with Kafka's acknowledgement.",
        bounds=_INTAKE_BOUNDS,
    ),
    Spec("srp4ctr_intake_broker_up", "Whether the HTTP intake can publish: 1, or 0."),
)
# Of applications that call the server with the project's client.
CLIENT = (
    Spec(
        "srp4ctr_rank_request_seconds",
        "Time of a rank request as its caller sees it, retries included.",
        bounds=_CALL_BOUNDS,
    ),
    Spec(
        "srp4ctr_rank_requests_total",
        "Rank requests by the bundle that answered and how they ended.",
        ("model_version", "outcome"),
    ),
)

# Counts of the serving step, by Triton's name of the model: the monitor adds them up over
# servers and restarts. The native step counts the same, and what only it has.
PART_RUNS, PART_US = "srp4ctr_part_runs", "srp4ctr_part_us"
CPU_US = "srp4ctr_cpu_us"
CANDIDATES = "srp4ctr_candidates"
ANSWERS, ANSWERS_US = "srp4ctr_answers", "srp4ctr_answers_us"
REQUEST_STATUS, ITEM_STATUS = "srp4ctr_request_status", "srp4ctr_item_status"
FEATURE_AGE, FEATURE_AGE_MS = "srp4ctr_feature_age", "srp4ctr_feature_age_ms"
TABLE_AGE_MS, TABLE_READS = "srp4ctr_table_age_ms", "srp4ctr_table_reads"
FEATURE_BIN = "srp4ctr_feature_bin"
NEXT_ITEMS = "srp4ctr_next_items"
REFUSED = "srp4ctr_refused"
NATIVE_CALLS, NATIVE_LOADS = "srp4ctr_native_calls", "srp4ctr_native_failed_loads"
NATIVE_COMPARISONS = "srp4ctr_native_comparisons"
NATIVE_MISMATCHES = "srp4ctr_native_mismatches"
_M = ("model",)
SERVING_STEP = (
    Spec(PART_RUNS, "Requests that a part worked on.", _M),
    Spec(PART_US, "Time of a part, in microseconds.", _M),
    Spec(CPU_US, "CPU time of the step's processes, in microseconds.", _M),
    Spec(CANDIDATES, "Candidates scored, padding left out.", _M),
    Spec(
        ANSWERS,
        "Answered calls by the upper bound of their latency, in seconds.",
        (*_M, "under"),
    ),
    Spec(ANSWERS_US, "Time of answered calls, in microseconds.", _M),
    Spec(REQUEST_STATUS, "Requests by what was known of their user.", (*_M, "status")),
    Spec(ITEM_STATUS, "Candidates by what was known of them.", (*_M, "status")),
    Spec(FEATURE_AGE, "Requests by the age of the user's row, in seconds.", (*_M, "under")),
    Spec(FEATURE_AGE_MS, "Age of users' sequences, in milliseconds.", _M),
    Spec(
        TABLE_AGE_MS, "Time since the table of items was up to date, in milliseconds.", _M
    ),
    Spec(TABLE_READS, "Requests that read the table of items.", _M),
    Spec(
        FEATURE_BIN,
        "Values of a feature by their bin of the bundle's reference.",
        (*_M, "cell"),
    ),
    Spec(
        NEXT_ITEMS,
        "Users' next new items by their place among the candidates.",
        (*_M, "place"),
    ),
    Spec(REFUSED, "Calls that were refused for what they sent.", (*_M, "reason")),
)
NATIVE_STEP = (
    Spec(
        NATIVE_CALLS,
        "Calls of the native step by what became of them.",
        (*_M, "outcome"),
    ),
    Spec(NATIVE_LOADS, "Times that the native step could not load what it needs.", _M),
    Spec(NATIVE_COMPARISONS, "Calls that both steps answered.", _M),
    Spec(
        NATIVE_MISMATCHES,
        "Outputs of these in which the two answers differ.",
        (*_M, "output"),
    ),
)

_V = ("model_version",)
_BOUNDS = ("model_version", "bound")
_PAIR = ("model_version", "baseline")
_BIN = ("model_version", "bin")
_STATUS = ("model_version", "status")
_S = ("server",)
# Of the monitor, from its ``View``.
FIGURES = (
    # Quality.
    Spec("srp4ctr_window_seconds", "Event time that live quality covers."),
    Spec("srp4ctr_label_window_seconds", "Time that an impression waits for a click."),
    Spec("srp4ctr_window_end_seconds", "Unix time of the newest settled impression."),
    Spec("srp4ctr_matured_impressions", "Settled impressions in the window.", _V),
    Spec("srp4ctr_matured_top_impressions", "Settled impressions at position 1.", _V),
    Spec("srp4ctr_matured_clicks", "Clicks within their label window.", _V),
    Spec("srp4ctr_late_clicks", "Clicks after their label window.", _V),
    Spec("srp4ctr_online_click_rate", "Clicks / settled impressions.", _V),
    Spec("srp4ctr_online_click_rate_bound", "95 % bound of the click rate.", _BOUNDS),
    Spec("srp4ctr_online_click_rate_at_top", "Click rate at position 1.", _V),
    Spec("srp4ctr_online_click_rate_at_top_bound", "95 % bound at position 1.", _BOUNDS),
    Spec("srp4ctr_click_mean_reciprocal_rank", "Mean over clicks of 1 / position.", _V),
    Spec("srp4ctr_calibration_ratio", "Sum of scores / clicks; 1 is calibrated.", _V),
    Spec("srp4ctr_calibration_ratio_bound", "95 % bound of the calibration.", _BOUNDS),
    Spec("srp4ctr_calibration_bin_score", "Mean score of a tenth of impressions.", _BIN),
    Spec("srp4ctr_calibration_bin_click_rate", "Click rate of that tenth.", _BIN),
    Spec("srp4ctr_expected_calibration_error", "Mean |score - click rate| of tenths.", _V),
    Spec("srp4ctr_live_log_loss_nats", "Mean log loss of the scores shown.", _V),
    Spec("srp4ctr_live_normalized_entropy", "Log loss / the click rate's entropy.", _V),
    Spec(
        "srp4ctr_live_auc",
        "P(a clicked item scores above another at the same position).",
        _V,
    ),
    Spec("srp4ctr_live_auc_bound", "95 % bound of the live AUC.", _BOUNDS),
    Spec("srp4ctr_live_auc_expected", "Live AUC if clicks followed the scores.", _V),
    Spec(
        "srp4ctr_live_auc_position_corrected",
        "0: every position is 0, so the live AUC has position bias, else 1.",
        _V,
    ),
    Spec(
        "srp4ctr_live_request_auc",
        "P(a clicked item scores above another of its request), from exploration.",
        _V,
    ),
    Spec("srp4ctr_live_request_auc_bound", "95 % bound of that AUC.", _BOUNDS),
    Spec("srp4ctr_label_coverage", "Labelled / due impressions.", _V),
    Spec("srp4ctr_provisional_impressions", "Impressions with an open label window.", _V),
    Spec("srp4ctr_provisional_click_rate", "Click rate so far of those; it rises.", _V),
    Spec("srp4ctr_click_rate_difference", "At position 1, minus the baseline's.", _PAIR),
    Spec(
        "srp4ctr_click_rate_difference_bound",
        "95 % bound of the difference; valid at any time.",
        (*_PAIR, "bound"),
    ),
    Spec("srp4ctr_compared_impressions", "At position 1, while both served.", _PAIR),
    Spec("srp4ctr_verdict", "1 better than the baseline, -1 worse, 0 undecided.", _PAIR),
    Spec(
        "srp4ctr_quality_regression",
        "1: earns fewer clicks than the baseline, an older version or a control group.",
        _PAIR,
    ),
    Spec(
        "srp4ctr_canary_share",
        "The share of users that the server assigns to the canary.",
        _PAIR,
    ),
    Spec(
        "srp4ctr_experiment_users",
        "Users in the canary's experiment by arm; at most 16,384 are counted.",
        (*_PAIR, "arm"),
    ),
    Spec(
        "srp4ctr_sample_ratio_evidence",
        "ln of the odds that users are not split as assigned; 6.9 is 1,000 to 1.",
        _PAIR,
    ),
    Spec(
        "srp4ctr_figures_behind_seconds",
        "Time since live figures had every label of the topic.",
    ),
    Spec("srp4ctr_undecodable_labels_total", "Messages that could not be decoded."),
    # Cost.
    Spec("srp4ctr_serving_model", "1 for the version that answers requests.", _V),
    Spec("srp4ctr_serving_model_age_seconds", "Time since its newest training data."),
    Spec(
        "srp4ctr_served_requests_total",
        "Calls of an ensemble; Triton 2.51 counts one that fails in a step twice.",
        ("ensemble", "outcome"),
    ),
    Spec("srp4ctr_scored_requests_total", "Users whose candidates were scored.", _V),
    Spec("srp4ctr_scored_candidates_total", "Candidates scored, without padding.", _V),
    Spec("srp4ctr_encoder_runs_total", "Histories encoded.", _V),
    Spec("srp4ctr_encoder_runs_per_request", "Encodings per user of a request."),
    Spec("srp4ctr_serving_cpu_seconds_total", "CPU time of the serving step.", _V),
    Spec("srp4ctr_step_runs_total", "Users that a step has processed.", ("step",)),
    Spec("srp4ctr_step_seconds_total", "Time spent in a step.", ("step", "phase")),
    Spec("srp4ctr_inference_flops_total", "FLOPs computed, by the cost card.", _V),
    Spec(
        "srp4ctr_reencode_flops_total",
        "FLOPs if re-encoded per candidate.",
        _V,
    ),
    Spec("srp4ctr_price_per_core_hour", "Price from the settings.", ("currency",)),
    Spec("srp4ctr_price_per_gpu_hour", "Price from the settings.", ("currency",)),
    Spec(
        "srp4ctr_request_duration_seconds",
        "Time of a call in the ranking step.",
        _V,
        bounds=ANSWER_BOUNDS,
    ),
    Spec("srp4ctr_refused_requests_total", "Invalid requests.", (*_V, "reason")),
    Spec(
        "srp4ctr_next_items_total",
        "Users' next new items by their place among the candidates.",
        (*_V, "place"),
    ),
    Spec(
        "srp4ctr_native_calls_total",
        "Calls of the native step; all that it has not answered the Python step answers.",
        (*_V, "outcome"),
    ),
    Spec("srp4ctr_native_failed_loads_total", "Times the native step could not load.", _V),
    Spec("srp4ctr_native_comparisons_total", "Calls that both steps answered.", _V),
    Spec(
        "srp4ctr_native_mismatches_total",
        "Outputs of those in which the answers differ.",
        (*_V, "output"),
    ),
    # Each server.
    Spec("srp4ctr_server_up", "1 while the server's metrics page answers.", _S),
    Spec("srp4ctr_server_ready", "1 while it is up and has loaded rank_clicks.", _S),
    Spec(
        "srp4ctr_server_requests_total",
        "Calls of its ensembles; Triton 2.51 counts one that fails in a step twice.",
        (*_S, "outcome"),
    ),
    Spec("srp4ctr_server_refused_requests_total", "Its invalid requests.", _S),
    Spec("srp4ctr_server_scored_requests_total", "Its users with scored candidates.", _S),
    Spec("srp4ctr_server_candidates_total", "Candidates that it scored.", _S),
    Spec("srp4ctr_server_queue_seconds_total", "Its requests' waits for a process.", _S),
    Spec("srp4ctr_server_cpu_seconds_total", "CPU time of its serving step.", _S),
    Spec(
        "srp4ctr_server_request_duration_seconds",
        "Time of a call in its step.",
        _S,
        bounds=ANSWER_BOUNDS,
    ),
    Spec(
        "srp4ctr_server_requests_by_status_total",
        "Its requests by the user's status.",
        (*_S, "status"),
    ),
    Spec("srp4ctr_server_score_psi", "PSI of its scores.", (*_S, *_V)),
    Spec("srp4ctr_server_feature_psi", "PSI of its feature.", (*_S, *_V, "feature")),
    # Inputs.
    Spec("srp4ctr_requests_by_status_total", "Requests by the user's status.", _STATUS),
    Spec("srp4ctr_candidates_by_status_total", "Candidates by the item's status.", _STATUS),
    Spec(
        "srp4ctr_feature_age_seconds",
        "Age of the sequence at a request.",
        _V,
        bounds=AGE_BOUNDS,
    ),
    Spec(
        "srp4ctr_item_cache_age_seconds",
        "Time since items were up to date, at the last requests.",
        _V,
    ),
    Spec("srp4ctr_score_psi", "PSI of scores; above 0.2 they drifted.", _V),
    Spec("srp4ctr_feature_psi", "PSI of a feature.", (*_V, "feature")),
    Spec(
        "srp4ctr_unseen_item_share", "Share of shown items not in training.", (*_V, "where")
    ),
    Spec("srp4ctr_cold_user_share", "Share of users without a history.", (*_V, "where")),
    # Health.
    Spec("srp4ctr_consumer_lag_records", "Unread records of a consumer group.", ("group",)),
    Spec("srp4ctr_feature_check_rows", "Rows of the store compared with the log."),
    Spec("srp4ctr_feature_check_wrong_rows", "Rows that differ from the log."),
    Spec("srp4ctr_feature_check_edits", "Edits between stored and log sequences."),
    Spec("srp4ctr_feature_check_largest_difference", "Of a counter, in events."),
    Spec("srp4ctr_feature_check_behind_seconds", "How far the store was behind."),
    Spec("srp4ctr_feature_check_age_seconds", "Time since the last check."),
    Spec(
        "srp4ctr_training_serving_skew",
        "Mean |served score - log's score|.",
        _V,
    ),
    Spec(
        "srp4ctr_skew_check_age_seconds",
        "Time since the last skew check.",
    ),
    Spec(
        "srp4ctr_serving_crashes_total",
        "Crashes of serving processes.",
        _V,
    ),
    Spec("srp4ctr_refresh_age_seconds", "Time since a refresh last succeeded."),
    Spec("srp4ctr_refresh_interval_seconds", "Interval of repeated refreshes."),
    Spec("srp4ctr_refresh_duration_seconds", "Duration of the last refresh."),
    Spec("srp4ctr_refresh_failed", "1 if the last refresh failed."),
    Spec("srp4ctr_refresh_gate_passed", "1 if the gate passed, otherwise 0.", ("gate",)),
    Spec("srp4ctr_bundle_metric", "Held-out metrics of a bundle.", (*_V, "metric")),
    Spec("srp4ctr_bundle_created_seconds", "Unix time of its creation.", _V),
    Spec("srp4ctr_bundle_window_start_seconds", "Unix time of its oldest data.", _V),
    Spec("srp4ctr_bundle_window_end_seconds", "Unix time of its newest data.", _V),
    Spec("srp4ctr_bundle_sampled_negatives", "1: its scores are preferences.", _V),
    Spec("srp4ctr_source_up", "1 while the source answers the monitor.", ("source",)),
)
# Of the monitor's other parts.
PROBE = (
    Spec(
        "srp4ctr_probe_seconds",
        "Time from a synthetic user's behaviour to changed scores of the same request.",
        bounds=_PROBE_BOUNDS,
    ),
    Spec("srp4ctr_probe_failures_total", "Probes that failed.", ("reason",)),
    Spec(
        "srp4ctr_probe_age_seconds",
        "Time since a probe last saw a changed score, or since the start.",
    ),
)
LABELS = (
    Spec(
        "srp4ctr_label_maturity_lag_seconds",
        "Time from when a label was due, in event time, to its publication.",
        bounds=_LAG_BOUNDS,
    ),
)
CERTIFICATES = (
    Spec(
        "srp4ctr_certificate_expiry_seconds",
        "Unix time at which the certificate ends.",
        ("service", "location"),
    ),
    Spec(
        "srp4ctr_certificate_read",
        "1 if the certificate was read at the last poll, else 0.",
        ("service", "location"),
    ),
)

METRICS = {
    spec.name: spec
    for spec in chain(
        RETRIES,
        STREAM_WORKER,
        INTAKE,
        CLIENT,
        SERVING_STEP,
        NATIVE_STEP,
        FIGURES,
        PROBE,
        LABELS,
        CERTIFICATES,
    )
}


def counter(name: str, registry: CollectorRegistry = REGISTRY) -> Counter:
    """Return the counter ``name``, on the page of ``registry``."""
    spec = METRICS[name]
    assert name.endswith("_total"), f"{name} is not a counter"
    return Counter(name, spec.help, spec.labels, registry=registry)


def gauge(name: str, registry: CollectorRegistry = REGISTRY) -> Gauge:
    """Return the gauge ``name``, on the page of ``registry``."""
    spec = METRICS[name]
    assert not spec.bounds, f"{name} is a histogram"
    assert not name.endswith("_total"), f"{name} is a counter"
    return Gauge(name, spec.help, spec.labels, registry=registry)


def histogram(name: str, registry: CollectorRegistry = REGISTRY) -> Histogram:
    """Return the histogram ``name``, on the page of ``registry``."""
    spec = METRICS[name]
    assert spec.bounds, f"{name} is not a histogram"
    return Histogram(name, spec.help, spec.labels, registry=registry, buckets=spec.bounds)


def family(name: str) -> CounterMetricFamily | GaugeMetricFamily:
    """Return the counter or gauge ``name`` without samples, for a collector to fill."""
    spec = METRICS[name]
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, spec.help, labels=spec.labels)
