"""Where the stream worker keeps its state: a Protocol, so that streams import no store.

The store *is* the state: the worker holds a write-back cache, loads a row when its key
is first touched, and commits offsets only after ``write`` has returned.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.exposures import Exposures
from srp4ctr.streams.state.sequences import BehaviorSequence

ItemPartitionKey = tuple[int, int]
"""An item's key and a partition. An item is touched from every partition, so that one row
could not carry one "last offset"; each partition keeps its own share, readers add them."""


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

    def __len__(self) -> int:
        users = len(self.sequences) + len(self.activities) + len(self.exposures)
        return users + len(self.shares)

    def update(self, other: "Rows") -> None:
        """Take the rows of ``other``, which replace those of the same keys."""
        self.sequences.update(other.sequences)
        self.activities.update(other.activities)
        self.exposures.update(other.exposures)
        self.shares.update(other.shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemProfile:
    """An item's latest attributes."""

    item_key: int
    item_id: str
    attributes: Mapping[str, str | tuple[str, ...]]
    updated_at_ms: int


class FatalStoreError(ValueError):
    """What the store holds, or is asked to, will not become right by trying again."""


class FeatureSink(Protocol):
    """Reads and writes rows by key; ``write`` returns when the store has acknowledged.

    ``FatalStoreError`` ends the worker; any other error is tried again.
    """

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        """Return those of the asked rows that are stored."""
        ...

    def write(self, rows: Rows) -> None:
        """Store the rows; raise if the store did not take them all."""
        ...

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles; an older ``updated_at_ms`` never replaces a newer one."""
        ...

    def restore_profiles(self) -> int:
        """Store the newest profile of every item in the raw log; return how many."""
        ...
