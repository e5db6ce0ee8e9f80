"""Stored rows of users → arrays: sequences, counters, exposures and statuses."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.tensors.transforms import (
    ActivityArrays,
    ExposureArrays,
    SequenceArrays,
    empty_activity,
    empty_exposures,
    empty_sequences,
)
from srp4ctr.streams.state.reducers import Rows

# What the stream packs, as numpy reads it: no padding between the fields.
_ELEMENT = np.dtype(
    [
        *(("occurred_at_ms", "<i8"), ("item_keys", "<i8")),
        *(("values", "<f8"), ("action_codes", "u1")),
    ]
)
_EXPOSURE = np.dtype([("shown_at_ms", "<i8"), ("item_keys", "<i8")])


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
                elements = elements[elements["occurred_at_ms"] > oldest_ms]
                _put_right(sequences, index, elements)
                status = "ok" if len(elements) else "stale_sequence"
        if counted := rows.activities.get(user_id):
            of_user["activity"] = counted
            activity.put(index, counted)
        if shown := rows.exposures.get(user_id):
            of_user["exposures"] = shown
            elements = np.frombuffer(shown.packed, dtype=_EXPOSURE)[-exposure_length:]
            _put_right(exposures, index, elements)
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


def _put_right(
    arrays: SequenceArrays | ExposureArrays, index: int, elements: NDArray[Any]
) -> None:
    """Write ``elements`` at the right end of row ``index``."""
    columns = slice(arrays.item_keys.shape[-1] - len(elements), None)
    for each in fields(arrays):
        getattr(arrays, each.name)[index, columns] = elements[each.name]
