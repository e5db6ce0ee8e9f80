"""Feature → example: an impression, what was known at its request, and its matured label.

In: the event log's columns (``features.event_log``) and items' attributes. Out: slates for
fine-tuning and windows of behaviours for pre-training. What was known when is decided by
``features.point_in_time``; how it becomes tensors, by ``features.transforms``: the same
functions that serve.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from features import transforms
from features.event_log import EventColumns, LabelColumns
from features.point_in_time import RequestSnapshots, UserHistories
from features.schema import ATTRIBUTE_SLOTS
from features.transforms import ActivityArrays, SequenceArrays
from features.vocabulary import Attributes, Vocabulary
from training.batches import Slates
from training.pretraining import Windows

MAX_SLATE = 64  # a longer slate is learnt in pieces: one batch's tensors must stay small
_Int64s = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemAttributes:
    """Attribute rows of items that have a profile: row k of ``rows`` is of ``keys[k]``."""

    keys: _Int64s  # ascending
    rows: NDArray[np.int32]  # (K, A)

    def of(self, item_keys: _Int64s) -> NDArray[np.int32]:
        """Return the rows (…, A) of ``item_keys`` (…); zeros where there is no profile."""
        if len(self.keys) == 0:
            return np.zeros((*item_keys.shape, ATTRIBUTE_SLOTS), dtype=np.int32)
        at = np.minimum(np.searchsorted(self.keys, item_keys), len(self.keys) - 1)
        known = self.keys[at] == item_keys
        return np.where(known[..., None], self.rows[at], np.int32(0))


def item_counts(events: EventColumns, before_ms: int) -> dict[int, int]:
    """Return how many events of each item_key were visible before ``before_ms``."""
    seen = events.item_keys[events.visible_at_ms < before_ms]
    keys, counts = np.unique(seen, return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def item_attributes(
    profiles: Mapping[int, Attributes], vocabulary: Vocabulary
) -> ItemAttributes:
    """Return the attribute rows of every item in ``profiles``."""
    keys = np.array(sorted(profiles), dtype=np.int64)
    rows = [vocabulary.attribute_rows(profiles[key]) for key in keys.tolist()]
    table = np.array(rows, dtype=np.int32).reshape(-1, ATTRIBUTE_SLOTS)
    return ItemAttributes(keys=keys, rows=table)


def labelled_times(snapshots: RequestSnapshots, labels: LabelColumns) -> _Int64s:
    """Return the times, ascending, of the requests that have a matured label."""
    matured = _clicked(snapshots, labels) >= 0
    times: _Int64s = snapshots.times_ms[np.unique(snapshots.candidate_requests[matured])]
    return times


def slates(
    snapshots: RequestSnapshots,
    labels: LabelColumns,
    vocabulary: Vocabulary,
    attributes: ItemAttributes,
) -> Slates:
    """Return the impressions whose labels have matured, by request, oldest first.

    A click after the window is no click: a label must not depend on how long it waited.
    """
    clicked = _clicked(snapshots, labels)  # (M,): 1, 0, or -1 where not matured
    kept = np.flatnonzero(clicked >= 0)
    requests = snapshots.candidate_requests[kept]
    rank = _rank_within(requests)
    pieces = requests * (1 + len(kept)) + rank // MAX_SLATE
    _, first, row = np.unique(pieces, return_index=True, return_inverse=True)
    column = rank % MAX_SLATE
    shape = (len(first), int(column.max(initial=-1)) + 1)
    keys = _placed(snapshots.candidate_item_keys[kept], (row, column), shape)
    tensors = {
        **_history(_take(snapshots.sequences, requests[first]), vocabulary, attributes),
        **_request(snapshots, requests[first]),
        "candidate_item_rows": vocabulary.item_rows(keys).astype(np.int32),
        "candidate_attribute_rows": attributes.of(keys),
        "candidate_features": transforms.candidate_features(
            _placed_activity(snapshots.candidate_activity, kept, (row, column), shape),
            keys,
            snapshots.sequences.item_keys[requests[first]],
            snapshots.times_ms[requests[first]],
        ),
    }
    return Slates(
        tensors=tensors,
        clicked=_placed(clicked[kept].astype(np.float32), (row, column), shape),
        positions=_placed(
            np.maximum(snapshots.candidate_positions[kept], 0), (row, column), shape
        ),
        request_at_ms=snapshots.times_ms[requests[first]],
        user_ids=snapshots.user_ids[requests[first]].astype(np.str_),
    )


def windows(
    histories: UserHistories,
    length: int,
    vocabulary: Vocabulary,
    attributes: ItemAttributes,
) -> Windows:
    """Return every user's behaviours in windows of ``length``, the newest window full."""
    counts = np.diff(histories.starts)
    user = np.repeat(np.arange(len(counts)), counts)
    from_newest = histories.starts[1:][user] - 1 - np.arange(len(user))
    window_of = np.stack([user, from_newest // length], axis=1)
    _, row = np.unique(window_of, axis=0, return_inverse=True)
    row = row.reshape(-1)
    column = length - 1 - from_newest % length
    shape = (int(row.max(initial=-1)) + 1, length)
    behaviors = histories.behaviors
    placed = SequenceArrays(
        item_keys=_placed(behaviors.item_keys, (row, column), shape),
        action_codes=_placed(behaviors.action_codes, (row, column), shape),
        occurred_at_ms=_placed(behaviors.occurred_at_ms, (row, column), shape),
        values=_placed(behaviors.values, (row, column), shape),
    )
    return Windows(tensors=_history(placed, vocabulary, attributes))


def _clicked(snapshots: RequestSnapshots, labels: LabelColumns) -> NDArray[np.int64]:
    """Return the label of each candidate: 1, 0, or -1 where none has matured."""
    clicked = labels.clicked & labels.within_window
    identities = zip(labels.user_ids, labels.request_ids, labels.item_ids, strict=True)
    found = dict(zip(identities, clicked.tolist(), strict=True))
    owners = snapshots.candidate_requests
    asked = zip(
        snapshots.user_ids[owners],
        snapshots.request_ids[owners],
        snapshots.candidate_item_ids,
        strict=True,
    )
    return np.array([int(found.get(each, -1)) for each in asked], dtype=np.int64)


def _history(
    sequences: SequenceArrays, vocabulary: Vocabulary, attributes: ItemAttributes
) -> dict[str, NDArray[np.generic]]:
    return {
        "history_item_rows": vocabulary.item_rows(sequences.item_keys).astype(np.int32),
        "history_attribute_rows": attributes.of(sequences.item_keys),
        "history_behavior_codes": transforms.behavior_codes(sequences).astype(np.int16),
    }


def _request(
    snapshots: RequestSnapshots, requests: _Int64s
) -> dict[str, NDArray[np.generic]]:
    activity = snapshots.user_activity
    features = transforms.request_features(
        _take(snapshots.sequences, requests),
        ActivityArrays(
            impressions=activity.impressions[requests],
            clicks=activity.clicks[requests],
            counted_at_ms=activity.counted_at_ms[requests],
            first_seen_ms=activity.first_seen_ms[requests],
        ),
        snapshots.times_ms[requests],
    )
    return {"request_features": features, "context_rows": _contexts(snapshots, requests)}


def _contexts(snapshots: RequestSnapshots, requests: _Int64s) -> NDArray[np.int64]:
    """Return the context rows; requests without one, most often all, cost nothing."""
    rows_of: dict[str | None, NDArray[np.int64]] = {}
    for text in set(snapshots.contexts[requests].tolist()):
        rows_of[text] = transforms.context_rows(transforms.parse_context(text))
    rows = [rows_of[text] for text in snapshots.contexts[requests].tolist()]
    return np.array(rows, dtype=np.int64).reshape(len(requests), -1)


def _take(sequences: SequenceArrays, rows: _Int64s) -> SequenceArrays:
    return SequenceArrays(
        item_keys=sequences.item_keys[rows],
        action_codes=sequences.action_codes[rows],
        occurred_at_ms=sequences.occurred_at_ms[rows],
        values=sequences.values[rows],
    )


def _rank_within(groups: _Int64s) -> _Int64s:
    """Return 0, 1, 2, … within each run of equal ``groups`` (ascending)."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(np.append(starts, len(groups)))
    return np.arange(len(groups)) - np.repeat(starts, lengths)


def _placed(
    values: NDArray[_Number], place: tuple[_Int64s, _Int64s], shape: tuple[int, ...]
) -> NDArray[_Number]:
    """Return zeros of ``shape`` with ``values`` at ``place``."""
    placed: NDArray[_Number] = np.zeros((*shape, *values.shape[1:]), dtype=values.dtype)
    placed[place] = values
    return placed


def _placed_activity(
    activity: ActivityArrays,
    kept: _Int64s,
    place: tuple[_Int64s, _Int64s],
    shape: tuple[int, ...],
) -> ActivityArrays:
    return ActivityArrays(
        impressions=_placed(activity.impressions[kept], place, shape),
        clicks=_placed(activity.clicks[kept], place, shape),
        counted_at_ms=_placed(activity.counted_at_ms[kept], place, shape),
        first_seen_ms=_placed(activity.first_seen_ms[kept], place, shape),
    )
