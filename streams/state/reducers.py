"""A batch of events → those that count, and the rows that they change.

In: rows as stored and the decoded events of one partition in offset order. Out: the
rows that differ. Pure and safe to repeat: an event that a row has seen changes nothing.
What counts is one rule for the stream, rebuilds, checks and training. An impression or a
click is identified by its user, request and item. It is a duplicate if one of the same
identity is among the ``DUPLICATE_RECORDS`` records of the partition before it, and came
after the user's last erasure request. Offsets decide, and no clock and no setting: all
who read the same records count the same events, however late they read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

import xxhash

from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import Behavior, Click, Forget, Impression, item_key
from srp4ctr.streams.state import counters, exposures, sequences
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.exposures import Exposures
from srp4ctr.streams.state.sequences import BehaviorSequence

DUPLICATE_RECORDS = 500_000
"""A backfill may be as long and be published twice. A worker holds up to twice as many
identities of a partition in memory, and reads as many records when it starts."""
_NEVER = -1
ItemPartitionKey = tuple[int, int]
"""An item's key and a partition: an item has events in every partition, so that one row
could not carry one "last offset". Each partition keeps its own share; readers add them."""

_Key = TypeVar("_Key", str, ItemPartitionKey)
_Row = TypeVar("_Row", BehaviorSequence, Activity, Exposures)


@dataclass(slots=True, kw_only=True)
class Rows:
    """Rows of users and items, by their keys; a row that is not there is not touched."""

    sequences: dict[str, BehaviorSequence] = field(default_factory=dict)
    """By user."""
    activities: dict[str, Activity] = field(default_factory=dict)
    """By user."""
    exposures: dict[str, Exposures] = field(default_factory=dict)
    """By user."""
    shares: dict[ItemPartitionKey, Activity] = field(default_factory=dict)
    """What one partition has seen of one item."""

    @property
    def users(self) -> set[str]:
        """Everybody who has a row."""
        return self.sequences.keys() | self.activities.keys() | self.exposures.keys()

    def __len__(self) -> int:
        users = len(self.sequences) + len(self.activities) + len(self.exposures)
        return users + len(self.shares)

    def update(self, other: "Rows") -> None:
        """Add the rows of ``other``, which replace those of the same keys."""
        self.sequences.update(other.sequences)
        self.activities.update(other.activities)
        self.exposures.update(other.exposures)
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
        # By user, the erasure requests: until when, and at which offset.
        self._erasures: dict[str, set[tuple[int, int]]] = {}

    def take(self, logged: LoggedEvent) -> Fate:
        """Return what becomes of ``logged``, which comes after all that was taken."""
        event, offset = logged.event, logged.offset
        erased_until_ms, forgotten_at = 0, _NEVER
        for until_ms, at in self._erasures.get(event.user_id, ()):
            # Of equal ones the first: a request that covers no more changes nothing.
            if at < offset and (until_ms, -at) > (erased_until_ms, -forgotten_at):
                erased_until_ms, forgotten_at = until_ms, at
        if event.occurred_at <= erased_until_ms:
            return Fate.ERASED
        if isinstance(event, Forget):
            self.add_erasure(event.user_id, event.occurred_at, offset)
        if isinstance(event, Impression | Click):
            came_at = self._remember(_identity(event), offset)
            if came_at > forgotten_at and came_at >= offset - DUPLICATE_RECORDS:
                return Fate.DUPLICATE
        return Fate.COUNTED

    def add_erasure(self, user_id: str, until_ms: int, offset: int) -> None:
        """Apply a request that was stored, or is taken, to what comes after it."""
        self._erasures.setdefault(user_id, set()).add((until_ms, offset))

    def drop_erasures(self, user_id: str) -> None:
        """Drop the requests of a user whose row is read again before the next event."""
        self._erasures.pop(user_id, None)

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


def fold_sequences(
    rows: Mapping[str, BehaviorSequence], batch: Iterable[LoggedEvent], length: int
) -> dict[str, BehaviorSequence]:
    """Return the users' sequences that ``batch`` changes; ``length`` bounds them."""

    # One by one, so that the version says how many events made the row, however they
    # were batched: of two workers' rows the store keeps the one that has seen more.
    def after(before: BehaviorSequence, logged: LoggedEvent) -> BehaviorSequence:
        event = logged.event
        if isinstance(event, Forget):
            return sequences.forget(before, event.occurred_at, logged.offset)
        assert isinstance(event, Click | Behavior)
        element = sequences.element_of(event)
        return sequences.merge(before, (element,), length, logged.offset)

    acts = ((e.event.user_id, e) for e in batch if not isinstance(e.event, Impression))
    return _folded(rows, acts, BehaviorSequence(), after)


def fold_activities(
    rows: Mapping[str, Activity], batch: Iterable[LoggedEvent]
) -> dict[str, Activity]:
    """Return the users' counters that ``batch``, without duplicates, changes."""
    seen = ((e.event.user_id, e) for e in batch if not isinstance(e.event, Behavior))
    return _folded(rows, seen, Activity(), _counted)


def fold_exposures(
    rows: Mapping[str, Exposures], batch: Iterable[LoggedEvent], length: int
) -> dict[str, Exposures]:
    """Return what users were shown that ``batch``, without duplicates, changes."""

    def after(before: Exposures, logged: LoggedEvent) -> Exposures:
        event, offset = logged.event, logged.offset
        if isinstance(event, Forget):
            return exposures.forget(before, event.occurred_at, offset)
        assert isinstance(event, Impression)
        key = item_key(event.item_id)
        return exposures.show(before, event.occurred_at, key, length, offset)

    kinds = (Impression, Forget)
    seen = ((e.event.user_id, e) for e in batch if isinstance(e.event, kinds))
    return _folded(rows, seen, Exposures(), after)


def fold_shares(
    rows: Mapping[ItemPartitionKey, Activity], batch: Iterable[LoggedEvent], partition: int
) -> dict[ItemPartitionKey, Activity]:
    """Return the ``partition``'s shares that ``batch``, without duplicates, changes."""
    seen = (
        ((item_key(logged.event.item_id), partition), logged)
        for logged in batch
        if isinstance(logged.event, Impression | Click)
    )
    return _folded(rows, seen, Activity(), _counted)


def _folded(
    rows: Mapping[_Key, _Row],
    events: Iterable[tuple[_Key, LoggedEvent]],
    blank: _Row,
    after: Callable[[_Row, LoggedEvent], _Row],
) -> dict[_Key, _Row]:
    """Return the latest of each row that ``after`` changes, event by event."""
    latest: dict[_Key, _Row] = {}
    for key, logged in events:
        before = latest.get(key) or rows.get(key, blank)
        row = after(before, logged)
        if row is not before:
            latest[key] = row
    return latest


def _counted(activity: Activity, logged: LoggedEvent) -> Activity:
    at_ms, offset = logged.event.occurred_at, logged.offset
    if isinstance(logged.event, Forget):
        return counters.forget(activity, at_ms, offset)
    is_click = isinstance(logged.event, Click)
    return counters.count(activity, at_ms=at_ms, is_click=is_click, offset=offset)
