"""A store in memory for tests of the online features."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from srp4ctr.errors import OutageError
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SequenceElement, sequence_of


@dataclass
class MemoryReader:
    """``UserReader`` and ``ItemReader`` over dictionaries; ``down`` makes it fail."""

    histories: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """user_id → (occurred_at_ms, item_key), oldest first."""
    attributes: dict[int, dict[str, str]] = field(default_factory=dict)
    impressions: dict[int, float] = field(default_factory=dict)
    down: bool = False
    item_reads: list[int] = field(default_factory=list)
    user_reads: int = 0

    def read_users(self, user_ids: Sequence[str]) -> Rows:
        self._check()
        self.user_reads += 1
        rows = Rows()
        for user_id in user_ids:
            if user_id not in self.histories:
                continue
            elements = [
                SequenceElement(occurred_at=at_ms, item_key=key, action=2)
                for at_ms, key in self.histories[user_id]
            ]
            newest_ms = elements[-1].occurred_at if elements else 0
            rows.sequences[user_id] = sequence_of(
                elements, version_us=newest_ms * 1000, last_offset=0
            )
        return rows

    def read_items(self, item_keys: Iterable[int]) -> list[tuple[str, Activity]]:
        self._check()
        found = []
        for key in item_keys:
            self.item_reads.append(key)
            activity = Activity()
            if key in self.impressions:
                count = self.impressions[key]
                activity = Activity(
                    impressions=(count, count, count, count),
                    counted_at_ms=1,
                    first_seen_ms=1,
                )
            found.append((json.dumps(self.attributes.get(key, {})), activity))
        return found

    def _check(self) -> None:
        if self.down:
            raise OutageError("the store is down")
