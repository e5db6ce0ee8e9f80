"""Stored rows of users → arrays: sequences, counters, exposures and statuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.tensors.transforms import (
    ActivityArrays,
    SequenceArrays,
    empty_activity,
    empty_sequences,
)
from srp4ctr.features.tensors.user_item_features import ExposureArrays, empty_exposures
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import Rows

# What the stream packs, as numpy reads it: no padding between the fields.
_ELEMENT = np.dtype(
    [("occurred_at", "<i8"), ("item_key", "<i8"), ("value", "<f8"), ("action", "u1")]
)
_EXPOSURE = np.dtype([("shown_at", "<i8"), ("item_key", "<i8")])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserArrays:
    """B users as the store has them; an unknown one is empty."""

    sequences: SequenceArrays
    activity: ActivityArrays
    exposures: ExposureArrays
    statuses: tuple[str, ...]
    """ok, cold_user (no rows), empty_sequence or stale_sequence (all expired)."""
    versions: tuple[str, ...]
    """``sequence=V@O,activity=V@O,exposures=V@O``: each row's version in us and the last
    offset folded into it, enough to recompute it from the log; "" without rows."""


def user_arrays(
    user_ids: Sequence[str],
    rows: Rows,
    after_ms: NDArray[np.int64],
    length: int,
    exposure_length: int,
) -> UserArrays:
    """Return the last ``length`` behaviours later than ``after_ms`` (B,), and the rest."""
    count = len(user_ids)
    sequences, activity = empty_sequences(count, length), empty_activity(count)
    exposures = empty_exposures(count, exposure_length)
    statuses, versions = [], []
    for index, (user_id, oldest_ms) in enumerate(zip(user_ids, after_ms, strict=True)):
        of_user: dict[str, Any] = {}
        status = "empty_sequence"
        if sequence := rows.sequences.get(user_id):
            of_user["sequence"] = sequence
            if sequence.packed:
                elements = np.frombuffer(sequence.packed, dtype=_ELEMENT)[-length:]
                elements = elements[elements["occurred_at"] > oldest_ms]
                _fill_sequence(sequences, index, elements)
                status = "ok" if len(elements) else "stale_sequence"
        if counted := rows.activities.get(user_id):
            of_user["activity"] = counted
            put_activity(activity, index, counted)
        if shown := rows.exposures.get(user_id):
            of_user["exposures"] = shown
            _fill_exposures(exposures, index, shown.packed)
        statuses.append(status if of_user else "cold_user")
        stamps = (f"{name}={r.version_us}@{r.last_offset}" for name, r in of_user.items())
        versions.append(",".join(stamps))
    return UserArrays(
        sequences=sequences,
        activity=activity,
        exposures=exposures,
        statuses=tuple(statuses),
        versions=tuple(versions),
    )


def put_activity(arrays: ActivityArrays, index: int, activity: Activity) -> None:
    """Write ``activity`` into row ``index``."""
    arrays.impressions[index] = activity.impressions
    arrays.clicks[index] = activity.clicks
    arrays.counted_at_ms[index] = activity.counted_at_ms
    arrays.first_seen_ms[index] = activity.first_seen_ms


def _fill_sequence(sequences: SequenceArrays, index: int, elements: Any) -> None:
    """Write the behaviours at the right end of row ``index``."""
    columns = slice(sequences.item_keys.shape[-1] - len(elements), None)
    sequences.item_keys[index, columns] = elements["item_key"]
    sequences.action_codes[index, columns] = elements["action"]
    sequences.occurred_at_ms[index, columns] = elements["occurred_at"]
    sequences.values[index, columns] = elements["value"]


def _fill_exposures(exposures: ExposureArrays, index: int, packed: bytes) -> None:
    """Write the newest exposures at the right end of row ``index``."""
    length = exposures.item_keys.shape[-1]
    shown = np.frombuffer(packed, dtype=_EXPOSURE)[-length:]
    columns = slice(length - len(shown), None)
    exposures.item_keys[index, columns] = shown["item_key"]
    exposures.shown_at_ms[index, columns] = shown["shown_at"]
