"""Where the stream worker keeps its state: a Protocol, so that streams import no store.

The store *is* the state: the worker holds a write-back cache, loads a row when an event
first needs it, and commits offsets only after ``write`` has returned.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemProfile:
    """An item's latest attributes."""

    item_key: int
    item_id: str
    attributes: Mapping[str, str | tuple[str, ...]]
    updated_at_ms: int


class FeatureSink(Protocol):
    """Reads and writes rows by key; ``write`` returns when the store has acknowledged.

    The worker waits for as long as a call raises a ``ConnectionError`` or another outage
    (``srp4ctr/retries.py``); any other error ends it.
    """

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        """Return those of the requested rows that are stored."""
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
