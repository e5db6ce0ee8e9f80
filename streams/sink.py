"""Where the stream worker keeps its state: a Protocol, so that streams import no store.

The store *is* the state: the worker holds a write-back cache, loads a row when its key
is first touched, and commits offsets only after ``write`` has returned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.activity import Activity
from streams.sequences import BehaviorSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """All that the stream keeps of one user."""

    user_id: str
    sequence: BehaviorSequence
    activity: Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemShare:
    """The part of an item's activity that one partition of the topic has seen.

    An item is touched from every partition, so that one row could not carry one "last
    offset"; each partition keeps its own share, and readers add the shares.
    """

    item_key: int
    partition: int
    activity: Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemProfile:
    """An item's latest attributes."""

    item_key: int
    item_id: str
    attributes: Mapping[str, str | tuple[str, ...]]
    updated_at_ms: int


class FeatureSink(Protocol):
    """Reads and writes rows by key; ``write`` returns when the store has acknowledged."""

    def read_users(self, user_ids: Sequence[str]) -> dict[str, UserRow]:
        """Return the stored rows of those ``user_ids`` that have one."""
        ...

    def read_item_shares(
        self, partition: int, item_keys: Sequence[int]
    ) -> dict[int, ItemShare]:
        """Return the stored shares of those ``item_keys`` that have one."""
        ...

    def write(self, users: Sequence[UserRow], shares: Sequence[ItemShare]) -> None:
        """Store the rows; raise if the store did not take them all."""
        ...

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles; an older ``updated_at_ms`` never replaces a newer one."""
        ...
