"""Sequences, counters and exposures → the named tensors of the schema, with numpy.

In: arrays from the online store (serving) or the event log (training). Out: the model's
inputs. Both call these functions, so that training sees what serving saw.
Every function works over leading axes (one request, a batch, a whole log).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp4ctr.features import columns as feature_columns
from srp4ctr.features.columns import CandidateColumns
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    CandidateArrays,
    ExposureArrays,
    Floats,
    Int64s,
    ItemExposures,
    SequenceArrays,
)
from srp4ctr.features.tensors.caller_numbers import with_from_last
from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS, NUM_GAP_BUCKETS, Field
from srp4ctr.streams.events.schema import action_code
from srp4ctr.streams.state.counters import HALF_LIVES_MS, MS_PER_HOUR

Float32s = NDArray[np.float32]
Rows = NDArray[Any]  # int64, or int32 in training

# An item without history is scored as if 5 impressions had brought 2.5 clicks.
PRIOR_IMPRESSIONS = 5.0
PRIOR_RATE = 0.5
_MAX_VALUE = 2.0**62  # far beyond the last bucket; infinity has no bucket
# No behaviour yet counts as a year ago: log(1 + 31,536,000 s) = 17.3. So does no exposure.
SHARE_SCALE = 10_000.0  # of a share of clicks, before its logarithm
NEVER_S = 365 * 24 * 3600.0
# Better than an hour or a day; three half-lives were no better than this one.
AFFINITY_HALF_LIFE_H = 168.0
AFFINITY_DECAY_PER_MS = -1.0 / (AFFINITY_HALF_LIFE_H * MS_PER_HOUR)
_BATCH = 256  # requests: bounds a dense table
DECAY_PER_MS = -1.0 / np.array(HALF_LIVES_MS)  # in half-lives
_MATCHES = 1 << 24  # bounds the comparison of candidates with behaviours
_REQUEST = feature_columns.REQUEST.parts
_RECENCY = feature_columns.CANDIDATE.blocks["own_item"].index("item_recency")
CLICK = action_code("click")
_GAP_BOUNDS_MS = 1000 * ((1 << np.arange(1, NUM_GAP_BUCKETS)) - 1)


def decay(elapsed_ms: ArrayLike) -> Floats:
    """Return what is left of 1 after ``elapsed_ms`` (…), by half-life (…, 4)."""
    left: Floats = np.exp2(np.asarray(elapsed_ms)[..., None] * DECAY_PER_MS)
    return left


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
    width = feature_columns.REQUEST.width
    features = np.empty((*at_ms.shape, width), dtype=np.float32)
    rates, counts = _counters(activity, at_ms)
    features[..., _REQUEST["user_click_rate"]] = rates
    np.log1p(counts[..., 0, :], out=features[..., _REQUEST["user_log_impressions"]])
    # The newest is last; of an empty sequence it is of 1970, longer ago than NEVER_S.
    since_s = _ages(sequences.occurred_at_ms[..., -1], at_ms) / 1000.0
    since_s = np.minimum(since_s, NEVER_S)
    clock_ms = at_ms + np.asarray(utc_offset_ms, dtype=np.int64)
    day = (clock_ms % 86_400_000) * (2.0 * np.pi / 86_400_000.0)
    length = np.count_nonzero(sequences.item_keys, axis=-1)
    features[..., _REQUEST["log_sequence_length"]] = np.log1p(length)[..., None]
    since = _REQUEST["log_seconds_since_last_behavior"]
    features[..., since] = np.log1p(since_s)[..., None]
    features[..., _REQUEST["clock"]] = np.stack([np.sin(day), np.cos(day)], axis=-1)
    features[..., _REQUEST["context_number"]] = numbers
    return features


def candidate_features(inputs: CandidateArrays, columns: CandidateColumns) -> Float32s:
    """Return candidate_features (…, N, C); padding (key 0) is all zeros."""
    at_ms = inputs.request_time_ms[..., None]  # (…, 1)
    activity, layout = inputs.activity, columns.layout
    rates, counts = _counters(activity, at_ms)
    logs = np.log1p(counts)
    hours = _ages(activity.first_seen_ms, at_ms) / MS_PER_HOUR
    age = np.log1p(hours) * (activity.first_seen_ms > 0)
    own = own_history(inputs, columns)
    recency = own["own_item"][..., _RECENCY]
    blocks = {
        "item_click_rate": rates,
        "item_log_impressions": logs[..., 0, :],
        "item_log_clicks": logs[..., 1, :],
        "item_click_share": click_shares(counts[..., 1, :], inputs),
        "item_age": age[..., None],
        "user_attribute": attribute_affinity(
            inputs.sequences,
            inputs.history_attribute_rows,
            inputs.attribute_rows,
            inputs.request_time_ms,
        ),
        "user_item_exposures": exposure_features(inputs.exposures, inputs.request_time_ms),
        **own,
        "numbers": with_from_last(inputs.number_columns, recency),
    }
    shape = (*inputs.item_keys.shape, layout.width)
    features = np.empty(shape, dtype=np.float32)
    for name in layout.blocks:
        features[..., layout.parts[name]] = blocks[name]
    features *= (inputs.item_keys != 0)[..., None]
    return features


def click_shares(clicks: Floats, inputs: CandidateArrays) -> Floats:
    """Return item_click_share (…, N, 4) of the candidates' decayed ``clicks``.

    As if there had been one click more: of few clicks no item has a large share.
    """
    _, total = _counters(inputs.total, inputs.request_time_ms)
    # The total may be behind an item's counters, which are rows of their own.
    shares = np.minimum(clicks / (total[..., None, 1, :] + 1.0), 1.0)
    return np.log1p(SHARE_SCALE * shares)


def own_history(inputs: CandidateArrays, columns: CandidateColumns) -> dict[str, Floats]:
    """Return what the user did with each candidate (…, N, any), by block.

    ``item_in_sequence``, ``own_item``, ``own_actions`` and ``own_fields``. A visit is the
    behaviours that no gap longer than ``columns.visit_gap_ms`` parts from the request.
    """
    *lead, items = inputs.item_keys.shape
    layout = columns.layout
    names = ("item_in_sequence", "own_item", "own_actions", "own_fields")
    blocks = {
        name: np.empty((int(np.prod(lead)), items, len(layout.blocks[name])))
        for name in names
    }
    flat, length = inputs.flattened(), inputs.sequences.item_keys.shape[-1]
    step = max(1, _MATCHES // max(items * length, 1))
    for start in range(0, len(flat.request_time_ms), step):
        part = slice(start, start + step)
        for name, values in _own_blocks(flat.take(part), columns).items():
            blocks[name][part] = values
    return {name: values.reshape(*lead, items, -1) for name, values in blocks.items()}


def _own_blocks(inputs: CandidateArrays, columns: CandidateColumns) -> dict[str, Floats]:
    """Return the blocks of ``own_history`` for B requests."""
    done, at_ms = inputs.sequences, inputs.request_time_ms
    same = inputs.item_keys[:, :, None] == done.item_keys[:, None, :]  # (B, N, L)
    same &= (done.item_keys != 0)[:, None]
    ages_s = np.minimum(_ages(done.occurred_at_ms, at_ms[:, None]) / 1000.0, NEVER_S)
    in_visit = _in_visit(done, at_ms, columns.visit_gap_ms)
    own = _touches(same, in_visit, ages_s)
    ranks = np.pad(_recency_ranks(done.item_keys), ((0, 0), (1, 0)))  # 0: never
    rank = np.take_along_axis(ranks, own.last, axis=1)
    recency = np.divide(1.0, rank, out=np.zeros(rank.shape), where=rank > 0)
    actions, fields = [], []
    for _, code in columns.actions:
        of_action = same & (done.action_codes == code)[:, None]
        found = _touches(of_action, np.ones_like(in_visit), ages_s)
        actions += [found.visit, found.since]
    for _, slot in columns.main_fields:
        wanted = inputs.attribute_rows[:, :, None, slot]
        shared = wanted == inputs.history_attribute_rows[:, None, :, slot]
        shared &= (wanted != 0) & (done.item_keys != 0)[:, None]
        found = _touches(shared, in_visit, ages_s)
        fields += [found.visit, found.earlier, found.since, shared[..., -1]]
    own_item = [own.visit, own.earlier, own.since, recency, same[..., -1]]
    return {
        "item_in_sequence": (own.last > 0)[..., None],
        "own_item": np.stack(own_item, axis=-1),
        "own_actions": _stacked(actions, own.last.shape),
        "own_fields": _stacked(fields, own.last.shape),
    }


def _stacked(columns: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> Floats:
    """Return ``columns`` (B, N) side by side; (B, N, 0) of none."""
    return np.stack(columns, axis=-1) if columns else np.empty((*shape, 0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Touches:
    """The behaviours that are with each candidate (B, N); counts and ages as log(1 + x)."""

    visit: Floats
    """How many are in this visit."""
    earlier: Floats
    """How many were in earlier ones."""
    since: Floats
    """How many seconds ago the newest was."""
    last: Int64s
    """One plus the newest one's place in the sequence; 0: none."""


def _touches(
    same: NDArray[np.bool_], in_visit: NDArray[np.bool_], ages_s: Floats
) -> _Touches:
    """Return the behaviours where ``same`` (B, N, L); ``ages_s`` (B, L) are of all."""
    visit = np.count_nonzero(same & in_visit[:, None], axis=-1)
    last = (same * np.arange(1, same.shape[-1] + 1, dtype=np.int32)).max(axis=-1, initial=0)
    since = np.pad(ages_s, ((0, 0), (1, 0)), constant_values=NEVER_S)
    return _Touches(
        visit=np.log1p(visit),
        earlier=np.log1p(np.count_nonzero(same, axis=-1) - visit),
        since=np.log1p(np.take_along_axis(since, last, axis=1)),
        last=last,
    )


def _in_visit(done: SequenceArrays, at_ms: Int64s, gap_ms: int) -> NDArray[np.bool_]:
    """Return which behaviours (B, L) are of the visit that lasts at ``at_ms`` (B,)."""
    following = np.concatenate([done.occurred_at_ms[:, 1:], at_ms[:, None]], axis=1)
    goes_on = (following - done.occurred_at_ms <= gap_ms) & (done.item_keys != 0)
    return np.logical_and.accumulate(goes_on[:, ::-1], axis=1)[:, ::-1]


def _recency_ranks(keys: Int64s) -> Int64s:
    """Return how many distinct items are at or after each behaviour (B, L)."""
    order = np.argsort(keys, axis=1, kind="stable")
    ordered = np.take_along_axis(keys, order, axis=1)
    is_newest = np.ones(keys.shape, dtype=bool)  # of its item
    is_newest[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    newest = np.zeros(keys.shape, dtype=np.int64)
    np.put_along_axis(newest, order, is_newest & (ordered != 0), axis=1)
    ranks: Int64s = newest[:, ::-1].cumsum(axis=1)[:, ::-1]
    return ranks


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
    click_share = (clicked + PRIOR_RATE) / (acted + 1.0)
    return np.stack([click_share, np.log1p(acted)], axis=-1)


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
    # What was never shown was shown in 1970, longer ago than NEVER_S.
    hours = np.minimum(_ages(shown.last_shown_ms, at_ms) / MS_PER_HOUR, NEVER_S / 3600)
    return np.stack([np.log1p(shown.counts), np.log1p(hours)], axis=-1)


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
    left = decay(_ages(activity.counted_at_ms, at_ms))
    counts = activity.counts * left[..., None, :]
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
