"""What the step did and met reaches its counters, whole and once."""

import time
from collections import Counter
from collections.abc import Callable

import pytest

from triton_repo import ledger
from triton_repo.ledger import CPU_US, FEATURE_BIN, PART_RUNS, Bounds, Key, Ledger

Told = Counter[Key]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(ledger, "TOLD_EVERY_S", 0.001)
    return Counter()


def a_ledger(told: Told) -> Ledger:
    def opened(key: Key) -> Callable[[float], None]:
        def increment(more: float) -> None:
            assert more > 0  # a counter only grows
            told[key] += round(more)

        return increment

    return Ledger(opened, "click_ranker_v7")


def test_counters_grow_by_what_was_done_since_they_were_told(told: Told) -> None:
    kept = a_ledger(told)
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


def test_cpu_time_is_that_of_the_process_after_loading(told: Told) -> None:
    kept = a_ledger(told)
    kept.mark_loaded()
    began = time.process_time()
    while time.process_time() - began < 0.05:
        pass
    kept.stop()
    spent_us = (time.process_time() - began) * 1e6
    assert 50_000 <= told[CPU_US, "click_ranker_v7", ""] <= spent_us + 10_000


def test_a_value_is_in_the_first_bucket_that_is_not_below_it() -> None:
    bounds = Bounds((0.5, 3600.0))
    found = [bounds.under(value) for value in (0.0, 0.5, 0.6, 4000.0)]
    assert found == ["0.5", "0.5", "3600", "+Inf"]
