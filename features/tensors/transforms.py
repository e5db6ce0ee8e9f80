"""Sequences, counters and exposures → the named tensors of the schema, with numpy.

In: arrays from the online store (serving) or the event log (training). Out: the model's
inputs. Both call these functions, so that training sees what serving saw.
Every function works over leading axes (one request, a batch, a whole log).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    ExposureArrays,
    Floats,
    Int64s,
    ItemExposures,
    SequenceArrays,
)
from srp4ctr.features.tensors.schema import (
    BEHAVIOR_FIELDS,
    CANDIDATE_FEATURES,
    NUM_CONTEXT_NUMBERS,
    NUM_GAP_BUCKETS,
    REQUEST_FEATURES,
    Field,
)
from srp4ctr.streams.events.schema import action_code
from srp4ctr.streams.state.counters import HALF_LIVES_H

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
AFFINITY_DECAY_PER_MS = -1.0 / (AFFINITY_HALF_LIFE_H * MS_PER_HOUR)
_BATCH = 256  # requests: bounds a dense table
DECAY_PER_MS = -1.0 / (np.array(HALF_LIVES_H) * MS_PER_HOUR)  # in half-lives
# Of request and candidate features: a column for each half-life.
_RATES = slice(0, len(HALF_LIVES_H))
_LOGS = slice(len(HALF_LIVES_H), 2 * len(HALF_LIVES_H))
CLICK = action_code("click")
_GAP_BOUNDS_MS = 1000 * ((1 << np.arange(1, NUM_GAP_BUCKETS)) - 1)


def behavior_codes(sequences: SequenceArrays) -> Int64s:
    """Return history_behavior_codes (…, L, F): a code for each of BEHAVIOR_FIELDS."""
    present = sequences.item_keys != 0
    codes = np.empty((*present.shape, len(BEHAVIOR_FIELDS)), dtype=np.int64)
    for place, field in enumerate(BEHAVIOR_FIELDS):
        codes[..., place] = _codes(sequences, present, field)
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
    features = np.empty((*at_ms.shape, len(REQUEST_FEATURES)), dtype=np.float32)
    rates, counts = _counters(activity, at_ms)
    features[..., _RATES] = rates
    np.log1p(counts[..., 0, :], out=features[..., _LOGS])
    # The newest is last; of an empty sequence it is of 1970, longer ago than NEVER_S.
    since_s = _ages(sequences.occurred_at_ms[..., -1], at_ms) / 1000.0
    since_s = np.minimum(since_s, NEVER_S)
    clock_ms = at_ms + np.asarray(utc_offset_ms, dtype=np.int64)
    day = (clock_ms % 86_400_000) * (2.0 * np.pi / 86_400_000.0)
    length = np.count_nonzero(sequences.item_keys, axis=-1)
    columns = np.log1p(length), np.log1p(since_s), np.sin(day), np.cos(day)
    for place, column in enumerate(columns, 2 * len(HALF_LIVES_H)):
        features[..., place] = column
    features[..., -NUM_CONTEXT_NUMBERS:] = numbers
    return features


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
    features = np.empty((*item_keys.shape, len(CANDIDATE_FEATURES)), dtype=np.float32)
    rates, counts = _counters(activity, at_ms)
    features[..., _RATES] = rates
    # Both logarithms stand side by side, as the counts do.
    logs = counts.reshape(*item_keys.shape, -1)
    end = len(HALF_LIVES_H) + logs.shape[-1]
    np.log1p(logs, out=features[..., len(HALF_LIVES_H) : end])
    hours = _ages(activity.first_seen_ms, at_ms) / MS_PER_HOUR
    features[..., end] = np.log1p(hours) * (activity.first_seen_ms > 0)
    features[..., end + 1 : end + 3], features[..., end + 3 : end + 5] = of_user
    inside = item_keys[..., :, None] == history_item_keys[..., None, :]
    features[..., end + 5] = inside.any(axis=-1)
    features *= (item_keys != 0)[..., None]
    return features


def attribute_affinity(
    sequences: SequenceArrays,
    history_attribute_rows: Rows,
    candidate_attribute_rows: Rows,
    request_time_ms: ArrayLike,
) -> Floats:
    """Return (…, N, 2): the user's click rate and activity on items like each candidate.

    Over the behaviours (rows (…, L, A)) that share an attribute with the candidate (rows
    (…, N, A)), decayed with ``AFFINITY_HALF_LIFE_H`` and averaged over its attributes: the
    smoothed share of clicks, and log(1 + count). Padding has no attributes.
    """
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]
    *lead, length = sequences.item_keys.shape
    weights = np.empty((*lead, 2, length))
    ages = _ages(sequences.occurred_at_ms, at_ms)
    np.exp2(ages * AFFINITY_DECAY_PER_MS, out=weights[..., 0, :])
    is_click = sequences.action_codes == CLICK
    np.multiply(weights[..., 0, :], is_click, out=weights[..., 1, :])
    sums = _sums_by_attribute(weights, history_attribute_rows, candidate_attribute_rows)
    acted, clicked = sums[..., 0, :], sums[..., 1, :]
    found = np.empty((*acted.shape, 2))
    np.divide(clicked + PRIOR_RATE, acted + 1.0, out=found[..., 0])
    np.log1p(acted, out=found[..., 1])
    return found


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
    times = same * exposures.shown_at_ms[..., None, :]
    return ItemExposures(
        counts=np.count_nonzero(same, axis=-1), last_shown_ms=times.max(axis=-1)
    )


def exposure_features(shown: ItemExposures, request_time_ms: ArrayLike) -> Floats:
    """Return (…, N, 2): log(1 + how often) and log(1 + hours since) items were shown."""
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]
    features = np.empty((*shown.counts.shape, 2))
    features[..., 0] = shown.counts
    # What was never shown was shown in 1970, longer ago than NEVER_S.
    hours = _ages(shown.last_shown_ms, at_ms) / MS_PER_HOUR
    np.minimum(hours, NEVER_S / 3600, out=features[..., 1])
    return np.log1p(features, out=features)


def _ages(then_ms: Int64s, at_ms: Int64s) -> Int64s:
    """Return how many milliseconds ago ``then_ms`` was; 0 of what is later."""
    ages: Int64s = np.maximum(at_ms - then_ms, 0)
    return ages


def _codes(
    sequences: SequenceArrays, present: NDArray[np.bool_], field: Field
) -> ArrayLike:
    source: NDArray[Any] = getattr(sequences, field.source)
    if field.kind == "gap":
        return _gap_buckets(source, present, field.size)
    return _value_buckets(source, field.size) if field.kind == "numeric" else source


def _gap_buckets(at_ms: Int64s, present: NDArray[np.bool_], size: int) -> Int64s:
    """Return 1 for the first event, else 2 + floor(log2(1 + seconds)) of the gap."""
    bounds_ms = _GAP_BOUNDS_MS[: size - 3]
    buckets = np.ones(at_ms.shape, dtype=np.int64)
    later = bounds_ms.searchsorted(at_ms[..., 1:] - at_ms[..., :-1], side="right") + 1
    buckets[..., 1:] += later * present[..., :-1]  # padding is on the left
    return buckets


def _value_buckets(values: Floats, size: int) -> ArrayLike:
    """Return 1 for no value, else 2 + round(4 log2(1 + value)); negative counts as 0."""
    # Most sources have no values at all.
    if np.isnan(np.fmin.reduce(values, axis=None, initial=np.nan)):
        return 1
    missing = np.isnan(values)
    positive = np.clip(np.where(missing, 0.0, values), 0.0, _MAX_VALUE)
    buckets = 2 + np.rint(4.0 * np.log2(1.0 + positive)).astype(np.int64)
    return np.where(missing, 1, np.minimum(buckets, size - 1))


def _counters(activity: ActivityArrays, at_ms: Int64s) -> tuple[Floats, Floats]:
    """Return rates (…, 4) as of ``at_ms``, and impressions and clicks (…, 2, 4)."""
    decay = np.exp2(_ages(activity.counted_at_ms, at_ms)[..., None] * DECAY_PER_MS)
    counts = activity.counts * decay[..., None, :]
    impressions, clicks = counts[..., 0, :], counts[..., 1, :]
    # A click whose impression was lost must not raise a rate above 1.
    clicks = np.minimum(clicks, impressions)
    prior_clicks = PRIOR_IMPRESSIONS * PRIOR_RATE
    return (clicks + prior_clicks) / (impressions + PRIOR_IMPRESSIONS), counts


def _sums_by_attribute(weights: Floats, history_rows: Rows, wanted: Rows) -> Floats:
    """Return for weights (…, K, L) of behaviours those of each wanted item (…, K, N).

    The mean over the item's attributes of the weights of the behaviours that have it.
    """
    width = 1 + int(max(history_rows.max(initial=0), wanted.max(initial=0)))
    *lead, kinds, length = weights.shape
    items, slots = wanted.shape[-2:]
    weights = weights.reshape(-1, kinds, length)
    history_rows = history_rows.reshape(-1, 1, length * slots)
    wanted = wanted.reshape(-1, 1, items, slots)
    sums = np.empty((len(weights), kinds, items))
    for start in range(0, len(weights), _BATCH):
        part = slice(start, start + _BATCH)
        repeated = weights[part].repeat(slots, axis=-1)
        first = np.arange(0, repeated.shape[0] * kinds * width, width)
        first = first.reshape(-1, kinds, 1)  # where the table of each begins
        at = (first + history_rows[part]).ravel()
        table = np.bincount(at, repeated.ravel(), first.size * width)
        table[::width] = 0.0  # of padding
        table.take(first[..., None] + wanted[part]).sum(axis=-1, out=sums[part])
    sums /= np.maximum(np.count_nonzero(wanted, axis=-1), 1)
    return sums.reshape(*lead, kinds, items)
