"""Streams & features: event rates, freshness, feature store checks and drift.

In: the stream worker's counters, the broker's lag, probes, checks of the store, drift.
Out: the dashboard for operators of producers and the feature store.
"""

from srp4ctr.features.bundles.drift_reference import MIN_VALUES
from srp4ctr.monitoring.dashboards import thresholds
from srp4ctr.monitoring.dashboards.layout import board, line, section
from srp4ctr.monitoring.dashboards.panels import bars, lines, stat
from srp4ctr.monitoring.dashboards.queries import (
    CHOSEN,
    VERSION,
    by_version,
    now,
    or_none,
    over_time,
    quantiles,
    rate,
    rates,
)

_REJECTED = or_none(rate("srp4ctr_events_rejected_total", by="reason"), "reason")
_RETRIED = or_none(rate("srp4ctr_retries_total", by="operation"), "operation")
_PROBE_FAILURES = "sum by (reason) (increase(srp4ctr_probe_failures_total[15m]))"
_ROWS_LOST_AT = "max_over_time(srp4ctr_store_lost_at_seconds[1d]) > 0"
_AGE_BUCKETS = f"srp4ctr_feature_age_seconds_bucket{{{CHOSEN}}}"
_AGES = f"sum by (model_version, le) (rate({_AGE_BUCKETS}[5m]))"
_WRONG_ROWS = "srp4ctr_feature_check_wrong_rows / (srp4ctr_feature_check_rows > 0)"
_NO_CHECK = "no check yet: srp4ctr features check"
_TOO_FEW = f"fewer than {MIN_VALUES} values in the window"
_NO_INTAKE = "nothing comes by HTTP: srp4ctr events serve"
_LIVE_AND_TRAINING = f"max by (model_version, where) ({{}}{{{{{CHOSEN}}}}})"
_WHERE = "{{model_version}} {{where}}"

_EVENTS = line(
    8,
    lines(
        "Events by type",
        "Events per second: a type that stops points to a broken producer.",
        "cps",
        rates("srp4ctr_events_total", "type"),
        min=0,
    ),
    lines(
        "Rejected by reason",
        "Dead letters per second; replay them once the cause is fixed.",
        "cps",
        over_time(_REJECTED, "{{reason}}"),
        limits=thresholds.NONE_OF_IT,
        min=0,
    ),
    lines(
        "Consumer lag",
        "Records that a consumer group has not read yet: it should not grow.",
        "short",
        over_time("sum by (group) (srp4ctr_consumer_lag_records)", "{{group}}"),
        over_time("sum(srp4ctr_stream_lag_records)", "stream worker"),
        limits=thresholds.at_most(1_000, 10_000),
        min=0,
    ),
    lines(
        "Labels published",
        "Labels per second, which live metrics and training need.",
        "cps",
        over_time(rate("srp4ctr_labels_total", by="clicked"), "clicked: {{clicked}}"),
        min=0,
    ),
)
_INTAKE = line(
    7,
    lines(
        "Events by HTTP",
        "Events per second: accepted, unacknowledged, or why each was rejected.",
        "cps",
        rates("srp4ctr_intake_events_total", "outcome"),
        min=0,
        noValue=_NO_INTAKE,
    ),
    lines(
        "HTTP requests by status",
        "Requests per second; 503: Kafka did not acknowledge, 429: too many at once.",
        "cps",
        rates("srp4ctr_intake_requests_total", "status"),
        min=0,
        noValue=_NO_INTAKE,
    ),
    lines(
        "HTTP request → acknowledged",
        "From an HTTP request's arrival until Kafka has acknowledged its events.",
        "s",
        *quantiles("srp4ctr_intake_request_seconds", "p50", "p99"),
        limits=thresholds.at_most(0.1, 1),
        noValue=_NO_INTAKE,
    ),
    stat(
        "HTTP intakes that can publish",
        "Instances of the HTTP intake that reach the broker: 0 refuses every event.",
        "short",
        over_time("sum(srp4ctr_intake_broker_up)"),
        limits=thresholds.at_least(1, 1),
        noValue=_NO_INTAKE,
    ),
    widths=(7, 7, 6, 4),
)
_FRESHNESS = line(
    8,
    lines(
        "Event → sequence",
        "From an event's publication until the store has acknowledged its effect.",
        "s",
        *quantiles("srp4ctr_event_to_sequence_seconds", "p50", "p99"),
        limits=thresholds.FRESHNESS,
    ),
    lines(
        "Click → changed score",
        "Time from a synthetic user's click until its scores change.",
        "s",
        *quantiles("srp4ctr_probe_seconds", "p50", "p99", within="15m"),
        limits=thresholds.FRESHNESS,
    ),
    lines(
        "Store writes",
        "Time of one batched write: if it grows, the store is the bottleneck.",
        "s",
        *quantiles("srp4ctr_store_write_seconds", "p50", "p99"),
    ),
    lines(
        "Label due → published",
        "How late labels are published, which delays live metrics and training.",
        "s",
        *quantiles("srp4ctr_label_maturity_lag_seconds", "p50", "p99", within="15m"),
        limits=thresholds.at_most(10, 60),
    ),
)
_PROBES = line(
    7,
    lines(
        "Failed probes",
        "Probes whose click did not change a score, by the step that failed.",
        "short",
        over_time(or_none(_PROBE_FAILURES, "reason"), "{{reason}}"),
        limits=thresholds.NONE_OF_IT,
        min=0,
    ),
    stat(
        "Since the last successful probe",
        "Time since a probe last saw a changed score.",
        "s",
        over_time("max(srp4ctr_probe_age_seconds)"),
        limits=thresholds.at_most(120, 600),
    ),
    stat(
        "Since the store lost rows",
        "Time since a worker last found acknowledged rows missing; workers restore them.",
        "s",
        over_time(f"min(time() - ({_ROWS_LOST_AT}))"),
        noValue="none lost within a day",
    ),
    lines(
        "Impressions waiting for a click",
        "Impressions that workers hold in memory until their label windows close.",
        "short",
        over_time("sum(srp4ctr_label_impressions_waiting)", "waiting"),
        over_time("sum(srp4ctr_label_evicted_early)", "evicted early"),
        over_time("sum(srp4ctr_label_unmatched_clicks)", "unmatched clicks"),
        min=0,
    ),
    widths=(8, 4, 4, 8),
)
_RETRIES = line(
    6,
    lines(
        "Retries by operation",
        "Repeated calls to servers that did not answer: a few at a restart are normal.",
        "cps",
        over_time(_RETRIED, "{{operation}}"),
        limits=thresholds.at_most(0.02, 1),
        min=0,
    ),
)
_AT_SERVING_TIME = line(
    8,
    lines(
        "Feature age",
        "Age of a user's sequence at a request: the time since the last visit.",
        "s",
        over_time(f"histogram_quantile(0.5, {_AGES})", f"{VERSION} p50"),
        over_time(f"histogram_quantile(0.99, {_AGES})", f"{VERSION} p99"),
        min=0,
    ),
    lines(
        "Item cache age",
        "Time since items were up to date in memory: under a second is normal.",
        "s",
        by_version("srp4ctr_item_cache_age_seconds"),
        limits=thresholds.at_most(10, 60),
        min=0,
    ),
    lines(
        "Requests by status",
        "Requests of unknown users, without a history, or without the feature store.",
        "reqps",
        rates("srp4ctr_requests_by_status_total", "status", CHOSEN),
        min=0,
    ),
)
_CHECK = line(
    4,
    stat(
        "Wrong rows",
        "Share of compared rows that differ from the raw log: 0 is right.",
        "percentunit",
        over_time(f"max({_WRONG_ROWS})"),
        limits=thresholds.at_most(1e-9, 0.01),
        noValue=_NO_CHECK,
    ),
    stat(
        "Rows compared",
        "Sample size of the newest check.",
        "short",
        over_time("max(srp4ctr_feature_check_rows)"),
        noValue=_NO_CHECK,
    ),
    stat(
        "Since the check",
        "Time since the newest check.",
        "s",
        over_time("min(srp4ctr_feature_check_age_seconds)"),
        noValue=_NO_CHECK,
    ),
    stat(
        "Store behind log",
        "How far the store was behind the log when it was checked.",
        "s",
        over_time("max(srp4ctr_feature_check_behind_seconds)"),
        limits=thresholds.at_most(10, 60),
        noValue=_NO_CHECK,
    ),
    stat(
        "Largest difference",
        "Largest difference of a counter between the store and the log, in events.",
        "short",
        over_time("max(srp4ctr_feature_check_largest_difference)"),
        limits=thresholds.at_most(0.01, 1),
        noValue=_NO_CHECK,
    ),
    stat(
        "Training-serving skew",
        "Mean difference of served scores and scores of the log's features.",
        "none",
        over_time("max(srp4ctr_training_serving_skew)"),
        limits=thresholds.at_most(0.01, 0.02),
        noValue=f"{_NO_CHECK} --served",
    ),
)
_DRIFT = line(
    9,
    bars(
        "PSI by feature",
        "The twelve features that drifted most since training; above 0.2 is drift.",
        "none",
        now(f"topk(12, max by (feature) (srp4ctr_feature_psi{{{CHOSEN}}}))", "{{feature}}"),
        limits=thresholds.DRIFT,
        decimals=3,
        noValue=_TOO_FEW,
    ),
    lines(
        "PSI of scores",
        "Stability index of live scores against training; above 0.2 is drift.",
        "none",
        by_version("srp4ctr_score_psi"),
        limits=thresholds.DRIFT,
        min=0,
        noValue=_TOO_FEW,
    ),
    lines(
        "Unseen items",
        "Share of candidates unknown to the model, live and in training.",
        "percentunit",
        over_time(_LIVE_AND_TRAINING.format("srp4ctr_unseen_item_share"), _WHERE),
        min=0,
    ),
    lines(
        "Cold users",
        "Share of requests of users without a history, live and in training.",
        "percentunit",
        over_time(_LIVE_AND_TRAINING.format("srp4ctr_cold_user_share"), _WHERE),
        min=0,
    ),
)
BOARD = board(
    "streams_features",
    "Streams & features",
    "Whether every event arrives, how soon, and whether serving reads right features.",
    section("Events", _EVENTS, _INTAKE),
    section("Freshness", _FRESHNESS, _PROBES),
    section("Retries", _RETRIES),
    section("Features at serving time", _AT_SERVING_TIME),
    section("Feature store check against the raw log", _CHECK),
    section("Drift: live against training", _DRIFT),
)
