"""A user's history and a candidate → user–item features: affinity and exposures.

The same numpy in serving and in training, over any leading axes. The exposures are the
stored ones (serving), or counts computed from the event log (training).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp4ctr.features.tensors.transforms import (
    MS_PER_HOUR,
    NEVER_S,
    PRIOR_RATE,
    Floats,
    Int64s,
    SequenceArrays,
)
from srp4ctr.streams.events.schema import action_code

Rows = NDArray[Any]  # int64, or int32 in training
# Better than an hour or a day; three half-lives were no better than this one.
AFFINITY_HALF_LIFE_H = 168.0
_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExposureArrays:
    """The last items shown to users, of shape (…, W), newest last; key 0 pads."""

    item_keys: Int64s
    shown_at_ms: Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemExposures:
    """How often and when items were shown to the user before, of shape (…, N)."""

    counts: Int64s
    """Among the kept exposures."""
    last_shown_ms: Int64s
    """0: never."""

    def take(self, index: Any) -> "ItemExposures":
        """Return the rows ``index`` (numbers, mask or slice) of both arrays."""
        return ItemExposures(
            counts=self.counts[index], last_shown_ms=self.last_shown_ms[index]
        )


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
    weights = np.where(present, 2.0 ** (-hours / AFFINITY_HALF_LIFE_H), 0.0)
    is_click = sequences.action_codes == action_code("click")
    rows = history_attribute_rows, candidate_attribute_rows
    acted, clicked = _sums_by_attribute([weights, np.where(is_click, weights, 0.0)], *rows)
    share = (clicked + PRIOR_RATE) / (acted + 1.0)
    return np.stack([share, np.log1p(acted)], axis=-1)


def empty_exposures(count: int, length: int) -> ExposureArrays:
    """Return no exposures (count, W)."""
    return ExposureArrays(
        item_keys=np.zeros((count, length), dtype=np.int64),
        shown_at_ms=np.zeros((count, length), dtype=np.int64),
    )


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
    present = wanted != 0
    for start in range(0, len(wanted), _BATCH):  # bounds the dense table
        part = slice(start, start + _BATCH)
        first = np.arange(len(wanted[part]))[:, None] * width
        at = (first + history_rows[part]).ravel()
        columns = first[..., None] + wanted[part]
        for total, weights in zip(sums, weighed, strict=True):
            repeated = weights[part].repeat(slots, axis=-1).ravel()
            table = np.bincount(at, repeated, len(first) * width)
            total[part] = np.where(present[part], table[columns], 0.0).sum(axis=-1)
    counts = np.maximum(present.sum(axis=-1), 1)
    return [(total / counts).reshape(shape[:-1]) for total in sums]
