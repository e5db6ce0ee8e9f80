"""Users' rows and counters ↔ bytes, and the bytes of a sequence as numpy reads them."""

import logging
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr import logs
from srp4ctr.errors import ArtifactError
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    ExposureArrays,
    SequenceArrays,
    UserArrays,
)
from srp4ctr.features.tensors.schema import RequestStatus
from srp4ctr.streams.events.schema import NUM_ACTION_CODES
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.sequences import (
    HAS_VALUE,
    BehaviorSequence,
)
from srp4ctr.streams.state.user_state import UserState

NOBODY = UserState()
"""A user without a row."""
DAMAGED = UserState()
"""A user whose row cannot be read. It equals ``NOBODY``, and is another object."""

# The first byte of each row.
ITEM_FORMAT = 2
_USER_FORMAT = 4
# Little-endian, no padding. The format's number, impressions and clicks at four half-lives,
# counted_at_ms, first_seen_ms, last_offset.
ACTIVITY = struct.Struct("<B8d3q")
# As an activity, then forgotten_at_ms and forgotten_offset, and of behaviours and exposures
# the number, the bytes of a time and base_ms; the partition. Then the columns of both, as
# streams/state/sequences.py has them, but for exposures' codes, which are zeros.
_USER = struct.Struct("<B8d5qIBqIBqi")
# Bytes of a time.
_NARROW = 4
_WIDE = 8
_WITHOUT_VALUE = bytes(range(HAS_VALUE))  # codes of actions
_ACTIONS = bytes(range(NUM_ACTION_CODES))  # those that a model has
_ACTIONS += bytes(HAS_VALUE | code for code in _ACTIONS)
MAX_STORED_MS = 9_000_000_000_000_000
"""Differences and sums of such times, in microseconds too, fit in 64 bits."""

_damage_log = logs.SeldomLog(logging.getLogger(__name__))


def log_damage(reason: object) -> None:
    """Log why a user's row is not served: each of the user's requests finds that again."""
    _damage_log.error(f"a user is served as if there were no row: {reason}")


def _check_format(packed: bytes, expected: int) -> None:
    if packed[:1] != bytes([expected]):
        raise ArtifactError(
            f"a row of the store is in format {packed[:1]!r}, this release reads "
            f"{expected}: empty the store and run `srp4ctr stream rebuild` "
            "(docs/upgrade.md)"
        )


def pack_activity(activity: Activity) -> list[bytes]:
    """Return counters as a view's one feature."""
    times = activity.counted_at_ms, activity.first_seen_ms, activity.last_offset
    return [ACTIVITY.pack(ITEM_FORMAT, *activity.impressions, *activity.clicks, *times)]


def unpack_activity(version: int, packed: bytes) -> Activity:
    """Return the counters that ``pack_activity`` has packed."""
    _check_format(packed, ITEM_FORMAT)
    _, *counts, counted_at_ms, first_seen_ms, last_offset = ACTIVITY.unpack(packed)
    return Activity(
        impressions=tuple(counts[:4]),
        clicks=tuple(counts[4:]),
        counted_at_ms=counted_at_ms,
        first_seen_ms=first_seen_ms,
        last_offset=last_offset,
        version_us=version,
    )


def pack_user(user: UserState) -> list[bytes]:
    """Return a user's row as a view's one feature."""
    done, shown = user.sequence, user.exposures
    head = _USER.pack(
        _USER_FORMAT,
        *user.impressions,
        *user.clicks,
        user.counted_at_ms,
        user.first_seen_ms,
        user.last_offset,
        user.forgotten_at_ms,
        user.forgotten_offset,
        len(done.codes),
        _width(done),
        done.base_ms,
        len(shown.codes),
        _width(shown),
        shown.base_ms,
        user.partition,
    )
    # Values last: their number is in the codes.
    columns = done.times, done.keys, done.codes, shown.times, shown.keys, done.values
    return [b"".join((head, *columns))]


def _width(sequence: BehaviorSequence) -> int:
    return _NARROW if sequence.is_narrow else _WIDE


def unpack_user(version: int, packed: bytes) -> UserState:
    """Return the row that ``pack_user`` has packed."""
    _check_format(packed, _USER_FORMAT)
    _, *fields = _USER.unpack_from(packed)
    counted_at_ms, first_seen_ms, last_offset, forgotten_at_ms, forgotten_offset = fields[
        8:13
    ]
    done, width, done_base_ms, shown, shown_width, shown_base_ms, partition = fields[13:]
    if not {width, shown_width} <= {_NARROW, _WIDE}:  # compiled.c reads one or the other
        raise ArtifactError("a user's row is damaged: its times take neither 4 nor 8 bytes")
    sizes = (done * width, done * 8, done, shown * shown_width, shown * 8)
    ends = list(accumulate(sizes, initial=_USER.size))
    columns = [packed[start:end] for start, end in pairwise(ends)]
    times, keys, codes, shown_times, shown_keys = columns
    values = packed[ends[-1] :]
    if len(packed) != ends[-1] + 8 * len(codes.translate(None, _WITHOUT_VALUE)):
        raise ArtifactError("a user's row is damaged: its columns are cut off")
    user = UserState(
        impressions=tuple(fields[:4]),
        clicks=tuple(fields[4:8]),
        counted_at_ms=counted_at_ms,
        first_seen_ms=first_seen_ms,
        last_offset=last_offset,
        version_us=version,
        sequence=BehaviorSequence(done_base_ms, times, keys, codes, values),
        exposures=BehaviorSequence(shown_base_ms, shown_times, shown_keys, bytes(shown)),
        forgotten_at_ms=forgotten_at_ms,
        forgotten_offset=forgotten_offset,
        partition=partition,
    )
    _check_values(user)
    return user


def _check_values(user: UserState) -> None:
    """Raise if ``user`` has what no event makes; user_row.h checks the same.

    compiled.c adds and subtracts times without a check of its own.
    """
    if user.sequence.codes.translate(None, _ACTIONS):
        raise ArtifactError("a user's row is damaged: it has the code of no action")
    if not all(0.0 <= count < math.inf for count in (*user.impressions, *user.clicks)):
        raise ArtifactError("a user's row is damaged: a counter is negative or infinite")
    done_ms, shown_ms = map(_bounds_ms, (user.sequence, user.exposures))
    times_ms = (user.counted_at_ms, *done_ms, *shown_ms)
    if min(times_ms) < 0 or max(times_ms) > MAX_STORED_MS:
        raise ArtifactError("a user's row is damaged: a time is impossible")


def _bounds_ms(sequence: BehaviorSequence) -> tuple[int, ...]:
    """Return times that are in bounds if all times of ``sequence`` are."""
    base_ms = sequence.base_ms
    if sequence.is_narrow:  # and no later than 49 days after that
        return (base_ms,)
    times = memoryview(sequence.times).cast("q")  # little-endian, as every machine we know
    return base_ms, min(times), max(times)


@dataclass(frozen=True, slots=True)
class Recent:
    """The last elements of a sequence, oldest first, as arrays of one length."""

    item_keys: NDArray[np.int64]
    occurred_at_ms: NDArray[np.int64]
    action_codes: NDArray[np.integer[Any]]
    values: NDArray[np.float64]
    """NaN where there is none."""


def recent_of(sequence: BehaviorSequence, after_ms: int, length: int) -> Recent:
    """Return the last ``length`` elements later than ``after_ms``."""
    times = np.frombuffer(sequence.times, "<u4" if sequence.is_narrow else "<i8")
    times = times + np.int64(sequence.base_ms)
    first = max(int(times.searchsorted(after_ms, "right")), len(times) - length)
    codes = np.frombuffer(sequence.codes, "u1")
    values = np.full(len(codes), np.nan)
    if sequence.values:
        values[codes >= HAS_VALUE] = np.frombuffer(sequence.values, "<f8")
    return Recent(
        item_keys=np.frombuffer(sequence.keys, "<i8")[first:],
        occurred_at_ms=times[first:],
        action_codes=codes[first:] & (HAS_VALUE - 1),
        values=values[first:],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadUsers:
    """The rows of a call's users (B)."""

    users: Sequence[UserState]
    """``NOBODY`` where there is none, ``DAMAGED`` where it cannot be read."""
    missing: RequestStatus
    """That of ``NOBODY``."""

    def statuses(self, counts: Sequence[int]) -> tuple[RequestStatus, ...]:
        """Return B statuses, where ``counts`` behaviours were read."""
        return tuple(map(self._status, self.users, counts))

    @property
    def versions(self) -> tuple[str, ...]:
        """See ``UserArrays.versions``."""
        return tuple(
            f"user={user.version_us}@{user.last_offset}"
            if user is not NOBODY and user is not DAMAGED
            else ""
            for user in self.users
        )

    def _status(self, user: UserState, count: int) -> RequestStatus:
        if user is NOBODY:
            return self.missing
        if user is DAMAGED:
            return RequestStatus.STORE_UNAVAILABLE
        if count:
            return RequestStatus.OK
        is_stale = len(user.sequence) > 0
        return RequestStatus.STALE_SEQUENCE if is_stale else RequestStatus.EMPTY_SEQUENCE


def user_arrays(
    read: ReadUsers, after_ms: Sequence[int], length: int, exposure_length: int
) -> UserArrays:
    """Return the last ``length`` behaviours later than ``after_ms`` (B), and the rest."""
    users = read.users
    done = [recent_of(u.sequence, t, length) for u, t in zip(users, after_ms, strict=True)]
    shown = [recent_of(user.exposures, 0, exposure_length) for user in users]
    return UserArrays(
        sequences=SequenceArrays(
            item_keys=_padded([each.item_keys for each in done], length),
            occurred_at_ms=_padded([each.occurred_at_ms for each in done], length),
            action_codes=_padded([each.action_codes for each in done], length),
            values=_padded([each.values for each in done], length, np.nan),
        ),
        activity=ActivityArrays(
            counts=np.array([(user.impressions, user.clicks) for user in users]),
            counted_at_ms=np.array([user.counted_at_ms for user in users]),
            first_seen_ms=np.array([user.first_seen_ms for user in users]),
        ),
        exposures=ExposureArrays(
            item_keys=_padded([each.item_keys for each in shown], exposure_length),
            shown_at_ms=_padded([each.occurred_at_ms for each in shown], exposure_length),
        ),
        attributes=tuple(user.attributes for user in users),
        statuses=read.statuses([len(each.item_keys) for each in done]),
        versions=read.versions,
    )


def _padded(rows: Sequence[NDArray[Any]], length: int, fill: float = 0) -> NDArray[Any]:
    """Return ``rows`` (B, up to ``length``) on the right of ``fill``."""
    if len(rows) == 1 and len(rows[0]) == length:
        return rows[0][None]
    padded = np.full((len(rows), length), fill, dtype=rows[0].dtype)
    for row, values in zip(padded, rows, strict=True):
        row[length - len(values) :] = values
    return padded
