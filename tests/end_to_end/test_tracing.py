"""One trace follows a request through Triton.

Real processes, which export to a collector in this one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from benchmarks.harness.trace_collector import CollectedSpan, Collector, collecting
from benchmarks.serving.serving_stack import item_ids, running_stack, user_ids
from srp4ctr.tracing import ENDPOINT_VARIABLE, SAMPLE_VARIABLE

pytestmark = pytest.mark.stack
LENGTH = 5
TIMEOUT_S = 30.0
STEP_SPANS = ("read", "assemble", "encode", "score")
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


@pytest.mark.triton
def test_one_trace_follows_a_request_through_triton(collector: Collector) -> None:
    with running_stack(LENGTH, forms=()) as stack:
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


def test_what_is_not_sampled_is_exported_by_nobody(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SAMPLE_VARIABLE, "0")
    run(UNSAMPLED)
    assert collector.spans == []
