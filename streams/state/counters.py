"""Event → counters: exponentially decayed impressions and clicks of a user or an item.

c(t) = Σ_i 2^(−(t − t_i) / h) over the events i up to t, for four half-lives h. Counters
are not idempotent: a row carries the last Kafka offset that it has counted.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

HALF_LIVES_H = (0.25, 4.0, 24.0, 168.0)
Counts = tuple[float, float, float, float]  # one per half-life
_MS_PER_HOUR = 3_600_000.0
_HALF_LIVES_MS = tuple(hours * _MS_PER_HOUR for hours in HALF_LIVES_H)
_ZEROS = (0.0, 0.0, 0.0, 0.0)
_ONES = (1.0, 1.0, 1.0, 1.0)


class Activity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Decayed counts as of ``counted_at_ms``, one per half-life."""

    impressions: Counts = _ZEROS
    clicks: Counts = _ZEROS
    counted_at_ms: int = 0
    """The latest event time counted; the counts decay from here."""
    first_seen_ms: int = 0
    last_offset: int = -1
    """Events of this row's partition up to this offset are in the counts."""
    version_us: int = 0
    """Strictly increasing with each stored change: the store's event timestamp, in us."""


_Activity = TypeVar("_Activity", bound=Activity)


def count(
    activity: _Activity, *, at_ms: int, is_click: bool, offset: int, **others: Any
) -> _Activity:
    """Return ``activity`` with one more event, and its ``others`` fields replaced.

    An offset counted before changes nothing.
    """
    if offset <= activity.last_offset:
        return activity
    now = max(at_ms, activity.counted_at_ms)
    elapsed_ms = now - activity.counted_at_ms
    impressions = decayed(activity.impressions, elapsed_ms)
    clicks = decayed(activity.clicks, elapsed_ms)
    one = decayed(_ONES, now - at_ms)  # a late event comes decayed
    seen = activity.first_seen_ms
    return msgspec.structs.replace(
        activity,
        impressions=impressions if is_click else _sum(impressions, one),
        clicks=_sum(clicks, one) if is_click else clicks,
        counted_at_ms=now,
        first_seen_ms=min(seen, at_ms) if seen else at_ms,
        last_offset=offset,
        version_us=max(now * 1000, activity.version_us + 1),
        **others,
    )


def decayed(counts: Sequence[float], elapsed_ms: int) -> Counts:
    """Return ``counts`` after ``elapsed_ms`` ≥ 0 more milliseconds."""
    minutes, hours, days, weeks = counts
    if elapsed_ms == 0:  # the items of one slate: half of all calls
        return minutes, hours, days, weeks
    quarter, four, day, week = _HALF_LIVES_MS
    return (
        minutes * 2.0 ** (-elapsed_ms / quarter),
        hours * 2.0 ** (-elapsed_ms / four),
        days * 2.0 ** (-elapsed_ms / day),
        weeks * 2.0 ** (-elapsed_ms / week),
    )


def total(shares: Sequence[Activity]) -> Activity:
    """Return the sum of ``shares`` at the latest of their times (offsets do not add)."""
    now = max((share.counted_at_ms for share in shares), default=0)
    impressions, clicks = _ZEROS, _ZEROS
    for share in shares:
        elapsed = now - share.counted_at_ms
        impressions = _sum(impressions, decayed(share.impressions, elapsed))
        clicks = _sum(clicks, decayed(share.clicks, elapsed))
    seen = [share.first_seen_ms for share in shares if share.first_seen_ms]
    return Activity(
        impressions=impressions,
        clicks=clicks,
        counted_at_ms=now,
        first_seen_ms=min(seen, default=0),
        version_us=max((share.version_us for share in shares), default=0),
    )


def _sum(left: Counts, right: Counts) -> Counts:
    return (
        left[0] + right[0],
        left[1] + right[1],
        left[2] + right[2],
        left[3] + right[3],
    )
