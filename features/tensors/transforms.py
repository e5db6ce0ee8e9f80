"""Sequences, counters and exposures → the named tensors of the schema, with numpy.

In: arrays from the online store (serving) or the event log (training). Out: the model's
inputs. Both call these functions, so that training sees what serving saw.
Every function works over leading axes (one request, a batch, a whole log).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS, NUM_CONTEXT_NUMBERS, Field
from srp4ctr.streams.events.schema import action_code
from srp4ctr.streams.state.counters import HALF_LIVES_H

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Rows = NDArray[Any]  # int64, or int32 in training

MS_PER_HOUR = 3_600_000.0
# An item without history is scored as if 5 impressions had brought 2.5 clicks.
PRIOR_IMPRESSIONS = 5.0
PRIOR_RATE = 0.5
_MAX_VALUE = 2.0**62  # far beyond the last bucket; infinity has no bucket
# No behaviour yet counts as a year ago: log(1 + 31,536,000 s) = 17.3. So does no exposure.
NEVER_S = 365 * 24 * 3600.0
# Better than an hour or a day; three half-lives were no better than this one.
AFFINITY_HALF_LIFE_H = 168.0
_BATCH = 256  # requests: bounds a dense table
_DECAY_PER_HOUR = -1.0 / np.array(HALF_LIVES_H)  # of counters, in half-lives
_GAP_BOUNDS_MS = 1000 * ((1 << np.arange(1, schema.NUM_GAP_BUCKETS)) - 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """Named arrays with the same leading axes."""

    def take(self, index: Any) -> Self:
        """Return the rows ``index`` (numbers, mask or slices) of each array."""
        names: Sequence[str] = self.__slots__  # the fields, in order
        return type(self)(**{name: getattr(self, name)[index] for name in names})

    def put(self, index: Any, source: Any) -> None:
        """Write the values of ``source`` into the rows ``index`` of each array."""
        for each in fields(self):
            getattr(self, each.name)[index] = getattr(source, each.name)

    def put_right(self, index: int, source: Mapping[str, NDArray[Any]]) -> None:
        """Write the arrays of ``source``, by name, at the end of row ``index``."""
        for each in fields(self):
            row, last = getattr(self, each.name)[index], source[each.name]
            row[len(row) - len(last) :] = last


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceArrays(Arrays):
    """Behaviours of shape (…, L), newest last; key 0 pads on the left."""

    item_keys: Int64s
    action_codes: Int64s
    occurred_at_ms: Int64s
    values: Floats
    """NaN: the behaviour has no value."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivityArrays(Arrays):
    """Decayed counts of shape (…, 4), one per half-life, as of ``counted_at_ms`` (…)."""

    impressions: Floats
    clicks: Floats
    counted_at_ms: Int64s
    first_seen_ms: Int64s
    """0: never seen."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExposureArrays(Arrays):
    """The last items shown to users, of shape (…, W), newest last; key 0 pads."""

    item_keys: Int64s
    shown_at_ms: Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemExposures(Arrays):
    """How often and when items were shown to the user before, of shape (…, N)."""

    counts: Int64s
    """Among the kept exposures."""
    last_shown_ms: Int64s
    """0: never."""


def empty_sequences(count: int, length: int) -> SequenceArrays:
    """Return ``count`` empty sequences (count, L)."""
    return SequenceArrays(
        item_keys=np.zeros((count, length), dtype=np.int64),
        action_codes=np.zeros((count, length), dtype=np.int64),
        occurred_at_ms=np.zeros((count, length), dtype=np.int64),
        values=np.full((count, length), np.nan),
    )


def empty_activity(*shape: int) -> ActivityArrays:
    """Return the activity of what was never seen."""
    return ActivityArrays(
        impressions=np.zeros((*shape, len(HALF_LIVES_H))),
        clicks=np.zeros((*shape, len(HALF_LIVES_H))),
        counted_at_ms=np.zeros(shape, dtype=np.int64),
        first_seen_ms=np.zeros(shape, dtype=np.int64),
    )


def empty_exposures(count: int, length: int) -> ExposureArrays:
    """Return no exposures (count, W)."""
    return ExposureArrays(
        item_keys=np.zeros((count, length), dtype=np.int64),
        shown_at_ms=np.zeros((count, length), dtype=np.int64),
    )


def behavior_codes(sequences: SequenceArrays) -> Int64s:
    """Return history_behavior_codes (…, L, F): a code for each of BEHAVIOR_FIELDS."""
    present = sequences.item_keys != 0
    codes = np.empty((*present.shape, len(BEHAVIOR_FIELDS)), dtype=np.int64)
    for place, field in enumerate(BEHAVIOR_FIELDS):
        codes[..., place] = _codes(sequences, field)
    codes *= present[..., None]
    return codes


def request_features(
    sequences: SequenceArrays,
    activity: ActivityArrays,
    request_time_ms: ArrayLike,
    numbers: ArrayLike = 0.0,
    utc_offset_ms: ArrayLike = 0,
) -> Float32s:
    """Return request_features (…, R) of users at their requests' times (…).

    ``numbers`` (…, NUM_CONTEXT_NUMBERS) are what ``context_numbers`` returns, and
    ``utc_offset_ms`` (…) is how far users' clocks are ahead of UTC.
    """
    at_ms = np.asarray(request_time_ms, dtype=np.int64)
    present = sequences.item_keys != 0
    newest_ms = np.where(present, sequences.occurred_at_ms, 0).max(axis=-1)
    since_s = np.maximum(at_ms - newest_ms, 0) / 1000.0
    since_s = np.where(present.any(axis=-1), np.minimum(since_s, NEVER_S), NEVER_S)
    clock_ms = at_ms + np.asarray(utc_offset_ms, dtype=np.int64)
    day = 2.0 * np.pi * (clock_ms % 86_400_000) / 86_400_000.0
    single = (np.log1p(present.sum(axis=-1)), np.log1p(since_s), np.sin(day), np.cos(day))
    columns = [*_counters(activity, at_ms)[:2], *(each[..., None] for each in single)]
    columns.append(np.broadcast_to(numbers, (*at_ms.shape, NUM_CONTEXT_NUMBERS)))
    return np.concatenate(columns, axis=-1).astype(np.float32)


def candidate_features(
    activity: ActivityArrays,
    item_keys: Int64s,
    history_item_keys: Int64s,
    of_user: Sequence[Floats],
    request_time_ms: ArrayLike,
) -> Float32s:
    """Return candidate_features (…, N, C); padding (key 0) is all zeros.

    ``activity`` and ``item_keys`` are (…, N), ``history_item_keys`` (…, L), and
    ``request_time_ms`` (…). ``of_user`` is what ``attribute_affinity`` returns, then
    ``exposure_features``.
    """
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]  # (…, 1)
    seen = activity.first_seen_ms > 0
    hours = np.maximum(at_ms - activity.first_seen_ms, 0) / MS_PER_HOUR
    age = np.where(seen, np.log1p(hours), 0.0)
    inside = (item_keys[..., :, None] == history_item_keys[..., None, :]).any(axis=-1)
    counters = _counters(activity, at_ms)
    columns = [*counters, age[..., None], *of_user, inside[..., None]]
    features = np.concatenate(columns, axis=-1)
    return np.where(item_keys[..., None] != 0, features, 0.0).astype(np.float32)


def attribute_affinity(
    sequences: SequenceArrays,
    history_attribute_rows: Rows,
    candidate_attribute_rows: Rows,
    request_time_ms: ArrayLike,
) -> Floats:
    """Return (…, N, 2): the user's click rate and activity on items like each candidate.

    Over the behaviours (rows (…, L, A)) that share an attribute with the candidate (rows
    (…, N, A)), decayed with ``AFFINITY_HALF_LIFE_H`` and averaged over its attributes: the
    smoothed share of clicks, and log(1 + count).
    """
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]
    hours = np.maximum(at_ms - sequences.occurred_at_ms, 0) / MS_PER_HOUR
    present = sequences.item_keys != 0
    weights = np.exp2(hours * (-1.0 / AFFINITY_HALF_LIFE_H)) * present
    is_click = sequences.action_codes == action_code("click")
    rows = history_attribute_rows, candidate_attribute_rows
    acted, clicked = _sums_by_attribute([weights, weights * is_click], *rows)
    share = (clicked + PRIOR_RATE) / (acted + 1.0)
    return np.stack([share, np.log1p(acted)], axis=-1)


def item_exposures(
    exposures: ExposureArrays, item_keys: Int64s, request_time_ms: ArrayLike
) -> ItemExposures:
    """Return how often, and when last, each of ``item_keys`` (…, N) was shown before.

    ``exposures`` are (…, W), as the store has them. Exposures at or after the request's
    time (…), its own impressions included, do not count.
    """
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]
    before = (exposures.item_keys != 0) & (exposures.shown_at_ms < at_ms)
    same = item_keys[..., :, None] == exposures.item_keys[..., None, :]
    same &= before[..., None, :]  # (…, N, W)
    times = np.where(same, exposures.shown_at_ms[..., None, :], 0)
    return ItemExposures(counts=same.sum(axis=-1), last_shown_ms=times.max(axis=-1))


def exposure_features(shown: ItemExposures, request_time_ms: ArrayLike) -> Floats:
    """Return (…, N, 2): log(1 + how often) and log(1 + hours since) items were shown."""
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]
    hours = np.maximum(at_ms - shown.last_shown_ms, 0) / MS_PER_HOUR
    hours = np.where(shown.counts > 0, np.minimum(hours, NEVER_S / 3600), NEVER_S / 3600)
    features: Floats = np.log1p(np.stack([shown.counts, hours], axis=-1))
    return features


def _codes(sequences: SequenceArrays, field: Field) -> Int64s:
    source: NDArray[Any] = getattr(sequences, field.source)
    if field.kind == "gap":
        return _gap_buckets(source, sequences.item_keys != 0, field.size)
    return _value_buckets(source, field.size) if field.kind == "numeric" else source


def _gap_buckets(at_ms: Int64s, present: NDArray[np.bool_], size: int) -> Int64s:
    """Return 1 for the first event, else 2 + floor(log2(1 + seconds)) of the gap."""
    bounds_ms = _GAP_BOUNDS_MS[: size - 3]
    buckets = np.ones(at_ms.shape, dtype=np.int64)
    later = 1 + np.searchsorted(bounds_ms, np.diff(at_ms, axis=-1), side="right")
    buckets[..., 1:] += later * (present[..., :-1] & present[..., 1:])
    return buckets


def _value_buckets(values: Floats, size: int) -> Int64s:
    """Return 1 for no value, else 2 + round(4 log2(1 + value)); negative counts as 0."""
    missing = np.isnan(values)
    if missing.all():  # most sources have no values at all
        return np.ones(values.shape, dtype=np.int64)
    positive = np.clip(np.where(missing, 0.0, values), 0.0, _MAX_VALUE)
    buckets = 2 + np.rint(4.0 * np.log2(1.0 + positive)).astype(np.int64)
    return np.where(missing, 1, np.minimum(buckets, size - 1))


def _counters(activity: ActivityArrays, at_ms: Int64s) -> list[Floats]:
    """Return rates, log(1 + impressions), log(1 + clicks), each (…, 4), as of ``at_ms``."""
    hours = np.maximum(at_ms - activity.counted_at_ms, 0) / MS_PER_HOUR
    decay = np.exp2(hours[..., None] * _DECAY_PER_HOUR)
    impressions, clicks = activity.impressions * decay, activity.clicks * decay
    prior_clicks = PRIOR_IMPRESSIONS * PRIOR_RATE
    # A click whose impression was lost must not raise a rate above 1.
    rates = (np.minimum(clicks, impressions) + prior_clicks) / (
        impressions + PRIOR_IMPRESSIONS
    )
    return [rates, np.log1p(impressions), np.log1p(clicks)]


def _sums_by_attribute(
    weighed: Sequence[Floats], history_rows: Rows, wanted: Rows
) -> list[Floats]:
    """Return, for each of ``weighed`` (…, L), a weight for each wanted item (…, N).

    The mean over the item's attributes of the weights of the behaviours that have it.
    """
    width = 1 + int(max(history_rows.max(initial=0), wanted.max(initial=0)))
    length, slots = history_rows.shape[-2:]
    shape = wanted.shape
    weighed = [weights.reshape(-1, length) for weights in weighed]
    history_rows = history_rows.reshape(-1, length * slots)
    wanted = wanted.reshape(-1, *shape[-2:])
    sums = [np.zeros(wanted.shape[:2]) for _ in weighed]
    for start in range(0, len(wanted), _BATCH):
        part = slice(start, start + _BATCH)
        first = np.arange(len(wanted[part]))[:, None] * width
        at = (first + history_rows[part]).ravel()
        columns = first[..., None] + wanted[part]
        for total, weights in zip(sums, weighed, strict=True):
            repeated = weights[part].repeat(slots, axis=-1).ravel()
            table = np.bincount(at, repeated, len(first) * width)
            table[::width] = 0.0  # of padding
            total[part] = table[columns].sum(axis=-1)
    counts = np.maximum((wanted != 0).sum(axis=-1), 1)
    return [(total / counts).reshape(shape[:-1]) for total in sums]
