"""Where the stream worker keeps its state: a Protocol, so that streams import no store.

The store *is* the state: the worker holds a write-back cache, loads a row when an event
first needs it, and commits offsets only after ``write`` has returned.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows

NO_OFFSETS: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemProfile:
    """An item's latest attributes."""

    item_key: int
    item_id: str
    attributes: Mapping[str, str | tuple[str, ...]]
    updated_at_ms: int


class LostWritesError(Exception):
    """The store lacks what this process had stored of ``partition``; nothing is written."""

    def __init__(self, partition: int) -> None:
        super().__init__(
            f"the store lacks what was stored of partition {partition}, or another worker "
            "writes it as well"
        )
        self.partition = partition


class FeatureSink(Protocol):
    """Reads and writes rows by key; ``write`` returns when the store has acknowledged.

    The worker waits for as long as a call raises a ``ConnectionError`` or another outage
    (``srp4ctr/retries.py``); any other error ends it.
    """

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        """Return those of the requested rows that are stored."""
        ...

    def begin(self, partition: int) -> int | None:
        """Return up to which offset the rows have the events of ``partition``.

        None if the store does not know, as an empty one. What ``write`` compares begins
        here.
        """
        ...

    def write(self, rows: Rows, offsets: Mapping[int, int] = NO_OFFSETS) -> None:
        """Store the rows, then the next offsets by partition; raise if not all is stored.

        Raises ``LostWritesError`` before it writes a row, if the store has lost what this
        sink had stored of one of these partitions.
        """
        ...

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles; an older ``updated_at_ms`` never replaces a newer one."""
        ...

    def restore_profiles(self) -> int:
        """Store the newest profile of every item in the raw log; return how many."""
        ...
