"""The benchmark of ingestion measures a worker that processes every event."""

import pytest

from benchmarks.streaming.ingest import shared

pytestmark = [pytest.mark.stack, pytest.mark.redis]

EVENTS = 2_000


def test_it_measures_a_worker() -> None:
    # It asks the worker's metrics itself whether all events were processed.
    measured = shared(1, EVENTS, "noida")
    assert measured["events"] == EVENTS
    assert measured["per_core_s"] > 0.0
