"""A ``View`` of the monitor's state → Prometheus metric families.

Out: the families of ``metric_definitions.METRICS``; unknown figures (NaN) are left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import isnan

from prometheus_client import Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from srp4ctr.features.bundles.drift_reference import SCORE
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.metric_aliases import deprecated
from srp4ctr.monitoring.collector.bundle_cache import BundleFacts
from srp4ctr.monitoring.collector.metric_definitions import HISTOGRAMS, METRICS
from srp4ctr.monitoring.cost.cost_figures import Buckets, Figure, cost_figures
from srp4ctr.monitoring.cost.triton_counters import Flops, ServingTotals
from srp4ctr.monitoring.quality.ab_test import Difference
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.quality.drift import SHARES, FeatureDrift
from srp4ctr.monitoring.quality.pending_labels import ProvisionalCounts
from srp4ctr.monitoring.quality.quality_sums import ModelQuality
from srp4ctr.training.refresh.reports import RefreshStatus, ServedReport


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePrices:
    """Prices per hour of the machines that serve."""

    currency: str
    core: float
    gpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The monitor's state at one moment."""

    window_s: float
    label_window_s: float
    window_end_ms: int = 0
    """When the newest settled impression was shown; 0 before the first."""
    qualities: tuple[ModelQuality, ...]
    provisional: Mapping[str, ProvisionalCounts]
    differences: tuple[Difference, ...]
    totals: ServingTotals
    flops: Mapping[str, Flops]
    prices: MachinePrices
    feature_drifts: tuple[FeatureDrift, ...]
    serving_version: str | None
    bundles: tuple[BundleFacts, ...]
    source_up: Mapping[str, bool]
    consumer_lag: Mapping[str, int]
    """Records by consumer group."""
    undecodable_labels: int = 0
    feature_check: FeatureCheck | None = None
    """The newest check of the feature store, if any."""
    served_check: ServedReport | None = None
    crashes: Mapping[str, int] = field(default_factory=dict)
    """Of serving processes, by version."""
    refresh: RefreshStatus | None = None
    """Of the last refresh of the model, if any."""
    now_ms: int = 0


def families(view: View) -> list[Metric]:
    """Return ``view`` as metric families; a figure that is NaN is left out."""
    by_name: dict[str, list[Figure]] = {name: [] for name, _, _ in METRICS}
    buckets: dict[str, list[Buckets]] = {name: [] for name in HISTOGRAMS}
    for each in figures(view):
        if isinstance(each, Buckets):
            buckets[each.metric].append(each)
        elif not isnan(each.value):
            by_name[each.metric].append(each)
    result: list[Metric] = []
    for name, help_text, labels in METRICS:
        if name in HISTOGRAMS:
            result.append(_histogram(name, help_text, labels, buckets[name]))
            continue
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(name, help_text, labels=labels)
        for figure in by_name[name]:
            family.add_metric(figure.labels, figure.value)
        result.append(family)
    return [*result, *deprecated(result)]


def _histogram(
    name: str, help_text: str, labels: tuple[str, ...], found: Iterable[Buckets]
) -> HistogramMetricFamily:
    bounds = [f"{bound:g}" for bound in HISTOGRAMS[name]] + ["+Inf"]
    family = HistogramMetricFamily(name, help_text, labels=labels)
    for each in found:
        below = accumulate(each.counts.get(bound, 0.0) for bound in bounds)
        family.add_metric(each.labels, list(zip(bounds, below, strict=True)), each.total)
    return family


def figures(view: View) -> Iterator[Figure | Buckets]:
    """Yield every number of ``view``."""
    yield Figure(metric="srp4ctr_window_seconds", value=view.window_s)
    yield Figure(metric="srp4ctr_label_window_seconds", value=view.label_window_s)
    if view.window_end_ms:
        end_s = view.window_end_ms / 1000
        yield Figure(metric="srp4ctr_window_end_seconds", value=end_s)
    for quality in view.qualities:
        yield from _quality_figures(quality)
    yield from _provisional_figures(view)
    for difference in view.differences:
        yield from _difference_figures(difference)
    yield Figure(metric="srp4ctr_undecodable_labels_total", value=view.undecodable_labels)
    yield from cost_figures(view.totals, view.flops)
    for kind, price in (("core", view.prices.core), ("gpu", view.prices.gpu)):
        metric = f"srp4ctr_price_per_{kind}_hour"
        yield Figure(metric=metric, value=price, labels=(view.prices.currency,))
    for drift in view.feature_drifts:
        yield from _drift_figures(drift)
    yield from _serving_figures(view)
    yield from _health_figures(view)


def _drift_figures(drift: FeatureDrift) -> Iterator[Figure]:
    version, feature = (drift.model_version,), drift.feature
    if feature in SHARES:
        for where, share in (
            ("training", drift.training_share),
            ("live", drift.live_share),
        ):
            metric = f"srp4ctr_{feature}_share"
            yield Figure(metric=metric, value=share, labels=(*version, where))
    if feature == SCORE:
        metric = "srp4ctr_score_psi"
        yield Figure(metric=metric, value=drift.psi, labels=version)
    else:
        metric, labels = "srp4ctr_feature_psi", (*version, feature)
        yield Figure(metric=metric, value=drift.psi, labels=labels)


def _serving_figures(view: View) -> Iterator[Figure]:
    """Yield the serving version, the age of its data, and the newest bundles."""
    now_s, serving = view.now_ms / 1000, view.serving_version
    if serving:
        yield Figure(metric="srp4ctr_serving_model", value=1.0, labels=(serving,))
    for each in view.bundles:
        version = (each.version,)
        if each.version == serving and each.window_end_ms:
            age_s = now_s - each.window_end_ms / 1000
            yield Figure(metric="srp4ctr_serving_model_age_seconds", value=age_s)
        times = {
            "created": each.created_at_ms,
            "window_start": each.window_start_ms,
            "window_end": each.window_end_ms,
        }
        for name, at_ms in times.items():
            metric = f"srp4ctr_bundle_{name}_seconds"
            yield Figure(metric=metric, value=at_ms / 1000, labels=version)
        for name, value in each.metrics.items():
            labels = (*version, name)
            yield Figure(metric="srp4ctr_bundle_metric", value=value, labels=labels)


def _provisional_figures(view: View) -> Iterator[Figure]:
    matured = {each.model_version: each.impressions for each in view.qualities}
    for version in sorted({*matured, *view.provisional}):
        count = view.provisional.get(version, ProvisionalCounts())
        settled = matured.get(version, 0)
        if due := settled + count.overdue:
            metric = "srp4ctr_label_coverage"
            yield Figure(metric=metric, value=settled / due, labels=(version,))
        metric = "srp4ctr_provisional_impressions"
        yield Figure(metric=metric, value=count.open, labels=(version,))
        if count.open:
            metric, rate = "srp4ctr_provisional_click_rate", count.clicked / count.open
            yield Figure(metric=metric, value=rate, labels=(version,))


def _difference_figures(difference: Difference) -> Iterator[Figure]:
    pair = (difference.model_version, difference.baseline)
    metric = "srp4ctr_click_rate_difference"
    yield Figure(metric=metric, value=difference.click_rate, labels=pair)
    for bound in ("low", "high"):
        value = getattr(difference.interval, bound)
        yield Figure(metric=f"{metric}_bound", value=value, labels=(*pair, bound))
    values = {
        "srp4ctr_compared_impressions": difference.impressions,
        "srp4ctr_verdict": difference.verdict,
    }
    for name, value in values.items():
        yield Figure(metric=name, value=value, labels=pair)


def _quality_figures(quality: ModelQuality) -> Iterator[Figure]:
    version = (quality.model_version,)
    values = {
        "srp4ctr_matured_impressions": quality.impressions,
        "srp4ctr_matured_top_impressions": quality.top_impressions,
        "srp4ctr_matured_clicks": quality.clicks,
        "srp4ctr_late_clicks": quality.late_clicks,
        "srp4ctr_online_click_rate": quality.click_rate,
        "srp4ctr_online_click_rate_at_top": quality.top_click_rate,
        "srp4ctr_calibration_ratio": quality.calibration_ratio,
        "srp4ctr_live_log_loss_nats": quality.log_loss_nats,
        "srp4ctr_live_normalized_entropy": quality.normalized_entropy,
        "srp4ctr_expected_calibration_error": quality.expected_calibration_error,
        "srp4ctr_click_mean_reciprocal_rank": quality.mean_reciprocal_rank,
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
    for place, tenth in enumerate(quality.calibration_bins):
        labels = (*version, str(place))
        metric, rate = "srp4ctr_calibration_bin_click_rate", tenth.click_rate
        yield Figure(metric=metric, value=rate, labels=labels)
        metric = "srp4ctr_calibration_bin_score"
        yield Figure(metric=metric, value=tenth.score, labels=labels)


def _bounds(metric: str, version: str, interval: Interval) -> Iterable[Figure]:
    yield Figure(metric=metric, value=interval.low, labels=(version, "low"))
    yield Figure(metric=metric, value=interval.high, labels=(version, "high"))


def _health_figures(view: View) -> Iterator[Figure]:
    for group, records in view.consumer_lag.items():
        metric = "srp4ctr_consumer_lag_records"
        yield Figure(metric=metric, value=records, labels=(group,))
    if view.feature_check is not None:
        yield from _check_figures(view.feature_check, view.now_ms)
    if (served := view.served_check) is not None:
        age_s = (view.now_ms - served.checked_at_ms) / 1000
        yield Figure(metric="srp4ctr_skew_check_age_seconds", value=age_s)
        for version, shift in served.mean_shift.items():
            metric = "srp4ctr_training_serving_skew"
            yield Figure(metric=metric, value=shift, labels=(version,))
    for version, crashes in view.crashes.items():
        metric = "srp4ctr_serving_crashes_total"
        yield Figure(metric=metric, value=crashes, labels=(version,))
    if view.refresh is not None:
        yield from _refresh_figures(view.refresh, view.now_ms)
    for source, is_up in view.source_up.items():
        yield Figure(metric="srp4ctr_source_up", value=float(is_up), labels=(source,))


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
