"""Sequences, counters and context → the named tensors of the schema, with numpy.

In: arrays from the online store (serving) or the event log (training). Out: the model's
inputs. Both call these functions, so that training sees what serving saw.
Every function works over leading axes (one request, a batch, a whole log).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import ArrayLike, NDArray

from srp4ctr.features.tensors.item_fields import number_of
from srp4ctr.features.tensors.schema import (
    BEHAVIOR_FIELDS,
    CONTEXT_SLOTS,
    NUM_CONTEXT_NUMBERS,
    NUM_CONTEXT_ROWS,
    Field,
)
from srp4ctr.streams.events.schema import MAX_CONTEXT_FIELDS, MAX_ID_LENGTH
from srp4ctr.streams.state.counters import HALF_LIVES_H

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]

MAX_CONTEXT_NUMBER = 1e15  # so that no later product of float32 overflows
MS_PER_HOUR = 3_600_000.0
# An item without history is scored as if 5 impressions had brought 2.5 clicks.
PRIOR_IMPRESSIONS = 5.0
PRIOR_RATE = 0.5
_MAX_VALUE = 2.0**62  # far beyond the last bucket; infinity has no bucket
# No behaviour yet counts as a year ago: log(1 + 31,536,000 s) = 17.3. So does no exposure.
NEVER_S = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceArrays:
    """Behaviours of shape (…, L), newest last; key 0 pads on the left."""

    item_keys: Int64s
    action_codes: Int64s
    occurred_at_ms: Int64s
    values: Floats
    """NaN: the behaviour has no value."""

    def take(self, index: Any) -> "SequenceArrays":
        """Return the rows ``index`` (numbers, mask or slice) of each array."""
        return SequenceArrays(
            item_keys=self.item_keys[index],
            action_codes=self.action_codes[index],
            occurred_at_ms=self.occurred_at_ms[index],
            values=self.values[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivityArrays:
    """Decayed counts of shape (…, 4), one per half-life, as of ``counted_at_ms`` (…)."""

    impressions: Floats
    clicks: Floats
    counted_at_ms: Int64s
    first_seen_ms: Int64s
    """0: never seen."""

    def take(self, index: Any) -> "ActivityArrays":
        """Return the rows ``index`` (numbers, mask or slice) of each array."""
        return ActivityArrays(
            impressions=self.impressions[index],
            clicks=self.clicks[index],
            counted_at_ms=self.counted_at_ms[index],
            first_seen_ms=self.first_seen_ms[index],
        )


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


def behavior_codes(sequences: SequenceArrays) -> Int64s:
    """Return history_behavior_codes (…, L, F): a code for each of BEHAVIOR_FIELDS."""
    present = sequences.item_keys != 0
    codes = [_codes(sequences, field) for field in BEHAVIOR_FIELDS]
    return np.stack([np.where(present, each, 0) for each in codes], axis=-1)


def request_features(
    sequences: SequenceArrays,
    activity: ActivityArrays,
    request_time_ms: ArrayLike,
    numbers: ArrayLike = 0.0,
) -> Float32s:
    """Return request_features (…, R) of users at their requests' times (…).

    ``numbers`` (…, NUM_CONTEXT_NUMBERS) are what ``context_numbers`` returns, by default
    zeros.
    """
    at_ms = np.asarray(request_time_ms, dtype=np.int64)
    present = sequences.item_keys != 0
    newest_ms = np.where(present, sequences.occurred_at_ms, 0).max(axis=-1)
    since_s = np.maximum(at_ms - newest_ms, 0) / 1000.0
    since_s = np.where(present.any(axis=-1), np.minimum(since_s, NEVER_S), NEVER_S)
    day = 2.0 * np.pi * (at_ms % 86_400_000) / 86_400_000.0
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


def context_rows(context: Mapping[str, str]) -> Int64s:
    """Return context_rows (X,): hashes of ``name=value`` by name, 0 pads."""
    rows = np.zeros(CONTEXT_SLOTS, dtype=np.int64)
    for slot, name in enumerate(sorted(context)[:CONTEXT_SLOTS]):
        hashed = xxhash.xxh3_64_intdigest(f"{name}={context[name]}")
        rows[slot] = 1 + hashed % (NUM_CONTEXT_ROWS - 1)
    return rows


def context_numbers(context: Mapping[str, str], names: Sequence[str]) -> Float32s:
    """Return the last columns (NUM_CONTEXT_NUMBERS,) of request_features.

    The ``names`` that are numbers in ``context``, in their order; 0 for what is not given
    or no number.
    """
    numbers = np.zeros(NUM_CONTEXT_NUMBERS, dtype=np.float32)
    for place, name in enumerate(names):
        number = number_of(context.get(name, "")) or 0.0
        numbers[place] = np.clip(number, -MAX_CONTEXT_NUMBER, MAX_CONTEXT_NUMBER)
    return numbers


def parse_context(text: str | None) -> dict[str, str]:
    """Return the flat map in ``text`` (JSON; empty or None: no context).

    Raises ``ValueError`` with a sentence for the caller.
    """
    if not text:
        return {}
    try:
        context = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"context is not JSON: {error}") from None
    if not isinstance(context, dict):
        raise ValueError(f"context is a JSON {type(context).__name__}; expected an object")
    if len(context) > MAX_CONTEXT_FIELDS:
        raise ValueError(f"context has {len(context)} fields; at most {MAX_CONTEXT_FIELDS}")
    for name, value in context.items():
        if not isinstance(value, str):
            raise ValueError(f"context field {name!r} is not a string: {value!r:.100}")
        if max(len(name), len(value)) > MAX_ID_LENGTH:
            raise ValueError(f"context field {name[:40]!r} is over {MAX_ID_LENGTH} letters")
    return context


def _codes(sequences: SequenceArrays, field: Field) -> Int64s:
    source: NDArray[Any] = getattr(sequences, field.source)
    if field.kind == "gap":
        return _gap_buckets(source, sequences.item_keys != 0, field.size)
    return _value_buckets(source, field.size) if field.kind == "numeric" else source


def _gap_buckets(at_ms: Int64s, present: NDArray[np.bool_], size: int) -> Int64s:
    """Return 1 for the first event, else 2 + floor(log2(1 + seconds)) of the gap."""
    gaps_s = np.maximum(np.diff(at_ms, axis=-1), 0) / 1000.0
    buckets = np.ones(at_ms.shape, dtype=np.int64)
    later = 2 + np.floor(np.log2(1.0 + gaps_s)).astype(np.int64)
    follows = present[..., :-1] & present[..., 1:]
    buckets[..., 1:] = np.where(follows, np.minimum(later, size - 1), 1)
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
    decay = 2.0 ** (-hours[..., None] / np.array(HALF_LIVES_H))
    impressions, clicks = activity.impressions * decay, activity.clicks * decay
    prior_clicks = PRIOR_IMPRESSIONS * PRIOR_RATE
    # A click whose impression was lost must not raise a rate above 1.
    rates = (np.minimum(clicks, impressions) + prior_clicks) / (
        impressions + PRIOR_IMPRESSIONS
    )
    return [rates, np.log1p(impressions), np.log1p(clicks)]
