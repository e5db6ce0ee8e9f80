"""Streams & features: event rates, freshness, feature store checks and drift.

In: the stream worker's counters, the broker's lag, probes, checks of the store, drift.
Out: the dashboard for operators of producers and the feature store.
"""

from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.builders.dashboard import Dashboard

from srp4ctr.monitoring.dashboards.builders import thresholds
from srp4ctr.monitoring.dashboards.builders.grid import (
    choose_versions,
    line,
    new_board,
    section,
)
from srp4ctr.monitoring.dashboards.builders.panels import (
    bars,
    judged,
    light,
    limited,
    lines,
    stat_of,
)
from srp4ctr.monitoring.dashboards.builders.queries import (
    CHOSEN,
    VERSION,
    by_version,
    now,
    or_none,
    over_time,
    quantiles,
    rate,
)


def board() -> Dashboard:
    """Return the dashboard."""
    why = "Whether every event arrives, how soon, and whether serving reads right features."
    made = choose_versions(new_board("streams_features", "Streams & features", why))
    _events(made)
    _freshness(made)
    _probes(made)
    _at_serving_time(made)
    _store(made)
    _drift(made)
    return made


def _events(made: Dashboard) -> None:
    section(made, "Events")
    accepted = lines(
        "Events by type",
        "Events per second: a type that stops points to a broken producer.",
        "cps",
        over_time(rate("srp4ctr_events_total", by="type"), "{{type}}"),
    )
    rejected = lines(
        "Rejected by reason",
        "Dead letters per second; replay them once the cause is fixed.",
        "cps",
        over_time(
            or_none(rate("srp4ctr_events_rejected_total", by="reason"), "reason"),
            "{{reason}}",
        ),
    )
    lag = lines(
        "Consumer lag",
        "Records that a consumer group has not read yet: it should not grow.",
        "short",
        over_time("sum by (group) (srp4ctr_consumer_lag_records)", "{{group}}"),
        over_time("sum(srp4ctr_stream_lag_records)", "stream worker"),
    )
    labels = lines(
        "Labels published",
        "Labels per second, which live metrics and training need.",
        "cps",
        over_time(rate("srp4ctr_labels_total", by="clicked"), "clicked: {{clicked}}"),
    )
    rejected = limited(rejected.min(0), thresholds.none_of_it())
    lag = limited(lag.min(0), thresholds.at_most(1_000, 10_000))
    line(made, 8, (6, accepted.min(0)), (6, rejected), (6, lag), (6, labels.min(0)))


def _freshness(made: Dashboard) -> None:
    section(made, "Freshness")
    stored = lines(
        "Event → sequence",
        "From an event's publication until the store has acknowledged its effect.",
        "s",
        *quantiles("srp4ctr_event_to_sequence_seconds", "p50", "p99"),
    )
    probed = lines(
        "Click → changed score",
        "Time from a synthetic user's click until its scores change.",
        "s",
        *quantiles("srp4ctr_probe_seconds", "p50", "p99", within="15m"),
    )
    written = lines(
        "Store writes",
        "Time of one batched write: where it grows, the store is the bottleneck.",
        "s",
        *quantiles("srp4ctr_store_write_seconds", "p50", "p99"),
    )
    due = lines(
        "Label due → published",
        "How late labels are published, which delays live metrics and training.",
        "s",
        *quantiles("srp4ctr_label_maturity_lag_seconds", "p50", "p99", within="15m"),
    )
    stored = limited(stored, thresholds.freshness())
    probed = limited(probed, thresholds.freshness())
    due = limited(due, thresholds.at_most(10, 60))
    line(made, 8, (6, stored), (6, probed), (6, written), (6, due))


def _probes(made: Dashboard) -> None:
    failures = or_none(
        "sum by (reason) (increase(srp4ctr_probe_failures_total[15m]))", "reason"
    )
    failed = lines(
        "Failed probes",
        "Probes whose click did not change a score, by the step that failed.",
        "short",
        over_time(failures, "{{reason}}"),
    )
    last = light(
        "Since the last successful probe",
        "Time since a probe last saw a changed score.",
        "s",
        thresholds.at_most(120, 600),
        over_time("max(srp4ctr_probe_age_seconds)"),
    )
    found = "max_over_time(srp4ctr_store_lost_at_seconds[1d]) > 0"
    lost = stat_of(
        "Since the store lost rows",
        "When a worker last found acknowledged rows gone; it rebuilds them by itself.",
        "s",
        over_time(f"min(time() - ({found}))"),
    ).no_value("none lost within a day")
    waiting = lines(
        "Impressions waiting for a click",
        "What the worker keeps in memory until label windows close.",
        "short",
        over_time("sum(srp4ctr_label_impressions_waiting)", "waiting"),
        over_time("sum(srp4ctr_label_evicted_early)", "evicted early"),
        over_time("sum(srp4ctr_label_unmatched_clicks)", "unmatched clicks"),
    )
    failed = limited(failed.min(0), thresholds.none_of_it())
    line(made, 7, (8, failed), (4, last), (4, lost), (8, waiting.min(0)))


def _at_serving_time(made: Dashboard) -> None:
    section(made, "Features at serving time")

    def age(quantile: float) -> str:
        metric = f"srp4ctr_feature_age_seconds_bucket{{{CHOSEN}}}"
        total = f"sum by (model_version, le) (rate({metric}[5m]))"
        return f"histogram_quantile({quantile:g}, {total})"

    features = lines(
        "Feature age",
        "Age of a user's sequence at a request: the time since the last visit.",
        "s",
        over_time(age(0.5), f"{VERSION} p50"),
        over_time(age(0.99), f"{VERSION} p99"),
    )
    items = lines(
        "Item cache age",
        "Time since item attributes and counters were read: 1 to 2 seconds is normal.",
        "s",
        by_version("srp4ctr_item_cache_age_seconds"),
    )
    status = lines(
        "Requests by status",
        "Requests of unknown users, without a history, or without the feature store.",
        "reqps",
        over_time(rate("srp4ctr_requests_by_status_total", "status", CHOSEN), "{{status}}"),
    )
    items = limited(items.min(0), thresholds.at_most(10, 60))
    line(made, 8, (8, features.min(0)), (8, items), (8, status.min(0)))


def _store(made: Dashboard) -> None:
    section(made, "Feature store check against the raw log")
    panels = [each.no_value("no check yet: srp4ctr features check") for each in _check()]
    served = light(
        "Training-serving skew",
        "Mean difference of served scores and scores of the log's features.",
        "none",
        thresholds.at_most(0.01, 0.02),
        over_time("max(srp4ctr_training_serving_skew)"),
    ).no_value("no check yet: srp4ctr features check --served")
    line(made, 4, *((4, each) for each in (*panels, served)))


def _check() -> tuple[stat.Panel, ...]:
    """Return what the newest check of the store found."""
    share = "srp4ctr_feature_check_wrong_rows / (srp4ctr_feature_check_rows > 0)"
    return (
        light(
            "Wrong rows",
            "Share of compared rows that differ from the raw log: 0 is right.",
            "percentunit",
            thresholds.at_most(1e-9, 0.01),
            over_time(f"max({share})"),
        ),
        stat_of(
            "Rows compared",
            "Sample size of the newest check.",
            "short",
            over_time("max(srp4ctr_feature_check_rows)"),
        ),
        stat_of(
            "Since the check",
            "Time since the newest check.",
            "s",
            over_time("min(srp4ctr_feature_check_age_seconds)"),
        ),
        light(
            "Store behind log",
            "How far the store was behind the log when it was checked.",
            "s",
            thresholds.at_most(10, 60),
            over_time("max(srp4ctr_feature_check_behind_seconds)"),
        ),
        light(
            "Largest difference",
            "Largest difference of a counter between the store and the log, in events.",
            "short",
            thresholds.at_most(0.01, 1),
            over_time("max(srp4ctr_feature_check_largest_difference)"),
        ),
    )


def _drift(made: Dashboard) -> None:
    section(made, "Drift: live against training")
    worst = f"topk(12, max by (feature) (srp4ctr_feature_psi{{{CHOSEN}}}))"
    features = bars(
        "PSI by feature",
        "The twelve features that drifted most since training; above 0.2 is drift.",
        "none",
        now(worst, "{{feature}}"),
    ).decimals(3)
    scores = lines(
        "PSI of scores",
        "Stability index of live scores against training; above 0.2 is drift.",
        "none",
        by_version("srp4ctr_score_psi"),
    )

    def against(metric: str) -> tuple[str, str]:
        by = "max by (model_version, where)"
        name = "{{model_version}} {{where}}"
        return f"{by} ({metric}{{{CHOSEN}}})", name

    unseen = lines(
        "Unseen items",
        "Share of candidates unknown to the model, live and in training.",
        "percentunit",
        over_time(*against("srp4ctr_unseen_item_share")),
    )
    cold = lines(
        "Cold users",
        "Share of requests of users without a history, live and in training.",
        "percentunit",
        over_time(*against("srp4ctr_cold_user_share")),
    )
    features = judged(features, thresholds.drift())
    scores = limited(scores.min(0), thresholds.drift())
    line(made, 9, (6, features), (6, scores), (6, unseen.min(0)), (6, cold.min(0)))
