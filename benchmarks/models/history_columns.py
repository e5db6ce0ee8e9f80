"""What a history says of a candidate, as columns for trees: shares, matches, co-occurrence.

In: slates and the windows before the training boundary. Out: a float column per count, by
which a model without a sequence reads the sequence: LightGBM at its best, not at its
plainest.

Shapes: M shown candidates, L history, A attribute slots, I items.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.clicks.click_examples import Part
from srp4ctr.streams.events.schema import NUM_ACTION_CODES
from srp4ctr.training.dataset.batches import Windows

MAX_ITEMS = 20_000
"""With more, co-occurrence is left out: its matrix is dense."""
REACH = 10  # two behaviours of one window co-occur if no more than this far apart
NEWEST = 5
DECAY = 0.9  # of a match, for each behaviour that is newer
_ROWS = 4096  # candidates at once: L x A comparisons each
_Floats = NDArray[np.float32]
_Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryColumns:
    """How a history becomes columns."""

    actions: _Int64s
    """The codes of the actions that the windows have."""
    lift: _Floats | None
    """(I, I): ln(1 + how much more often than by chance two items are in one window)."""

    def of(self, part: Part) -> _Floats:
        """Return the columns (M, …) of each candidate that ``part`` shows."""
        requests, places = np.nonzero(part.slates.shown)
        chunks = range(0, len(requests), _ROWS)
        return np.concatenate(
            [
                self._chunk(part, requests[at : at + _ROWS], places[at : at + _ROWS])
                for at in chunks
            ]
        )

    def _chunk(self, part: Part, requests: _Int64s, places: _Int64s) -> _Floats:
        tensors = part.slates.tensors
        rows = np.asarray(tensors["history_item_rows"])[requests]  # (m, L)
        attributes = np.asarray(tensors["history_attribute_rows"])[requests]  # (m, L, A)
        actions = np.asarray(tensors["history_behavior_codes"])[requests][..., 0]
        items = np.asarray(tensors["candidate_item_rows"])[requests, places]  # (m,)
        own = np.asarray(tensors["candidate_attribute_rows"])[requests, places]  # (m, A)
        weights = DECAY ** np.arange(rows.shape[1])[::-1] * (rows != 0)
        is_action = actions[..., None] == self.actions  # (m, L, K)
        columns = [(is_action * weights[..., None]).sum(1), is_action[:, -NEWEST:].sum(1)]
        same = (attributes == own[:, None]) & (own != 0)[:, None]  # (m, L, A)
        columns += [(same * weights[..., None]).sum(1), same.sum(1)]
        any_same = same.any(-1) | (rows == items[:, None])  # (m, L)
        columns += [(is_action & any_same[..., None]).sum(1)]
        columns += [(is_action * (any_same * weights)[..., None]).sum(1)]
        if self.lift is not None:
            found = self.lift[items[:, None], rows] * (rows != 0)  # (m, L)
            by_action = (is_action * found[..., None]).sum(1)
            columns += [by_action, found.max(1, keepdims=True)]
        return np.concatenate(columns, axis=1).astype(np.float32)


def learn(windows: Windows, num_items: int) -> HistoryColumns:
    """Return the columns whose co-occurrence is that of ``windows``."""
    rows: _Int64s = np.asarray(windows.tensors["history_item_rows"], dtype=np.int64)
    codes = np.asarray(windows.tensors["history_behavior_codes"])[..., 0]
    actions = np.flatnonzero(np.bincount(codes[rows != 0], minlength=NUM_ACTION_CODES))
    lift = _lift(rows, num_items) if num_items <= MAX_ITEMS else None
    return HistoryColumns(actions=actions, lift=lift)


def _lift(rows: _Int64s, num_items: int) -> _Floats:
    """Return ln(1 + pairs observed / pairs expected), shrunk where little is expected."""
    pairs = np.zeros(num_items * num_items, dtype=np.float32)
    for apart in range(1, REACH + 1):
        first, second = rows[:, :-apart], rows[:, apart:]
        is_pair = (first != 0) & (second != 0) & (first != second)
        keys = first[is_pair].astype(np.int64) * num_items + second[is_pair]
        found, counts = np.unique(keys, return_counts=True)
        pairs[found] += counts
    table = pairs.reshape(num_items, num_items)
    table += table.T.copy()
    seen = table.sum(1)
    expected = np.outer(seen, seen) / max(float(seen.sum()), 1.0)
    return np.log1p(table / (expected + 1.0)).astype(np.float32)
