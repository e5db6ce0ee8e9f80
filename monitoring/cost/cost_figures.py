"""Triton's counters, added up → figures of serving's traffic, inputs and cost.

Of all servers together by model version, and of each server.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from srp4ctr import metrics
from srp4ctr.features.bundles.drift_reference import SCORE
from srp4ctr.monitoring.cost import triton_counters as of
from srp4ctr.monitoring.cost.triton_counters import Flops, ServingTotals
from srp4ctr.monitoring.cost.triton_servers import TritonServer


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a metric, with its labels' values."""

    metric: str
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """A histogram: counts of its buckets, and the sum of its values."""

    metric: str
    labels: tuple[str, ...]
    counts: Mapping[str, float]
    """By upper bound, not cumulative."""
    total: float


def cost_figures(
    totals: ServingTotals, flops: Mapping[str, Flops]
) -> Iterator[Figure | Buckets]:
    """Yield the figures of all servers together."""
    yield from _ensembles(totals)
    yield from _versions(totals)
    yield from _steps(totals)
    for version, spent in flops.items():
        yield Figure("srp4ctr_inference_flops_total", spent.encode_once, (version,))
        yield Figure("srp4ctr_reencode_flops_total", spent.reencode, (version,))
    by_label = {
        "srp4ctr_requests_by_status_total": metrics.REQUEST_STATUS,
        "srp4ctr_candidates_by_status_total": metrics.ITEM_STATUS,
        "srp4ctr_refused_requests_total": metrics.REFUSED,
        "srp4ctr_next_items_total": metrics.NEXT_ITEMS,
        "srp4ctr_native_calls_total": metrics.NATIVE_CALLS,
        "srp4ctr_native_mismatches_total": metrics.NATIVE_MISMATCHES,
    }
    for metric, counter in by_label.items():
        for labels, value in sorted(totals.labelled(counter).items()):
            yield Figure(metric, value, labels)
    answers_s = _in_s(totals.by_version(metrics.ANSWERS_US), 1e6)
    ages_s = _in_s(totals.by_version(metrics.FEATURE_AGE_MS), 1e3)
    answers, ages = totals.labelled(metrics.ANSWERS), totals.labelled(metrics.FEATURE_AGE)
    yield from _histogram("srp4ctr_request_duration_seconds", answers, answers_s)
    yield from _histogram("srp4ctr_feature_age_seconds", ages, ages_s)


def server_figures(server: TritonServer) -> Iterator[Figure | Buckets]:
    """Yield the figures of one server; the last label values are its name."""
    name, totals = (server.name,), server.totals
    yield Figure("srp4ctr_server_up", float(server.is_up), name)
    yield Figure("srp4ctr_server_ready", float(server.is_ready), name)
    for counter, outcome in ((of.SUCCESSES, "success"), (of.FAILURES, "failure")):
        by_step = totals.by_step(counter)
        calls = sum(by_step.get(ensemble, 0.0) for ensemble in of.ENSEMBLES)
        yield Figure("srp4ctr_server_requests_total", calls, (*name, outcome))
    sums = {
        "srp4ctr_server_refused_requests_total": _sum(totals, metrics.REFUSED),
        "srp4ctr_server_queue_seconds_total": _sum(totals, of.QUEUE_US) / 1e6,
        "srp4ctr_server_cpu_seconds_total": _sum(totals, metrics.CPU_US) / 1e6,
        "srp4ctr_server_candidates_total": _sum(totals, metrics.CANDIDATES),
        "srp4ctr_server_scored_requests_total": totals.by_step(of.RUNS).get(of.HEAD, 0.0),
    }
    for metric, value in sums.items():
        yield Figure(metric, value, name)
    for status, users in sorted(totals.by_label(metrics.REQUEST_STATUS).items()):
        yield Figure("srp4ctr_server_requests_by_status_total", users, (*name, status))
    yield Buckets(
        metric="srp4ctr_server_request_duration_seconds",
        labels=name,
        counts=totals.by_label(metrics.ANSWERS),
        total=_sum(totals, metrics.ANSWERS_US) / 1e6,
    )
    for drift in server.drifts:
        version = (*name, drift.model_version)
        if drift.feature == SCORE:
            yield Figure("srp4ctr_server_score_psi", drift.psi, version)
        else:
            psi = "srp4ctr_server_feature_psi"
            yield Figure(psi, drift.psi, (*version, drift.feature))


def _ensembles(totals: ServingTotals) -> Iterator[Figure]:
    metric = "srp4ctr_served_requests_total"
    for counter, outcome in ((of.SUCCESSES, "success"), (of.FAILURES, "failure")):
        by_step = totals.by_step(counter)
        for ensemble in of.ENSEMBLES:
            yield Figure(metric, by_step.get(ensemble, 0.0), (ensemble, outcome))
    if (per_request := totals.encoder_runs_per_request()) is not None:
        yield Figure("srp4ctr_encoder_runs_per_request", per_request)


def _versions(totals: ServingTotals) -> Iterator[Figure]:
    values = {
        "srp4ctr_scored_requests_total": totals.by_version(of.RUNS, of.HEAD),
        "srp4ctr_encoder_runs_total": totals.by_version(of.RUNS, of.ENCODER),
        "srp4ctr_scored_candidates_total": totals.by_version(metrics.CANDIDATES),
        "srp4ctr_serving_cpu_seconds_total": _in_s(totals.by_version(metrics.CPU_US), 1e6),
        "srp4ctr_native_failed_loads_total": totals.by_version(metrics.NATIVE_LOADS),
        "srp4ctr_native_comparisons_total": totals.by_version(metrics.NATIVE_COMPARISONS),
        "srp4ctr_item_cache_age_seconds": totals.item_cache_age_s,
    }
    for metric, by_version in values.items():
        for version, value in sorted(by_version.items()):
            yield Figure(metric, value, (version,))


def _steps(totals: ServingTotals) -> Iterator[Figure]:
    for step, runs in totals.by_step(of.RUNS).items():
        yield Figure("srp4ctr_step_runs_total", runs, (step,))
    for counter, phase in of.PHASES.items():
        for step, us in totals.by_step(counter).items():
            yield Figure("srp4ctr_step_seconds_total", us / 1e6, (step, phase))


def _in_s(by_version: Mapping[str, float], per_s: float) -> dict[str, float]:
    return {version: value / per_s for version, value in by_version.items()}


def _histogram(
    metric: str, counts: Mapping[tuple[str, str], float], sums: Mapping[str, float]
) -> Iterator[Buckets]:
    """Yield a histogram by version, of ``counts`` by version and upper bound."""
    by_version: dict[str, dict[str, float]] = {}
    for (version, under), count in counts.items():
        by_version.setdefault(version, {})[under] = count
    for version, found in sorted(by_version.items()):
        total = sums.get(version, 0.0)
        yield Buckets(metric=metric, labels=(version,), counts=found, total=total)


def _sum(totals: ServingTotals, counter: str) -> float:
    return sum(totals.by_label(counter).values())
