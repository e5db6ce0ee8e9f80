"""The event log → what serving knew at each request: the features of training.

An event is visible to a request at time t iff it happened and was known before t:
``max(occurred_at, created_at) < t``, where t is the earliest ``occurred_at`` of the
request's impressions. So neither the request's own impressions and clicks nor anything
that came late is seen; sequence and counters alike. This module is the only place of
that rule; its sweep gives what ``streams.sequences`` and ``streams.activity`` would.
"""

from bisect import insort
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.event_log import BEHAVIOR, CLICK, IMPRESSION, EventColumns
from features.transforms import ActivityArrays, SequenceArrays, empty_sequences
from streams.activity import HALF_LIVES_H

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Objects = NDArray[np.object_]

_MS_PER_HOUR = 3_600_000.0
_HALF_LIFE_1, _HALF_LIFE_2, _HALF_LIFE_3 = HALF_LIVES_H


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestSnapshots:
    """R requests by time, with M candidates that lie together by request and position."""

    request_ids: Objects  # (R,)
    user_ids: Objects
    times_ms: Int64s
    contexts: Objects
    """JSON or None, of the request's first impression."""
    sequences: SequenceArrays  # (R, L)
    user_activity: ActivityArrays  # (R,)
    candidate_requests: Int64s  # (M,): row of its request, ascending
    candidate_item_ids: Objects
    candidate_item_keys: Int64s
    candidate_positions: Int64s
    candidate_activity: ActivityArrays  # (M,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserHistories:
    """All distinct behaviours of U users, oldest first, one user after another."""

    user_ids: Objects  # (U,)
    starts: Int64s
    """(U + 1,): user u's behaviours are ``starts[u]:starts[u + 1]``."""
    behaviors: SequenceArrays  # (K,)


def snapshot(events: EventColumns, length: int) -> RequestSnapshots:
    """Return what was known at each request of the log; ``length`` is L."""
    shown = np.flatnonzero(events.kinds == IMPRESSION)
    first, request = _requests(events, shown)
    candidates, row = _candidates(events, shown, request)
    times_ms = events.occurred_at_ms[first]
    users = events.users.codes[first]
    counted = np.flatnonzero(events.kinds != BEHAVIOR)
    items = events.items.codes
    return RequestSnapshots(
        request_ids=events.requests.strings()[first],
        user_ids=events.users.names[users],
        times_ms=times_ms,
        contexts=events.contexts.strings()[first],
        sequences=_sequences_at(events, users, times_ms, length),
        user_activity=_activity_at(events, counted, events.users.codes, users, times_ms),
        candidate_requests=row,
        candidate_item_ids=events.items.names[items[candidates]],
        candidate_item_keys=events.item_keys[candidates],
        candidate_positions=events.positions[candidates],
        candidate_activity=_activity_at(
            events, counted, items, items[candidates], times_ms[row]
        ),
    )


def histories(events: EventColumns, before_ms: int) -> UserHistories:
    """Return every user's behaviours that were visible before ``before_ms``."""
    acted = (events.kinds != IMPRESSION) & (events.visible_at_ms < before_ms)
    index = np.flatnonzero(acted)
    columns = (events.action_codes, events.item_keys, events.occurred_at_ms)
    keys = [column[index] for column in (*columns, events.users.codes)]
    # Of equals the one with the greatest value comes last (no value: least), and stays.
    rank = np.where(np.isnan(events.values), -np.inf, events.values)[index]
    order = np.lexsort([rank, *keys])
    ordered = np.stack([key[order] for key in keys])
    is_last = np.append(np.any(ordered[:, 1:] != ordered[:, :-1], axis=0), True)
    kept = index[order[is_last[: len(order)]]]
    users, counts = np.unique(events.users.codes[kept], return_counts=True)
    return UserHistories(
        user_ids=events.users.names[users],
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        behaviors=SequenceArrays(
            item_keys=events.item_keys[kept],
            action_codes=events.action_codes[kept],
            occurred_at_ms=events.occurred_at_ms[kept],
            values=events.values[kept],
        ),
    )


def _requests(events: EventColumns, shown: Int64s) -> tuple[Int64s, Int64s]:
    """Return each request's first impression, by time, and the request of every ``shown``.

    A request is a user's: the same request_id of two users is two requests.
    """
    users, requests = events.users.codes[shown], events.requests.codes[shown]
    pair = users * (len(events.requests.names) + 1) + requests
    by_time = np.lexsort([events.positions[shown], events.occurred_at_ms[shown]])
    _, at, group = np.unique(pair[by_time], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(at))  # unique() sorts by pair: back to time
    request = np.empty(len(shown), dtype=np.int64)
    request[by_time] = rank[group.reshape(-1)]
    return shown[by_time[np.sort(at)]], request


def _candidates(
    events: EventColumns, shown: Int64s, request: Int64s
) -> tuple[Int64s, Int64s]:
    """Return one impression of each item of each request, and the request's row."""
    order = np.lexsort([events.positions[shown], request])
    pair = request * (len(events.items.names) + 1) + events.items.codes[shown]
    _, first = np.unique(pair[order], return_index=True)
    kept = order[np.sort(first)]  # an impression that was published twice is one
    return shown[kept], request[kept]


@dataclass(slots=True)
class _Kept:
    """The last behaviours of one user, in order, with their values."""

    order: list[tuple[int, int, int]] = field(default_factory=list)
    values: dict[tuple[int, int, int], float] = field(default_factory=dict)

    def add(self, identity: tuple[int, int, int], value: float, length: int) -> None:
        """Merge one behaviour: ``streams.sequences.merge`` for one element."""
        seen = self.values.get(identity)
        if seen is not None:
            if value > seen or seen != seen:  # NaN, no value, is the least
                self.values[identity] = value
            return
        insort(self.order, identity)
        self.values[identity] = value
        if len(self.order) > length:
            del self.values[self.order.pop(0)]


def _sequences_at(
    events: EventColumns, users: Int64s, times_ms: Int64s, length: int
) -> SequenceArrays:
    """Return each user's last behaviours that were visible at ``times_ms`` (ascending)."""
    acted = np.flatnonzero(events.kinds != IMPRESSION)
    visible_ms = events.visible_at_ms[acted]
    order = np.argsort(visible_ms, kind="stable")
    acted = acted[order]
    ends = np.searchsorted(visible_ms[order], times_ms)  # strictly before
    who, values = events.users.codes[acted].tolist(), events.values[acted].tolist()
    columns = (events.occurred_at_ms, events.item_keys, events.action_codes)
    identities = list(zip(*(each[acted].tolist() for each in columns), strict=True))
    kept: dict[int, _Kept] = {}
    found = empty_sequences(len(times_ms), length)
    start = 0
    for row, (user, end) in enumerate(zip(users.tolist(), ends.tolist(), strict=True)):
        for i in range(start, end):
            kept.setdefault(who[i], _Kept()).add(identities[i], values[i], length)
        start = end
        if state := kept.get(user):
            _write_sequence(found, row, state)
    return found


def _write_sequence(found: SequenceArrays, row: int, state: _Kept) -> None:
    at_ms, keys, actions = zip(*state.order, strict=True)
    there = slice(found.item_keys.shape[-1] - len(keys), None)
    found.occurred_at_ms[row, there] = at_ms
    found.item_keys[row, there] = keys
    found.action_codes[row, there] = actions
    found.values[row, there] = [state.values[identity] for identity in state.order]


def _activity_at(
    events: EventColumns, counted: Int64s, owners: Int64s, asked: Int64s, times_ms: Int64s
) -> ActivityArrays:
    """Return the counters of the owners ``asked`` at ``times_ms`` (ascending).

    ``owners`` are the codes of users or of items; an item's shares are summed anyway, so
    the partitions do not matter here.
    """
    visible_ms = events.visible_at_ms[counted]
    order = np.argsort(visible_ms, kind="stable")
    counted = counted[order]
    ends = np.searchsorted(visible_ms[order], times_ms)
    who, at_ms = owners[counted].tolist(), events.occurred_at_ms[counted].tolist()
    is_click = (events.kinds[counted] == CLICK).tolist()
    states: dict[int, list[float]] = {}
    found = np.zeros((len(times_ms), len(_NOTHING)))
    start = 0
    for row, (owner, end) in enumerate(zip(asked.tolist(), ends.tolist(), strict=True)):
        for i in range(start, end):
            _count(states.setdefault(who[i], list(_NOTHING)), at_ms[i], is_click[i])
        start = end
        if state := states.get(owner):
            found[row] = state
    return ActivityArrays(
        impressions=found[:, 0:3],
        clicks=found[:, 3:6],
        counted_at_ms=found[:, 6].astype(np.int64),
        first_seen_ms=found[:, 7].astype(np.int64),
    )


# impressions ×3, clicks ×3, counted_at_ms, first_seen_ms: exact, as 2**53 ms is far away
_NOTHING = (0.0,) * 8


def _count(state: list[float], at_ms: int, is_click: bool) -> None:
    """Add one event to ``state`` in place: ``streams.activity.count``, 6 times as fast."""
    elapsed_h = (at_ms - state[6]) / _MS_PER_HOUR
    one = 1.0, 1.0, 1.0
    if elapsed_h >= 0:
        decay = _decay(elapsed_h)
        for i in range(6):
            state[i] *= decay[i % 3]
        state[6] = at_ms
    else:
        one = _decay(-elapsed_h)  # a late event comes decayed
    first = 3 if is_click else 0
    state[first] += one[0]
    state[first + 1] += one[1]
    state[first + 2] += one[2]
    state[7] = min(state[7], at_ms) if state[7] else at_ms


def _decay(hours: float) -> tuple[float, float, float]:
    return (
        2.0 ** (-hours / _HALF_LIFE_1),
        2.0 ** (-hours / _HALF_LIFE_2),
        2.0 ** (-hours / _HALF_LIFE_3),
    )
