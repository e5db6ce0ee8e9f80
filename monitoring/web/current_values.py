"""The exporters' Prometheus text → the current values of our metrics.

A histogram becomes its count, mean and quantiles. For a machine without Prometheus, and for
empty panels: does any exporter have the metric?
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric

from srp4ctr.errors import OutageError
from srp4ctr.monitoring.prometheus import read_metrics

_SHOWN = ("srp4ctr_", "nv_")  # not those of the Python process
_CREATED_SUFFIX = "_created"  # prometheus_client adds one to every counter
_QUANTILES = (0.5, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentValue:
    """One value of a metric; ``None`` is NaN."""

    labels: Mapping[str, str]
    what: str
    """Empty, or for a histogram: count, mean, p50, p99."""
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentMetric:
    """A metric and its current values; it may have none yet."""

    name: str
    kind: str
    help: str
    values: Sequence[CurrentValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterPage:
    """The metrics of one exporter, or why it did not answer."""

    job: str
    url: str
    problem: str
    metrics: Sequence[CurrentMetric]


def read_exporters(exporters: Mapping[str, str]) -> list[ExporterPage]:
    """Return the page of each job's address."""
    return [_read(job, url) for job, url in exporters.items()]


def metrics_of(families: Iterable[Metric]) -> list[CurrentMetric]:
    """Return our metrics among ``families``."""
    return [
        CurrentMetric(
            name=_full_name(family),
            kind=family.type,
            help=family.documentation,
            values=tuple(_values(family)),
        )
        for family in families
        if family.name.startswith(_SHOWN) and not family.name.endswith(_CREATED_SUFFIX)
    ]


def _read(job: str, url: str) -> ExporterPage:
    problem, metrics = "", list[CurrentMetric]()
    try:
        metrics = metrics_of(read_metrics(url))
    except (OutageError, ValueError) as error:
        problem = f"does not answer: {error}"
    return ExporterPage(job=job, url=url, problem=problem, metrics=metrics)


def _full_name(family: Any) -> str:
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


def _values(family: Any) -> Iterator[CurrentValue]:
    if family.type == "histogram":
        yield from _histogram_values(family.samples)
        return
    for sample in family.samples:
        yield CurrentValue(labels=sample.labels, what="", value=_finite(sample.value))


def _histogram_values(samples: Iterable[Any]) -> Iterator[CurrentValue]:
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        labels = {k: v for k, v in sample.labels.items() if k != "le"}
        key = tuple(sorted(labels.items()))
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            buckets.setdefault(key, []).append((bound, sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    for key, found in buckets.items():
        counted = sorted(found)
        total = counted[-1][1]
        mean = sums.get(key, math.nan) / total if total else math.nan
        figures = {"count": total, "mean": mean}
        figures |= {f"p{q * 100:g}": quantile(counted, q) for q in _QUANTILES}
        for what, value in figures.items():
            yield CurrentValue(labels=dict(key), what=what, value=_finite(value))


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Return the quantile of cumulative ``buckets``, as Prometheus interpolates it.

    NaN without observations; the last finite bound for a quantile beyond it.
    """
    wanted = share * buckets[-1][1]
    if not wanted:
        return math.nan
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
