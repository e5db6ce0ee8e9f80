"""A batch of events → those that count, and the rows that they change.

In: rows as stored and the decoded events of one partition in offset order. Out: the
rows that differ. Pure and safe to repeat: an event that a row has seen changes nothing.
Which events count says ``duplicates.py``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import COUNTED, TOTAL_KEY, Click, item_key
from srp4ctr.streams.state import user_state
from srp4ctr.streams.state.counters import Activity, count, count_all
from srp4ctr.streams.state.user_state import UserState

ItemPartitionKey = tuple[int, int]
"""An item's key and a partition: an item has events in every partition, so that one row
could not carry one "last offset". Each partition keeps its own share; readers add them."""

NEW_USER = UserState()
NEW_ITEM = Activity()


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
        before = latest.get(key) or rows.get(key, NEW_USER)
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
    before = rows.get(key, NEW_ITEM)
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
        if not isinstance(event, COUNTED):
            continue
        key = (item_key(event.item_id), partition)
        before = latest.get(key) or rows.get(key, NEW_ITEM)
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
        if isinstance(each.event, COUNTED)
    )
    return count_all(share, occurrences)
