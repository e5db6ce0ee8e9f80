"""A batch of events → the rows it changes: sequences and counters.

In: rows as stored and the decoded events of one partition in offset order. Out: the
rows that differ. Pure and safe to repeat: an event that a row has seen changes nothing.
"""

from collections.abc import Iterable, Mapping

import msgspec

from streams.activity import Activity, count
from streams.events import Behavior, Click, Forget, Impression, UserEvent, item_key
from streams.sequences import BehaviorSequence, element_of, forget, merge
from streams.sink import ShareKey

_NEVER_SEEN = Activity()
_EMPTY = BehaviorSequence()


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event and where the log holds it."""

    event: UserEvent
    offset: int
    known_at_ms: int
    """The record's timestamp: when the event became known."""


def fold_sequences(
    sequences: Mapping[str, BehaviorSequence], batch: Iterable[LoggedEvent], length: int
) -> dict[str, BehaviorSequence]:
    """Return the users' sequences that ``batch`` changes; ``length`` bounds them."""
    latest: dict[str, BehaviorSequence] = {}
    for logged in batch:
        event = logged.event
        if isinstance(event, Impression):
            continue
        user_id = event.user_id
        before = latest.get(user_id) or sequences.get(user_id, _EMPTY)
        # One by one, so that the version says how many events made the row, however they
        # were batched: of two workers' rows the store keeps the one that has seen more.
        if isinstance(event, Forget):
            after = forget(before, event.occurred_at, logged.offset)
        else:
            after = merge(before, (element_of(event),), length, logged.offset)
        if after is not before:
            latest[user_id] = after
    return latest


def fold_activities(
    activities: Mapping[str, Activity], batch: Iterable[LoggedEvent]
) -> dict[str, Activity]:
    """Return the users' counters that ``batch``, without duplicates, changes."""
    latest: dict[str, Activity] = {}
    for logged in batch:
        event = logged.event
        if isinstance(event, Behavior):
            continue
        user_id = event.user_id
        before = latest.get(user_id) or activities.get(user_id, _NEVER_SEEN)
        after = _counted(before, logged)
        if after is not before:
            latest[user_id] = after
    return latest


def fold_shares(
    shares: Mapping[ShareKey, Activity], batch: Iterable[LoggedEvent], partition: int
) -> dict[ShareKey, Activity]:
    """Return the ``partition``'s shares that ``batch``, without duplicates, changes."""
    latest: dict[ShareKey, Activity] = {}
    for logged in batch:
        event = logged.event
        if isinstance(event, Behavior | Forget):
            continue
        key = (item_key(event.item_id), partition)
        before = latest.get(key) or shares.get(key, _NEVER_SEEN)
        after = _counted(before, logged)
        if after is not before:
            latest[key] = after
    return latest


def _counted(activity: Activity, logged: LoggedEvent) -> Activity:
    event = logged.event
    if not isinstance(event, Forget):
        return count(
            activity,
            at_ms=event.occurred_at,
            is_click=isinstance(event, Click),
            offset=logged.offset,
        )
    if logged.offset <= activity.last_offset:
        return activity
    return Activity(
        last_offset=logged.offset,
        version_us=max(event.occurred_at * 1000, activity.version_us + 1),
    )
