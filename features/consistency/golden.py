"""Golden requests: users stored for a validation, and what training makes of their ids.

In: a bundle's vocabulary and the feature store. Out: requests of users whose rows are in
the store for the validation only, and the model's tensors of them. Those are computed from
the rows by the transforms of training, not by what serves: neither the compiled code nor
its reader of packed rows has a part in them.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from msgspec.structs import replace as replace_fields
from numpy.typing import NDArray

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.online import row_codec
from srp4ctr.features.tensors import transforms, vocabulary
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    CandidateArrays,
    Float32s,
    Int64s,
    ItemExposures,
    SequenceArrays,
    empty_sequences,
)
from srp4ctr.features.tensors.caller_numbers import list_columns, missing_numbers
from srp4ctr.features.tensors.item_fields import AttributeField
from srp4ctr.features.tensors.schema import UTC_OFFSET_FIELD, ItemStatus, RequestStatus
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import (
    AVAILABLE,
    GOLDEN_USERS,
    NOT_AVAILABLE,
    TOTAL_KEY,
    item_key,
    json_text,
)
from srp4ctr.streams.state.counters import Activity, total
from srp4ctr.streams.state.sequences import (
    EMPTY,
    SHOWN,
    BehaviorSequence,
    SequenceElement,
    merge,
    sequence_of,
)
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState

if TYPE_CHECKING:  # Redis: another extra
    from srp4ctr.features.online.store import OnlineViews

LOG = logging.getLogger(__name__)
KEPT_S = 900
"""After that the store drops the rows of a validation that was killed."""
MOST_ITEMS = 8  # known ones of a request
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
# Ids of up to 3, 8, 16, 128 and 240 bytes are hashed in five ways, longer ones in a sixth.
_UNKNOWN_ITEMS = ("~", "~gold", "~golden item", "~golden " * 9, "~gölden " * 18)
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest:
    """A request, and its user's row."""

    name: str
    user_id: str
    user: UserState | None
    """None: the user has no row."""
    item_ids: tuple[str, ...]
    """N, "" pads."""
    at_ms: int
    context: Mapping[str, str]
    numbers: Float32s
    """(N, K) of the vocabulary's numbers of candidates, NaN where one is missing."""

    def changed(self) -> "GoldenRequest":
        """Return the same request once its user has acted again, on another candidate."""
        if self.user is None:
            return self
        key = next(item_key(item) for item in reversed(self.item_ids) if item)
        act = SequenceElement(occurred_at=self.at_ms - 400, item_key=key, action=1, value=3)
        user = replace_fields(
            self.user,
            sequence=merge(self.user.sequence, act, len(self.user.sequence) + 1),
            clicks=tuple(count + 1.0 for count in self.user.clicks),
            last_offset=self.user.last_offset + 1,
            version_us=self.user.version_us + 1,
        )
        return replace(self, user=user)

    def without_items(self) -> "GoldenRequest":
        """Return a request of the same context, by a user with no more than attributes."""
        user = self.user and replace_fields(self.user, sequence=EMPTY, exposures=EMPTY)
        return replace(
            self,
            user_id=f"{self.user_id}-without-items",
            user=user,
            item_ids=("",),
            numbers=self.numbers[:1],
        )

    @property
    def keys(self) -> Int64s:
        """The candidates' keys (N,), 0 for padding."""
        return np.array([item_key(item) if item else 0 for item in self.item_ids])

    def inputs(self, number_names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the inputs of ``rank_clicks``, as a client sends them."""
        texts = {"user_id": [self.user_id], "item_ids": self.item_ids}
        if self.context:
            texts["context"] = [json_text(self.context)]
        if number_names:
            texts["candidate_number_names"] = list(number_names)
        made = {name: np.array([each], object) for name, each in texts.items()}
        made["request_time_ms"] = np.array([[self.at_ms]])
        return made | ({"candidate_numbers": self.numbers[None]} if number_names else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItems:
    """What the store had of some items at one time."""

    shares: Mapping[int, Activity]
    """Counters by item, ``TOTAL_KEY`` included."""
    profiles: Mapping[int, ItemProfile]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenTensors:
    """One request as the model reads it."""

    tensors: Tensors
    """The schema's, with a leading axis of 1."""
    item_status: NDArray[np.uint8]
    """(1, N)"""
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenUsers:
    """The golden requests of one validation, whose users are stored."""

    requests: tuple[GoldenRequest, ...]
    views: "OnlineViews"
    known: Vocabulary
    partitions: int
    lengths: tuple[int, int]
    """L and W of the bundle."""
    ttl_ms: int

    def read_items(self) -> StoredItems:
        """Return the rows of the requests' items as the store has them now."""
        histories = [
            each.item_key
            for request in self.requests
            for each in (request.user.sequence.elements if request.user else ())
        ]
        candidates = {int(key) for request in self.requests for key in request.keys if key}
        keys = [*sorted(candidates), TOTAL_KEY]
        shares = self.views.read_shares(
            (key, partition) for key in keys for partition in range(self.partitions)
        )
        by_item: dict[int, list[Activity]] = {key: [] for key in keys}
        for (key, _), share in sorted(shares.items()):
            by_item[key].append(share)
        profiles = self.views.read_profiles(sorted(candidates | {*histories}))
        return StoredItems(
            shares={key: total(each) for key, each in by_item.items()}, profiles=profiles
        )

    def tensors(self, request: GoldenRequest, items: StoredItems) -> GoldenTensors:
        """Return the model's tensors of ``request`` where the store has ``items``."""
        user = request.user or UserState()
        keys, known = request.keys[None], self.known
        sequences = self._sequences(user, request.at_ms)
        of_history = self._attribute_rows(sequences.item_keys, items)
        activity = _activities([items.shares.get(int(k), Activity()) for k in keys[0]])
        of_items = self._attribute_rows(keys, items)
        inputs = CandidateArrays(
            request_time_ms=np.array([request.at_ms]),
            item_keys=keys,
            attribute_rows=of_items,
            activity=activity.take(None),
            total=_activities([items.shares[TOTAL_KEY]]),
            exposures=self._exposures(user, request),
            sequences=sequences,
            history_attribute_rows=of_history,
            number_columns=self._number_columns(request),
        )
        rows_of_user = known.user_attribute_rows(user.attributes)[None]
        tensors: dict[str, NDArray[Any]] = {
            **({"user_attribute_rows": rows_of_user} if known.user_fields else {}),
            "history_item_rows": known.item_rows(sequences.item_keys),
            "history_attribute_rows": of_history,
            "history_behavior_codes": transforms.behavior_codes(sequences),
            "request_features": self._request_features(user, request, sequences),
            "context_rows": vocabulary.context_rows(request.context)[None],
            "candidate_item_rows": known.item_rows(keys),
            "candidate_attribute_rows": of_items,
            "candidate_features": transforms.candidate_features(
                inputs, known.candidate_columns
            ),
        }
        return GoldenTensors(
            tensors=tensors,
            item_status=self._item_status(keys, activity, of_items, items),
            status=_status(request.user, sequences),
        )

    def _request_features(
        self, user: UserState, request: GoldenRequest, sequences: SequenceArrays
    ) -> Float32s:
        names = self.known.context_numbers
        return transforms.request_features(
            sequences,
            _activities([user]),
            np.array([request.at_ms]),
            vocabulary.context_numbers(request.context, names)[None],
            np.array([self.known.utc_offset_ms(request.context)]),
        )

    def _sequences(self, user: UserState, at_ms: int) -> SequenceArrays:
        """Return the last behaviours (1, L) that have not expired, newest last."""
        length, oldest_ms = self.lengths[0], at_ms - self.ttl_ms
        kept = [
            element for element in user.sequence.elements if element.occurred_at > oldest_ms
        ]
        sequences = empty_sequences(1, length)
        for slot, each in enumerate(reversed(kept[-length:]), start=1):
            sequences.item_keys[0, -slot] = each.item_key
            sequences.action_codes[0, -slot] = each.action
            sequences.occurred_at_ms[0, -slot] = each.occurred_at
            if each.value is not None:
                sequences.values[0, -slot] = each.value
        return sequences

    def _attribute_rows(self, keys: Int64s, items: StoredItems) -> Int64s:
        """Return the attributes' rows (…, A) of ``keys`` (…)."""
        found = [
            self.known.attribute_rows(
                items.profiles[key].attributes if key in items.profiles else {}
            )
            for key in keys.ravel().tolist()
        ]
        return np.stack(found).reshape(*keys.shape, -1)

    def _exposures(self, user: UserState, request: GoldenRequest) -> ItemExposures:
        kept = user.exposures.elements[-self.lengths[1] :]
        shown = [
            [e.occurred_at for e in kept if e.item_key == k and e.occurred_at < at_ms]
            for at_ms in [request.at_ms]
            for k in request.keys.tolist()
        ]
        return ItemExposures(
            counts=np.array([list(map(len, shown))]),
            last_shown_ms=np.array([[max(times, default=0) for times in shown]]),
        )

    def _number_columns(self, request: GoldenRequest) -> Float32s:
        keys, names = request.keys[None], self.known.candidate_numbers
        numbers = request.numbers[None] if names else missing_numbers(keys, 0)
        return list_columns(numbers, keys)

    def _item_status(
        self, keys: Int64s, activity: ActivityArrays, of_items: Int64s, items: StoredItems
    ) -> NDArray[np.uint8]:
        is_gone = [
            [
                key in items.profiles
                and items.profiles[key].attributes.get(AVAILABLE) == NOT_AVAILABLE
                for key in keys[0].tolist()
            ]
        ]
        is_known = self.known.is_known(self.known.item_rows(keys))
        bits = np.where(is_known, 0, ItemStatus.UNKNOWN_ITEM)
        bits |= np.where(of_items.any(axis=-1), 0, ItemStatus.NO_ATTRIBUTES)
        bits |= np.where(activity.first_seen_ms[None] > 0, 0, ItemStatus.NO_ACTIVITY)
        bits |= np.where(is_gone, ItemStatus.UNAVAILABLE, 0)
        return np.where(keys != 0, bits, ItemStatus.PADDING).astype(np.uint8)


def candidates_of(item_ids: Sequence[str], max_candidates: int) -> tuple[str, ...]:
    """Return some of the known ``item_ids``, unknown items and padding: "" pads."""
    others = (*_UNKNOWN_ITEMS, "")
    room = max(min(MOST_ITEMS, max_candidates - len(others)), 1)
    return (*item_ids[:room], *others)[:max_candidates]


def golden_requests(
    known: Vocabulary,
    candidates: Sequence[str],
    other_keys: Sequence[int],
    *,
    length: int,
    ttl_ms: int,
) -> tuple[GoldenRequest, ...]:
    """Return requests of now for ``candidates``, of users of all kinds.

    One has acted on ``other_keys`` only. ``length`` is L: one history is longer. The users'
    ids are of this call only.
    """
    at_ms = time.time_ns() // 1_000_000
    of_call = f"{GOLDEN_USERS}{uuid4().hex}-"
    keys = [item_key(candidate) for candidate in candidates if candidate]
    numbers = _numbers(len(candidates), len(known.candidate_numbers))
    months_ms, expired_ms = _long_ago(ttl_ms, at_ms)
    users = {
        "a long history": _user(known, keys, at_ms, [_HOUR_MS] * (length + 3), 0),
        "a short history": _user(known, keys[:2], at_ms, [_HOUR_MS, 7_000, 500], None),
        "behaviours months apart": _user(known, keys, at_ms, months_ms, 1),
        "an expired history": _user(known, keys, at_ms, expired_ms, None),
        "no history": _user(known, keys, at_ms, [], 1),
        "no row": None,
        "other items": _user(known, other_keys or keys, at_ms, [_HOUR_MS] * 9, None),
    }
    return tuple(
        GoldenRequest(
            name=name,
            user_id=f"{of_call}{number}",
            user=user,
            # Another item is first: what is of one place must not be of another.
            item_ids=(*candidates[number % 3 :], *candidates[: number % 3]),
            at_ms=at_ms,
            context=_context(known, number),
            numbers=np.roll(numbers, number, axis=0),
        )
        for number, (name, user) in enumerate(users.items())
    )


def store(views: "OnlineViews", requests: Sequence[GoldenRequest]) -> None:
    """Store the users of ``requests``, or what has become of them."""
    rows = {
        request.user_id: request.user for request in requests if request.user is not None
    }
    try:
        views.write_for(KEPT_S, row_codec.USERS, rows)
    except MistakeError as error:
        raise MistakeError(
            f"golden users cannot be stored: {error}; the promoting user needs +hset, "
            f"+expire and +unlink on ~*{GOLDEN_USERS}*: run `make secrets`"
        ) from error


@contextmanager
def stored(views: "OnlineViews", requests: Sequence[GoldenRequest]) -> Iterator[None]:
    """Keep the users of ``requests`` in the store for as long as the block runs.

    Raises ``OutageError`` where it does not answer, ``MistakeError`` where it refuses.
    """
    every = [*requests, *(request.without_items() for request in requests)]
    try:
        store(views, every)
        yield
    finally:
        try:
            views.remove(row_codec.USERS, [each.user_id for each in every])
        except (MistakeError, OutageError) as error:
            LOG.warning("golden users stay in the store for %s s: %s", KEPT_S, error)


def _long_ago(ttl_ms: int, at_ms: int) -> tuple[list[int], list[int]]:
    """Return how far behaviours are apart, so that some have expired, and that all have.

    No time is before 1970: where behaviours are kept for longer than that none expires.
    """
    kept_ms = min(ttl_ms, at_ms // 2)
    expired_ms = [ttl_ms + _DAY_MS] * 2 if ttl_ms < at_ms // 4 else []
    return [kept_ms * 2 // 5] * 3, expired_ms


def _user(
    known: Vocabulary, keys: Sequence[int], at_ms: int, gaps_ms: Sequence[int], value: Any
) -> UserState:
    """Return a user who acted on ``keys`` in turn, so long apart; the newest first.

    ``value`` is the place of the attributes' values, None: the user has no attributes.
    """
    codes = [code for _, code in known.actions] or [1]
    times = (at_ms - np.cumsum(gaps_ms, dtype=np.int64)).tolist()
    done = [
        SequenceElement(
            occurred_at=occurred_ms,
            item_key=keys[place * place % len(keys)],  # some items again, unevenly
            action=codes[place % len(codes)],
            value=None if place % 3 else 1.5 * place,
        )
        for place, occurred_ms in enumerate(times)
    ]
    shown = [
        SequenceElement(
            occurred_at=at_ms - (place // 2 + 1) * 90_000, item_key=key, action=SHOWN
        )
        for place, key in enumerate((*keys, *keys[::2]))
    ]
    attributes = _attributes(known.user_fields, value) if value is not None else {}
    seen = len(gaps_ms)
    return UserState(
        impressions=(2.5, 4.25 + seen, 9.0 + seen, 20.0 + seen),
        clicks=(0.5, 1.0, 2.0 + seen / 8, 3.0 + seen / 4),
        counted_at_ms=at_ms - 5 * _HOUR_MS,  # so that they decay
        first_seen_ms=at_ms - 40 * _DAY_MS,
        last_offset=seen,
        version_us=at_ms * 1000 - 1_000_000,
        sequence=_sequence(done),
        exposures=_sequence(shown),
        attributes=json_text(attributes) if attributes else "",
        profile_at_ms=at_ms - _DAY_MS if attributes else 0,
    )


def _sequence(elements: Sequence[SequenceElement]) -> BehaviorSequence:
    """Return ``elements`` in order, each once."""
    distinct = {
        (element.occurred_at, element.item_key, element.action): element
        for element in elements
    }
    return sequence_of([each for _, each in sorted(distinct.items(), key=itemgetter(0))])


def _attributes(fields: Sequence[AttributeField], value: int) -> dict[str, Any]:
    """Return a value of each field that has names for its values, or numbers."""
    made: dict[str, Any] = {}
    for field in fields:
        if field.kind == "numeric":
            made[field.name] = f"{field.edges[value % len(field.edges)]:g}"
        elif field.values:
            made[field.name] = field.values[value % len(field.values)]
    return made


def _context(known: Vocabulary, number: int) -> dict[str, str]:
    """Return the context of request ``number``; of every fourth there is none."""
    if number % 4 == 3:
        return {}
    numbers = {name: f"{number + 0.5}" for name in known.context_numbers}
    offset = {UTC_OFFSET_FIELD: str(90 * number - 60)} if number % 2 else {}
    return {**numbers, **offset, "page": f"golden {number}"}


def _numbers(count: int, names: int) -> Float32s:
    """Return numbers (count, names) of candidates, some equal, one in five missing."""
    made = (np.arange(count * names) * 7 % 11 + 0.25).astype(np.float32)
    made[4::5] = np.nan
    return made.reshape(count, names)


def _activities(rows: Sequence[Activity]) -> ActivityArrays:
    return ActivityArrays(
        counts=np.array([(row.impressions, row.clicks) for row in rows]),
        counted_at_ms=np.array([row.counted_at_ms for row in rows]),
        first_seen_ms=np.array([row.first_seen_ms for row in rows]),
    )


def _status(user: UserState | None, sequences: SequenceArrays) -> RequestStatus:
    if user is None:
        return RequestStatus.COLD_USER
    if sequences.item_keys.any():
        return RequestStatus.OK
    is_stale = len(user.sequence) > 0
    return RequestStatus.STALE_SEQUENCE if is_stale else RequestStatus.EMPTY_SEQUENCE
