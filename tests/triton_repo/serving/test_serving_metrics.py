"""All that a step counts reaches Triton's counters, once."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from srp4ctr.features.bundles.drift_reference import Bins, Reference, write_reference
from srp4ctr.metrics import CPU_US, FEATURE_BIN, PART_RUNS, REQUEST_STATUS
from srp4ctr.triton_repo.serving import serving_metrics
from srp4ctr.triton_repo.serving.serving_metrics import (
    FAMILIES,
    OTHER,
    Bounds,
    Key,
    ServingMetrics,
    keys,
)

REFERENCE = Reference(shown=5, bins={"score": Bins(edges=(0.5,), shares=(0.5, 0.5))})
Counters = Counter[Key]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_reference(tmp_path, REFERENCE)
    return tmp_path


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Counters:
    monkeypatch.setattr(serving_metrics, "FLUSH_EVERY_S", 0.001)
    return Counter()


def some_metrics(counters: Counters, bundle: Path) -> ServingMetrics:
    def increment_of(key: Key) -> Callable[[float], None]:
        def increment(more: float) -> None:
            assert more > 0  # a counter only grows
            counters[key] += round(more)

        return increment

    known = keys("click_ranker_v7", "v7", bundle)
    made = ServingMetrics({key: increment_of(key) for key in known}, "click_ranker_v7")
    made.start()
    return made


def test_counters_grow_by_what_was_done_since_the_last_flush(
    counters: Counters, bundle: Path
) -> None:
    metrics = some_metrics(counters, bundle)
    for number in range(100):
        metrics.add(PART_RUNS, 2, model="behavior_encoder_v7")
        metrics.add(FEATURE_BIN, 1, f"score/{number % 2}")
    metrics.stop()
    del counters[CPU_US, "click_ranker_v7", ""]
    assert counters == {
        (PART_RUNS, "behavior_encoder_v7", ""): 200,
        (FEATURE_BIN, "click_ranker_v7", "score/0"): 50,
        (FEATURE_BIN, "click_ranker_v7", "score/1"): 50,
    }


def test_an_error_before_a_flush_does_not_stop_the_flush(
    counters: Counters, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = some_metrics(counters, bundle)

    def fails() -> None:
        raise ValueError("a shape of another release")

    metrics.before_flush = fails
    metrics.add(PART_RUNS, 2, model="behavior_encoder_v7")
    metrics.stop()
    assert counters[PART_RUNS, "behavior_encoder_v7", ""] == 2
    assert "a shape of another release" in caplog.text


def test_nothing_is_flushed_while_the_step_loads(bundle: Path) -> None:
    metrics = ServingMetrics({key: lambda _: None for key in keys("m", "v7", bundle)}, "m")
    assert "metrics" not in {thread.name for thread in threading.enumerate()}
    metrics.stop()  # a load that failed


def test_cpu_time_is_that_of_the_process_after_loading(
    counters: Counters, bundle: Path
) -> None:
    metrics = some_metrics(counters, bundle)
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    metrics.stop()
    spent_us = (time.process_time() - began) * 1e6
    assert 50_000 <= counters[CPU_US, "click_ranker_v7", ""] <= spent_us + 10_000


def test_a_label_that_is_not_listed_is_counted_as_another(
    counters: Counters, bundle: Path
) -> None:
    metrics = some_metrics(counters, bundle)
    metrics.add(REQUEST_STATUS, 1, "new_status")
    metrics.stop()
    assert counters[REQUEST_STATUS, "click_ranker_v7", OTHER] == 1


def test_every_family_has_its_counters_before_the_first_request(bundle: Path) -> None:
    known = list(keys("click_ranker_v7", "v7", bundle))
    assert {family for family, _, _ in known} == FAMILIES.keys()
    assert len(set(known)) == len(known)
    older = {family for family, _, _ in keys("m", "v7", bundle / "older")}
    assert older == FAMILIES.keys() - {FEATURE_BIN}


def test_a_value_is_in_the_first_bucket_that_is_not_below_it() -> None:
    bounds = Bounds((0.5, 3600.0))
    found = [bounds.under(value) for value in (0.0, 0.5, 0.6, 4000.0)]
    assert found == ["0.5", "0.5", "3600", "+Inf"]
