"""A batch of events → the rows it changes: sequences and counters.

In: rows as stored and the decoded events of one partition in offset order. Out: the
rows that differ. Pure and safe to repeat: an event that a row has seen changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streams.activity import Activity, count
from streams.events import Behavior, Click, UserEvent, item_key
from streams.sequences import BehaviorSequence, SequenceElement, element_of, merge
from streams.sink import ItemShare, UserRow


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """An event and where the log holds it."""

    event: UserEvent
    offset: int
    known_at_ms: int
    """The record's timestamp: when the event became known."""


def fold_users(
    rows: Mapping[str, UserRow], batch: Iterable[LoggedEvent], length: int
) -> dict[str, UserRow]:
    """Return the users' rows that ``batch`` changes; ``length`` bounds a sequence."""
    activities: dict[str, Activity] = {}
    added: dict[str, list[SequenceElement]] = {}
    for logged in batch:
        event = logged.event
        user_id = event.user_id
        elements = added.setdefault(user_id, [])
        if isinstance(event, Click | Behavior):
            elements.append(element_of(event))
        if not isinstance(event, Behavior):
            seen = activities.get(user_id) or _activity(rows.get(user_id))
            activities[user_id] = _count(seen, logged)
    changed = {}
    for user_id, elements in added.items():
        before = rows.get(user_id) or _new_user(user_id)
        after = UserRow(
            user_id=user_id,
            sequence=merge(before.sequence, elements, length),
            activity=activities.get(user_id, before.activity),
        )
        if after != before:
            changed[user_id] = after
    return changed


def fold_items(
    shares: Mapping[int, ItemShare], batch: Iterable[LoggedEvent], partition: int
) -> dict[int, ItemShare]:
    """Return the ``partition``'s shares of ``batch``'s items that it changes."""
    activities: dict[int, Activity] = {}
    for logged in batch:
        if isinstance(logged.event, Behavior):
            continue
        key = item_key(logged.event.item_id)
        before = activities.get(key) or _activity(shares.get(key))
        activities[key] = _count(before, logged)
    return {
        key: ItemShare(item_key=key, partition=partition, activity=activity)
        for key, activity in activities.items()
        if activity != _activity(shares.get(key))
    }


def _count(activity: Activity, logged: LoggedEvent) -> Activity:
    return count(
        activity,
        at_ms=logged.event.occurred_at,
        is_click=isinstance(logged.event, Click),
        offset=logged.offset,
    )


def _activity(row: UserRow | ItemShare | None) -> Activity:
    return Activity() if row is None else row.activity


def _new_user(user_id: str) -> UserRow:
    return UserRow(user_id=user_id, sequence=BehaviorSequence(), activity=Activity())
