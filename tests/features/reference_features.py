"""A reference implementation of point-in-time features: slow, over all events each time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from srp4ctr.features.offline.point_in_time import RequestSnapshots
from srp4ctr.streams.events.schema import (
    Behavior,
    Click,
    Forget,
    Impression,
    UserEvent,
    UserUpdate,
    item_key,
    json_text,
)
from srp4ctr.streams.state.counters import HALF_LIVES_H, MS_PER_HOUR
from srp4ctr.streams.state.sequences import SequenceElement, element_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An event as the log has it; a user's rows are in one partition, by offset."""

    event: UserEvent
    known_ms: int

    def is_visible(self, at_ms: int) -> bool:
        return max(self.event.occurred_at, self.known_ms) < at_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The impressions of a request, and its time."""

    at_ms: int
    user_id: str
    shown: tuple[Impression, ...]


class ReferenceFeatures:
    """The features of ``rows``, which are in the order of their offsets."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def requests(self) -> list[Request]:
        """Return the requests that no erasure covers, by time."""
        slates: dict[tuple[str, str], dict[str, Impression]] = {}
        for row in self.rows:
            event = row.event
            if isinstance(event, Impression):
                slate = slates.setdefault((event.user_id, event.request_id), {})
                slate.setdefault(event.item_id, event)
        by_time = sorted(
            ((min(each.occurred_at for each in shown), *who), shown)
            for who, slate in slates.items()
            if (shown := [e for e in slate.values() if self._is_remembered(e)])
        )
        return [
            Request(at_ms=at_ms, user_id=user, shown=tuple(sorted(shown, key=_place)))
            for (at_ms, user, _), shown in by_time
        ]

    def sequence_at(
        self, user: str, at_ms: int, length: int, ttl_ms: int
    ) -> list[SequenceElement]:
        """Return the last behaviours, each with its largest value (None is least)."""
        values: dict[tuple[int, int, int], float | None] = {}
        for event in self.acted_at(user, at_ms):
            element = element_of(event)
            identity = element.occurred_at, element.item_key, element.action
            known = (values.get(identity), element.value)
            values[identity] = max((v for v in known if v is not None), default=None)
        return [
            SequenceElement(occurred_at=at, item_key=key, action=action, value=value)
            for (at, key, action), value in sorted(values.items())
            if at > at_ms - ttl_ms
        ][-length:]

    def acted_at(self, user: str, at_ms: int) -> Iterator[Click | Behavior]:
        """Yield the user's behaviours that were visible."""
        for row in self.rows:
            event = row.event
            if (
                isinstance(event, Click | Behavior)
                and event.user_id == user
                and row.is_visible(at_ms)
                and self._is_remembered(event)
            ):
                yield event

    def attributes_at(self, user: str, at_ms: int) -> str:
        """Return the user's latest attributes that were visible; "" for none."""
        known = (
            (row.event.occurred_at, json_text(row.event.attributes))
            for row in self.rows
            if isinstance(row.event, UserUpdate) and row.event.user_id == user
            if row.is_visible(at_ms) and self._is_remembered(row.event)
        )
        return max(known, default=(0, ""))[1]

    def of_user_at(self, user: str, at_ms: int) -> list[Impression | Click]:
        """Return the events in the user's counters."""
        begin = self._erased_at(user, len(self.rows))
        counted = self._counted_at(at_ms, begin + 1)
        return [e for e in counted if e.user_id == user and self._is_remembered(e)]

    def of_item_at(self, key: int, at_ms: int) -> list[Impression | Click]:
        """Return the events in the item's counters, those of forgotten users included."""
        return [e for e in self._counted_at(at_ms) if item_key(e.item_id) == key]

    def of_all_at(self, at_ms: int) -> list[Impression | Click]:
        """Return the events in the total of all items."""
        return list(self._counted_at(at_ms))

    def shown_at(self, user: str, at_ms: int, width: int) -> list[tuple[int, int]]:
        """Return the user's last exposures: when, and the item's key."""
        shown = {
            (each.occurred_at, item_key(each.item_id))
            for each in self._counted_at(at_ms)
            if isinstance(each, Impression) and each.user_id == user
            if self._is_remembered(each)
        }
        return sorted(shown)[-width:]

    def _counted_at(self, at_ms: int, begin: int = 0) -> list[Impression | Click]:
        return [
            row.event
            for place, row in enumerate(self.rows[begin:], begin)
            if isinstance(row.event, Impression | Click)
            if row.is_visible(at_ms) and self._counts(row.event, place)
        ]

    def _counts(self, event: Impression | Click, place: int) -> bool:
        """Return whether it is not erased, and the first since an erasure request."""
        request = self._erased_at(event.user_id, place)
        until_ms = self.rows[request].event.occurred_at if request >= 0 else 0
        before = (row.event for row in self.rows[request + 1 : place])
        same = (each for each in before if _identity(each) == _identity(event))
        is_new = not any(each.occurred_at > until_ms for each in same)
        return is_new and event.occurred_at > until_ms

    def _erased_at(self, user: str, end: int) -> int:
        """Return the place, before ``end``, of the user's last request; -1 for none."""
        place, until_ms = -1, 0
        for each, row in enumerate(self.rows[:end]):
            event = row.event
            is_request = isinstance(event, Forget) and event.user_id == user
            if is_request and event.occurred_at > until_ms:
                place, until_ms = each, event.occurred_at
        return place

    def _is_remembered(self, event: UserEvent) -> bool:
        return not any(
            isinstance(other := row.event, Forget)
            and other.user_id == event.user_id
            and event.occurred_at <= other.occurred_at
            for row in self.rows
        )


def decayed_sums(events: Sequence[Impression | Click], at_ms: int) -> list[list[float]]:
    """Return Σ 2^(−(t − t_i) / h) of the impressions, then of the clicks, for each h."""
    return [
        [
            math.fsum(
                2.0 ** (-(at_ms - event.occurred_at) / (hours * MS_PER_HOUR))
                for event in events
                if isinstance(event, kind)
            )
            for hours in HALF_LIVES_H
        ]
        for kind in (Impression, Click)
    ]


def sequence_of(snapshots: RequestSnapshots, row: int) -> list[SequenceElement]:
    """Return the behaviours in row ``row``."""
    arrays = snapshots.sequences
    columns = (arrays.occurred_at_ms, arrays.item_keys, arrays.action_codes, arrays.values)
    return [
        SequenceElement(
            occurred_at=at, item_key=key, action=action, value=None if np.isnan(v) else v
        )
        for at, key, action, v in zip(*(c[row].tolist() for c in columns), strict=True)
        if key
    ]


def _identity(event: UserEvent) -> tuple[object, ...]:
    if not isinstance(event, Impression | Click):
        return ()
    return type(event), event.user_id, event.request_id, event.item_id


def _place(shown: Impression) -> tuple[int, int]:
    return shown.position, item_key(shown.item_id)
