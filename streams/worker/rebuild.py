"""A partition's past → its users' and items' rows, folded from nothing.

In: the events since an instant. Out: rows that replace the stored ones, each complete when
it is written, so that no request gets half a history meanwhile. One pass over the past:
what memory does not hold waits in a file, by groups of users, then by groups of items. The
total of all items is added up from the groups of users: it differs from the stream's by
rounding errors at most.
"""

import asyncio
import logging
from array import array
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
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
    item_key,
)
from srp4ctr.streams.state.counters import Activity, total
from srp4ctr.streams.state.reducers import (
    Deduplication,
    ItemPartitionKey,
    Rows,
    fold_items,
    fold_total,
    fold_users,
)
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.streams.worker.replay import ReplaySource

EVENTS_IN_MEMORY = 50_000
"""Of a group, and of those that wait to be written: a group has as few events on average,
unless a partition has more than 50 million."""
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

    def __iter__(self) -> Iterator[list[LoggedEvent]]:
        """Yield the events of each group that has any."""
        for group in range(self._number):
            events: list[LoggedEvent] = []
            places = iter(self._places[group])
            for place, size in zip(places, places, strict=True):
                self._file.seek(place)
                events += _decoder.decode(self._file.read(size))
            events += self._waiting.pop(group, [])
            if events:
                yield events

    def _spill(self) -> None:
        for group, events in self._waiting.items():
            place = self._file.tell()
            size = self._file.write(_encoder.encode(events))
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
    users, is_all, of_all = 0, past.is_whole and span.since_ms <= 0, _GroupedTotal()
    folder = past.log_dir if Path(past.log_dir).is_dir() else None
    with TemporaryFile(dir=folder) as of_users, TemporaryFile(dir=folder) as of_items:
        by_user, by_item = EventGroups(span.end, of_users), EventGroups(span.end, of_items)
        async for batch in past.events(span.since_ms, span.end):
            for each in batch:
                by_user.add(each.event.user_id, each)
        for events in by_user:
            stored = await read({each.event.user_id for each in events}, ())
            events = _without_moved(events, stored, span.partition)
            blank = _blank(stored, keeps_attributes=not is_all)
            rows, counted = await asyncio.to_thread(
                _fold_users, blank, events, config, span.partition
            )
            of_all.add(counted)
            for each in counted:
                if isinstance(each.event, Impression | Click):
                    by_item.add(each.event.item_id, each)
            await write(rows)
            users += len(rows.users)
        for events in by_item:
            keys = {(item_key(_item_of(each)), span.partition) for each in events}
            shares = _blank(await read((), keys)).shares
            events.sort(key=lambda each: each.offset)
            shares |= fold_items(shares, events, span.partition)
            await write(Rows(shares=shares))
    key = (TOTAL_KEY, span.partition)
    blank = _blank(await read((), {key}))
    await write(Rows(shares=of_all.rows(key, blank.shares.get(key, Activity()))))
    return users


async def _warn_of_missing(past: ReplaySource, span: Span) -> None:
    """Log how many records are missing: Kafka dropped them before they were logged."""
    if missing := await asyncio.to_thread(lambda: past.missing):
        _log.warning(
            "rebuilds without %s that Kafka dropped before they were logged",
            "1 record" if missing == 1 else f"{missing:,} records",
            extra=place_of(past.source, span.end),
        )


class _GroupedTotal:
    """A partition's share of ``TOTAL_ITEM``, added up from groups of its events."""

    def __init__(self) -> None:
        self._share, self._events = Activity(), 0

    def add(self, counted: Sequence[LoggedEvent]) -> None:
        """Count a group, whose events are in the order of their offsets."""
        group = fold_total(Activity(), counted)
        last = max(group.last_offset, self._share.last_offset)
        self._share = replace(total((self._share, group)), last_offset=last)
        self._events += len(counted)

    def rows(
        self, key: ItemPartitionKey, blank: Activity
    ) -> dict[ItemPartitionKey, Activity]:
        """Return the row that replaces ``blank``; none if no event was counted."""
        if self._share.last_offset < 0:
            return {}
        # At least the version that counting one by one would have come to.
        least_us = max(blank.version_us, self._share.counted_at_ms * 1000)
        return {key: replace(self._share, version_us=least_us + self._events)}


def _without_moved(
    events: list[LoggedEvent], stored: Rows, partition: int
) -> list[LoggedEvent]:
    """Return ``events`` without those that a worker would reject as ``wrong_partition``.

    Removes their users' rows from ``stored``: they stay as they are.
    """
    elsewhere = {u for u, row in stored.users.items() if not row.is_of(partition)}
    elsewhere.discard(FORGOTTEN_USER)
    for user_id in elsewhere:
        del stored.users[user_id]
    own = [each for each in events if each.event.user_id not in elsewhere]
    if skipped := len(events) - len(own):
        _log.warning(
            "skips %d events of %d users whose rows are of other partitions: see "
            "docs/scaling.md, another number of partitions",
            skipped,
            len(elsewhere),
        )
    return own


def _item_of(logged: LoggedEvent) -> str:
    assert isinstance(logged.event, Impression | Click)
    return logged.event.item_id


def _fold_users(
    rows: Rows, events: Sequence[LoggedEvent], config: StreamConfig, partition: int
) -> tuple[Rows, list[LoggedEvent]]:
    """Return the rows of all users of ``events``, and the events that count."""
    rule = Deduplication()
    for user_id, row in rows.users.items():
        if row.forgotten_at_ms:
            rule.add_erasure(user_id, row.forgotten_at_ms, row.forgotten_offset)
    batch = rule.judge(events)
    folded = fold_users(rows.users, batch, config)
    rows.users |= {u: replace(row, partition=partition) for u, row in folded.items()}
    rows.users.pop(FORGOTTEN_USER, None)  # nobody's: it counts for items only
    return rows, [each for each, is_counted in batch if is_counted]


def _blank(stored: Rows, *, keeps_attributes: bool = False) -> Rows:
    """Return empty rows of newer versions that keep the erasures of ``stored`` ones."""
    users = {
        user_id: UserState(
            version_us=row.version_us + 1,
            forgotten_at_ms=row.forgotten_at_ms,
            forgotten_offset=row.forgotten_offset,
            partition=row.partition,
            attributes=row.attributes if keeps_attributes else "",
            profile_at_ms=row.profile_at_ms if keeps_attributes else 0,
        )
        for user_id, row in stored.users.items()
    }
    shares = {
        key: Activity(version_us=row.version_us + 1) for key, row in stored.shares.items()
    }
    return Rows(users=users, shares=shares)
