"""A batch of events → those that count, and the rows that they change.

In: rows as stored and the decoded events of one partition in offset order. Out: the
rows that differ. Pure and safe to repeat: an event that a row has seen changes nothing.
What counts is one rule for the stream, rebuilds, checks and training. An impression or a
click is identified by its user, request and item. It is a duplicate if one of the same
identity is among the ``DUPLICATE_RECORDS`` records of the partition before it, and came
after the user's last erasure request. Offsets decide, and no clock and no setting: all
who read the same records count the same events, however late they read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import xxhash

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import (
    TOTAL_KEY,
    Click,
    Forget,
    Impression,
    item_key,
)
from srp4ctr.streams.state import user_state
from srp4ctr.streams.state.counters import Activity, count, count_all
from srp4ctr.streams.state.user_state import UserState

DUPLICATE_RECORDS = 500_000
"""A backfill may be as long and be published twice. A worker holds up to twice as many
identities of a partition in memory, and reads as many records when it starts."""
_NEVER = -1
ItemPartitionKey = tuple[int, int]
"""An item's key and a partition: an item has events in every partition, so that one row
could not carry one "last offset". Each partition keeps its own share; readers add them."""

_NEW_USER, _NEW_ITEM = UserState(), Activity()
_COUNTED = (Impression, Click)


@dataclass(slots=True, kw_only=True)
class Rows:
    """Rows of users and items, by their keys; a row that is not there is not touched."""

    users: dict[str, UserState] = field(default_factory=dict)
    shares: dict[ItemPartitionKey, Activity] = field(default_factory=dict)
    """What one partition has seen of one item."""

    def __len__(self) -> int:
        return len(self.users) + len(self.shares)

    @property
    def partitions(self) -> set[int]:
        """The partitions whose events made the rows."""
        of_shares = {partition for _, partition in self.shares}
        return of_shares | {user.partition for user in self.users.values()}

    def update(self, other: "Rows") -> None:
        """Add the rows of ``other``, which replace those of the same keys."""
        self.users.update(other.users)
        self.shares.update(other.shares)


class Fate(Enum):
    """What becomes of an event."""

    COUNTED = auto()
    DUPLICATE = auto()
    """Its impression or click has been counted."""
    ERASED = auto()
    """The user requested its erasure before it came."""


class Deduplication:
    """The identities and the erasure requests of one partition that still matter."""

    def __init__(self) -> None:
        # By identity, the last offset. The newer part begins at ``_began`` and spans no
        # more records than matter: when it is full, the older one has expired.
        self._newer: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._began = 0
        # By user, the erasure requests: at which offset, and until when. Each covers more
        # than those before it, of which at most one still applies.
        self._erasures: dict[str, list[tuple[int, int]]] = {}

    @property
    def erasures(self) -> int:
        """How many erasure requests are held."""
        return sum(map(len, self._erasures.values()))

    def take(self, logged: LoggedEvent) -> Fate:
        """Return what becomes of ``logged``, which comes after all that was taken."""
        event, offset = logged.event, logged.offset
        forgotten_at, erased_until_ms = self._covering(event.user_id, offset)
        if event.occurred_at <= erased_until_ms:
            return Fate.ERASED
        if isinstance(event, Forget):
            self.add_erasure(event.user_id, event.occurred_at, offset)
        if isinstance(event, _COUNTED):
            came_at = self._remember(_identity(event), offset)
            if came_at > forgotten_at and came_at >= offset - DUPLICATE_RECORDS:
                return Fate.DUPLICATE
        return Fate.COUNTED

    def judge(self, events: Iterable[LoggedEvent]) -> list[tuple[LoggedEvent, bool]]:
        """Return the ``events`` that were not erased, and whether each counts."""
        fates = [(each, self.take(each)) for each in events]
        return [(e, fate is Fate.COUNTED) for e, fate in fates if fate is not Fate.ERASED]

    def add_erasure(self, user_id: str, until_ms: int, offset: int) -> None:
        """Apply a request that was stored, or is taken, to what comes after it."""
        before = self._erasures.get(user_id, ())
        if any(at <= offset and until >= until_ms for at, until in before):
            return  # a request that covers no more changes nothing
        kept = [(at, until) for at, until in before if at < offset or until > until_ms]
        self._erasures[user_id] = sorted([*kept, (offset, until_ms)])

    def drop_erasures(self, user_id: str) -> None:
        """Drop the requests of a user whose row is read again before the next event."""
        self._erasures.pop(user_id, None)

    def _covering(self, user_id: str, offset: int) -> tuple[int, int]:
        """Return the request that covers most of those before ``offset``, and drop others.

        One that the store had may be met only later, where a batch is read again.
        """
        requests = self._erasures.get(user_id)
        if requests is None or requests[0][0] >= offset:
            return _NEVER, 0
        while len(requests) > 1 and requests[1][0] < offset:
            del requests[0]
        return requests[0]

    def _remember(self, identity: int, offset: int) -> int:
        """Note where ``identity`` came, and return where it came before."""
        came_at = self._newer.get(identity, self._older.get(identity, _NEVER))
        if offset - self._began > DUPLICATE_RECORDS:
            self._older, self._newer, self._began = self._newer, {}, offset
        self._newer[identity] = offset
        return came_at


def _identity(event: Impression | Click) -> int:
    kind = "shown" if isinstance(event, Impression) else "clicked"
    text = f"{kind}\0{event.user_id}\0{event.request_id}\0{event.item_id}"
    return xxhash.xxh3_64_intdigest(text)


def fold_users(
    rows: Mapping[str, UserState],
    batch: Iterable[tuple[LoggedEvent, bool]],
    config: StreamConfig,
) -> dict[str, UserState]:
    """Return the users' rows that ``batch`` changes; the second says whether it counts.

    One by one, so that the version says how many events made the row, however they were
    batched: of two workers' rows the store keeps the one that has seen more.
    """
    latest: dict[str, UserState] = {}
    for logged, is_counted in batch:
        key = logged.event.user_id
        before = latest.get(key) or rows.get(key, _NEW_USER)
        user = user_state.fold(before, logged, config, is_counted=is_counted)
        if user is not before:
            latest[key] = user
    return latest


def fold_shares(
    rows: Mapping[ItemPartitionKey, Activity],
    batch: Iterable[tuple[LoggedEvent, bool]],
    partition: int,
) -> dict[ItemPartitionKey, Activity]:
    """Return the ``partition``'s shares that ``batch`` changes; as ``fold_users``.

    Each event that counts is in its item's share and in that of ``TOTAL_ITEM``.
    """
    events = [each for each, is_counted in batch if is_counted]
    latest = fold_items(rows, events, partition)
    key = (TOTAL_KEY, partition)
    before = rows.get(key, _NEW_ITEM)
    share = fold_total(before, events)
    return latest if share is before else {**latest, key: share}


def fold_items(
    rows: Mapping[ItemPartitionKey, Activity],
    counted: Iterable[LoggedEvent],
    partition: int,
) -> dict[ItemPartitionKey, Activity]:
    """Return the items' shares of ``partition`` that ``counted`` changes."""
    latest: dict[ItemPartitionKey, Activity] = {}
    for logged in counted:
        event = logged.event
        if not isinstance(event, _COUNTED):
            continue
        key = (item_key(event.item_id), partition)
        before = latest.get(key) or rows.get(key, _NEW_ITEM)
        share = count(
            before,
            at_ms=event.occurred_at,
            is_click=isinstance(event, Click),
            offset=logged.offset,
        )
        if share is not before:
            latest[key] = share
    return latest


def fold_total(share: Activity, counted: Iterable[LoggedEvent]) -> Activity:
    """Return a partition's ``share`` of ``TOTAL_ITEM`` after ``counted``."""
    occurrences = (
        (each.event.occurred_at, isinstance(each.event, Click), each.offset)
        for each in counted
        if isinstance(each.event, _COUNTED)
    )
    return count_all(share, occurrences)
