"""A store in memory for tests of the online features."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from srp4ctr.errors import OutageError
from srp4ctr.features.online import item_feed, row_codec
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.item_map import UP_TO_DATE_MS, ItemMemory
from srp4ctr.features.online.item_writer import ItemWriter
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.state.counters import Activity, count
from srp4ctr.streams.state.sequences import (
    BehaviorSequence,
    SequenceElement,
    sequence_of,
)
from srp4ctr.streams.state.user_state import UserState


@dataclass
class MemoryReader:
    """A ``UserReader`` over dictionaries, and items; ``down`` makes it fail."""

    histories: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """user_id → (occurred_at_ms, item_key), oldest first."""
    user_attributes: dict[str, str] = field(default_factory=dict)
    """user_id → attributes as JSON."""
    attributes: dict[int, dict[str, str]] = field(default_factory=dict)
    impressions: dict[int, float] = field(default_factory=dict)
    exposures: dict[str, BehaviorSequence] = field(default_factory=dict)
    clicks: dict[int, float] = field(default_factory=dict)
    """Of items with ``impressions``."""
    counted_at_ms: int = 1
    times_ms: dict[int, int] = field(default_factory=dict)
    """When an item was seen, first and last, if not at ``counted_at_ms``."""
    down: bool = False
    user_reads: int = 0

    def read_users(self, user_ids: Sequence[str]) -> dict[str, UserState]:
        self._check()
        self.user_reads += 1
        rows: dict[str, UserState] = {}
        for user_id in user_ids:
            if user_id not in self.histories:
                continue
            elements = [
                SequenceElement(occurred_at=at_ms, item_key=key, action=2)
                for at_ms, key in self.histories[user_id]
            ]
            newest_ms = elements[-1].occurred_at if elements else 0
            rows[user_id] = UserState(
                sequence=sequence_of(elements),
                exposures=self.exposures.get(user_id, BehaviorSequence()),
                version_us=newest_ms * 1000,
                last_offset=0,
                attributes=self.user_attributes.get(user_id, ""),
            )
        return rows

    def _check(self) -> None:
        if self.down:
            raise OutageError("the store is down")


def an_activity(impressions: int, at_ms: int = 1_700_000_000_123) -> Activity:
    """Return counters of ``impressions`` events, a millisecond apart."""
    found = Activity()
    for offset in range(impressions):
        found = count(found, at_ms=at_ms + offset, is_click=False, offset=offset)
    return found


def table_of(reader: MemoryReader, vocabulary: Vocabulary) -> ItemTable:
    """Return a table in this process with the items of ``reader``."""
    memory = ItemMemory()
    writer = ItemWriter(memory, 16)
    counted = {
        key: Activity(
            impressions=(number, number, number, number),
            clicks=(reader.clicks.get(key, 0.0),) * 4,
            counted_at_ms=reader.times_ms.get(key, reader.counted_at_ms),
            first_seen_ms=reader.times_ms.get(key, reader.counted_at_ms),
            version_us=1,
        )
        for key, number in reader.impressions.items()
    }
    view = row_codec.ITEM_ACTIVITY
    rows = [view.stored((key, 0), activity) for key, activity in counted.items()]
    profiles = [
        item_feed.StoredProfile(item_key=key, version_us=1, text=json.dumps(attributes))
        for key, attributes in reader.attributes.items()
    ]
    if not reader.down:
        writer.put(item_feed.stored_changes(rows), now=1)
        writer.put(item_feed.Changes(profiles=profiles), now=1)
        writer.publish()
        memory.head[UP_TO_DATE_MS] = 1
    return ItemTable(memory, vocabulary)
