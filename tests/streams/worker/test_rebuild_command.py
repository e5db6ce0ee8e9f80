"""An operator's command in the stream: the worker that reads it rebuilds, and continues."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srp4ctr.streams.broker.commands import request_rebuild
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.state_store import NO_OFFSETS
from srp4ctr.streams.worker import rebuild as rebuilding
from srp4ctr.streams.worker import sequence_worker
from srp4ctr.streams.worker.rebuild import Span
from srp4ctr.streams.worker.replay import ReplaySource
from srp4ctr.streams.worker.sequence_worker import SequenceWorker
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from tests.builders import NOON_MS
from tests.streams.memory_sink import MemorySink
from tests.streams.worker.rebuilds import (
    CONFIG,
    SOURCES,
    assert_equal,
    backfill,
    ends,
    folded_live,
    right,
    some_lives,
    wrong,
)
from tests.streams.workers import running

pytestmark = pytest.mark.kafka


class SlowSink(MemorySink):
    """Takes a tenth of a second for every write."""

    def write(self, rows: Rows, offsets: Mapping[int, int] = NO_OFFSETS) -> None:
        time.sleep(0.1)
        super().write(rows, offsets)


def test_what_comes_before_and_after_a_command_is_all_in_the_rows(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    lives = some_lives()
    backfill(kafka, lives[:50])
    before = folded_live(kafka, MemorySink())
    sink = wrong(before)
    backfill(kafka, lives[50:90])  # the command comes in the middle of a batch
    request_rebuild(kafka, 0)
    backfill(kafka, lives[90:])
    assert_equal(folded_live(kafka, sink), right(kafka, tmp_path))


def test_what_is_ordered_again_before_a_rebuild_begins_is_done_by_it(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker that ends while it rebuilds leaves a command, and the next adds one."""
    spans: list[Span] = []

    async def counted(past: ReplaySource, span: Span, *more: Any) -> int:
        spans.append(span)
        return await rebuilding.rebuild_rows(past, span, *more)

    lives = some_lives()
    backfill(kafka, lives[:50])
    sink = wrong(folded_live(kafka, MemorySink()))
    request_rebuild(kafka, 0)
    backfill(kafka, lives[50:])
    request_rebuild(kafka, 0)
    request_rebuild(kafka, NOON_MS)
    monkeypatch.setattr(sequence_worker, "rebuild_rows", counted)
    assert_equal(folded_live(kafka, sink), right(kafka, tmp_path))
    assert len(spans) == len(SOURCES)


def test_events_that_come_while_a_partition_is_rebuilt_are_folded_after_it(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "EVENTS_IN_MEMORY", 1)
    lives = some_lives()
    backfill(kafka, lives[:90])
    before = folded_live(kafka, live := MemorySink())
    sink = SlowSink()
    sink.write(wrong(before).rows, live.offsets)

    async def run() -> None:
        async with running(SequenceWorker(kafka, CONFIG, sink, tmp_path)):
            await asyncio.to_thread(request_rebuild, kafka, 0)
            await until(lambda: sink.writes > 1)
            await asyncio.to_thread(backfill, kafka, lives[90:])
            assert committed() < len(lives)  # it is not through yet
            last = await asyncio.to_thread(ends, kafka)  # its consumer blocks a loop
            await until(lambda: committed() == sum(last.values()))

    with progress_of(kafka, CONFIG.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    assert_equal(sink.rows, right(kafka, tmp_path))


def test_a_rebuild_that_is_handed_over_in_the_middle_is_done_again(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "EVENTS_IN_MEMORY", 1)
    lives = some_lives()
    backfill(kafka, lives)
    before = folded_live(kafka, live := MemorySink())
    sink = SlowSink()
    sink.write(wrong(before).rows, live.offsets)
    commands = request_rebuild(kafka, 0)

    async def run() -> None:
        async with running(SequenceWorker(kafka, CONFIG, sink, tmp_path)):
            await until(lambda: sink.writes > 2)

    with progress_of(kafka, CONFIG.group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
        assert committed() == len(lives)  # no command is done
        written, expected = sink.writes, right(kafka, tmp_path)
        with pytest.raises(AssertionError):
            assert_equal(sink.rows, expected)
        folded_live(kafka, sink)
        assert committed() == len(lives) + len(commands)
    assert sink.writes > written
    assert_equal(sink.rows, expected)
