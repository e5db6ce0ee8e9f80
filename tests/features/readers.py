"""A store in memory for tests of what reads the store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from srp4ctr.features.online.reader import ItemArrays, UserArrays
from srp4ctr.features.tensors.exposures import empty_exposures
from srp4ctr.features.tensors.transforms import empty_activity, empty_sequences


@dataclass
class MemoryReader:
    """``FeatureReader`` over dictionaries; ``down`` makes it refuse."""

    histories: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """user_id → (occurred_at_ms, item_key), oldest first."""
    shown: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """user_id → (shown_at_ms, item_key), oldest first."""
    attributes: dict[int, dict[str, str]] = field(default_factory=dict)
    impressions: dict[int, float] = field(default_factory=dict)
    down: bool = False
    item_reads: list[int] = field(default_factory=list)
    user_reads: int = 0

    def read_users(
        self, user_ids: Sequence[str], length: int, exposure_length: int
    ) -> UserArrays:
        self._check()
        self.user_reads += 1
        sequences = empty_sequences(len(user_ids), length)
        versions = [""] * len(user_ids)
        for row, user_id in enumerate(user_ids):
            if user_id not in self.histories:
                continue
            newest_ms = 0
            for slot, (at_ms, key) in enumerate(reversed(self.histories[user_id])):
                sequences.occurred_at_ms[row, length - 1 - slot] = at_ms
                sequences.item_keys[row, length - 1 - slot] = key
                sequences.action_codes[row, length - 1 - slot] = 2
                newest_ms = max(newest_ms, at_ms)
            versions[row] = f"sequence={newest_ms * 1000}@{row}"
        exposures = empty_exposures(len(user_ids), exposure_length)
        for row, user_id in enumerate(user_ids):
            for slot, (at_ms, key) in enumerate(reversed(self.shown.get(user_id, []))):
                exposures.shown_at_ms[row, exposure_length - 1 - slot] = at_ms
                exposures.item_keys[row, exposure_length - 1 - slot] = key
        return UserArrays(
            sequences=sequences,
            activity=empty_activity(len(user_ids)),
            exposures=exposures,
            versions=tuple(versions),
        )

    def read_items(self, item_keys: Sequence[int]) -> ItemArrays:
        self._check()
        self.item_reads.extend(item_keys)
        activity = empty_activity(len(item_keys))
        for row, key in enumerate(item_keys):
            if key in self.impressions:
                activity.impressions[row] = self.impressions[key]
                activity.first_seen_ms[row] = activity.counted_at_ms[row] = 1
        texts = [json.dumps(self.attributes.get(key, {})) for key in item_keys]
        return ItemArrays(attributes=tuple(texts), activity=activity)

    def _check(self) -> None:
        if self.down:
            raise ConnectionError("the store is down")
