"""Users' and items' columns, as the store or the log has them: what transforms read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """Named arrays with the same leading axes."""

    def take(self, index: Any) -> Self:
        """Return the rows ``index`` (numbers, mask or slices) of each array."""
        names: Sequence[str] = self.__slots__  # the fields, in order
        return type(self)(**{name: getattr(self, name)[index] for name in names})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceArrays(Arrays):
    """Behaviours of shape (…, L), newest last; key 0 pads on the left."""

    item_keys: Int64s
    action_codes: Int64s
    occurred_at_ms: Int64s
    values: Floats
    """NaN: the behaviour has no value."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivityArrays(Arrays):
    """Decayed counts as of ``counted_at_ms`` (…)."""

    counts: Floats
    """(…, 2, 4): impressions and clicks, each by half-life."""
    counted_at_ms: Int64s
    first_seen_ms: Int64s
    """0: never seen."""

    @property
    def impressions(self) -> Floats:
        """Those of ``counts`` (…, 4)."""
        return self.counts[..., 0, :]

    @property
    def clicks(self) -> Floats:
        """Those of ``counts`` (…, 4)."""
        return self.counts[..., 1, :]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExposureArrays(Arrays):
    """The last items shown to users, of shape (…, W), newest last; key 0 pads."""

    item_keys: Int64s
    shown_at_ms: Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemExposures(Arrays):
    """How often and when items were shown to the user before, of shape (…, N)."""

    counts: Int64s
    """Among the kept exposures."""
    last_shown_ms: Int64s
    """0: never."""


def empty_sequences(count: int, length: int) -> SequenceArrays:
    """Return ``count`` empty sequences (count, L)."""
    return SequenceArrays(
        item_keys=np.zeros((count, length), dtype=np.int64),
        action_codes=np.zeros((count, length), dtype=np.int64),
        occurred_at_ms=np.zeros((count, length), dtype=np.int64),
        values=np.full((count, length), np.nan),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserArrays:
    """B users as the store has them; an unknown one is empty."""

    sequences: SequenceArrays
    activity: ActivityArrays
    exposures: ExposureArrays
    attributes: tuple[str, ...]
    """JSON, "" for none."""
    statuses: tuple[str, ...]
    """ok, cold_user (no rows), empty_sequence or stale_sequence (all expired)."""
    versions: tuple[str, ...]
    """``user=V@O``, or "" where there is no row: its version in us and the last offset
    folded into it, enough to recompute it from the log."""
