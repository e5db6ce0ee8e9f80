"""What the parts of the one step did reaches its counters, whole and once."""

from collections import Counter
from functools import partial

import pytest

from triton_repo import parts
from triton_repo.parts import KEYS, MICROSECONDS, RUNS, Key, Parts


def test_counters_grow_by_what_was_done_since_they_were_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "TOLD_EVERY_S", 0.001)
    told: Counter[Key] = Counter()

    def tell(key: Key, more: float) -> None:
        told[key] += round(more)

    counted = Parts({key: partial(tell, key) for key in KEYS})
    for _ in range(100):
        counted.add("behavior_encoder", 2, 0.0005)
    counted.stop()
    assert told == {
        ("behavior_encoder", RUNS): 200,
        ("behavior_encoder", MICROSECONDS): 50_000,
    }
