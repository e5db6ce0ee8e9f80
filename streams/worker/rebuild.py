"""A partition's past → its users' and items' rows, folded from nothing.

In: the events since an instant. Out: rows that replace the stored ones, each complete when
it is written, so that no request gets half a history meanwhile. One pass over the past:
what memory does not hold waits in a file, by groups of users, then by groups of items, and
is read in chunks, so that one user or item may have any number of events. Counters of items
are added up from chunks: they differ from the stream's by rounding errors at most.
"""

import asyncio
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile  # goes with the process
from typing import IO

import msgspec
import xxhash
from msgspec.structs import replace

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent, place_of
from srp4ctr.streams.events.schema import (
    FORGOTTEN_USER,
    TOTAL_KEY,
    Click,
    Impression,
)
from srp4ctr.streams.state.counters import Activity, total
from srp4ctr.streams.state.duplicates import Deduplication
from srp4ctr.streams.state.reducers import (
    ItemPartitionKey,
    Rows,
    fold_items,
    fold_total,
    fold_users,
)
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.streams.worker.replay import ReplaySource

EVENTS_IN_MEMORY = 50_000
"""Of those that wait to be written to the file. A group has as few on average, unless a
partition has more than 50 million."""
EVENTS_IN_CHUNK = 5_000
"""Of a group, that are read from the file at a time."""
_MAX_GROUPS = 1024
_log = logging.getLogger(__name__)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[LoggedEvent])

ReadRows = Callable[[Collection[str], Collection[ItemPartitionKey]], Awaitable[Rows]]
WriteRows = Callable[[Rows], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The part of a partition's past that is folded: known since, and before an offset."""

    partition: int
    since_ms: int
    end: int


class EventGroups:
    """Events by a hash of their owners, in memory and, what is too many, in ``file``.

    An owner's events are in one group, in the order in which they were added.
    """

    def __init__(self, events: int, file: IO[bytes]) -> None:
        self._number = min(_MAX_GROUPS, 1 + events // EVENTS_IN_MEMORY)
        self._file = file
        self._waiting: dict[int, list[LoggedEvent]] = defaultdict(list)
        self._waiting_events = 0
        self._places: dict[int, array[int]] = defaultdict(lambda: array("q"))

    def add(self, owner: str, logged: LoggedEvent) -> None:
        """Keep an event of ``owner``."""
        group = xxhash.xxh3_64_intdigest(owner) % self._number
        self._waiting[group].append(logged)
        self._waiting_events += 1
        if self._waiting_events >= EVENTS_IN_MEMORY:
            self._spill()

    def __iter__(self) -> Iterator[Iterator[list[LoggedEvent]]]:
        """Yield the groups that have events, each as its chunks."""
        self._spill()
        for group in sorted(self._places):
            yield self._chunks(self._places[group])

    def _chunks(self, places: Iterable[int]) -> Iterator[list[LoggedEvent]]:
        numbers = iter(places)
        for place, size in zip(numbers, numbers, strict=True):
            self._file.seek(place)
            yield _decoder.decode(self._file.read(size))

    def _spill(self) -> None:
        for group, events in self._waiting.items():
            for first in range(0, len(events), EVENTS_IN_CHUNK):
                place = self._file.tell()
                chunk = events[first : first + EVENTS_IN_CHUNK]
                size = self._file.write(_encoder.encode(chunk))
                self._places[group].extend((place, size))
        self._waiting.clear()
        self._waiting_events = 0


async def rebuild_rows(
    past: ReplaySource, span: Span, config: StreamConfig, read: ReadRows, write: WriteRows
) -> int:
    """Replace the rows that ``span`` has events of, and return how many users those are.

    Other rows stay as they are. ``read`` gives the stored rows: the new ones get greater
    versions, and erasure requests stay in force; so do attributes, which a user may have
    had before the span.
    """
    await _warn_of_missing(past, span)
    is_all = past.is_whole and span.since_ms <= 0
    rebuild = _Rebuild(span, config, read, write, keeps_attributes=not is_all)
    users, folder = 0, past.log_dir if Path(past.log_dir).is_dir() else None
    with TemporaryFile(dir=folder) as of_users, TemporaryFile(dir=folder) as of_items:
        by_user, by_item = EventGroups(span.end, of_users), EventGroups(span.end, of_items)
        async for batch in past.events(span.since_ms, span.end):
            for each in batch:
                by_user.add(each.event.user_id, each)
        for chunks in by_user:
            users += await rebuild.write_users(chunks, by_item)
        for chunks in by_item:
            await rebuild.write_items(chunks)
    await rebuild.total.write(read, write)
    return users


class _Rebuild:
    """Writes the rows of a group of users or of items; adds up the total of all items."""

    def __init__(
        self,
        span: Span,
        config: StreamConfig,
        read: ReadRows,
        write: WriteRows,
        *,
        keeps_attributes: bool,
    ) -> None:
        self._span, self._config = span, config
        self._read, self._write = read, write
        self._keeps_attributes = keeps_attributes
        self.total = _Shares()

    async def write_users(
        self, chunks: Iterable[list[LoggedEvent]], by_item: EventGroups
    ) -> int:
        """Write the rows of a group; add what counts ``by_item``; return how many users."""
        group, partition = _Users(self._span.partition, self._config), self._span.partition
        for events in chunks:
            if new := group.unknown(events):
                stored = await self._read(new, ())
                group.begin(new, stored, keeps_attributes=self._keeps_attributes)
            counted = await asyncio.to_thread(group.fold, events)
            share = fold_total(Activity(), counted)
            self.total.add({(TOTAL_KEY, partition): share}, len(counted))
            for each in counted:
                if isinstance(each.event, Impression | Click):
                    by_item.add(each.event.item_id, each)
        await self._write(rows := group.finish())
        return len(rows.users)

    async def write_items(self, chunks: Iterable[list[LoggedEvent]]) -> None:
        """Write the shares of a group of items."""
        shares = _Shares()
        for events in chunks:
            events.sort(key=lambda each: each.offset)  # they came by groups of users
            parts = await asyncio.to_thread(fold_items, {}, events, self._span.partition)
            shares.add(parts, len(events))
        await shares.write(self._read, self._write)


async def _warn_of_missing(past: ReplaySource, span: Span) -> None:
    """Log how many records are missing: Kafka dropped them before they were logged."""
    if missing := await asyncio.to_thread(lambda: past.missing):
        _log.warning(
            "rebuilds without %s that Kafka dropped before they were logged",
            "1 record" if missing == 1 else f"{missing:,} records",
            extra=place_of(past.source, span.end),
        )


class _Users:
    """The rows of a group of users, from nothing, folded chunk by chunk."""

    def __init__(self, partition: int, config: StreamConfig) -> None:
        self._partition, self._config = partition, config
        self._rows: dict[str, UserState] = {}
        self._rule = Deduplication()
        self._begun: set[str] = set()
        self._elsewhere: set[str] = set()
        self._skipped = 0

    def unknown(self, events: Iterable[LoggedEvent]) -> set[str]:
        """Return the users of ``events`` that were not begun with."""
        return {event.event.user_id for event in events} - self._begun

    def begin(self, users: set[str], stored: Rows, *, keeps_attributes: bool) -> None:
        """Begin with ``users``, of whom the store has ``stored``.

        A row of another partition stays as it is: see ``wrong_partition``.
        """
        self._begun |= users
        for user_id, row in stored.users.items():
            if user_id == FORGOTTEN_USER:
                continue
            if not row.is_of(self._partition):
                self._elsewhere.add(user_id)
                continue
            if row.forgotten_at_ms:
                erasure = (row.forgotten_at_ms, row.forgotten_offset)
                self._rule.add_erasure(user_id, *erasure)
            self._rows[user_id] = _blank_user(row, keeps_attributes)

    def fold(self, events: list[LoggedEvent]) -> list[LoggedEvent]:
        """Fold ``events``, which come after those before; return the ones that count."""
        own = [event for event in events if event.event.user_id not in self._elsewhere]
        self._skipped += len(events) - len(own)
        batch = self._rule.judge(own)
        self._rows |= fold_users(self._rows, batch, self._config)
        return [each for each, is_counted in batch if is_counted]

    def finish(self) -> Rows:
        """Return the rows; events without a user have none, and count for items only."""
        if self._skipped:
            _log.warning(
                "skips %d events of %d users whose rows are of other partitions: see "
                "docs/scaling.md, another number of partitions",
                self._skipped,
                len(self._elsewhere),
            )
        self._rows.pop(FORGOTTEN_USER, None)
        return Rows(
            users={
                user_id: replace(row, partition=self._partition)
                for user_id, row in self._rows.items()
            }
        )


class _Shares:
    """Counters of items in a partition, added up from chunks of their events."""

    def __init__(self) -> None:
        self._sums: dict[ItemPartitionKey, Activity] = {}
        self._events = Counter[ItemPartitionKey]()

    def add(self, parts: Mapping[ItemPartitionKey, Activity], events: int) -> None:
        """Add ``parts``, each folded from nothing, of at most ``events`` events."""
        for key, part in parts.items():
            share = self._sums.get(key)
            if share is not None:
                last = max(part.last_offset, share.last_offset)
                part = replace(total((share, part)), last_offset=last)
            self._sums[key] = part
            self._events[key] += events

    async def write(self, read: ReadRows, write: WriteRows) -> None:
        """Replace the stored rows."""
        stored = (await read((), set(self._sums))).shares
        shares = {}
        for key, share in self._sums.items():
            if share.last_offset >= 0:  # at least one event
                # At least the version that counting one by one would have come to.
                before_us = stored[key].version_us if key in stored else 0
                least_us = max(before_us, share.counted_at_ms * 1000)
                shares[key] = replace(share, version_us=least_us + 1 + self._events[key])
        if shares:
            await write(Rows(shares=shares))


def _blank_user(row: UserState, keeps_attributes: bool) -> UserState:
    """Return an empty row of a newer version that keeps the erasure of ``row``."""
    return UserState(
        version_us=row.version_us + 1,
        forgotten_at_ms=row.forgotten_at_ms,
        forgotten_offset=row.forgotten_offset,
        attributes=row.attributes if keeps_attributes else "",
        profile_at_ms=row.profile_at_ms if keeps_attributes else 0,
    )
