"""A ``View`` of the monitor's state → Prometheus metric families.

Out: the families of ``metrics.FIGURES``; unknown figures (NaN) are left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import isnan, nan

from prometheus_client import Metric
from prometheus_client.metrics_core import HistogramMetricFamily

from srp4ctr import metrics
from srp4ctr.features.bundles.drift_reference import SCORE
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.monitoring.collector.bundle_cache import BundleFacts
from srp4ctr.monitoring.cost.cost_figures import (
    Buckets,
    Figure,
    cost_figures,
    server_figures,
)
from srp4ctr.monitoring.cost.triton_counters import Flops, ServingTotals
from srp4ctr.monitoring.cost.triton_servers import TritonServer
from srp4ctr.monitoring.quality.ab_test import Difference
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.quality.drift import SHARES, FeatureDrift
from srp4ctr.monitoring.quality.pending_labels import ProvisionalCounts
from srp4ctr.monitoring.quality.quality_sums import ModelQuality
from srp4ctr.monitoring.quality.sample_ratio import SampleRatio
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
    sample_ratios: tuple[SampleRatio, ...] = ()
    totals: ServingTotals
    servers: tuple[TritonServer, ...] = ()
    flops: Mapping[str, Flops]
    prices: MachinePrices
    feature_drifts: tuple[FeatureDrift, ...]
    serving_version: str | None
    bundles: tuple[BundleFacts, ...]
    source_up: Mapping[str, bool]
    consumer_lag: Mapping[str, int]
    """Records by consumer group."""
    undecodable_labels: int = 0
    labels_behind_s: float = nan
    """Time since all labels that the topic had were in the figures; NaN if unknown."""
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
    by_name: dict[str, list[Figure]] = {spec.name: [] for spec in metrics.FIGURES}
    buckets: dict[str, list[Buckets]] = {name: [] for name in by_name}
    for each in figures(view):
        if isinstance(each, Buckets):
            buckets[each.metric].append(each)
        elif not isnan(each.value):
            by_name[each.metric].append(each)
    result: list[Metric] = []
    for spec in metrics.FIGURES:
        if spec.bounds:
            result.append(_histogram(spec, buckets[spec.name]))
            continue
        family = metrics.family(spec.name)
        for figure in by_name[spec.name]:
            family.add_metric(figure.labels, figure.value)
        result.append(family)
    return result


def _histogram(spec: metrics.Spec, found: Iterable[Buckets]) -> HistogramMetricFamily:
    bounds = [f"{bound:g}" for bound in spec.bounds] + ["+Inf"]
    family = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
    for each in found:
        below = accumulate(each.counts.get(bound, 0.0) for bound in bounds)
        family.add_metric(each.labels, list(zip(bounds, below, strict=True)), each.total)
    return family


def figures(view: View) -> Iterator[Figure | Buckets]:
    """Yield every number of ``view``."""
    yield Figure("srp4ctr_window_seconds", view.window_s)
    yield Figure("srp4ctr_label_window_seconds", view.label_window_s)
    if view.window_end_ms:
        yield Figure("srp4ctr_window_end_seconds", view.window_end_ms / 1000)
    uncalibrated = {bundle.version for bundle in view.bundles if bundle.is_sampled}
    for quality in view.qualities:
        of_scores = quality.model_version not in uncalibrated
        yield from _quality_figures(quality, as_probabilities=of_scores)
    yield from _provisional_figures(view)
    for difference in view.differences:
        pair = (difference.model_version, difference.baseline)
        metric = "srp4ctr_click_rate_difference"
        yield from _with_bounds(metric, difference.click_rate, difference.interval, pair)
        yield Figure("srp4ctr_compared_impressions", difference.impressions, pair)
        yield Figure("srp4ctr_verdict", difference.verdict, pair)
        is_worse = float(difference.is_regression)
        yield Figure("srp4ctr_quality_regression", is_worse, difference.newer_and_older)
    for ratio in view.sample_ratios:
        yield from _split_figures(ratio)
    yield Figure("srp4ctr_figures_behind_seconds", view.labels_behind_s)
    yield Figure("srp4ctr_undecodable_labels_total", view.undecodable_labels)
    yield from cost_figures(view.totals, view.flops)
    for server in view.servers:
        yield from server_figures(server)
    currency = (view.prices.currency,)
    yield Figure("srp4ctr_price_per_core_hour", view.prices.core, currency)
    yield Figure("srp4ctr_price_per_gpu_hour", view.prices.gpu, currency)
    for drift in view.feature_drifts:
        yield from _drift_figures(drift)
    yield from _serving_figures(view)
    yield from _health_figures(view)


def _split_figures(split: SampleRatio) -> Iterator[Figure]:
    experiment = split.experiment
    pair = (experiment.canary, experiment.serving)
    yield Figure("srp4ctr_canary_share", experiment.share, pair)
    yield Figure("srp4ctr_sample_ratio_evidence", split.evidence, pair)
    yield Figure("srp4ctr_experiment_users", split.of_canary, (*pair, "canary"))
    yield Figure("srp4ctr_experiment_users", split.of_serving, (*pair, "serving"))


def _all(values: Mapping[str, float], labels: tuple[str, ...] = ()) -> Iterator[Figure]:
    for metric, value in values.items():
        yield Figure(metric, value, labels)


def _with_bounds(
    metric: str, value: float, interval: Interval, labels: tuple[str, ...]
) -> Iterator[Figure]:
    yield Figure(metric, value, labels)
    yield Figure(f"{metric}_bound", interval.low, (*labels, "low"))
    yield Figure(f"{metric}_bound", interval.high, (*labels, "high"))


def _drift_figures(drift: FeatureDrift) -> Iterator[Figure]:
    version, feature = drift.model_version, drift.feature
    if feature in SHARES:
        metric = SHARES[feature]
        yield Figure(metric, drift.training_share, (version, "training"))
        yield Figure(metric, drift.live_share, (version, "live"))
    if feature == SCORE:
        yield Figure("srp4ctr_score_psi", drift.psi, (version,))
    else:
        yield Figure("srp4ctr_feature_psi", drift.psi, (version, feature))


def _serving_figures(view: View) -> Iterator[Figure]:
    """Yield the serving version, the age of its data, and the newest bundles."""
    if serving := view.serving_version:
        yield Figure("srp4ctr_serving_model", 1.0, (serving,))
    for bundle in view.bundles:
        version = (bundle.version,)
        if bundle.version == serving and bundle.window_end_ms:
            age_s = (view.now_ms - bundle.window_end_ms) / 1000
            yield Figure("srp4ctr_serving_model_age_seconds", age_s)
        facts = {
            "srp4ctr_bundle_created_seconds": bundle.created_at_ms / 1000,
            "srp4ctr_bundle_window_start_seconds": bundle.window_start_ms / 1000,
            "srp4ctr_bundle_window_end_seconds": bundle.window_end_ms / 1000,
            "srp4ctr_bundle_sampled_negatives": float(bundle.is_sampled),
        }
        yield from _all(facts, version)
        for name, value in bundle.metrics.items():
            yield Figure("srp4ctr_bundle_metric", value, (*version, name))


def _provisional_figures(view: View) -> Iterator[Figure]:
    matured = {quality.model_version: quality.impressions for quality in view.qualities}
    for version in sorted({*matured, *view.provisional}):
        count = view.provisional.get(version, ProvisionalCounts())
        settled, labels = matured.get(version, 0), (version,)
        if due := settled + count.overdue:
            yield Figure("srp4ctr_label_coverage", settled / due, labels)
        yield Figure("srp4ctr_provisional_impressions", count.open, labels)
        if count.open:
            rate = count.clicked / count.open
            yield Figure("srp4ctr_provisional_click_rate", rate, labels)


def _quality_figures(quality: ModelQuality, *, as_probabilities: bool) -> Iterator[Figure]:
    """Yield the figures of a version; of scores that are no probabilities, no calibration.

    So neither an alert nor a panel judges them as probabilities.
    """
    version = (quality.model_version,)
    values = {
        "srp4ctr_matured_impressions": quality.impressions,
        "srp4ctr_matured_top_impressions": quality.top_impressions,
        "srp4ctr_matured_clicks": quality.clicks,
        "srp4ctr_late_clicks": quality.late_clicks,
        "srp4ctr_click_mean_reciprocal_rank": quality.mean_reciprocal_rank,
    }
    yield from _all(values, version)
    with_interval = {
        "srp4ctr_online_click_rate": (quality.click_rate, quality.click_rate_interval),
        "srp4ctr_online_click_rate_at_top": (
            quality.top_click_rate,
            quality.top_click_rate_interval,
        ),
        "srp4ctr_live_auc": (quality.auc.value, quality.auc.interval),
        "srp4ctr_live_request_auc": (
            quality.request_auc.value,
            quality.request_auc.interval,
        ),
    }
    for metric, (value, interval) in with_interval.items():
        yield from _with_bounds(metric, value, interval, version)
    yield Figure("srp4ctr_live_auc_expected", quality.auc.expected, version)
    corrected = nan if isnan(quality.auc.value) else float(quality.auc.is_corrected)
    yield Figure("srp4ctr_live_auc_position_corrected", corrected, version)
    if as_probabilities:
        yield from _probability_figures(quality, version)


def _probability_figures(
    quality: ModelQuality, version: tuple[str, ...]
) -> Iterator[Figure]:
    values = {
        "srp4ctr_live_log_loss_nats": quality.log_loss_nats,
        "srp4ctr_live_normalized_entropy": quality.normalized_entropy,
        "srp4ctr_expected_calibration_error": quality.expected_calibration_error,
    }
    yield from _all(values, version)
    ratio = quality.calibration_ratio, quality.calibration_interval
    yield from _with_bounds("srp4ctr_calibration_ratio", *ratio, version)
    for place, tenth in enumerate(quality.calibration_bins):
        labels = (*version, str(place))
        yield Figure("srp4ctr_calibration_bin_click_rate", tenth.click_rate, labels)
        yield Figure("srp4ctr_calibration_bin_score", tenth.score, labels)


def _health_figures(view: View) -> Iterator[Figure]:
    for group, records in view.consumer_lag.items():
        yield Figure("srp4ctr_consumer_lag_records", records, (group,))
    if (check := view.feature_check) is not None:
        values = {
            "srp4ctr_feature_check_rows": check.rows,
            "srp4ctr_feature_check_wrong_rows": check.wrong_rows,
            "srp4ctr_feature_check_edits": check.edits,
            "srp4ctr_feature_check_largest_difference": check.largest_difference,
            "srp4ctr_feature_check_behind_seconds": check.behind_s,
            "srp4ctr_feature_check_age_seconds": (view.now_ms - check.checked_at_ms) / 1000,
        }
        yield from _all(values)
    if (served := view.served_check) is not None:
        age_s = (view.now_ms - served.checked_at_ms) / 1000
        yield Figure("srp4ctr_skew_check_age_seconds", age_s)
        for version, shift in served.mean_shift.items():
            yield Figure("srp4ctr_training_serving_skew", shift, (version,))
    for version, crashes in view.crashes.items():
        yield Figure("srp4ctr_serving_crashes_total", crashes, (version,))
    if view.refresh is not None:
        yield from _refresh_figures(view.refresh, view.now_ms)
    for source, is_up in view.source_up.items():
        yield Figure("srp4ctr_source_up", float(is_up), (source,))


def _refresh_figures(refresh: RefreshStatus, now_ms: int) -> Iterator[Figure]:
    yield Figure("srp4ctr_refresh_duration_seconds", refresh.seconds)
    yield Figure("srp4ctr_refresh_failed", float(bool(refresh.error)))
    if refresh.last_success_ms:
        age_s = (now_ms - refresh.last_success_ms) / 1000
        yield Figure("srp4ctr_refresh_age_seconds", age_s)
    if refresh.interval_s:
        yield Figure("srp4ctr_refresh_interval_seconds", refresh.interval_s)
    for gate, passed in refresh.gates.items():
        yield Figure("srp4ctr_refresh_gate_passed", float(passed), (gate,))
