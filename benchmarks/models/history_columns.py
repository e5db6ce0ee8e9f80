"""What a history says of a candidate, as columns for trees: actions, and what matches.

In: slates. Out: a float column per count, by which a model without a sequence reads the
sequence: LightGBM at its best, not at its plainest. Which items are met together is left
out: counted before the training boundary, it holds the very clicks that train.

Shapes: M shown candidates, L history, A attribute slots, K actions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.clicks.click_examples import Part
from srp4ctr.streams.events.schema import NUM_ACTION_CODES

NEWEST = 5
DECAY = 0.9  # of a match, for each behaviour that is newer
_ROWS = 4096  # candidates at once: L x A comparisons each
_Floats = NDArray[np.float32]
_Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryColumns:
    """How a history becomes columns."""

    actions: _Int64s
    """(K,): the codes of the actions that histories have."""

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
        return np.concatenate(columns, axis=1).astype(np.float32)


def columns_of(part: Part) -> HistoryColumns:
    """Return the columns for the actions that histories of ``part`` have."""
    tensors = part.slates.tensors
    rows = np.asarray(tensors["history_item_rows"])
    codes = np.asarray(tensors["history_behavior_codes"])[..., 0]
    counts = np.bincount(codes[rows != 0], minlength=NUM_ACTION_CODES)
    return HistoryColumns(actions=np.flatnonzero(counts))
