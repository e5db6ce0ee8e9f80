"""A batch of events → the rows it changes: sequences, counters and exposures.

In: rows as stored and the decoded events of one partition in offset order. Out: the
rows that differ. Pure and safe to repeat: an event that a row has seen changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import Behavior, Click, Forget, Impression, item_key
from srp4ctr.streams.state import counters, exposures, sequences
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.exposures import Exposures
from srp4ctr.streams.state.sequences import BehaviorSequence

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
