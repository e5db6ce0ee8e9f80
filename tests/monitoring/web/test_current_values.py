"""Exporters' pages → current values."""

import math
from collections.abc import Iterable

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families

from srp4ctr.embedded import ports
from srp4ctr.monitoring.web.current_values import metrics_of, quantile, read_exporters
from tests.monitoring.web import contract_exporter


def families(registry: CollectorRegistry) -> Iterable[Metric]:
    """Return what a scrape of ``registry`` gives."""
    return text_string_to_metric_families(generate_latest(registry).decode())


def test_a_metric_keeps_its_name_its_help_and_its_labels() -> None:
    registry = CollectorRegistry()
    events = Counter("srp4ctr_events", "Events.", ["type"], registry=registry)
    events.labels("click").inc(3)
    Gauge("srp4ctr_lag", "Behind.", registry=registry).set(math.nan)
    Gauge("python_things", "Not ours.", registry=registry).set(1)
    found = {metric.name: metric for metric in metrics_of(families(registry))}
    assert set(found) == {"srp4ctr_events_total", "srp4ctr_lag"}
    (value,) = found["srp4ctr_events_total"].values
    assert (value.labels, value.what, value.value) == ({"type": "click"}, "", 3.0)
    assert found["srp4ctr_events_total"].help == "Events."
    assert found["srp4ctr_lag"].values[0].value is None  # JSON knows no NaN


def test_a_metric_without_observations_is_listed_without_values() -> None:
    registry = CollectorRegistry()
    Counter("srp4ctr_events", "Events.", ["type"], registry=registry)
    (found,) = metrics_of(families(registry))
    assert (found.name, found.values) == ("srp4ctr_events_total", ())


def test_a_histogram_is_its_count_mean_and_quantiles() -> None:
    registry = CollectorRegistry()
    waits = Histogram("srp4ctr_wait", "Wait.", buckets=(1, 2, 4), registry=registry)
    for wait in (0.5, 0.5, 1.5, 3.0):
        waits.observe(wait)
    (found,) = metrics_of(families(registry))
    values = {value.what: value.value for value in found.values}
    assert values == {"count": 4, "mean": 1.375, "p50": 1.0, "p99": pytest.approx(3.92)}


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile([(1.0, 1.0), (math.inf, 100.0)], 0.99) == 1.0
    assert math.isnan(quantile([(1.0, 0.0), (math.inf, 0.0)], 0.5))


def test_an_exporter_that_is_down_is_reported_and_the_others_are_read() -> None:
    with ports.reserved_ports(2) as (here, nowhere), contract_exporter.running(here):
        addresses = {
            "monitor": f"http://127.0.0.1:{here}/metrics",
            "stream": f"http://127.0.0.1:{nowhere}/metrics",
        }
        monitor, stream = read_exporters(addresses)
    assert not monitor.problem
    assert "srp4ctr_verdict" in {metric.name for metric in monitor.metrics}
    assert "does not answer" in stream.problem
    assert not stream.metrics
