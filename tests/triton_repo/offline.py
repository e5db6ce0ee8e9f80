"""The raw log → the tensors of a request, as of the versions that its answer names.

Nothing here reads the store: the tensors are computed again from the events only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from srp4ctr.features.consistency.replay import (
    events_of,
    item_share_at,
    places,
    total_share_at,
    user_at,
)
from srp4ctr.features.tensors import transforms, vocabulary
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    CandidateArrays,
    ItemExposures,
    SequenceArrays,
    empty_sequences,
)
from srp4ctr.features.tensors.caller_numbers import list_columns, missing_numbers
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.features.tensors.vocabulary import Vocabulary, parse_attributes
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import ITEMS_TOPIC, item_key
from srp4ctr.streams.raw_log.delta_tables import dataset
from srp4ctr.streams.state.counters import Activity, total
from srp4ctr.streams.state.sequences import SequenceElement
from srp4ctr.streams.state.user_state import UserState

Tensors = dict[str, np.ndarray[Any, Any]]
MS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; ``context`` is flat."""

    user_id: str
    item_ids: tuple[str, ...]
    at_ms: int
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """An answer's ``feature_version``: last offset (-1: no row), the item table's time."""

    user: int
    items: int


def versions_in(text: str) -> Versions:
    """Return what ``user=V@O,items=N`` names."""
    found = dict(re.findall(r"(\w+)=(?:\d+@)?(\d+)", text))
    assert re.fullmatch(r"(user=\d+@\d+,)?items=\d+", text), text
    return Versions(user=int(found.get("user", -1)), items=int(found["items"]))


@dataclass(frozen=True, kw_only=True)
class OfflineLog:
    """A log that is not written any more, and the inputs that the model gets from it."""

    log_dir: Path
    words: Vocabulary
    length: int
    exposure_length: int
    ttl_days: float

    @cached_property
    def users(self) -> dict[str, list[LoggedEvent]]:
        """Each user's events; a user is in one partition."""
        found = events_of(self.log_dir, "user_id", places(self.log_dir, "user_id", 10_000))
        assert len({user_id for user_id, _ in found}) == len(found)
        return {user_id: events for (user_id, _), events in found.items()}

    @cached_property
    def _items(self) -> dict[str, dict[int, list[LoggedEvent]]]:
        found: dict[str, dict[int, list[LoggedEvent]]] = {}
        shown = events_of(self.log_dir, "item_id", places(self.log_dir, "item_id", 10_000))
        for (item_id, partition), events in shown.items():
            found.setdefault(item_id, {})[partition] = events
        return found

    @cached_property
    def _updates(self) -> list[dict[str, Any]]:
        """The items' updates, in the order in which they became known."""
        rows = dataset(self.log_dir, ITEMS_TOPIC).to_table().to_pylist()
        return sorted(rows, key=lambda row: (row["created_at"], row["offset"]))

    def user_tensors(self, request: Request, versions: Versions) -> Tensors:
        """Return the model's tensors of the user and the request."""
        sequence = self._sequences(request, versions)
        activity = _activities([self._user(request, versions)])
        return {
            "history_item_rows": self.words.item_rows(sequence.item_keys),
            "history_behavior_codes": transforms.behavior_codes(sequence),
            "request_features": transforms.request_features(
                sequence,
                activity,
                [request.at_ms],
                utc_offset_ms=[self.words.utc_offset_ms(request.context)],
            ),
            "context_rows": vocabulary.context_rows(request.context)[None],
        }

    def item_tensors(
        self,
        request: Request,
        versions: Versions,
        offsets: Mapping[int, int],
        known_ms: int,
    ) -> Tensors:
        """Return the model's tensors of items.

        Their counters are as of the next ``offsets``, their attributes as of ``known_ms``.
        """
        keys = np.array([[item_key(item) for item in request.item_ids]])
        sequence = self._sequences(request, versions)
        activity = _activities([self._count(item, offsets) for item in request.item_ids])
        rows, columns = self._attribute_rows(known_ms), self.words.candidate_columns
        item_rows = self.words.item_rows(keys)
        attributes, history = rows(keys), rows(sequence.item_keys)
        status = (
            np.where(self.words.is_known(item_rows), 0, ItemStatus.UNKNOWN_ITEM)
            | np.where(attributes.any(axis=-1), 0, ItemStatus.NO_ATTRIBUTES)
            | np.where(activity.first_seen_ms[None] > 0, 0, ItemStatus.NO_ACTIVITY)
        )
        inputs = CandidateArrays(
            request_time_ms=np.array([request.at_ms]),
            item_keys=keys,
            attribute_rows=attributes,
            activity=activity.take(None),
            total=_activities([self._total(offsets)]),
            exposures=self._exposures(request, versions),
            sequences=sequence,
            history_attribute_rows=history,
            number_columns=list_columns(missing_numbers(keys, 0), keys),
        )
        return {
            "history_attribute_rows": history,
            "candidate_item_rows": item_rows,
            "candidate_attribute_rows": attributes,
            "candidate_features": transforms.candidate_features(inputs, columns),
            "item_status": status.astype(np.uint8),
        }

    def status(self, request: Request, versions: Versions) -> str:
        """Return the status that the answer must have."""
        if versions.user < 0:
            return "cold_user"
        if not len(self._user(request, versions).sequence):
            return "empty_sequence"
        is_fresh = self._sequences(request, versions).item_keys.any()
        return "ok" if is_fresh else "stale_sequence"

    def behind_ms(self, request: Request, versions: Versions) -> int:
        """Return how long the sequence had lacked an event that was known; 0: none."""
        missing = [
            each.known_at_ms
            for each in self.users.get(request.user_id, [])
            if each.offset > versions.user and each.known_at_ms < request.at_ms
        ]
        return request.at_ms - min(missing, default=request.at_ms)

    def _user(self, request: Request, versions: Versions) -> UserState:
        config = StreamConfig(
            sequence_length=self.length, exposure_length=self.exposure_length
        )
        return user_at(self.users.get(request.user_id, []), versions.user, config)

    def _sequences(self, request: Request, versions: Versions) -> SequenceArrays:
        sequence = self._user(request, versions).sequence
        oldest_ms = request.at_ms - round(self.ttl_days * MS_PER_DAY)
        unexpired = [
            element for element in sequence.elements if element.occurred_at > oldest_ms
        ]
        return _arrays(unexpired, self.length)

    def _exposures(self, request: Request, versions: Versions) -> ItemExposures:
        """Return the exposures (1, N), item by item."""
        kept = [
            (element.occurred_at, element.item_key)
            for element in self._user(request, versions).exposures.elements
        ]
        shown = [
            [at for at, key in kept if key == item_key(item) and at < request.at_ms]
            for item in request.item_ids
        ]
        return ItemExposures(
            counts=np.array([list(map(len, shown))]),
            last_shown_ms=np.array([[max(times, default=0) for times in shown]]),
        )

    def _count(self, item_id: str, offsets: Mapping[int, int]) -> Activity:
        shares = [
            item_share_at(events, offsets[partition] - 1, partition)
            for partition, events in sorted(self._items.get(item_id, {}).items())
        ]
        return total([share for share in shares if share.last_offset >= 0])

    def _total(self, offsets: Mapping[int, int]) -> Activity:
        log, partitions = self.log_dir, sorted(offsets.items())
        return total([total_share_at(log, end - 1, number) for number, end in partitions])

    def _attribute_rows(self, known_ms: int) -> Any:
        """Return a function from keys to rows."""
        texts = {
            item_key(row["item_id"]): row["attributes"]
            for row in self._updates
            if row["created_at"] <= known_ms
        }
        of_key = {
            key: self.words.attribute_rows(parse_attributes(t)) for key, t in texts.items()
        }
        nothing = self.words.attribute_rows({})
        return lambda keys: np.stack(
            [np.stack([of_key.get(key, nothing) for key in row]) for row in keys.tolist()]
        )


def _arrays(elements: Sequence[SequenceElement], length: int) -> SequenceArrays:
    """Return the sequence as a row (1, L), newest last."""
    arrays = empty_sequences(1, length)
    for slot, element in enumerate(reversed(elements), start=1):
        arrays.item_keys[0, -slot] = element.item_key
        arrays.action_codes[0, -slot] = element.action
        arrays.occurred_at_ms[0, -slot] = element.occurred_at
        if element.value is not None:
            arrays.values[0, -slot] = element.value
    return arrays


def _activities(rows: Sequence[Activity]) -> ActivityArrays:
    return ActivityArrays(
        counts=np.array([(row.impressions, row.clicks) for row in rows]),
        counted_at_ms=np.array([row.counted_at_ms for row in rows]),
        first_seen_ms=np.array([row.first_seen_ms for row in rows]),
    )
