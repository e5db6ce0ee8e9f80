"""What the worker holds of one partition between two commits.

In: decoded events in offset order and the rows they change. Out: dirty rows, labels and
rejected messages, until they are stored. No I/O: ``sequence_worker.py`` does that.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from msgspec.structs import replace

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import (
    MAX_CLOCK_SKEW_MS,
    LoggedEvent,
    Reason,
    Record,
    RejectedEvent,
    RejectedRecord,
    decode_record,
)
from srp4ctr.streams.events.schema import COUNTED, TOTAL_KEY, Rebuild, item_key
from srp4ctr.streams.state.duplicates import Deduplication, Fate
from srp4ctr.streams.state.label_join import ImpressionLabel, LabelJoin
from srp4ctr.streams.state.reducers import (
    NEW_ITEM,
    NEW_USER,
    ItemPartitionKey,
    Rows,
    fold_shares,
    fold_users,
)
from srp4ctr.streams.state.sequences import ELEMENT_BYTES

# Of a row in memory besides what is packed, measured with 20,000 users and 50,000 items by
# the growth of the process: structs, counts, the key and its places in the dictionaries.
USER_BYTES = 1200
SHARE_BYTES = 750

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWrites:
    """What a partition has to store: all since the previous ``take_pending``."""

    next_offset: int
    """The first offset that is not in it: what to commit once it is stored."""
    rows: Rows
    decided: list[ImpressionLabel]
    rejected: list[RejectedRecord]
    folded: list[LoggedEvent]


class PartitionState:
    """The rows, labels and progress of one partition."""

    def __init__(self, partition: int, next_offset: int, config: StreamConfig) -> None:
        self.partition = partition
        self.next_offset = next_offset
        """The first offset that is not folded in."""
        self._pending_from = next_offset
        self._rebuilt_to = self._rebuilt_since_ms = 0
        self.labels = LabelJoin(
            round(config.label_window_s * 1000),
            round(config.correction_window_s * 1000),
            config.max_kept_impressions,
        )
        self.decided: list[ImpressionLabel] = []
        self.rejected: list[RejectedRecord] = []
        self.folded: list[LoggedEvent] = []
        """The events since the last ``take_pending``."""
        self.dirty = Rows()
        """The rows that changed since the last ``take_pending``."""
        self._rows = Rows()
        self._config = config
        elements = config.sequence_length + config.exposure_length
        self._user_bytes = USER_BYTES + elements * ELEMENT_BYTES
        self._attribute_bytes = 0
        self._deduplication = Deduplication()

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to store or to commit."""
        return self.next_offset != self._pending_from or bool(self.decided)

    def decode(self, records: Sequence[Record]) -> tuple[list[LoggedEvent], Rebuild | None]:
        """Return the events in ``records`` up to the first command to do, and that one.

        Keeps rejected records; ``next_offset`` moves behind the last event or to the
        command.
        """
        events: list[LoggedEvent] = []
        for record in records:
            decoded = decode_record(record)
            if isinstance(decoded, Rebuild):
                is_done = decoded.since_ms >= self._rebuilt_since_ms
                if record.offset >= self._rebuilt_to or not is_done:
                    return events, decoded
            elif isinstance(decoded, RejectedRecord):
                self.rejected.append(decoded)
            else:
                events.append(decoded)
            self.next_offset = record.offset + 1
        return events, None

    def missing_rows(
        self, events: Iterable[LoggedEvent]
    ) -> tuple[set[str], set[ItemPartitionKey]]:
        """Return the users and the shares of ``events`` whose rows are not in memory.

        Those that are become the last to be dropped.
        """
        users = {logged.event.user_id for logged in events}
        items = {
            logged.event.item_id for logged in events if isinstance(logged.event, COUNTED)
        }
        shares = {(item_key(item_id), self.partition) for item_id in items}
        if shares:
            shares.add((TOTAL_KEY, self.partition))
        rows = self._rows
        _use(rows.users, users)
        _use(rows.shares, shares)
        return users - rows.users.keys(), shares - rows.shares.keys()

    def cache_rows(
        self, users: Iterable[str], shares: Iterable[ItemPartitionKey], rows: Rows
    ) -> dict[str, int]:
        """Keep the rows of ``users`` and ``shares`` as the store has them, or new ones.

        Returns the partition of each row of another one; such a row is not kept.
        """
        cached, elsewhere = self._rows, dict[str, int]()
        for user_id in users:
            user = rows.users.get(user_id, NEW_USER)
            if not user.is_of(self.partition):
                elsewhere[user_id] = user.partition
                continue
            cached.users[user_id] = replace(user, partition=self.partition)
            self._attribute_bytes += len(user.attributes)
        for key in shares:
            cached.shares[key] = rows.shares.get(key, NEW_ITEM)
        for user_id, user in rows.users.items():
            if user.forgotten_at_ms:
                erasure = (user.forgotten_at_ms, user.forgotten_offset)
                self._deduplication.add_erasure(user_id, *erasure)
        return elsewhere

    def reject_moved(
        self,
        elsewhere: Mapping[str, int],
        events: Iterable[LoggedEvent],
        records: Iterable[Record],
    ) -> list[LoggedEvent]:
        """Return ``events`` without those of users whose rows are ``elsewhere``.

        Their ``records`` are rejected. ``elsewhere`` is the row's partition by user.
        """
        by_offset = {each.offset: each for each in records}
        own = []
        for logged in events:
            partition = elsewhere.get(logged.event.user_id)
            if partition is None:
                own.append(logged)
                continue
            detail = (
                f"the user's row has offsets of partition {partition}, this record is in "
                f"partition {self.partition}: partitions were added to the topic, or the "
                "producer does not choose the partition by murmur2 of the key; see "
                "docs/scaling.md, another number of partitions"
            )
            rejected = RejectedEvent(reason=Reason.WRONG_PARTITION, detail=detail)
            record = by_offset[logged.offset]
            self.rejected.append(RejectedRecord(record=record, rejected=rejected))
        return own

    def fold(self, events: Sequence[LoggedEvent], now_ms: int) -> None:
        """Fold ``events``, whose rows are in memory, into rows and labels."""
        batch = []
        for logged in events:
            fate = self._deduplication.take(logged)
            if fate is Fate.ERASED:
                continue
            batch.append((logged, fate is Fate.COUNTED))
            self.decided += self.labels.add(logged.event, min(logged.known_at_ms, now_ms))
        self.decided += self.labels.advance()
        rows = self._rows
        changed = Rows(
            users=fold_users(rows.users, batch, self._config),
            shares=fold_shares(rows.shares, batch, self.partition),
        )
        for user_id, user in changed.users.items():
            before = rows.users.get(user_id, NEW_USER)
            self._attribute_bytes += len(user.attributes) - len(before.attributes)
        self._rows.update(changed)
        self.dirty.update(changed)
        self.folded += events

    def take_pending(self) -> PendingWrites:
        """Return what is new, once: to be stored, in this order, before it is committed."""
        new = PendingWrites(
            next_offset=self.next_offset,
            rows=self.dirty,
            decided=self.decided,
            rejected=self.rejected,
            folded=self.folded,
        )
        self._pending_from = self.next_offset
        self.dirty = Rows()
        self.decided, self.rejected, self.folded = [], [], []
        return new

    def stored_offsets(self, count: int) -> dict[str, int]:
        """Return the last offsets of at most ``count`` rows that ``take_pending`` gave.

        By user. The store has them if no write is in progress. Half are the least recently
        used, because a user who acted since a loss has a row again; half the most recently
        used, which an older copy of the store lacks.
        """
        changed, users = self.dirty.users.keys(), self._rows.users

        def stored(names: Iterable[str], most: int) -> dict[str, int]:
            known = (
                (name, users[name].last_offset)
                for name in names
                if users[name].version_us and name not in changed
            )
            return dict(islice(known, most))

        return stored(users, count - count // 2) | stored(reversed(users), count // 2)

    def rebuilt(self, command: Rebuild, end: int) -> None:
        """Drop the rows in memory, and resume after ``command``: the store has new ones.

        The rebuild began when the partition ended at ``end``. Commands before it, as of a
        worker that ended while it rebuilt, are done as well.
        """
        self._rows, self._attribute_bytes = Rows(), 0
        self.next_offset += 1
        self._rebuilt_to, self._rebuilt_since_ms = end, command.since_ms

    def replay(self, events: Iterable[LoggedEvent], now_ms: int) -> None:
        """Bring labels and deduplication to where they were after ``events``, or further.

        ``now_ms`` holds back the time of a record whose producer's clock runs ahead, by
        less the later it is. So a replay may close windows that were open when ``events``
        were stored: at most the accepted skew's. Labels of that span are decided once
        more.
        """
        for logged in events:
            if self._deduplication.take(logged) is not Fate.ERASED:
                known_ms = min(logged.known_at_ms, now_ms)
                self.decided += self.labels.add(logged.event, known_ms)
        self.decided += self.labels.advance()
        published_ms = self.labels.watermark_ms - MAX_CLOCK_SKEW_MS
        self.decided = [each for each in self.decided if each.matured_at > published_ms]

    @property
    def cached_bytes(self) -> int:
        """The memory of the rows, as if each user's sequences were full."""
        users, shares = len(self._rows.users), len(self._rows.shares)
        rows = users * self._user_bytes + shares * SHARE_BYTES
        return rows + self._attribute_bytes

    def evict(self, most_bytes: int) -> None:
        """Drop the rows that were used least recently beyond ``most_bytes``.

        Only once the store has all that ``take_pending`` gave; what is dirty stays.
        """
        rows, dropped = self._rows, 1 - most_bytes / max(self.cached_bytes, most_bytes, 1)
        for user_id in _oldest(rows.users, dropped, self.dirty.users.keys()):
            self._attribute_bytes -= len(rows.users.pop(user_id).attributes)
            self._deduplication.drop_erasures(user_id)
        for key in _oldest(rows.shares, dropped, self.dirty.shares.keys()):
            del rows.shares[key]


def _use(rows: dict[_Key, Any], keys: Set[_Key]) -> None:
    """Move those of ``keys`` that are in ``rows`` to their end."""
    for key in keys & rows.keys():
        rows[key] = rows.pop(key)


def _oldest(rows: Mapping[_Key, Any], share: float, changed: Set[_Key]) -> list[_Key]:
    oldest = islice(rows, math.ceil(share * len(rows)))
    return [key for key in oldest if key not in changed]
