"""Live quality and serving totals → the metrics of the monitor's endpoint.

In: the figures of one moment. Out: Prometheus families. Every metric is declared once,
in ``METRICS``; the dashboard and the rules may name these and no others (tested). No user,
item or request ever becomes a label.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isnan

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from features.check_report import FeatureCheck
from monitoring.intervals import Interval
from monitoring.serving_cost import (
    ENCODER,
    ENSEMBLES,
    FAILURES,
    PHASES,
    RUNS,
    SUCCESSES,
    Flops,
    ServingTotals,
)
from monitoring.tally import ModelQuality
from training.refresh_status import RefreshStatus

_BY_MODEL = ("model_version",)
_BOUNDS = ("model_version", "bound")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the endpoint shows of one moment."""

    qualities: tuple[ModelQuality, ...]
    totals: ServingTotals
    flops: Flops
    serving_version: str | None
    source_up: Mapping[str, bool]
    undecodable_labels: int = 0
    feature_check: FeatureCheck | None = None
    """The newest check of the feature store, if there ever was one."""
    refresh: RefreshStatus | None = None
    """How the last refresh of the model ended, if there ever was one."""
    now_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of a metric, with its labels' values."""

    metric: str
    value: float
    labels: tuple[str, ...] = ()


# Name, help sentence, labels. A name that ends in _total is a counter, others are gauges.
METRICS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("srp4ctr_matured_impressions", "Settled impressions in the window.", _BY_MODEL),
    ("srp4ctr_matured_clicks", "Clicks within their label window.", _BY_MODEL),
    ("srp4ctr_late_clicks", "Clicks after their label window.", _BY_MODEL),
    ("srp4ctr_online_click_rate", "Clicks / settled impressions.", _BY_MODEL),
    ("srp4ctr_online_click_rate_bound", "95 % bound of the click rate.", _BOUNDS),
    ("srp4ctr_online_click_rate_at_top", "Click rate at position 0.", _BY_MODEL),
    ("srp4ctr_online_click_rate_at_top_bound", "95 % bound at position 0.", _BOUNDS),
    ("srp4ctr_calibration_ratio", "Sum of scores / clicks; 1 is honest.", _BY_MODEL),
    ("srp4ctr_calibration_ratio_bound", "95 % bound of the calibration.", _BOUNDS),
    ("srp4ctr_live_log_loss_nats", "Mean log loss of the scores shown.", _BY_MODEL),
    ("srp4ctr_live_auc", "P(clicked scored above passed over).", _BY_MODEL),
    ("srp4ctr_live_auc_bound", "95 % bound of the live AUC.", _BOUNDS),
    ("srp4ctr_serving_model", "1 for the version that answers requests.", _BY_MODEL),
    (
        "srp4ctr_served_requests_total",
        "Calls of an ensemble; Triton 2.51 counts one that fails in a step twice.",
        ("ensemble", "outcome"),
    ),
    ("srp4ctr_encoder_runs_total", "Histories encoded.", ()),
    ("srp4ctr_encoder_runs_per_request", "Encodings per user asked for.", ()),
    ("srp4ctr_step_runs_total", "Users that a step has worked on.", ("step",)),
    ("srp4ctr_step_seconds_total", "Time spent in a step.", ("step", "phase")),
    ("srp4ctr_inference_flops_total", "FLOPs spent, at 100 candidates each.", ()),
    ("srp4ctr_unfolded_flops_total", "FLOPs the same traffic costs unfolded.", ()),
    ("srp4ctr_undecodable_labels_total", "Messages that are not labels.", ()),
    ("srp4ctr_feature_check_rows", "Rows of the store compared with the log.", ()),
    ("srp4ctr_feature_check_wrong_rows", "Rows that are not what the log says.", ()),
    ("srp4ctr_feature_check_edits", "Edits that would right the sequences.", ()),
    ("srp4ctr_feature_check_largest_difference", "Of a counter, in events.", ()),
    ("srp4ctr_feature_check_behind_seconds", "Age of what the store lacks.", ()),
    ("srp4ctr_feature_check_age_seconds", "Since the store was last checked.", ()),
    ("srp4ctr_refresh_age_seconds", "Since a refresh last ended in order.", ()),
    ("srp4ctr_refresh_interval_seconds", "Between refreshes that repeat.", ()),
    ("srp4ctr_refresh_duration_seconds", "Of the last refresh.", ()),
    ("srp4ctr_refresh_failed", "1 if the last refresh ended in an error.", ()),
    ("srp4ctr_refresh_gate_passed", "1, or 0 for what refused it.", ("gate",)),
    ("srp4ctr_source_up", "1 while the monitor hears from the source.", ("source",)),
)


def families(view: View) -> list[Metric]:
    """Return ``view`` as metric families; a figure that is NaN is left out."""
    by_name: dict[str, list[Figure]] = {name: [] for name, _, _ in METRICS}
    for figure in figures(view):
        if not isnan(figure.value):
            by_name[figure.metric].append(figure)
    result: list[Metric] = []
    for name, help_text, labels in METRICS:
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(name, help_text, labels=labels)
        for figure in by_name[name]:
            family.add_metric(figure.labels, figure.value)
        result.append(family)
    return result


def figures(view: View) -> Iterator[Figure]:
    """Yield every number of ``view``."""
    for quality in view.qualities:
        yield from _quality_figures(quality)
    if view.serving_version:
        yield Figure(
            metric="srp4ctr_serving_model", value=1.0, labels=(view.serving_version,)
        )
    yield from _serving_figures(view.totals)
    yield Figure(metric="srp4ctr_inference_flops_total", value=view.flops.folded)
    yield Figure(metric="srp4ctr_unfolded_flops_total", value=view.flops.unfolded)
    yield Figure(metric="srp4ctr_undecodable_labels_total", value=view.undecodable_labels)
    if view.feature_check is not None:
        yield from _check_figures(view.feature_check, view.now_ms)
    if view.refresh is not None:
        yield from _refresh_figures(view.refresh, view.now_ms)
    for source, is_up in view.source_up.items():
        yield Figure(metric="srp4ctr_source_up", value=float(is_up), labels=(source,))


def _quality_figures(quality: ModelQuality) -> Iterator[Figure]:
    version = (quality.model_version,)
    values = {
        "srp4ctr_matured_impressions": quality.impressions,
        "srp4ctr_matured_clicks": quality.clicks,
        "srp4ctr_late_clicks": quality.late_clicks,
        "srp4ctr_online_click_rate": quality.click_rate,
        "srp4ctr_online_click_rate_at_top": quality.top_click_rate,
        "srp4ctr_calibration_ratio": quality.calibration_ratio,
        "srp4ctr_live_log_loss_nats": quality.log_loss_nats,
        "srp4ctr_live_auc": quality.auc,
    }
    for metric, value in values.items():
        yield Figure(metric=metric, value=value, labels=version)
    intervals = {
        "srp4ctr_online_click_rate_bound": quality.click_rate_interval,
        "srp4ctr_online_click_rate_at_top_bound": quality.top_click_rate_interval,
        "srp4ctr_calibration_ratio_bound": quality.calibration_interval,
        "srp4ctr_live_auc_bound": quality.auc_interval,
    }
    for metric, interval in intervals.items():
        yield from _bounds(metric, quality.model_version, interval)


def _bounds(metric: str, version: str, interval: Interval) -> Iterable[Figure]:
    yield Figure(metric=metric, value=interval.low, labels=(version, "low"))
    yield Figure(metric=metric, value=interval.high, labels=(version, "high"))


def _serving_figures(totals: ServingTotals) -> Iterator[Figure]:
    for counter, outcome in ((SUCCESSES, "success"), (FAILURES, "failure")):
        by_step = totals.by_step(counter)
        for ensemble in ENSEMBLES:
            yield Figure(
                metric="srp4ctr_served_requests_total",
                value=by_step.get(ensemble, 0.0),
                labels=(ensemble, outcome),
            )
    yield Figure(metric="srp4ctr_encoder_runs_total", value=totals.runs(ENCODER))
    if (per_request := totals.encoder_runs_per_request()) is not None:
        yield Figure(metric="srp4ctr_encoder_runs_per_request", value=per_request)
    for step, runs in totals.by_step(RUNS).items():
        yield Figure(metric="srp4ctr_step_runs_total", value=runs, labels=(step,))
    for counter, phase in PHASES.items():
        for step, us in totals.by_step(counter).items():
            yield Figure(
                metric="srp4ctr_step_seconds_total", value=us / 1e6, labels=(step, phase)
            )


def _check_figures(check: FeatureCheck, now_ms: int) -> Iterator[Figure]:
    values = {
        "rows": check.rows,
        "wrong_rows": check.wrong_rows,
        "edits": check.edits,
        "largest_difference": check.largest_difference,
        "behind_seconds": check.behind_s,
        "age_seconds": (now_ms - check.checked_at_ms) / 1000,
    }
    for name, value in values.items():
        yield Figure(metric=f"srp4ctr_feature_check_{name}", value=value)


def _refresh_figures(refresh: RefreshStatus, now_ms: int) -> Iterator[Figure]:
    values = {
        "duration_seconds": refresh.seconds,
        "failed": float(bool(refresh.error)),
    }
    if refresh.last_success_ms:
        values["age_seconds"] = (now_ms - refresh.last_success_ms) / 1000
    if refresh.interval_s:
        values["interval_seconds"] = refresh.interval_s
    for name, value in values.items():
        yield Figure(metric=f"srp4ctr_refresh_{name}", value=value)
    for gate, passed in refresh.gates.items():
        metric = "srp4ctr_refresh_gate_passed"
        yield Figure(metric=metric, value=float(passed), labels=(gate,))
