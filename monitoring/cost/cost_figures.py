"""Triton's counters, added up → figures of serving's traffic, inputs and cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from srp4ctr.monitoring.cost.triton_counters import (
    ANSWERS,
    ANSWERS_US,
    CANDIDATES,
    CPU_US,
    ENCODER,
    ENSEMBLES,
    FAILURES,
    FEATURE_AGE,
    FEATURE_AGE_MS,
    HEAD,
    ITEM_STATUS,
    PHASES,
    REFUSED,
    REQUEST_STATUS,
    RUNS,
    SUCCESSES,
    Flops,
    ServingTotals,
)


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """Yield the figures of ``COST`` and ``INPUTS`` that come from Triton."""
    yield from _ensembles(totals)
    yield from _versions(totals)
    yield from _steps(totals)
    for version, spent in flops.items():
        metric = "srp4ctr_inference_flops_total"
        yield Figure(metric=metric, value=spent.encode_once, labels=(version,))
        metric = "srp4ctr_reencode_flops_total"
        yield Figure(metric=metric, value=spent.reencode, labels=(version,))
    by_label = {
        "srp4ctr_requests_by_status_total": REQUEST_STATUS,
        "srp4ctr_candidates_by_status_total": ITEM_STATUS,
        "srp4ctr_refused_requests_total": REFUSED,
    }
    for metric, counter in by_label.items():
        for labels, value in sorted(totals.labelled(counter).items()):
            yield Figure(metric=metric, value=value, labels=labels)
    yield from _histogram(
        "srp4ctr_request_duration_seconds", totals, ANSWERS, (ANSWERS_US, 1e-6)
    )
    age = (FEATURE_AGE_MS, 1e-3)
    yield from _histogram("srp4ctr_feature_age_seconds", totals, FEATURE_AGE, age)


def _ensembles(totals: ServingTotals) -> Iterator[Figure]:
    for counter, outcome in ((SUCCESSES, "success"), (FAILURES, "failure")):
        by_step = totals.by_step(counter)
        for ensemble in ENSEMBLES:
            yield Figure(
                metric="srp4ctr_served_requests_total",
                value=by_step.get(ensemble, 0.0),
                labels=(ensemble, outcome),
            )
    if (per_request := totals.encoder_runs_per_request()) is not None:
        yield Figure(metric="srp4ctr_encoder_runs_per_request", value=per_request)


def _versions(totals: ServingTotals) -> Iterator[Figure]:
    values = {
        "srp4ctr_scored_requests_total": totals.by_version(RUNS, HEAD),
        "srp4ctr_encoder_runs_total": totals.by_version(RUNS, ENCODER),
        "srp4ctr_scored_candidates_total": totals.by_version(CANDIDATES),
        "srp4ctr_serving_cpu_seconds_total": {
            version: us / 1e6 for version, us in totals.by_version(CPU_US).items()
        },
    }
    values["srp4ctr_item_cache_age_seconds"] = totals.item_cache_age_s
    for metric, by_version in values.items():
        for version, value in sorted(by_version.items()):
            yield Figure(metric=metric, value=value, labels=(version,))


def _steps(totals: ServingTotals) -> Iterator[Figure]:
    for step, runs in totals.by_step(RUNS).items():
        yield Figure(metric="srp4ctr_step_runs_total", value=runs, labels=(step,))
    for counter, phase in PHASES.items():
        for step, us in totals.by_step(counter).items():
            yield Figure(
                metric="srp4ctr_step_seconds_total", value=us / 1e6, labels=(step, phase)
            )


def _histogram(
    metric: str, totals: ServingTotals, counter: str, total: tuple[str, float]
) -> Iterator[Buckets]:
    """Yield a histogram by version; ``total`` is the sum's counter and its unit in s."""
    sums, unit = totals.by_version(total[0]), total[1]
    by_version: dict[str, dict[str, float]] = {}
    for (version, under), count in totals.labelled(counter).items():
        by_version.setdefault(version, {})[under] = count
    for version, counts in sorted(by_version.items()):
        yield Buckets(
            metric=metric,
            labels=(version,),
            counts=counts,
            total=sums.get(version, 0.0) * unit,
        )
