"""What the worker holds of one partition between two commits.

In: decoded events in offset order and the rows they touch. Out: dirty rows, decided
labels and rejected messages, until they are stored. No I/O: ``worker.py`` does that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

from streams.config import StreamConfig
from streams.events import Behavior, item_key
from streams.folding import LoggedEvent, fold_items, fold_users
from streams.labels import ImpressionLabel, LabelJoin
from streams.sink import ItemShare, UserRow
from streams.wire import MAX_CLOCK_SKEW_MS, RejectedEvent, decode_user_event

MAX_CACHED_ROWS = 100_000  # about 1 GB of full sequences in all partitions of a worker

_Key = TypeVar("_Key", str, int)
_Row = TypeVar("_Row", UserRow, ItemShare)


class Record(Protocol):
    """What is needed of a Kafka record; aiokafka's fits."""

    @property
    def topic(self) -> str:
        """Where it was read."""

    @property
    def partition(self) -> int:
        """Where it was read."""

    @property
    def offset(self) -> int:
        """Where it was read."""

    @property
    def timestamp(self) -> int:
        """UTC milliseconds; -1 where the producer's protocol is too old to have one."""

    @property
    def key(self) -> bytes | None:
        """Raw bytes."""

    @property
    def value(self) -> bytes | None:
        """Raw bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecord:
    """A record that is not an event, with the reason."""

    record: Record
    rejected: RejectedEvent


def known_at(record: Record, now_ms: int) -> int:
    """Return when ``record`` became known: its timestamp, never later than ``now_ms``."""
    return min(record.timestamp, now_ms) if record.timestamp > 0 else now_ms


def decode_record(record: Record, now_ms: int) -> LoggedEvent | RejectedRecord:
    """Return the event of a ``behavior-events`` record, or why there is none."""
    known_ms = known_at(record, now_ms)
    event = decode_user_event(record.value, record.key, known_ms)
    if isinstance(event, RejectedEvent):
        return RejectedRecord(record=record, rejected=event)
    return LoggedEvent(event=event, offset=record.offset, known_at_ms=known_ms)


class PartitionState:
    """The rows, labels and progress of one partition."""

    def __init__(self, partition: int, next_offset: int, config: StreamConfig) -> None:
        self.partition = partition
        self.next_offset = next_offset
        """The first offset that is not folded in."""
        self.committed = next_offset
        self.labels = LabelJoin(
            round(config.label_window_s * 1000), round(config.correction_window_s * 1000)
        )
        self.decided: list[ImpressionLabel] = []
        self.rejected: list[RejectedRecord] = []
        self.folded: list[LoggedEvent] = []
        """The events since the last ``stored``."""
        self._length = config.sequence_length
        self._users: dict[str, UserRow] = {}
        self._shares: dict[int, ItemShare] = {}
        self._dirty_users: set[str] = set()
        self._dirty_shares: set[int] = set()

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to store or to commit."""
        return self.next_offset > self.committed or bool(self.decided)

    def decode(self, records: Iterable[Record], now_ms: int) -> list[LoggedEvent]:
        """Return the events in ``records``, and remember the rejected ones."""
        events = []
        for record in records:
            decoded = decode_record(record, now_ms)
            if isinstance(decoded, RejectedRecord):
                self.rejected.append(decoded)
            else:
                events.append(decoded)
            self.next_offset = record.offset + 1
        return events

    def unknown_users(self, events: Iterable[LoggedEvent]) -> list[str]:
        """Return the users of ``events`` whose rows are not in memory."""
        return list({logged.event.user_id for logged in events} - self._users.keys())

    def unknown_items(self, events: Iterable[LoggedEvent]) -> list[int]:
        """Return the keys of counted items whose shares are not in memory."""
        counted = {
            logged.event.item_id
            for logged in events
            if not isinstance(logged.event, Behavior)
        }
        return [key for key in map(item_key, counted) if key not in self._shares]

    def remember(self, users: dict[str, UserRow], shares: dict[int, ItemShare]) -> None:
        """Take rows as the store has them."""
        self._users |= users
        self._shares |= shares

    def fold(self, events: Sequence[LoggedEvent]) -> None:
        """Fold ``events``, whose rows are in memory, into rows and labels."""
        users = fold_users(self._users, events, self._length)
        shares = fold_items(self._shares, events, self.partition)
        self.remember(users, shares)
        self._dirty_users |= users.keys()
        self._dirty_shares |= shares.keys()
        for logged in events:
            self.decided += self.labels.add(logged.event, logged.known_at_ms)
        self.decided += self.labels.advance()
        self.folded += events

    def dirty_users(self) -> list[UserRow]:
        """Return the users' rows that the store does not have yet."""
        return [self._users[user_id] for user_id in self._dirty_users]

    def dirty_shares(self) -> list[ItemShare]:
        """Return the item shares that the store does not have yet."""
        return [self._shares[key] for key in self._dirty_shares]

    def stored(self) -> None:
        """Forget what was pending: the store, the topics and the group have it."""
        self.committed = self.next_offset
        self._dirty_users.clear()
        self._dirty_shares.clear()
        self.decided, self.rejected, self.folded = [], [], []
        _trim(self._users)
        _trim(self._shares)


def _trim(rows: dict[_Key, _Row]) -> None:
    """Drop the rows that came first; the store has them."""
    for key in list(islice(rows, max(0, len(rows) - MAX_CACHED_ROWS))):
        del rows[key]


def replay_labels(state: PartitionState, records: Iterable[Record], now_ms: int) -> None:
    """Bring the labels of ``state`` to where they were after ``records``, or further.

    ``now_ms`` holds back the time of a record whose producer's clock runs ahead, by less
    the later it is. So a replay may close windows that were open when ``records`` were
    stored: at most the accepted skew's. Labels of that span are decided once more.
    """
    for record in records:
        decoded = decode_record(record, now_ms)
        if isinstance(decoded, LoggedEvent):
            state.decided += state.labels.add(decoded.event, decoded.known_at_ms)
    state.decided += state.labels.advance()
    published_ms = state.labels.watermark_ms - MAX_CLOCK_SKEW_MS
    state.decided = [each for each in state.decided if each.matured_at > published_ms]
