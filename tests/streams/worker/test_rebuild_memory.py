"""A rebuild's memory does not grow with the events of one user, or of one item."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import cast

import pytest

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import Impression
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.worker import rebuild as rebuilding
from srp4ctr.streams.worker.rebuild import Span, rebuild_rows
from srp4ctr.streams.worker.replay import ReplaySource
from tests.builders import NOON_MS
from tests.streams.memory_sink import MemorySink

BATCH = 500


class APast:
    """``events`` impressions of one item by one user, made when they are read."""

    is_whole, missing = True, 0

    def __init__(self, events: int, folder: Path) -> None:
        self._events, self.log_dir = events, folder

    async def events(self, _since_ms: int, _end: int) -> AsyncIterator[list[LoggedEvent]]:
        for start in range(0, self._events, BATCH):
            yield [an_impression(offset) for offset in range(start, start + BATCH)]


def an_impression(offset: int) -> LoggedEvent:
    shown = Impression(
        event_id=f"e{offset}",
        request_id=f"r{offset // 10}",
        user_id="u1",
        item_id="i1",
        position=0,
        occurred_at=NOON_MS + offset,
    )
    # Every tenth only counts: the others are duplicates, whose identities are no list.
    return LoggedEvent(event=shown, offset=offset, known_at_ms=NOON_MS + offset)


def peak_of(events: int, folder: Path) -> int:
    """Return the most bytes that a rebuild of ``events`` has allocated at a time."""
    sink = MemorySink()

    async def read(users: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        return sink.read(users, shares)

    async def write(rows: Rows) -> None:
        sink.write(rows)

    past = cast(ReplaySource, APast(events, folder))
    span = Span(partition=0, since_ms=0, end=events)
    tracemalloc.start()
    try:
        asyncio.run(rebuild_rows(past, span, StreamConfig(), read, write))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sink.rows.users["u1"].last_offset == events - 10
    return peak


def test_a_user_of_many_events_takes_no_more_memory_than_one_of_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "EVENTS_IN_MEMORY", 5_000)
    monkeypatch.setattr(rebuilding, "EVENTS_IN_CHUNK", 1_000)
    few, many = peak_of(30_000, tmp_path), peak_of(300_000, tmp_path)
    # 270,000 events more: their identities (27,000) stay, for duplicates come from afar.
    assert many - few < 10_000_000, f"{few:,} and {many:,} bytes"
