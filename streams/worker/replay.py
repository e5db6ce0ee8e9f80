"""A partition's past → its events: from Kafka, and from the raw log what Kafka has dropped.

A worker that starts and a rebuild read the same stream again; neither commits anything.
Here is what a start needs: the identities that were counted, the impressions that may still
be clicked, and the labels that may not have been published before the partition was
committed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from srp4ctr.errors import OutageError
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent, Record, decode_record, place_of
from srp4ctr.streams.events.schema import now_ms
from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    covered_offsets,
    read_rows,
    skipped_offsets,
)
from srp4ctr.streams.raw_log.log_tables import event_of
from srp4ctr.streams.state.duplicates import DUPLICATE_RECORDS
from srp4ctr.streams.state.partition_state import PartitionState

_WAIT_MS = 500
_BATCH = 2000
_MINUTE_MS = 60_000
MOST_RECORDS = 5_000_000
"""What a start reads at most. 50 million took nine minutes; a group waits five."""
_log = logging.getLogger(__name__)


class ReplaySource:
    """Reads ``source`` up to an offset, outside the group."""

    def __init__(self, reader: Any, log_dir: Log, source: TopicPartition) -> None:
        self._reader = reader
        self.log_dir = log_dir
        """The raw log."""
        self.source = source
        """The partition."""
        self._place = (log_dir, source.topic, source.partition)
        self._first = 0
        self.end = 0
        """Behind the last record that Kafka holds: a broker that crashed may lack some."""

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, kafka: KafkaConfig, log_dir: Log, source: TopicPartition
    ) -> AsyncIterator[Self]:
        """Connect to Kafka for as long as the block lasts."""
        reader: Any = AIOKafkaConsumer(
            **client_arguments(kafka),
            enable_auto_commit=False,
            auto_offset_reset="none",  # what is dropped meanwhile is in the raw log
        )
        past = cls(reader, log_dir, source)
        try:
            await reader.start()
            reader.assign([source])
            past._first = (await reader.beginning_offsets([source]))[source]
            past.end = (await reader.end_offsets([source]))[source]
            yield past
        finally:
            stopping = asyncio.ensure_future(reader.stop())
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                await stopping  # half stopped, it would leave tasks that nothing awaits
                raise

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing since the partition's first record."""
        start, end = covered_offsets(*self._place)
        return self._first == 0 or start == 0 <= end >= self._first - 1

    @property
    def missing(self) -> int:
        """How many offsets Kafka dropped before the raw log had them."""
        _, end = covered_offsets(*self._place)
        skipped = skipped_offsets(self.log_dir, self.source.topic)
        return skipped.get(self.source.partition, 0) + max(0, self._first - 1 - end)

    async def newest_ms(self, end: int) -> int:
        """Return the latest time of the records that Kafka holds before ``end``.

        To the minute, and not after now. The last record's may be far earlier: backfilled
        events have the times at which they happened.
        """
        earliest, latest = 0, now_ms()
        while latest - earliest > _MINUTE_MS:
            middle = (earliest + latest) // 2
            if await self.offset_since(middle, end) < end:
                earliest = middle
            else:
                latest = middle
        return earliest

    async def offset_since(self, since_ms: int, end: int) -> int:
        """Return the first offset that Kafka holds of ``since_ms`` or later, or ``end``."""
        found = (await self._reader.offsets_for_times({self.source: max(0, since_ms)}))[
            self.source
        ]
        return end if found is None else min(max(self._first, found.offset), end)

    async def events(
        self, since_ms: int, end: int, start: int = 0
    ) -> AsyncIterator[list[LoggedEvent]]:
        """Yield the events known since ``since_ms`` at offsets ``start`` to ``end`` - 1."""
        end = min(end, self.end)
        dropped_before = min(self._first, end)
        is_logged = start < dropped_before
        rows = read_rows(*self._place, max(0, since_ms), start) if is_logged else iter(())
        # In a thread: it waits for the disk.
        while (batch := await asyncio.to_thread(lambda: next(rows, None))) is not None:
            yield [
                event_of(row)
                for row in batch
                if start <= row["offset"] < dropped_before and row["created_at"] >= since_ms
            ]
        position = max(start, await self.offset_since(since_ms, end))
        if position >= end:
            return
        self._reader.seek(self.source, position)
        while await self._reader.position(self.source) < end:
            polled = await self._polled()
            records = [each for each in polled if each.offset < end]
            decoded = map(decode_record, records)
            yield [each for each in decoded if isinstance(each, LoggedEvent)]

    async def _polled(self) -> Sequence[Record]:
        """Return some more records; ``OutageError`` if Kafka drops them meanwhile.

        Another try has them from the raw log.
        """
        try:
            found = await self._reader.getmany(
                self.source, timeout_ms=_WAIT_MS, max_records=_BATCH
            )
        except errors.NoOffsetForPartitionError:  # fetched before ``seek``
            return ()
        except errors.OffsetOutOfRangeError as error:
            raise OutageError(
                f"Kafka drops records while they are read: {error}"
            ) from error
        records: Sequence[Record] = found.get(self.source, ())
        return records


async def replay_memory(
    past: ReplaySource, config: StreamConfig, state: PartitionState
) -> None:
    """Replay into ``state`` what it would remember at ``state.next_offset``.

    That is ``DUPLICATE_RECORDS``, and what labels wait for: the records of the label
    window, and ``max_kept_impressions`` for corrections. ``MOST_RECORDS`` at most, since
    among records out of order one early record of the window is followed by the whole past.
    """
    if not (end := min(state.next_offset, past.end)):
        return
    window_ms = round(config.label_window_s * 1000)
    in_window = await past.offset_since(await past.newest_ms(end) - window_ms, end)
    records = max(DUPLICATE_RECORDS, config.max_kept_impressions)
    start, least = min(in_window, end - records), end - max(MOST_RECORDS, records)
    if in_window < least:
        _log.warning(
            "replays %d records: impressions before offset %d that wait for a click get no "
            "label. Publish backfills in the order of time",
            end - least,
            least,
            extra=place_of(past.source, least),
        )
    async for events in past.events(0, end, max(0, start, least)):
        state.replay(events, now_ms())
