"""One trace follows an event into the store, and one a request through Triton.

Real processes, which export to a collector in this one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from srp4ctr.testing.serving_stack import item_ids, running_stack, user_ids
from srp4ctr.testing.trace_collector import CollectedSpan, Collector, collecting
from srp4ctr.tracing import ENDPOINT_VARIABLE, SAMPLE_VARIABLE
from tests.live_stream import live_stream

pytestmark = pytest.mark.stack
LENGTH = 5
TIMEOUT_S = 30.0
WORKER_SPANS = ("wait in Kafka", "fold", "write to the store")
STEP_SPANS = ("read", "assemble", "encode", "score")
PUBLISHER = """
import time
from srp4ctr import Click, EventPublisher, tracing
from srp4ctr.settings import load
settings = load()
tracing.start("publisher", settings.tracing)
with EventPublisher(settings.kafka) as publisher:
    now_ms = time.time_ns() // 1_000_000
    ids = {"event_id": "e", "user_id": "u", "item_id": "i", "request_id": "r"}
    click = Click(**ids, occurred_at=now_ms)
    publisher.publish(click)
"""
CALLER = """
import sys
from srp4ctr import RankClient, tracing
tracing.start("caller")
with RankClient(sys.argv[1]) as client:
    client.rank(sys.argv[2], sys.argv[3:], deadline_s=20.0)
"""
UNSAMPLED = """
from srp4ctr import tracing
tracing.start("nobody")
with tracing.span("a request"):
    assert tracing.traceparent() == ""
assert tracing.record("00-" + "1" * 32 + "-" + "2" * 16 + "-00", "a part", 1, 2) is None
"""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Let every process that a test starts export all of its spans to the collector."""
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT_VARIABLE, collector.address)
        monkeypatch.setenv(SAMPLE_VARIABLE, "1")
        yield collector


def wait_for(collector: Collector, *names: str) -> dict[str, CollectedSpan]:
    """Return the one span of each of ``names``, once all have been exported."""
    ends = time.monotonic() + TIMEOUT_S
    while missing := [name for name in names if not collector.named(name)]:
        assert time.monotonic() < ends, (missing, collector.spans)
        time.sleep(0.1)
    return {name: collector.named(name)[-1] for name in names}


def run(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
    """Run ``program`` in a process of its own, which ends after it has exported."""
    environment = {**os.environ, **(env or {})}
    command = [sys.executable, "-c", program, *arguments]
    subprocess.run(command, env=environment, check=True, timeout=60)


@pytest.mark.kafka
def test_one_trace_follows_an_event_into_the_store(
    collector: Collector, tmp_path: Path
) -> None:
    with live_stream(tmp_path, LENGTH) as live:
        run(PUBLISHER, env=live.env)
        spans = wait_for(collector, "EventPublisher.publish", *WORKER_SPANS)
    published = spans["EventPublisher.publish"]
    assert published.service == "srp4ctr-publisher"
    for name in WORKER_SPANS:
        assert spans[name].service == "srp4ctr-stream"
        assert spans[name].trace_id == published.trace_id
        assert spans[name].parent_id == published.span_id
    order = [spans[name].ended_ns for name in WORKER_SPANS]
    assert order == sorted(order)


@pytest.mark.triton
def test_one_trace_follows_a_request_through_triton(collector: Collector) -> None:
    with running_stack(LENGTH) as stack:
        run(CALLER, stack.address, user_ids()[0], *item_ids()[:3])
        spans = wait_for(collector, "RankClient.rank", "rank_clicks", *STEP_SPANS)
    called, answered = spans["RankClient.rank"], spans["rank_clicks"]
    assert answered.service == "srp4ctr-triton"
    assert (answered.trace_id, answered.parent_id) == (called.trace_id, called.span_id)
    for name in STEP_SPANS:
        assert spans[name].parent_id == answered.span_id
        assert answered.began_ns <= spans[name].began_ns
        assert spans[name].ended_ns <= answered.ended_ns
    assert spans["encode"].ended_ns <= spans["score"].began_ns


def test_spans_that_are_not_sampled_are_not_exported(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SAMPLE_VARIABLE, "0")
    run(UNSAMPLED)
    assert collector.spans == []
