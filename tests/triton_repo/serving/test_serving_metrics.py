"""What the step did and met reaches its counters, whole and once."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from srp4ctr.features.bundles.drift_reference import Bins, Reference, write_reference
from srp4ctr.triton_repo.serving import serving_metrics
from srp4ctr.triton_repo.serving.serving_metrics import (
    CPU_US,
    FAMILIES,
    FEATURE_BIN,
    OTHER,
    PART_RUNS,
    REQUEST_STATUS,
    Bounds,
    Key,
    ServingMetrics,
    keys,
)

REFERENCE = Reference(shown=5, bins={"score": Bins(edges=(0.5,), shares=(0.5, 0.5))})
Told = Counter[Key]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_reference(tmp_path, REFERENCE)
    return tmp_path


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(serving_metrics, "TOLD_EVERY_S", 0.001)
    return Counter()


def a_ledger(told: Told, bundle: Path) -> ServingMetrics:
    def opened(key: Key) -> Callable[[float], None]:
        def increment(more: float) -> None:
            assert more > 0  # a counter only grows
            told[key] += round(more)

        return increment

    known = keys("click_ranker_v7", "v7", bundle)
    made = ServingMetrics({key: opened(key) for key in known}, "click_ranker_v7")
    made.begin()
    return made


def test_counters_grow_by_what_was_done_since_they_were_told(
    told: Told, bundle: Path
) -> None:
    kept = a_ledger(told, bundle)
    for number in range(100):
        kept.add(PART_RUNS, 2, model="behavior_encoder_v7")
        kept.add(FEATURE_BIN, 1, f"score/{number % 2}")
    kept.stop()
    del told[CPU_US, "click_ranker_v7", ""]
    assert told == {
        (PART_RUNS, "behavior_encoder_v7", ""): 200,
        (FEATURE_BIN, "click_ranker_v7", "score/0"): 50,
        (FEATURE_BIN, "click_ranker_v7", "score/1"): 50,
    }


def test_what_fails_before_telling_keeps_nothing_from_being_told(
    told: Told, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = a_ledger(told, bundle)

    def fails() -> None:
        raise ValueError("a shape of another release")

    kept.prepare = fails
    kept.add(PART_RUNS, 2, model="behavior_encoder_v7")
    kept.stop()
    assert told[PART_RUNS, "behavior_encoder_v7", ""] == 2
    assert "a shape of another release" in caplog.text


def test_nothing_is_told_while_the_step_loads(bundle: Path) -> None:
    kept = ServingMetrics({key: lambda _: None for key in keys("m", "v7", bundle)}, "m")
    assert "ledger" not in {thread.name for thread in threading.enumerate()}
    kept.stop()  # a load that failed


def test_cpu_time_is_that_of_the_process_after_loading(told: Told, bundle: Path) -> None:
    kept = a_ledger(told, bundle)
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    kept.stop()
    spent_us = (time.process_time() - began) * 1e6
    assert 50_000 <= told[CPU_US, "click_ranker_v7", ""] <= spent_us + 10_000


def test_a_label_that_nobody_foresaw_is_counted_as_another(
    told: Told, bundle: Path
) -> None:
    kept = a_ledger(told, bundle)
    kept.add(REQUEST_STATUS, 1, "new_status")
    kept.stop()
    assert told[REQUEST_STATUS, "click_ranker_v7", OTHER] == 1


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
