"""Renamed metrics keep their old names for one release, in both exporters."""

import tomllib

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from srp4ctr.metric_aliases import REMOVED_IN, RENAMED, DeprecatedNames
from srp4ctr.streams.worker import measurements
from tests.monitoring.metric_names import declared_names
from tests.structure.source_tree import ROOT


def test_every_new_name_is_declared_and_no_old_one_is() -> None:
    names = {name.removesuffix("_total") for name in RENAMED.values()}
    assert names - declared_names() == set()
    assert RENAMED.keys() & declared_names() == set()


def test_old_names_last_until_the_release_that_the_help_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version, removed_in = (
        tuple(map(int, each.split(".")[:2])) for each in (project["version"], REMOVED_IN)
    )
    assert version < removed_in


def test_a_counter_and_a_histogram_have_the_same_samples_under_the_old_name() -> None:
    registry = CollectorRegistry()
    crashes = Counter("srp4ctr_serving_crashes", "c", ["model_version"], registry=registry)
    times = Histogram("srp4ctr_request_duration_seconds", "s", registry=registry)
    crashes.labels("v7").inc(3)
    times.observe(0.3)
    DeprecatedNames(crashes, registry)
    DeprecatedNames(times, registry)
    page = generate_latest(registry).decode().splitlines()
    assert 'srp4ctr_serving_deaths_total{model_version="v7"} 3.0' in page
    assert "srp4ctr_answer_seconds_count 1.0" in page
    assert 'srp4ctr_answer_seconds_bucket{le="0.5"} 1.0' in page
    assert (
        "# HELP srp4ctr_answer_seconds Deprecated: renamed to "
        f"srp4ctr_request_duration_seconds; removed in {REMOVED_IN}."
    ) in page


def test_the_worker_exposes_both_names() -> None:
    measurements.EVICTED_EARLY.set(5)
    for name in ("srp4ctr_label_evicted_early", "srp4ctr_label_forgotten_early"):
        assert REGISTRY.get_sample_value(name) == 5
    measurements.EVICTED_EARLY.set(0)
