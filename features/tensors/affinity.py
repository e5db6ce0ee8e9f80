"""What a user did with items that are like a candidate → two of the candidate's features.

In: a history with its attributes, and the candidates' attributes. Out: by numpy alone, the
same in serving and in training, over any leading axes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp4ctr.features.tensors.transforms import MS_PER_HOUR, PRIOR_RATE, SequenceArrays
from srp4ctr.streams.events.schema import action_code

Rows = NDArray[Any]  # int64, or int32 in training
Floats = NDArray[np.float64]
# Longer paid better than an hour or a day, and three half-lives no better than one.
AFFINITY_HALF_LIFE_H = 168.0
_BATCH = 256


def attribute_affinity(
    sequences: SequenceArrays,
    history_attribute_rows: Rows,
    candidate_attribute_rows: Rows,
    request_time_ms: ArrayLike,
) -> Floats:
    """Return (…, N, 2) of what the user did with items that are like each candidate.

    Of the behaviours in the history (rows (…, L, A)) that share an attribute with the
    candidate (rows (…, N, A)), decayed with ``AFFINITY_HALF_LIFE_H`` and averaged over its
    attributes: which share are clicks, smoothed, and log(1 + how many).
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


def _sums_by_attribute(
    weighed: Sequence[Floats], history_rows: Rows, wanted: Rows
) -> list[Floats]:
    """Return, for each of ``weighed`` (…, L), what it gives each wanted item (…, N).

    That is the mean over the item's attributes of the summed weights that have it.
    """
    width = 1 + int(max(history_rows.max(initial=0), wanted.max(initial=0)))
    length, slots = history_rows.shape[-2:]
    shape = wanted.shape
    weighed = [weights.reshape(-1, length) for weights in weighed]
    history_rows = history_rows.reshape(-1, length * slots)
    wanted = wanted.reshape(-1, *shape[-2:])
    sums = [np.zeros(wanted.shape[:2]) for _ in weighed]
    present = wanted != 0
    for start in range(0, len(wanted), _BATCH):  # a dense table each: it must stay small
        part = slice(start, start + _BATCH)
        first = np.arange(len(wanted[part]))[:, None] * width
        at, asked = (first + history_rows[part]).ravel(), first[..., None] + wanted[part]
        for total, weights in zip(sums, weighed, strict=True):
            repeated = weights[part].repeat(slots, axis=-1).ravel()
            table = np.bincount(at, repeated, len(first) * width)
            total[part] = np.where(present[part], table[asked], 0.0).sum(axis=-1)
    counts = np.maximum(present.sum(axis=-1), 1)
    return [(total / counts).reshape(shape[:-1]) for total in sums]
